"""Spans, made of a request's record when it is over: one for the exchange, and below it one for each try. The only door
to OpenTelemetry; loaded where a collector is configured.

The exchange's span is that of a server and speaks of HTTP; those of the tries are a client's, named as calls of a model
are. Tokens are told once, by the try whose answer was relayed: whoever adds up spans counts none twice. Bodies, keys
and queries never get here.

Sources: OpenTelemetry's semantic conventions for HTTP and for generative AI; the OTLP specification, 1.9 (a request's
fields are repeated, so that encoded requests can be joined).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from uuid import uuid4

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from trioproxy.policy.price import dollars
from trioproxy.telemetry.record import Record, Try
from trioproxy.telemetry.trace import Trace
from trioproxy.wire.request_head import METHODS
from trioproxy.wire.target import RELAYED

Value = str | int | float | bool | None
Place = tuple[str, int]
"""A host, and a port."""

_OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
}
"""What the conventions call what a dialect is used for."""
_ROUTES: Final = frozenset(path.decode("ascii") for path in RELAYED) | {"/v1/models", "/v1/realtime"}
_BELOW_API: Final = "/v1/{path}"
_NO_ERRORS: Final = frozenset({"cancelled", "hedge_lost"})
_FLAG_SAMPLED: Final = 0x01
_MAX_TEXT: Final = 200
_NANO: Final = 1_000_000_000


class Spans:
    """Makes spans. `version` is ours; `places` are where upstreams are, by their names."""

    def __init__(self, version: str, places: Mapping[str, Place]) -> None:
        self._places = places
        self._resource = Resource(
            attributes=_attributes(
                {
                    "service.name": "trioproxy",
                    "service.version": version,
                    "service.instance.id": str(uuid4()),
                    "process.pid": os.getpid(),
                }
            )
        )
        self._scope = InstrumentationScope(name="trioproxy", version=version)

    def encode(self, records: Sequence[Record]) -> bytes:
        """The request that tells a collector of these. Those of several calls can be joined."""
        spans = [span for record in records for span in self._spans(record)]
        scoped = ScopeSpans(scope=self._scope, spans=spans)
        request = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scoped])]
        )
        return request.SerializeToString()

    def _spans(self, record: Record) -> Iterator[Span]:
        trace = record.trace
        if trace is None:
            return
        clock = _Clock(record)
        yield self._exchange(record, trace, clock)
        answered = _answered(record)
        for tried in record.tries:
            yield self._try(record, trace, clock, tried, is_answer=tried is answered)

    @staticmethod
    def _exchange(record: Record, trace: Trace, clock: "_Clock") -> Span:
        method = record.method if record.method in METHODS else "HTTP"
        route = _route(record.path)
        error = _error_of(record)
        attributes: dict[str, Value] = {
            "http.request.method": method if method != "HTTP" else "_OTHER",
            "http.route": route,
            "url.path": record.path,
            "http.response.status_code": record.status or None,
            "client.address": record.client,
            "error.type": error,
            "http.request.body.size": record.bytes_in or None,
            "http.response.body.size": record.bytes_out or None,
            "trioproxy.request_id": record.request_id,
            "trioproxy.endpoint": record.endpoint,
            "trioproxy.key": record.key,
            "trioproxy.model": record.model,
            "trioproxy.stream": record.stream,
            "trioproxy.upstream": record.upstream,
            "trioproxy.attempts": record.attempts,
            "trioproxy.outcome": record.outcome,
            "trioproxy.cancel_reason": record.reason,
            "trioproxy.deadline": record.deadline,
            "trioproxy.events": record.events or None,
            "trioproxy.cost_usd": None if record.cost is None else float(dollars(record.cost)),
            "trioproxy.blocked_s.upstream": round(record.upstream_s, 6),
            "trioproxy.blocked_s.client": round(record.client_s, 6),
            "trioproxy.blocked_s.proxy": round(record.proxy_s, 6),
        }
        attributes |= {f"trioproxy.{name}": value for name, value in record.notes.items() if _is_plain(value)}
        is_error = record.outcome == "failed" and (record.status >= 500 or record.head_at is not None)
        return Span(
            trace_id=trace.context.trace_id,
            span_id=trace.context.span_id,
            parent_span_id=trace.parent_id or b"",
            trace_state=trace.context.state.decode("ascii"),
            flags=trace.context.flags,
            name=_name(trace, method, route),
            kind=Span.SPAN_KIND_INTERNAL if trace.is_inner else Span.SPAN_KIND_SERVER,
            start_time_unix_nano=clock.nanoseconds(record.accepted),
            end_time_unix_nano=clock.nanoseconds(record.ended),
            attributes=_attributes(attributes),
            events=clock.events(
                ("request read", record.read_at),
                ("permitted", record.permitted_at),
                ("head", record.head_at),
                ("first content", record.first_content_at),
                ("client gone", record.gone_at),
            ),
            status=_status(error if is_error else None),
        )

    def _try(self, record: Record, trace: Trace, clock: "_Clock", tried: Try, *, is_answer: bool) -> Span:
        operation, model = _OPERATIONS.get(record.endpoint), _model_of(record, tried)
        host, port = self._places.get(tried.upstream, (None, None))
        status = int(tried.result) if tried.result.isdecimal() else None
        error = _error_of_try(record, tried, status, is_answer=is_answer)
        usage = record.usage if is_answer else None
        first_content_s = None if tried.first_content is None else tried.first_content - tried.started
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": None if operation is None else _provider(record),
            "gen_ai.request.model": model,
            "gen_ai.request.stream": record.stream or None,
            "gen_ai.response.time_to_first_chunk": first_content_s if record.stream else None,
            "gen_ai.usage.input_tokens": usage.input if usage else None,
            "gen_ai.usage.output_tokens": usage.output if usage else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cached or None if usage else None,
            "server.address": host,
            "server.port": port,
            "http.request.method": record.method if record.method in METHODS else "_OTHER",
            "http.response.status_code": status,
            "error.type": error,
            "trioproxy.upstream": tried.upstream,
            "trioproxy.result": tried.result,
        }
        return Span(
            trace_id=trace.context.trace_id,
            span_id=tried.span_id or b"",
            parent_span_id=trace.context.span_id,
            trace_state=trace.context.state.decode("ascii"),
            flags=trace.context.flags,
            name=" ".join(_clean(word) for word in (operation or record.method, model) if word),
            kind=Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=clock.nanoseconds(tried.started),
            end_time_unix_nano=clock.nanoseconds(tried.ended),
            attributes=_attributes(attributes),
            events=clock.events(
                ("connected", tried.connected), ("head", tried.head), ("first content", tried.first_content)
            ),
            status=_status(error),
        )


class _Clock:
    """Turns the moments of one record into those of everybody: nanoseconds since 1970."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def nanoseconds(self, moment: float) -> int:
        record = self._record
        return int(record.started_wall * _NANO) + int((moment - record.accepted) * _NANO)

    def events(self, *moments: tuple[str, float | None]) -> list[Span.Event]:
        return [
            Span.Event(name=name, time_unix_nano=self.nanoseconds(moment))
            for name, moment in moments
            if moment is not None
        ]


