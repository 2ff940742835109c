"""WebSocket's handshake, as both sides of a proxy see it."""

import pytest

from trioproxy.errors import BadRequest
from trioproxy.wire.headers import Headers
from trioproxy.wire.upgrade import (
    agreed,
    answer_fields,
    check_wish,
    wants_socket,
    wish_fields,
    with_model,
    without_secrets,
)

# RFC 6455 section 1.3.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE: Headers = [(b"upgrade", b"WebSocket"), (b"connection", b"keep-alive, Upgrade")]
WISH: Headers = [*UPGRADE, (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13")]
AGREES: Headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-accept", ACCEPT)]


def test_a_wish_is_a_get_that_names_the_protocol_where_it_can_be_had() -> None:
    assert wants_socket(b"GET", b"1.1", b"/v1/realtime?model=m", UPGRADE)
    assert wants_socket(b"GET", b"1.1", b"/v1/responses", [*UPGRADE, (b"content-length", b"0")])


@pytest.mark.parametrize(
    ("method", "version", "target", "headers"),
    [
        (b"POST", b"1.1", b"/v1/realtime", UPGRADE),
        (b"GET", b"1.0", b"/v1/realtime", UPGRADE),
        (b"GET", b"1.1", b"/v1/realtime/sessions", UPGRADE),
        (b"GET", b"1.1", b"/v1/models", UPGRADE),
        (b"GET", b"1.1", b"/v1/realtime", UPGRADE[:1]),
        (b"GET", b"1.1", b"/v1/realtime", UPGRADE[1:]),
        (b"GET", b"1.1", b"/v1/realtime", [(b"upgrade", b"h2c"), UPGRADE[1]]),
        (b"GET", b"1.1", b"/v1/realtime", [*UPGRADE, (b"content-length", b"5")]),
        (b"GET", b"1.1", b"/v1/realtime", [*UPGRADE, (b"transfer-encoding", b"chunked")]),
    ],
)
def test_anything_else_is_an_ordinary_request(method: bytes, version: bytes, target: bytes, headers: Headers) -> None:
    assert not wants_socket(method, version, target, headers)


def test_a_handshake_needs_its_version_and_one_key_of_16_bytes() -> None:
    check_wish(WISH)
    for headers in (
        WISH[:-1],
        WISH[:-2] + WISH[-1:],
        [*WISH, (b"sec-websocket-key", KEY)],
        [*WISH, (b"sec-websocket-version", b"13")],
        [*UPGRADE, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"c2hvcnQ=")],
        [*UPGRADE, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"\xff" * 24)],
    ):
        with pytest.raises(BadRequest):
            check_wish(headers)


def test_the_answer_proves_that_the_wish_was_read() -> None:
    assert (b"sec-websocket-accept", ACCEPT) in answer_fields(WISH, None)
    assert (b"sec-websocket-protocol", b"realtime") in answer_fields(WISH, b"realtime")


def test_the_origin_gets_a_wish_of_ours_with_the_clients_subprotocols_and_no_extensions() -> None:
    client: Headers = [
        (b"authorization", b"Bearer x"),
        (b"sec-websocket-key", b"theirs"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-protocol", b"a, b"),
    ]
    wish = wish_fields(client, b"the sample nonce")
    assert dict(wish) == {
        b"authorization": b"Bearer x",
        b"sec-websocket-protocol": b"a, b",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-key": KEY,
        b"sec-websocket-version": b"13",
    }
    check_wish(wish)


OFFER: Headers = [*WISH, (b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b"c")]


@pytest.mark.parametrize("chosen", [None, b"a", b"b", b"c"])
def test_an_origin_may_choose_one_of_the_subprotocols(chosen: bytes | None) -> None:
    more: Headers = [] if chosen is None else [(b"sec-websocket-protocol", chosen)]
    assert agreed(OFFER, AGREES + more) == (True, chosen)


@pytest.mark.parametrize(
    "answer",
    [
        AGREES[1:],
        AGREES[:1] + AGREES[2:],
        AGREES[:2],
        [*AGREES[:2], (b"sec-websocket-accept", KEY)],
        [*AGREES, (b"sec-websocket-accept", ACCEPT)],
        [*AGREES, (b"sec-websocket-extensions", b"permessage-deflate")],
        [*AGREES, (b"sec-websocket-protocol", b"d")],
        [*AGREES, (b"sec-websocket-protocol", b"a"), (b"sec-websocket-protocol", b"b")],
    ],
)
def test_what_nobody_asked_for_is_not_agreed_on(answer: Headers) -> None:
    assert agreed(OFFER, answer) == (False, None)


def test_a_key_among_the_subprotocols_can_be_left_out() -> None:
    plain: Headers = [(b"x", b"openai-insecure-api-key.1"), (b"sec-websocket-protocol", b"a, b")]
    assert without_secrets(plain) == plain
    shown: Headers = [(b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.sk-1, B"), (b"x", b"y")]
    assert without_secrets(shown) == [(b"x", b"y"), (b"sec-websocket-protocol", b"realtime, B")]
    assert without_secrets([(b"sec-websocket-protocol", b"openai-insecure-api-key.sk-1")]) == []


def test_only_the_models_name_changes_in_a_query() -> None:
    assert with_model(b"/v1/realtime?a=%2F&model=old&&b", "a b/c&d") == b"/v1/realtime?a=%2F&model=a%20b/c%26d&&b"
    assert with_model(b"/v1/realtime", "new") == b"/v1/realtime"
    assert with_model(b"/v1/realtime?x=1", "new") == b"/v1/realtime?x=1"
