"""Requests that no client asked for."""

import json

import pytest

from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.own_request import one_token_chat, own_fields
from trioproxy.upstream.pool import Pool


def endpoint(*, is_anthropic: bool = False) -> Endpoint:
    return Endpoint("a", "http://a/api/v1", pool=Pool(), connect_s=5, is_anthropic=is_anthropic)


def test_the_version_is_named_where_it_has_to_be() -> None:
    assert b"anthropic-version" not in dict(own_fields(endpoint()))
    assert dict(own_fields(endpoint(is_anthropic=True)))[b"anthropic-version"] == b"2023-06-01"


def test_an_answer_is_asked_for_that_can_be_read() -> None:
    fields = dict(own_fields(endpoint(), b"*/*"))
    assert (fields[b"accept"], fields[b"accept-encoding"]) == (b"*/*", b"identity")


@pytest.mark.parametrize(("is_anthropic", "path"), [(False, b"/api/v1/chat/completions"), (True, b"/api/v1/messages")])
def test_a_chat_of_one_token_goes_where_the_dialect_has_it(is_anthropic: bool, path: bytes) -> None:
    target, fields, body = one_token_chat(endpoint(is_anthropic=is_anthropic), "m")
    assert (target, json.loads(body)["model"], json.loads(body)["max_tokens"]) == (path, "m", 1)
    assert dict(fields)[b"content-length"] == b"%d" % len(body)