def count_rejected(answer: bytes) -> int:
    """How many spans a collector says that it did not take; 0 for an answer that cannot be read."""
    try:
        rejected: int = ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
    except DecodeError:
        return 0
    return max(rejected, 0)


def _answered(record: Record) -> Try | None:
    """The try whose answer was relayed, the last one if there are several."""
    return next((one for one in reversed(record.tries) if one.result.isdecimal() and int(one.result) < 400), None)


def _error_of(record: Record) -> str | None:
    """Why a request got nothing, or got it only in part."""
    return record.code if record.outcome == "failed" else None


def _error_of_try(record: Record, tried: Try, status: int | None, *, is_answer: bool) -> str | None:
    """What went wrong with a try. One whose answer was relayed may have been cut behind its head."""
    if status is None:
        return None if tried.result in _NO_ERRORS else tried.result
    if status >= 400:
        return tried.result
    code = record.code or ""
    return code if is_answer and code.startswith("upstream_") else None


def _status(error: str | None) -> Status | None:
    return None if error is None else Status(code=Status.STATUS_CODE_ERROR, message=error)


def _name(trace: Trace, method: str, route: str | None) -> str:
    if trace.is_inner:
        return "shared stream"
    return method if route is None else f"{method} {route}"


def _route(path: str) -> str | None:
    """The path's route, from a closed set."""
    if path in _ROUTES:
        return path
    return _BELOW_API if path.startswith("/v1/") else None


def _provider(record: Record) -> str:
    return "anthropic" if record.endpoint == "messages" else "openai"


def _model_of(record: Record, tried: Try) -> str | None:
    return tried.model or record.model


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _attributes(values: Mapping[str, Value]) -> Iterable[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in values.items() if value is not None]


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=_clean(str(value)))


def _clean(text: str) -> str:
    """What a client chose, as something that can be told: short, and with no half of a character."""
    return text[:_MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
