"""Errors as clients see them: the one place that turns an error into bytes.

Before the head: a status, headers and the dialect's JSON envelope. After it: one in-band event. Nothing internal is in
either: messages come from `errors`, never from an exception of a library.

Sources: OpenAI's API reference ("Error codes"), Anthropic's ("Errors"), and what their SDKs raise on.
"""

from math import ceil
from typing import Any, Final

import msgspec

from trioproxy.errors import BadRequest, ProxyError, UpstreamErrorInStream
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder().decode

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_LEAST_WAIT_S: Final = 1
"""Clients that are told to come back sooner come back in crowds."""

_STATUS_BY_WORD = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "overloaded": 503,
    "overloaded_error": 503,
    "timeout_error": 504,
    "internal_error": 500,
    "api_error": 500,
    "server_error": 500,
}


def response(error: ProxyError, dialect: Dialect, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error for a client that has no head yet."""
    body = _encode(_envelope(error, dialect, request_id))
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if error.retry_after_s is not None:
        wait_s = max(_LEAST_WAIT_S, error.retry_after_s)
        headers.append((b"retry-after", b"%d" % ceil(wait_s)))
        headers.append((b"retry-after-ms", b"%d" % ceil(1000 * wait_s)))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    headers += error.told
    allow = getattr(error, "allow", None)
    if allow:
        headers.append((b"allow", allow.encode("ascii")))
    return error.status, headers, body


def event(error: ProxyError, dialect: Dialect, request_id: str, line_end: bytes) -> bytes:
    """The dialect's own in-band error event, with the stream's line ending.

    SDKs raise on it, but for the Responses API's, which they hand out as an event; the cut behind it raises there.
    """
    if dialect is Dialect.RESPONSES:
        value: Any = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        lines = [b"event: error", b"data: " + _encode(value)]
    elif dialect is Dialect.MESSAGES:
        lines = [b"event: error", b"data: " + _encode(_envelope(error, dialect, request_id))]
    else:
        lines = [b"data: " + _encode(_envelope(error, dialect, request_id))]
    return line_end.join([*lines, b"", b""])


def _envelope(error: ProxyError, dialect: Dialect, request_id: str) -> dict[str, Any]:
    if dialect is Dialect.MESSAGES:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_in_stream(status: int, body: bytes, upstream: str) -> UpstreamErrorInStream:
    """An origin's error answer as one that can be told in band: in the origin's words if the body is an error envelope
    (`{"error": {"message", …}}`, `{"error": "text"}`, or the bare object), else in ours, which say the status."""
    error = error_object(body)
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        error = {"message": f"The upstream '{upstream}' answered with status {status}."}
    kind, code, param = (error[key] if isinstance(error.get(key), str) else None for key in ("type", "code", "param"))
    if kind is None and status < 500:
        kind = BadRequest.type
    return UpstreamErrorInStream(error["message"], status=status, kind=kind, code=code, param=param)


def status_of(data: bytes) -> int:
    """The status that an error object inside a 200 stands for: its own number, else its type or code, else 502."""
    error = error_object(data)
    if not isinstance(error, dict):
        return 502
    words = [error.get(key) for key in ("status", "status_code", "code", "type")]
    for word in words:
        number = int(word) if isinstance(word, str) and word.isascii() and word.isdigit() and len(word) == 3 else word
        if isinstance(number, int) and 400 <= number <= 599:
            return number
    for word in words:
        if isinstance(word, str) and word in _STATUS_BY_WORD:
            return _STATUS_BY_WORD[word]
    return 502


def error_object(data: bytes) -> Any:
    """What an error envelope holds, mostly an object or a text; the object itself if it is none; None for anything
    that is not a JSON object. Also `policy/error_class` reads errors with it."""
    try:
        value = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value.get("error", value) if isinstance(value, dict) else None
