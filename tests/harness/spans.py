"""Spans as a collector gets them, and a tracer that keeps them instead."""

from collections.abc import Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from trioproxy.telemetry.record import Record
from trioproxy.telemetry.tracer import Tracer
from trioproxy.telemetry.tracing import Spans, count_rejected

PLACES = {"origin": ("origin", 80)}


def spans_in(body: bytes) -> list[Span]:
    """The spans of a request to a collector."""
    request = ExportTraceServiceRequest.FromString(body)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def attributes(span: Span) -> dict[str, object]:
    """Its attributes, by name; each of them once."""
    found = {one.key: _value(one.value) for one in span.attributes}
    assert len(found) == len(span.attributes)
    return found


def plain(pairs: Sequence[KeyValue]) -> dict[str, object]:
    """Attributes of anything, by name."""
    return {one.key: _value(one.value) for one in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    assert kind is not None
    return getattr(value, kind)


def check_tree(spans: Sequence[Span]) -> None:
    """Fails unless these are whole spans with ids of their own, each within the time of its parent, if that is here."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert len(span.trace_id) == 16 and len(span.span_id) == 8 and any(span.trace_id) and any(span.span_id)
        assert span.name and span.kind != Span.SPAN_KIND_UNSPECIFIED
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        for event in span.events:
            assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano, event
        parent = by_id.get(span.parent_span_id)
        if parent is not None:
            assert parent.trace_id == span.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.kind == Span.SPAN_KIND_INTERNAL or span.end_time_unix_nano <= parent.end_time_unix_nano


class ListTracer(Tracer):
    """The tracer without its thread."""

    def __init__(self) -> None:
        self._spans = Spans("1.2.3", PLACES)
        super().__init__("http://collector:4318", {}, self._spans.encode, count_rejected)
        self.records: list[Record] = []

    def exchange(self, record: Record) -> None:
        self.records.append(record)

    @property
    def spans(self) -> list[Span]:
        """The spans so far, each exchange's before those of its tries."""
        return spans_in(self._spans.encode(self.records))
