"""Errors as clients see them: envelopes, statuses, headers, in-band events; and the statuses of errors inside a 200."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy import errors
from trioproxy.errors import (
    BadRequest,
    Draining,
    InternalError,
    MethodNotAllowed,
    PositionGone,
    ProxyError,
    RequestTooLarge,
    UpstreamConnectFailed,
    UpstreamFault,
    UpstreamHeadTimeout,
    UpstreamTruncated,
)
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.sse import Framer

LINE_ENDS = [b"\n", b"\r\n", b"\r"]
NOT_MESSAGES = [dialect for dialect in Dialect if dialect is not Dialect.MESSAGES]
DATA_ONLY = [dialect for dialect in NOT_MESSAGES if dialect is not Dialect.RESPONSES]
EVERY_ERROR: list[type[ProxyError]] = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ProxyError) and kind is not ProxyError
]


def made(kind: type[ProxyError], message: str = "No.") -> ProxyError:
    if kind is MethodNotAllowed:
        return MethodNotAllowed(message, allow="POST")
    return PositionGone(message, first=3, last=5) if kind is PositionGone else kind(message)


def answered(error: ProxyError, dialect: Dialect = Dialect.CHAT) -> tuple[int, dict[bytes, bytes], Any]:
    status, headers, body = render.response(error, dialect, "req_1")
    fields = dict(headers)
    assert len(fields) == len(headers), "a field twice"
    assert fields[b"content-length"] == str(len(body)).encode()
    return status, fields, json.loads(body)


def read(event: bytes, line_end: bytes) -> tuple[bytes, Any]:
    """Name and JSON of an event, as a client reads it that knows this line ending only."""
    block, nothing = event.split(line_end * 2)
    assert nothing == b""
    lines = dict(line.split(b": ", 1) for line in block.split(line_end))
    assert len(lines) == len(block.split(line_end)) <= 2
    return lines.get(b"event", b""), json.loads(lines[b"data"])


# --- before the head --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", NOT_MESSAGES)
@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_becomes_its_status_and_openais_envelope(kind: type[ProxyError], dialect: Dialect) -> None:
    status, headers, body = answered(made(kind, "Do this."), dialect)
    assert status == kind.status
    assert body == {"error": {"message": "Do this.", "type": kind.type, "param": None, "code": kind.code}}
    assert headers[b"content-type"] == b"application/json" and headers[b"x-request-id"] == b"req_1"


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_on_messages_it_is_anthropics_envelope(kind: type[ProxyError]) -> None:
    status, headers, body = answered(made(kind, "Do this."), Dialect.MESSAGES)
    assert status == kind.status
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"], headers[b"x-request-id"]) == ("error", "req_1", b"req_1")
    assert body["error"] == {"type": body["error"]["type"], "message": "Do this."}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (RequestTooLarge("x"), "request_too_large"),
        (MethodNotAllowed("x", allow="POST"), "invalid_request_error"),
        (errors.UnknownPath("x"), "not_found_error"),
        (Draining("x"), "overloaded_error"),
        (UpstreamConnectFailed("x"), "api_error"),
        (UpstreamHeadTimeout("x"), "timeout_error"),
        (InternalError("x"), "api_error"),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_the_status_chooses_anthropics_type(error: ProxyError, kind: str) -> None:
    assert answered(error, Dialect.MESSAGES)[2]["error"]["type"] == kind


def test_the_field_to_blame_is_named() -> None:
    assert answered(BadRequest("x", param="model"))[2]["error"]["param"] == "model"


@pytest.mark.parametrize("dialect", Dialect)
def test_a_wrong_method_is_told_the_right_ones(dialect: Dialect) -> None:
    status, headers, _ = answered(MethodNotAllowed("x", allow="POST, GET"), dialect)
    assert (status, headers[b"allow"]) == (405, b"POST, GET")
    assert b"allow" not in answered(BadRequest("x"), dialect)[1]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("kind", [Draining])
def test_who_may_come_back_is_told_when_in_both_units(kind: type[ProxyError], dialect: Dialect) -> None:
    status, headers, _ = answered(made(kind), dialect)
    assert status == 503
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"1000")
    error = made(kind)
    error.retry_after_s = 90
    headers = answered(error, dialect)[1]
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"90", b"90000")


@pytest.mark.parametrize("kind", [BadRequest, InternalError, UpstreamHeadTimeout])
def test_nobody_else_is_told_when_to_come_back(kind: type[ProxyError]) -> None:
    headers = answered(made(kind))[1]
    assert b"retry-after" not in headers and b"retry-after-ms" not in headers


# --- in band ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("dialect", DATA_ONLY)
def test_in_band_it_is_openais_envelope_without_a_name(dialect: Dialect, line_end: bytes) -> None:
    name, data = read(render.event(UpstreamTruncated("Cut."), dialect, "req_1", line_end), line_end)
    assert name == b""
    assert data == {"error": {"message": "Cut.", "type": "server_error", "param": None, "code": "upstream_truncated"}}


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_in_band_on_responses_it_is_the_apis_own_error_event(line_end: bytes) -> None:
    name, data = read(render.event(UpstreamTruncated("Cut."), Dialect.RESPONSES, "req_1", line_end), line_end)
    assert name == b"error"
    assert data == {"type": "error", "code": "upstream_truncated", "message": "Cut.", "param": None}


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_in_band_on_messages_it_is_anthropics_error_event(line_end: bytes) -> None:
    name, data = read(render.event(UpstreamHeadTimeout("Late."), Dialect.MESSAGES, "req_1", line_end), line_end)
    assert name == b"error"
    assert data == {"type": "error", "error": {"type": "timeout_error", "message": "Late."}, "request_id": "req_1"}


@settings(max_examples=100)
@example("data: [DONE]\n\ndata: [DONE]\r\n\r\nevent: message_stop\r\r", Dialect.CHAT, b"\n")
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(Dialect), st.sampled_from(LINE_ENDS))
def test_no_message_breaks_out_of_its_event(message: str, dialect: Dialect, line_end: bytes) -> None:
    event = render.event(UpstreamFault(message), dialect, "req_1", line_end)
    data = read(event, line_end)[1]
    assert message in (data.get("message"), data.get("error", {}).get("message"))
    watch = dialect.watch()
    framer = Framer(watch)
    framer.feed(event)
    assert (framer.events, framer.at_border, framer.line_end) == (1, True, line_end)
    assert not watch.saw_done
    assert watch.first_error is not None and json.loads(watch.first_error) == data
    body = render.response(UpstreamFault(message), dialect, "req_1")[2]
    assert json.loads(body)["error"]["message"] == message


# --- the status of an error inside a 200 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"status": 418}, 418),
        ({"status_code": 429, "type": "server_error"}, 429),
        ({"code": 503}, 503),
        ({"code": "429"}, 429),
        ({"code": 400, "type": "server_error"}, 400),
        ({"status": "UNAVAILABLE", "code": 503}, 503),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, 401),
        ({"code": None, "type": "authentication_error"}, 401),
        ({"type": "permission_error"}, 403),
        ({"code": "model_not_found"}, 404),
        ({"type": "not_found_error"}, 404),
        ({"type": "request_too_large"}, 413),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, 429),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "invalid_request_error"}, 400),
        ({"code": "context_length_exceeded"}, 400),
        ({"type": "server_error"}, 500),
        ({"type": "api_error"}, 500),
        ({"type": "overloaded_error"}, 503),
        ({"type": "timeout_error"}, 504),
        ({"code": "no idea", "type": "nor this"}, 502),
        ({}, 502),
    ],
)
def test_an_error_inside_a_200_has_the_status_that_it_names(error: dict[str, Any], status: int) -> None:
    assert render.status_of(json.dumps({"error": error}).encode()) == status
    assert render.status_of(json.dumps({"type": "error", "error": error}).encode()) == status
    if error:
        assert render.status_of(json.dumps({**error, "message": "no"}).encode()) == status


@pytest.mark.parametrize(
    "number",
    [0, 200, 302, 399, 600, -500, True, 500.0, "0500", "200", "\uff15\uff10\uff10", "4xx", [], {}, None, 10**30],
)
def test_a_number_that_is_no_error_status_is_not_taken(number: object) -> None:
    assert render.status_of(json.dumps({"error": {"code": number}}).encode()) == 502


@pytest.mark.parametrize(
    "data", [b"", b"no", b"null", b"[]", b'{"error":"no"}', b'{"error":null}', b"\xff", b'"\xff"', b"[" * 100_000]
)
def test_an_error_that_says_nothing_is_the_origins_failure(data: bytes) -> None:
    assert render.status_of(data) == 502


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["error", "status", "code", "type"]),
        st.recursive(
            st.integers() | st.text() | st.none(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["status", "status_code", "code", "type"]), inner)
            ),
            max_leaves=5,
        ),
    )
)
def test_the_status_is_always_one_of_an_error(value: dict[str, Any]) -> None:
    assert 400 <= render.status_of(json.dumps(value).encode()) <= 599


@pytest.mark.parametrize(
    ("body", "message", "kind", "code", "param"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c","param":"p"}}', "m", "t", "c", "p"),
        (b'{"type":"error","error":{"message":"m","type":"t"}}', "m", "t", None, None),
        (b'{"error":"m"}', "m", None, None, None),
        (b'{"object":"error","message":"m","code":404}', "m", None, None, None),
        (b'{"error":{"message":5}}', None, None, None, None),
        (b'{"detail":"m"}', None, None, None, None),
        (b"[]", None, None, None, None),
        (b"\xff", None, None, None, None),
        (b"[" * 100_000, None, None, None, None),
        (b"", None, None, None, None),
    ],
)
@pytest.mark.parametrize("status", [404, 529])
def test_an_origins_error_is_told_in_its_own_words_as_far_as_it_has_any(
    body: bytes, message: str | None, kind: str | None, code: str | None, param: str | None, status: int
) -> None:
    error = render.error_in_stream(status, body, "name")
    assert error.message == (message or f"The upstream 'name' answered with status {status}.")
    assert error.type == (kind or ("invalid_request_error" if status == 404 else "server_error"))
    assert (error.status, error.code, error.param) == (status, code or "upstream_error_in_stream", param)
    assert type(error).code == "upstream_error_in_stream"
    assert render.event(error, Dialect.CHAT, "r", b"\n").count(b"\n") == 2
