"""What browsers are told, as tables: who is listed, what may be sent, what may be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.cors import answer_fields, is_preflight, listed_origin, preflight_fields
from trioproxy.wire.headers import Headers

PAGE = b"https://app.example"
ORIGINS = frozenset({PAGE, b"http://localhost:3000"})
FROM_PAGE = (b"origin", PAGE)
ASKS = (b"access-control-request-method", b"POST")


def asking(*names: bytes) -> Headers:
    """A preflight that asks for these fields, as so many field lines."""
    return [FROM_PAGE, ASKS, *((b"access-control-request-headers", name) for name in names)]


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("OPTIONS", asking(), True),
        ("OPTIONS", [(b"origin", b"https://evil.example"), ASKS], True),
        ("OPTIONS", [FROM_PAGE], False),
        ("OPTIONS", [ASKS], False),
        ("POST", asking(), False),
    ],
)
def test_what_a_preflight_is(method: str, headers: Headers, expected: bool) -> None:
    assert is_preflight(method, headers) is expected


@pytest.mark.parametrize(
    ("origin", "is_listed"),
    [
        (b"https://app.example", True),
        (b"HTTPS://App.Example", True),
        (b"http://localhost:3000", True),
        (b"http://localhost", False),
        (b"http://app.example", False),
        (b"https://app.example:444", False),
        (b"https://app.example/", False),
        (b"https://app.example.evil.example", False),
        (b"https://evil.example https://app.example", False),
        (b"null", False),
        (b"*", False),
        (b"", False),
    ],
)
def test_an_origin_is_listed_as_a_whole_or_not_at_all(origin: bytes, is_listed: bool) -> None:
    headers = [(b"origin", origin)]
    assert listed_origin(headers, ORIGINS) == (origin if is_listed else None)
    assert bool(answer_fields(headers, ORIGINS)) is is_listed
    assert (preflight_fields([*headers, ASKS], ORIGINS) is not None) is is_listed


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ([b"authorization,content-type"], b"authorization, content-type"),
        ([b"Authorization, X-API-Key", b"OpenAI-Beta"], b"authorization, x-api-key, openai-beta"),
        (
            [b"x-stainless-lang,x-stainless-retry-count,user-agent"],
            b"x-stainless-lang, x-stainless-retry-count, user-agent",
        ),
        ([b"x-trioproxy-share,x-trioproxy-resume"], b"x-trioproxy-share, x-trioproxy-resume"),
        ([b"anthropic-version,x-request-id,last-event-id"], b"anthropic-version, x-request-id, last-event-id"),
        ([b"authorization,authorization"], b"authorization"),
        ([b"cookie,host,x-forwarded-for,x-stainless-,openai,*"], None),
        ([b"x-mine, authorization, x-trioproxy-\xff"], b"authorization"),
        ([b""], None),
        ([], None),
    ],
)
def test_a_page_may_send_what_clients_of_the_api_send(asked: list[bytes], allowed: bytes | None) -> None:
    fields = preflight_fields(asking(*asked), ORIGINS)
    assert fields is not None
    said = dict(fields)
    assert said.get(b"access-control-allow-headers") == allowed
    assert said[b"access-control-allow-methods"] == b"GET, HEAD, POST, PUT, PATCH, DELETE"
    assert said[b"access-control-max-age"] == b"600"


def test_an_answer_names_its_reader_and_what_may_be_read() -> None:
    fields = dict(answer_fields([FROM_PAGE], ORIGINS))
    assert fields[b"access-control-allow-origin"] == PAGE
    assert fields[b"vary"] == b"origin"
    exposed = fields[b"access-control-expose-headers"].split(b", ")
    for name in (b"x-request-id", b"retry-after", b"retry-after-ms", b"server-timing", b"x-trioproxy-stream"):
        assert name in exposed
    for kind in (b"requests", b"tokens"):
        for what in (b"limit", b"remaining", b"reset"):
            assert b"x-ratelimit-%b-%b" % (what, kind) in exposed
    assert len(exposed) == len(set(exposed))


def test_a_page_is_never_allowed_to_send_cookies() -> None:
    fields = answer_fields([FROM_PAGE], ORIGINS) + (preflight_fields(asking(), ORIGINS) or [])
    assert b"access-control-allow-credentials" not in dict(fields)


@given(st.lists(st.tuples(st.sampled_from([b"origin", b"access-control-request-headers", ASKS[0]]), st.binary())))
def test_nothing_that_is_sent_is_told_back_but_listed_names(headers: Headers) -> None:
    assert answer_fields(headers, ORIGINS) == []
    found = preflight_fields([FROM_PAGE, *headers], ORIGINS)
    assert found is not None
    assert not any(set(value) & set(b"\r\n\0") for _, value in found)
