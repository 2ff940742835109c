"""Spans tell what the record tells, in everybody's words, and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.harness.spans import PLACES, attributes, check_tree, plain, spans_in
from trioproxy.errors import CancelReason, UpstreamIdleTimeout
from trioproxy.telemetry.exchange import Exchange, Trying
from trioproxy.telemetry.record import Record
from trioproxy.telemetry.trace import Trace
from trioproxy.telemetry.tracing import Spans, count_rejected
from trioproxy.wire.trace_context import TraceContext
from trioproxy.wire.usage import Usage

CALLER = TraceContext(b"t" * 16, b"c" * 8, 1, b"vendor=1")


def exchange(path: str = "/v1/chat/completions", endpoint: str = "chat", **fields: object) -> Exchange:
    made = Exchange(request_id="req_1", method="POST", path=path, accepted=100.0, started_wall=1_700_000_000.0)
    made.endpoint, made.trace = endpoint, Trace.below(CALLER)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def tried(into: Exchange, upstream: str, result: str, started: float, ended: float) -> Trying:
    trying = Trying(upstream, "gpt-x")
    into.begin_try(trying, started)
    trying.connected, trying.ended, trying.result = started + 0.01, ended, result
    return trying


def told(*records: Record) -> list[Span]:
    spans = spans_in(Spans("1.2.3", PLACES).encode(records))
    check_tree(spans)
    return spans


def test_an_exchange_is_a_server_s_span_below_its_caller_s_and_each_try_a_client_s_below_it() -> None:
    made = exchange(model="m", stream=True, status=200, key="team-a", client="192.0.2.7", bytes_in=10, events=3)
    tried(made, "other", "503", 100.1, 100.2)
    second = tried(made, "origin", "200", 100.3, 102.0)
    second.head, second.first_content = 100.5, 101.0
    made.head_at, made.first_content_at = 100.5, 101.0
    made.usage, made.cost = Usage(7, 5, 2), 1_230_000_000
    root, failed, answered = told(made.close(102.5))
    assert (root.trace_id, root.parent_span_id, root.trace_state) == (b"t" * 16, b"c" * 8, "vendor=1")
    assert (root.name, root.kind) == ("POST /v1/chat/completions", Span.SPAN_KIND_SERVER)
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (1_700_000_000 * 10**9, 1_700_000_002_500_000_000)
    about = attributes(root)
    assert (about["http.request.method"], about["http.route"]) == ("POST", "/v1/chat/completions")
    assert (about["http.response.status_code"], about["client.address"]) == (200, "192.0.2.7")
    assert (about["trioproxy.key"], about["trioproxy.outcome"], about["trioproxy.attempts"]) == (
        "team-a",
        "finished",
        2,
    )
    assert about["trioproxy.cost_usd"] == 0.00123
    blocked = [about[f"trioproxy.blocked_s.{side}"] for side in ("upstream", "client", "proxy")]
    assert sum(float(str(one)) for one in blocked) == pytest.approx(2.5)
    assert root.status.code == Status.STATUS_CODE_UNSET and "error.type" not in about

    assert failed.parent_span_id == answered.parent_span_id == root.span_id
    assert failed.span_id == made.tries[0].span.span_id  # type: ignore[union-attr]
    assert (failed.name, failed.kind) == ("chat gpt-x", Span.SPAN_KIND_CLIENT)
    assert (failed.status.code, attributes(failed)["error.type"]) == (Status.STATUS_CODE_ERROR, "503")
    about = attributes(answered)
    assert (about["gen_ai.operation.name"], about["gen_ai.provider.name"]) == ("chat", "openai")
    assert (about["gen_ai.request.model"], about["gen_ai.request.stream"]) == ("gpt-x", True)
    assert about["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.7)
    assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (7, 5)
    assert about["gen_ai.usage.cache_read.input_tokens"] == 2
    assert (about["server.address"], about["server.port"]) == ("origin", 80)
    assert "server.address" not in attributes(failed) and "gen_ai.usage.input_tokens" not in attributes(failed)
    assert [event.name for event in answered.events] == ["connected", "head", "first content"]


def test_a_stream_that_was_cut_is_an_error_of_the_exchange_and_of_the_try_that_was_relayed() -> None:
    made = exchange(status=200, stream=True, head_at=100.5)
    tried(made, "origin", "200", 100.1, 101.0)
    made.fail(UpstreamIdleTimeout("silent"))
    root, cut = told(made.close(101.0))
    for span in (root, cut):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes(span)["error.type"] == "upstream_idle_timeout"
    assert attributes(root)["trioproxy.deadline"] == "idle"


def test_what_a_client_ended_is_no_error() -> None:
    made = exchange(status=200, stream=True, head_at=100.5, gone_at=101.0)
    tried(made, "origin", "200", 100.1, 101.0)
    tried(made, "other", "hedge_lost", 100.2, 100.9)
    made.cancel(CancelReason.CLIENT_GONE.value)
    spans = told(made.close(101.0))
    assert all(span.status.code == Status.STATUS_CODE_UNSET for span in spans)
    assert attributes(spans[0])["trioproxy.cancel_reason"] == "client_gone"
    assert attributes(spans[2])["trioproxy.result"] == "hedge_lost"


def test_a_client_s_own_mistake_is_told_and_is_no_error_of_the_server() -> None:
    made = exchange(status=400, outcome="failed", code="invalid_body")
    (root,) = told(made.close(101.0))
    assert root.status.code == Status.STATUS_CODE_UNSET and attributes(root)["error.type"] == "invalid_body"


@pytest.mark.parametrize(
    ("path", "endpoint", "name", "operation"),
    [
        ("/v1/messages", "messages", "POST /v1/messages", "chat"),
        ("/v1/completions", "completions", "POST /v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings", "POST /v1/embeddings", "embeddings"),
        ("/v1/files/file-123/content", "other", "POST /v1/{path}", None),
        ("/somewhere/else", "other", "POST", None),
    ],
)
def test_names_come_from_closed_sets(path: str, endpoint: str, name: str, operation: str | None) -> None:
    made = exchange(path, endpoint)
    tried(made, "origin", "200", 100.1, 100.2)
    root, child = told(made.close(100.2))
    assert root.name == name and attributes(child).get("gen_ai.operation.name") == operation
    assert attributes(child).get("gen_ai.provider.name") == (
        operation and ("anthropic" if "mess" in path else "openai")
    )


def test_a_request_without_a_caller_begins_a_trace() -> None:
    made = exchange()
    made.trace = Trace.below(None)
    (root,) = told(made.close(100.1))
    assert root.parent_span_id == b"" and root.trace_id != b"t" * 16


def test_what_outlives_its_request_is_a_span_below_it() -> None:
    made = exchange(path="/v1/chat/completions")
    inner = made.beginning(100.5)
    tried(inner, "origin", "200", 100.6, 200.0)
    root, shared, child = told(made.close(101.0), inner.close(200.0))
    assert (shared.name, shared.kind, shared.parent_span_id) == ("shared stream", Span.SPAN_KIND_INTERNAL, root.span_id)
    assert child.parent_span_id == shared.span_id and child.trace_id == shared.trace_id == root.trace_id


def test_a_record_without_a_trace_is_not_told() -> None:
    record = exchange().close(101.0)
    assert told(replace(record, trace=None)) == []


def test_every_process_says_who_it_is() -> None:
    one, other = (Spans("1.2.3", {}).encode([exchange().close(101.0)]) for _ in range(2))
    request = ExportTraceServiceRequest.FromString(one + other)  # what is joined is one request
    who = [plain(resource.resource.attributes) for resource in request.resource_spans]
    assert [(about["service.name"], about["service.version"]) for about in who] == [("trioproxy", "1.2.3")] * 2
    assert who[0]["service.instance.id"] != who[1]["service.instance.id"]


@given(st.text(max_size=300), st.text(max_size=300))
@example("m" * 300, "o" * 300)
def test_no_word_of_a_client_s_breaks_a_span(model: str, other: str) -> None:
    made = exchange(path=f"/v1/{other}", model=model + "\ud800", method=other, client=other)
    made.notes["fallback"] = model
    tried(made, "origin", "200", 100.1, 100.2).model = other
    root, child = told(made.close(100.2))
    assert len(str(attributes(root)["trioproxy.model"])) <= 200 and len(child.name) <= 210


def test_a_collector_says_what_it_did_not_take() -> None:
    answer = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=3))
    assert count_rejected(answer.SerializeToString()) == 3
    assert [count_rejected(other) for other in (b"", b'{"partialSuccess":{}}', b"\xff" * 10)] == [0, 0, 0]
