"""What is sent for a client's request: nothing is changed but what the target asks for."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trioproxy.upstream.request import Form, OnceBody, OriginRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers
from trioproxy.wire.json_object import JsonObject

SPACED = b'{ "model" : "m",  "messages":[ ],"x":1e2 }'
BRIDGED = (Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES)


def request(body: bytes, dialect: Dialect = Dialect.CHAT, headers: Headers | None = None) -> OriginRequest:
    return OriginRequest("POST", b"/v1/x", headers or [], body, dialect, JsonObject.parse(body))


def dressed(body: bytes, form: Form, model: str | None = None, dialect: Dialect = Dialect.CHAT) -> dict[str, Any]:
    """What an origin reads, whose length has to be right."""
    sent, headers = request(body, dialect).dressed(model, form)
    assert isinstance(sent, bytes)
    assert [value for name, value in headers if name == b"content-length"] == [b"%d" % len(sent)]
    value: dict[str, Any] = json.loads(sent)
    return value


def test_a_request_goes_as_it_came_and_its_length_is_told() -> None:
    fields = [(b"accept-encoding", b"gzip"), (b"x-a", b"b")]
    one = request(SPACED, headers=fields)
    assert one.dressed(None, Form.AS_ASKED) == (SPACED, [*fields, (b"content-length", b"42")])
    assert one.headers == fields == [(b"accept-encoding", b"gzip"), (b"x-a", b"b")], "the next try begins with these"


@pytest.mark.parametrize("model", ["other", 'a "b"\\', "münchen", "x" * 500])
def test_another_model_s_name_is_put_in_its_place_alone(model: str) -> None:
    sent, headers = request(SPACED).dressed(model, Form.AS_ASKED)
    assert isinstance(sent, bytes)
    assert sent == SPACED.replace(b'"m"', json.dumps(model).encode())
    assert headers == [(b"content-length", b"%d" % len(sent))]


@pytest.mark.parametrize("model", [None, "other"])
def test_a_whole_answer_is_asked_for_without_what_only_streams_have(model: str | None) -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert dressed(body, Form.WHOLE, model) == {"model": model or "m", "stream": False, "stream_options": None}
    assert dressed(b'{"stream":true}', Form.WHOLE) == {"stream": False}


@pytest.mark.parametrize("dialect", BRIDGED)
def test_a_stream_is_asked_for_with_the_usage_that_a_whole_answer_has(dialect: Dialect) -> None:
    asked = dressed(b'{"model":"m"}', Form.STREAM, dialect=dialect)
    tells_only_if_asked = dialect in (Dialect.CHAT, Dialect.COMPLETIONS)
    assert asked == {"model": "m", "stream": True} | (
        {"stream_options": {"include_usage": True}} if tells_only_if_asked else {}
    )
    assert dressed(b'{"stream":false,"stream_options":null}', Form.STREAM)["stream_options"] == {"include_usage": True}


def test_a_stream_that_is_to_be_folded_must_not_be_compressed() -> None:
    one = request(b"{}", headers=[(b"accept-encoding", b"gzip"), (b"x-a", b"b")])
    _, headers = one.dressed(None, Form.STREAM)
    assert [header for header in headers if header[0] != b"content-length"] == [
        (b"x-a", b"b"),
        (b"accept-encoding", b"identity"),
    ]
    assert (b"accept-encoding", b"gzip") in one.headers


def asking(body: bytes, dialect: Dialect = Dialect.CHAT) -> bytes | None:
    """The options that ask for the usage of a stream."""
    one = request(body, dialect)
    one.wants_stream = True
    return one.options_with_usage()


@pytest.mark.parametrize(
    ("own", "options"),
    [
        (b"null", b'{"include_usage":true}'),
        (b"{}", b'{"include_usage":true}'),
        (b'{ "x" : [1e2] }', b'{ "x" : [1e2] ,"include_usage":true}'),
        (b'{"include_usage":false,"x":1}', b'{"include_usage":true,"x":1}'),
        (b'{"include_usage":null}', b'{"include_usage":true}'),
        (b'{"include_usage":true}', None),
        (b'{"include_usage":true,"include_usage":false}', None),
        (b"[]", None),
        (b"7", None),
    ],
)
def test_usage_is_asked_for_beside_the_client_s_own_options(own: bytes, options: bytes | None) -> None:
    assert asking(b'{"stream_options":' + own + b"}") == options


def test_usage_is_asked_for_only_of_streams_that_tell_it_if_asked() -> None:
    assert asking(b"{}") == asking(b"{}", Dialect.COMPLETIONS) == b'{"include_usage":true}'
    assert asking(b"{}", Dialect.RESPONSES) is asking(b"{}", Dialect.MESSAGES) is None
    assert request(b"{}").options_with_usage() is None, "a whole answer tells it anyway"
    unread = OriginRequest("POST", b"/v1/x", [], b"{}", Dialect.CHAT, wants_stream=True)
    assert unread.options_with_usage() is None


def test_options_are_put_in_the_place_of_the_client_s_alone() -> None:
    body = b'{ "model":"m", "stream_options" : {"x":1},"stream":true}'
    sent, headers = request(body).dressed("n", Form.AS_ASKED, b'{"y":2}')
    assert sent == b'{ "model":"n", "stream_options" : {"y":2},"stream":true}'
    assert headers == [(b"content-length", b"%d" % len(sent))]


async def _pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def test_a_body_in_pieces_has_no_length_and_is_not_looked_at() -> None:
    body = OnceBody(_pieces())
    one = OriginRequest("POST", b"/v1/files", [(b"x-a", b"b")], body, Dialect.OTHER)
    assert one.dressed("other", Form.AS_ASKED) == (body, [(b"x-a", b"b")])
    began = [body.is_begun]
    assert await anext(body) == b"a"
    assert [*began, body.is_begun] == [False, True]
    assert [piece async for piece in body] == [b"b"]


def test_what_is_no_json_has_a_length_only_if_there_is_something() -> None:
    for body, fields in ((b"", []), (b"ab", [(b"content-length", b"2")])):
        assert OriginRequest("GET", b"/v1/x", [], body, Dialect.OTHER).dressed("m", Form.AS_ASKED) == (body, fields)


@pytest.mark.parametrize("dialect", Dialect)
def test_only_dialects_that_stream_are_bridged(dialect: Dialect) -> None:
    assert request(b"{}", dialect).can_be_bridged is (dialect in BRIDGED)
    assert not OriginRequest("POST", b"/v1/x", [], b"{}", dialect).can_be_bridged, "its body was not read"


@pytest.mark.parametrize(
    ("body", "wants"),
    [
        (b"{}", False),
        (b'{"stream_options":{"include_usage":true}}', True),
        (b'{"stream_options":{"include_usage":false}}', False),
        (b'{"stream_options":{"include_usage":1}}', False),
        (b'{"stream_options":null}', False),
        (b'{"stream_options":[true]}', False),
        (b'{"stream_options":"include_usage"}', False),
        (b'{"stream_options":' + b"[" * 900 + b"]" * 900 + b"}", False),
    ],
)
def test_the_usage_is_wanted_only_by_who_asks_for_it(body: bytes, wants: bool) -> None:
    assert request(body).wants_usage is wants


def test_a_body_that_was_not_read_wants_no_usage() -> None:
    assert OriginRequest("POST", b"/v1/x", [], b"{}", Dialect.CHAT).wants_usage is False


def test_a_websockets_model_stands_in_its_query() -> None:
    upgrade = [(b"upgrade", b"websocket")]
    one = OriginRequest("GET", b"/v1/realtime?a=1&model=m", upgrade, b"", Dialect.OTHER)
    assert one.target_for("other") == b"/v1/realtime?a=1&model=other"
    assert one.target_for(None) == one.target
    plain = OriginRequest("GET", b"/v1/files?model=m", [], b"", Dialect.OTHER)
    assert plain.target_for("other") == plain.target
