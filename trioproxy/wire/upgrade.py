"""The handshake by which a connection becomes a WebSocket's, as both sides of a proxy see it. PURE.

Only some paths can be upgraded (`target.SOCKETS`); anywhere else the wish is ignored, as HTTP allows. Extensions are
never agreed on.

Sources: RFC 6455 sections 4.1 (a client's part) and 4.2 (a server's), RFC 9110 section 7.8 (upgrade).
"""

import base64
import binascii
import hashlib
from urllib.parse import quote

from trioproxy.errors import BadRequest
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.target import SOCKETS

SUBPROTOCOL = b"sec-websocket-protocol"
KEY = b"sec-websocket-key"
_PREFIX = b"sec-websocket-"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_SECRET = b"openai-insecure-api-key."
"""How a browser, which cannot set a header, shows its key: as a subprotocol."""


def wants_socket(method: bytes, version: bytes, target: bytes, headers: Headers) -> bool:
    """Whether a request asks for its connection to become a WebSocket's, where that can be had. One with a body is an
    ordinary request."""
    return (
        method == b"GET"
        and version == b"1.1"
        and target.partition(b"?")[0] in SOCKETS
        and b"websocket" in _tokens(headers, b"upgrade")
        and b"upgrade" in _tokens(headers, b"connection")
        and find(headers, b"transfer-encoding") is None
        and find(headers, b"content-length") in (None, b"0")
    )


def check_wish(headers: Headers) -> None:
    """Raise BadRequest for a handshake that is not one of version 13."""
    if _values(headers, b"sec-websocket-version") != [b"13"]:
        raise BadRequest("Only version 13 of WebSocket is understood here.")
    keys = _values(headers, KEY)
    try:
        is_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        is_key = False
    if not is_key:
        raise BadRequest("The WebSocket handshake needs one sec-websocket-key of 16 bytes.")


def answer_fields(headers: Headers, subprotocol: bytes | None) -> Headers:
    """The fields of the 101 to a client's handshake."""
    fields = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-accept", _accepting(find(headers, KEY) or b"")),
    ]
    return fields if subprotocol is None else [*fields, (SUBPROTOCOL, subprotocol)]


def wish_fields(headers: Headers, nonce: bytes) -> Headers:
    """The fields of a handshake with an origin in place of a client's: its subprotocols, and nothing else of it.
    `nonce` are 16 random bytes."""
    kept = [header for header in headers if not header[0].startswith(_PREFIX) or header[0] == SUBPROTOCOL]
    return [
        *kept,
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (KEY, base64.b64encode(nonce)),
        (b"sec-websocket-version", b"13"),
    ]


def secrets_shown(headers: Headers) -> list[bytes]:
    """The keys among the subprotocols that a client offers."""
    offered = [one for name, value in headers if name == SUBPROTOCOL for one in _split(value)]
    return [one.removeprefix(_SECRET) for one in offered if one.startswith(_SECRET)]


def without_secrets(headers: Headers) -> Headers:
    """The fields without keys among the subprotocols, for an origin that gets a key of the proxy's."""
    if not any(name == SUBPROTOCOL and _SECRET in value for name, value in headers):
        return headers
    offered = [one for name, value in headers if name == SUBPROTOCOL for one in _split(value)]
    shown = [one for one in offered if not one.startswith(_SECRET)]
    others = [header for header in headers if header[0] != SUBPROTOCOL]
    return [*others, (SUBPROTOCOL, b", ".join(shown))] if shown else others


def with_model(target: bytes, model: str) -> bytes:
    """The request target with another model's name in its query, where there is one; the rest as it was written."""
    path, mark, query = target.partition(b"?")
    pairs = [b"model=" + quote(model).encode() if pair.startswith(b"model=") else pair for pair in query.split(b"&")]
    return path + mark + b"&".join(pairs)


def agreed(wish: Headers, answer: Headers) -> tuple[bool, bytes | None]:
    """Whether an origin's 101 answers our handshake, and the subprotocol that it chose."""
    chosen = _values(answer, SUBPROTOCOL)
    offered = [one for name, value in wish if name == SUBPROTOCOL for one in _split(value)]
    is_sound = (
        b"websocket" in _tokens(answer, b"upgrade")
        and b"upgrade" in _tokens(answer, b"connection")
        and _values(answer, b"sec-websocket-accept") == [_accepting(find(wish, KEY) or b"")]
        and not _values(answer, b"sec-websocket-extensions")
        and len(chosen) <= 1
        and all(one in offered for one in chosen)
    )
    return is_sound, chosen[0] if is_sound and chosen else None


def _accepting(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _split(value: bytes) -> list[bytes]:
    return [one.strip() for one in value.split(b",") if one.strip()]


def _tokens(headers: Headers, wanted: bytes) -> list[bytes]:
    return [one.lower() for value in _values(headers, wanted) for one in _split(value)]
