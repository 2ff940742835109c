"""The head of an answer: the origin's fields that a client gets, and our own beside them."""

import trio

from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.headers import Headers, find, to_client

_EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_REPLACED = frozenset(name for name, _ in _EVENT_STREAM)


def plain_head(exchange: Exchange, attempt: Attempt, length: bytes | None, *, is_whole: bool = False) -> Headers:
    """For an answer that is passed as it is; `length` is its declared one, None where the framing tells the end;
    `is_whole`: it is all here."""
    headers = to_client(attempt.headers)
    if length is not None:
        headers.append((b"content-length", length))
    return headers + _own_fields(exchange, attempt, is_whole=is_whole)


def event_stream_head(exchange: Exchange, attempt: Attempt, *, may_continue: bool = False) -> Headers:
    """For an event stream; `may_continue`: another upstream may go on with it, which the client is told beforehand."""
    told: Headers = [(b"x-trioproxy-continue", b"after-cut")] if may_continue else []
    return _kept(attempt) + _EVENT_STREAM + told + _own_fields(exchange, attempt)


def json_head(exchange: Exchange, attempt: Attempt) -> Headers:
    """For a whole answer that is made of an event stream; `total` of its times is added when it is."""
    return [*_kept(attempt), (b"content-type", b"application/json"), *_own_fields(exchange, attempt)]


def early_head(exchange: Exchange) -> Headers:
    """For an event stream whose origin has not answered yet."""
    return _EVENT_STREAM + _own_fields(exchange, None)


def error_head(exchange: Exchange, attempt: Attempt, length: int) -> Headers:
    """For an error, as JSON, that stood inside an event stream."""
    framing: Headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    return _kept(attempt) + framing + _own_fields(exchange, attempt, is_whole=True)


def switched_head(exchange: Exchange, attempt: Attempt) -> Headers:
    """For a connection that becomes a WebSocket's, beside the fields of the handshake."""
    kept = [header for header in to_client(attempt.headers) if not header[0].startswith(b"sec-websocket-")]
    return [header for header in kept if header[0] != b"date"] + _own_fields(exchange, attempt)


def _kept(attempt: Attempt) -> Headers:
    return [header for header in to_client(attempt.headers) if header[0] not in _REPLACED]


def total_time(exchange: Exchange) -> tuple[bytes, bytes]:
    """The field that tells how long an answer took that is whole now."""
    return (b"server-timing", b"total;dur=%.1f" % (1000 * (trio.current_time() - exchange.accepted)))


def head_time(exchange: Exchange, at: float) -> tuple[bytes, bytes]:
    """The field that tells how long it took until the head was here."""
    return (b"server-timing", b"head;dur=%.1f" % (1000 * (at - exchange.accepted)))


def _times(exchange: Exchange, attempt: Attempt | None, is_whole: bool) -> Headers:
    """How long it took to connect, in this try, and from accept to the head, in milliseconds."""
    if attempt is None:
        return []
    head = head_time(exchange, attempt.answered)
    trying = attempt.trying
    if trying is not None and trying.connected is not None:
        head = (head[0], b"connect;dur=%.1f, %b" % (1000 * (trying.connected - trying.started), head[1]))
    return [head, total_time(exchange)] if is_whole else [head]


def _own_fields(exchange: Exchange, attempt: Attempt | None, *, is_whole: bool = False) -> Headers:
    own_id = exchange.request_id.encode("ascii")
    origin_id = find(attempt.headers, b"x-request-id") if attempt is not None else None
    ids: Headers = [(b"x-request-id", own_id)]
    if origin_id and origin_id != own_id:
        ids = [(b"x-request-id", origin_id), (b"x-trioproxy-request-id", own_id)]
    return [
        *ids,
        (b"x-trioproxy-upstream", (exchange.upstream or "").encode("ascii", "replace")),
        (b"x-trioproxy-attempts", b"%d" % exchange.attempts),
        *_times(exchange, attempt, is_whole),
    ]
