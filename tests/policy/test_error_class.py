"""Errors as real origins word them, and what a fallback takes them for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy import errors
from trioproxy.errors import (
    ClientGone,
    Draining,
    Overloaded,
    ProxyError,
    UpstreamErrorInStream,
    UpstreamFault,
)
from trioproxy.policy.error_class import MAX_BODY_BYTES, ErrorClass, class_of_answer, class_of_fault

FAULTS: list[type[UpstreamFault]] = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, UpstreamFault) and kind is not UpstreamErrorInStream
]


def openai(code: object, message: str = "No.", kind: str | None = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(kind: str, message: str = "No.") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


ANSWERS: list[tuple[int, Any, str | None]] = [
    # OpenAI
    (400, openai("context_length_exceeded"), "context_length"),
    (400, openai("string_above_max_length"), "context_length"),
    (400, openai(None, "This model's maximum context length is 8192 tokens. However, …"), "context_length"),
    (400, openai(None, "Your input exceeds the context window of this model."), "context_length"),
    (400, openai("content_policy_violation"), "content_filter"),
    (429, openai("rate_limit_exceeded", kind="tokens"), "rate_limit"),
    (429, openai("insufficient_quota", kind="insufficient_quota"), "rate_limit"),
    (503, openai(None, "The engine is currently overloaded.", "server_error"), "outage"),
    (401, openai("invalid_api_key"), None),
    (404, openai("model_not_found"), None),
    (400, openai("unsupported_value", "Unsupported value: 'temperature'."), None),
    # Azure
    (400, openai("content_filter", "The response was filtered", None), "content_filter"),
    (400, openai("400", "… triggered Azure OpenAI's content management policy."), "content_filter"),
    # Anthropic
    (400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "context_length"),
    (
        400,
        anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 9"),
        "context_length",
    ),
    (400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), "content_filter"),
    (400, anthropic("invalid_request_error", "max_tokens: Field required"), None),
    (413, anthropic("request_too_large"), None),
    (429, anthropic("rate_limit_error"), "rate_limit"),
    (402, anthropic("billing_error"), "rate_limit"),
    (529, anthropic("overloaded_error"), "outage"),
    (500, anthropic("api_error"), "outage"),
    (403, anthropic("permission_error"), None),
    # vLLM, bare and in an envelope; SGLang
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        "context_length",
    ),
    (400, openai(400, "The decoder prompt (length 9) is longer than the maximum model length of 4"), "context_length"),
    (400, openai(400, "The input (9 tokens) is longer than the model's context length (4 tokens)."), "context_length"),
    # llama.cpp
    (400, {"error": {"code": 400, "message": "No.", "type": "exceed_context_size_error"}}, "context_length"),
    (400, openai(400, "the request exceeds the available context size, try increasing it"), "context_length"),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "outage"),
    # others
    (413, openai("rate_limit_exceeded", "Request too large for model", "tokens"), "rate_limit"),
    (422, {"error": "Maximum context length exceeded", "error_type": "validation"}, "context_length"),
    (402, {"error": {"message": "Insufficient Balance"}}, "rate_limit"),
    (200, anthropic("overloaded_error"), None),
    (302, {}, None),
]


@pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
def test_answers_of_real_origins_have_their_class(status: int, body: Any, expected: str | None) -> None:
    assert class_of_answer(status, json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, None), (404, None), (409, None), (422, None), (402, "rate_limit"), (429, "rate_limit"), (408, "outage")]
    + [(status, "outage") for status in (500, 502, 503, 504, 524, 529, 599)],
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>maximum context length</html>",
        b'{"error": {"code": "content_filter", "mess',
        b"[1]",
        b"null",
        b'{"error": 3}',
        b'{"error": {"code": ["content_filter"], "type": {}, "message": 1}}',
        b'{"detail": [{"input": "maximum context length"}]}',
        json.dumps(openai("content_filter", "x" * MAX_BODY_BYTES)).encode(),
    ],
    ids=["empty", "html", "cut", "list", "null", "number", "odd types", "echoed input", "too long"],
)
def test_a_body_without_words_leaves_it_to_the_status(status: int, body: bytes, expected: str | None) -> None:
    assert class_of_answer(status, body) == expected


def test_words_come_before_the_status_and_the_status_before_the_message() -> None:
    assert class_of_answer(500, json.dumps(openai("context_length_exceeded")).encode()) == "context_length"
    assert class_of_answer(429, json.dumps(openai(None, "prompt is too long")).encode()) == "rate_limit"
    assert class_of_answer(401, json.dumps(openai(None, "prompt is too long")).encode()) is None


def test_of_a_long_message_only_the_beginning_is_read() -> None:
    early, late = "Prompt is too long: " + "x" * 9000, "x" * 9000 + " prompt is too long"
    assert class_of_answer(400, json.dumps(openai(None, early)).encode()) == "context_length"
    assert class_of_answer(400, json.dumps(openai(None, late)).encode()) is None


@given(st.integers(100, 999), st.binary(max_size=50))
def test_no_bytes_make_it_fail(status: int, body: bytes) -> None:
    assert class_of_answer(status, body) in (None, "rate_limit", "outage")


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_upstream_is_an_outage(kind: type[UpstreamFault]) -> None:
    assert class_of_fault(kind("No.")) is ErrorClass.OUTAGE


@pytest.mark.parametrize("fault", [Overloaded("No."), Draining("No."), ClientGone("No.")])
def test_what_is_not_the_upstreams_doing_has_no_class(fault: ProxyError) -> None:
    assert class_of_fault(fault) is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (UpstreamErrorInStream("No."), "outage"),
        (UpstreamErrorInStream("No.", status=400), None),
        (UpstreamErrorInStream("No.", status=400, code="content_filter"), "content_filter"),
        (UpstreamErrorInStream("No.", kind="rate_limit_error"), "rate_limit"),
        (UpstreamErrorInStream("No.", kind="billing_error"), "rate_limit"),
        (UpstreamErrorInStream("No.", code="insufficient_quota"), "rate_limit"),
        (UpstreamErrorInStream("Overloaded", status=400, kind="overloaded_error"), "outage"),
        (UpstreamErrorInStream("Prompt is too long: 5 > 4", status=400), "context_length"),
    ],
)
def test_an_error_in_a_stream_is_what_the_origin_calls_it(fault: ProxyError, expected: str | None) -> None:
    assert class_of_fault(fault) == expected
