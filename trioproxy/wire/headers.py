"""Which header fields cross the proxy, in each direction. Headers are `list[tuple[bytes, bytes]]`, names lower case.

Sources: RFC 9110 section 7.6.1 (hop-by-hop fields and `connection`), and what would bind a client to *our* host or tell
the origin about our clients. Used by `web` (requests) and `relay` (answers).
"""

import re
from collections.abc import Iterable

from trioproxy.errors import BadRequest

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Written anew by the transport, or nobody's business but ours.
_NOT_SENT = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"cookie",
    b"forwarded",
    b"x-real-ip",
    b"x-request-id",
    b"http2-settings",
    b"origin",  # which pages may come is decided here
}
# Said anew by each proxy: with two of our kind in a row there would be two answers to one question.
_OURS = b"x-trioproxy-"
_NOT_SENT_PREFIXES = (b"x-forwarded-", _OURS)

# Who may read an answer of this address is not for an origin to say.
_NOT_RETURNED_PREFIXES = (_OURS, b"access-control-")
# They would bind the client to our host, or describe a connection that is not the client's.
_NOT_RETURNED = HOP_BY_HOP | {
    b"set-cookie",
    b"alt-svc",
    b"strict-transport-security",
    b"nel",
    b"report-to",
    b"content-length",
    b"x-request-id",
}
# `connection` may name any field as hop-by-hop; naming these away would change who is asking, or where the body ends.
_NOT_NAMED_AWAY = frozenset(
    {b"authorization", b"x-api-key", b"content-length", b"content-type", b"content-encoding", b"host"}
)

DEADLINE = b"x-trioproxy-deadline-ms"
"""The request's field for the whole time that it may take."""
_MILLISECONDS = re.compile(rb"[0-9]{1,18}")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The fields that `connection` declares hop-by-hop, less those that it may not take away."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return frozenset(named - _NOT_NAMED_AWAY) if named else frozenset()


def to_origin(headers: Headers) -> Headers:
    """The client's fields that an origin gets, before ours are added."""
    gone = named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_SENT and name not in gone and not name.startswith(_NOT_SENT_PREFIXES)
    ]


def to_client(headers: Headers) -> Headers:
    """The origin's fields that a client gets, before ours are added."""
    gone = named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_RETURNED and name not in gone and not name.startswith(_NOT_RETURNED_PREFIXES)
    ]


def find(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The first value of a field, or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def valid_request_id(value: bytes | None) -> str | None:
    """A request id that may be kept: 1 to 128 visible ASCII characters; else None."""
    if value is None or _REQUEST_ID.fullmatch(value) is None:
        return None
    return value.decode("ascii")


def whole_time_s(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """The seconds that a client gives its request, None if it does not say. Raises BadRequest for anything but one
    whole number of milliseconds above zero."""
    values = [value for name, value in headers if name == DEADLINE]
    if not values:
        return None
    if len(values) > 1 or _MILLISECONDS.fullmatch(values[0]) is None or int(values[0]) == 0:
        name = DEADLINE.decode("ascii")
        raise BadRequest(f"'{name}' has to be one whole number of milliseconds above zero.", param=name)
    return int(values[0]) / 1000


def is_event_stream(headers: Headers) -> bool:
    """Whether the answer is framed as server-sent events. The answer's content type decides, not the request."""
    kind = find(headers, b"content-type")
    return kind is not None and kind.partition(b";")[0].strip().lower() == b"text/event-stream"


def is_encoded(headers: Headers) -> bool:
    """Whether the body is compressed, so that its bytes can be passed but not looked at."""
    return any(
        name == b"content-encoding" and value.strip().lower() not in (b"", b"identity") for name, value in headers
    )
