"""Request targets: one normal form, or none. PURE.

A path is forwarded as the client wrote it. So a path that an origin might read as another one (dot segments, encoded
slashes or dots in front of them, doubled slashes) must not slip past a rule that looked at the written form.

Sources: RFC 9112 section 3.2 (request targets), RFC 3986 sections 3.3, 5.2.4 and 6.2.2 (segments and their parameters,
dot segments, normalisation).
"""

import re
from urllib.parse import unquote_to_bytes

from trioproxy.errors import InvalidPath
from trioproxy.wire.dialect import Dialect

RELAYED: dict[bytes, Dialect] = {
    b"/v1/chat/completions": Dialect.CHAT,
    b"/v1/completions": Dialect.COMPLETIONS,
    b"/v1/responses": Dialect.RESPONSES,
    b"/v1/messages": Dialect.MESSAGES,
    b"/v1/embeddings": Dialect.EMBEDDINGS,
}
"""The five routes whose requests are read, and the dialect that each speaks."""

SOCKETS = frozenset({b"/v1/realtime", b"/v1/responses", b"/v1/stream/ws"})
"""Where a connection may become a WebSocket's."""

_MAX_DECODINGS = 4  # three layers, and a look that there is no fourth; each one costs a walk along the whole path
_NO_URI = re.compile(rb"%(?![0-9A-Fa-f]{2})|#")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_SEPARATORS = re.compile(rb"[/\\]")
_SEGMENT_END = re.compile(rb"[;?#]")
_PATH_END = re.compile(rb"[?#]")
_PREFIX = b"/v1/"


def check_path(raw_path: bytes) -> None:
    """Raise InvalidPath for a path that could be read as another one: dot segments in any spelling, a path that is not
    absolute or no UTF-8, or an odd spelling of a relayed route or of the `/v1/` before the others."""
    if raw_path in RELAYED:
        return
    if not raw_path.startswith(b"/"):
        raise InvalidPath("The request target has to be a path.")
    if _NO_URI.search(raw_path):
        raise InvalidPath("The path holds a '#', or a '%' that is not followed by two hexadecimal digits.")
    path = _decoded(raw_path)
    segments = _segments(path)
    if b"." in segments or b".." in segments:
        raise InvalidPath("The path holds dot segments; send it in its normal form.")
    normal = _normal(_segments(_PATH_END.split(path, maxsplit=1)[0]))
    if normal in RELAYED:
        raise InvalidPath(f"This path has one spelling only: {normal.decode('ascii')}.")
    if normal.startswith(_PREFIX) and not raw_path.startswith(_PREFIX):
        raise InvalidPath("The path has to start with /v1/, spelled like this.")


def _decoded(path: bytes) -> bytes:
    """Percent-decoded until nothing changes: an origin behind another proxy may decode more than once. What no two
    readers agree on is refused: control characters (where C strings end, and header lines) and overlong UTF-8."""
    for _ in range(_MAX_DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    else:
        raise InvalidPath("The path is percent-encoded over and over; encode it once.")
    try:
        str(path, "utf-8")
    except UnicodeDecodeError:
        raise InvalidPath("The path is not UTF-8.") from None
    if _CONTROL.search(path):
        raise InvalidPath("The path holds a control character.")
    return path


def _segments(path: bytes) -> list[bytes]:
    """The segments as the most lenient origin would read them: without outer spaces, and what parameters (`;v=1`), a
    query or a fragment would be if it was decoded before it was split."""
    return [_SEGMENT_END.split(segment, maxsplit=1)[0].strip() for segment in _SEPARATORS.split(path)]


def _normal(segments: list[bytes]) -> bytes:
    """Lower case, since many routers do not mind it, and no empty segments."""
    return b"/" + b"/".join(segment for segment in segments if segment).lower()


def query_pairs(target: bytes) -> list[tuple[bytes, bytes]]:
    """The names and values in a target's query, decoded as a form's are; which bytes that gives is anybody's guess."""
    pairs = [pair.replace(b"+", b" ").partition(b"=") for pair in target.partition(b"?")[2].split(b"&") if pair]
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def dialect_of(raw_path: bytes) -> Dialect:
    """The dialect of a path's event streams and errors."""
    known = RELAYED.get(raw_path)
    if known is not None:
        return known
    if raw_path.startswith(b"/v1/responses/"):
        return Dialect.RESPONSES
    if raw_path.startswith(b"/v1/messages/"):
        return Dialect.MESSAGES
    return Dialect.OTHER
