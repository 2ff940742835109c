"""Stories of requests that are part of a trace: it is gone on with, each origin is told who calls it, and the spans of
all fit together."""

import pytest
import trio
import trio.testing
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.harness.house import CHAT, open_house
from tests.harness.origin import OK_STREAM, Visit, chunk, content
from tests.harness.plays import OK, STREAM, WORD, Both, Plays, Ways, ask, ask_stream, opened, route, status
from tests.harness.spans import ListTracer, attributes, check_tree
from tests.way.test_sharing import SHARED, slowly
from tests.way.test_sharing import ask as ask_shared
from trioproxy.wire.trace_context import TraceContext, read_context

CALLER = TraceContext(bytes(range(1, 17)), b"callerid", 1)
PARENT = f"00-{CALLER.trace_id.hex()}-{CALLER.span_id.hex()}"
TRACED = f"traceparent: {PARENT}-01\r\ntracestate: vendor=1\r\n"


@pytest.fixture
def tracer() -> ListTracer:
    return ListTracer()


def told(origin: Plays) -> list[TraceContext]:
    """Who calls, as an origin was told in each request."""
    states = origin.field(b"tracestate") or [b""] * len(origin.got)
    fields = zip(origin.field(b"traceparent"), states, strict=True)
    contexts = [read_context([(b"traceparent", parent), (b"tracestate", state)]) for parent, state in fields]
    return [context for context in contexts if context is not None]


async def test_a_caller_s_trace_is_gone_on_with(clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    origin = Plays(STREAM)
    async with open_house(origin, tracer=tracer) as house:
        answer = await ask_stream(house, TRACED)
        assert answer.is_complete
    root, child = tracer.spans
    check_tree(tracer.spans)
    assert (root.trace_id, root.parent_span_id) == (CALLER.trace_id, CALLER.span_id)
    assert child.parent_span_id == root.span_id
    [context] = told(origin)
    assert (context.trace_id, context.span_id, context.state) == (CALLER.trace_id, child.span_id, b"vendor=1")
    assert [event.name for event in child.events] == ["connected", "head", "first content"]
    assert attributes(root)["trioproxy.request_id"] == house.log.exchanges[0]["request_id"]


async def test_a_request_without_one_begins_a_trace(clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    origin = Plays(OK)
    async with open_house(origin, tracer=tracer) as house:
        for headers in ("", "traceparent: 00-1\r\ntracestate: a=1\r\n", TRACED + TRACED):
            await ask(house, headers=headers)
    roots, children = tracer.spans[0::2], tracer.spans[1::2]
    assert [span.parent_span_id for span in roots] == [b""] * 3
    assert len({span.trace_id for span in roots} | {CALLER.trace_id}) == 4
    contexts = told(origin)
    assert [context.trace_id for context in contexts] == [span.trace_id for span in roots]
    assert [context.span_id for context in contexts] == [span.span_id for span in children]
    assert not any(context.state for context in contexts)


async def test_what_its_caller_does_not_keep_is_passed_on_as_it_came(
    clock: trio.testing.MockClock, tracer: ListTracer
) -> None:
    origin = Plays(OK)
    async with open_house(origin, tracer=tracer) as house:
        await ask(house, headers=f"traceparent: {PARENT}-00\r\ntracestate: a=1\r\n")
    assert origin.field(b"traceparent") == [f"{PARENT}-00".encode()] and origin.field(b"tracestate") == [b"a=1"]
    assert tracer.spans == []


async def test_without_a_collector_a_trace_is_passed_on_as_it_came(clock: trio.testing.MockClock) -> None:
    origin = Plays(OK)
    async with open_house(origin) as house:
        await ask(house, headers=TRACED)
    assert origin.field(b"traceparent") == [f"{PARENT}-01".encode()] and origin.field(b"tracestate") == [b"vendor=1"]


async def test_each_try_is_a_span_of_its_own_that_its_origin_knows(
    ways: Ways, clock: trio.testing.MockClock, tracer: ListTracer
) -> None:
    both = Both(status(503), OK)
    async with opened(ways(), both.a, both.b, tracer=tracer) as house:
        assert (await ask(house, headers=TRACED)).status == 200
    root, failed, answered = tracer.spans
    check_tree(tracer.spans)
    assert {failed.parent_span_id, answered.parent_span_id} == {root.span_id}
    assert [context.span_id for context in told(both.a) + told(both.b)] == [failed.span_id, answered.span_id]
    assert (failed.status.code, answered.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET)
    assert (attributes(failed)["trioproxy.upstream"], attributes(answered)["trioproxy.upstream"]) == ("a", "b")


async def test_a_hedge_is_two_spans_side_by_side(ways: Ways, clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    both = Both(b"", STREAM)
    file = ways(route("hedge = { after_s = 1, budget = 1 }"))
    async with opened(file, both.a, both.b, tracer=tracer) as house:
        assert (await ask_stream(house, TRACED)).is_complete
    root, lost, won = tracer.spans
    check_tree(tracer.spans)
    assert [context.span_id for context in told(both.a) + told(both.b)] == [lost.span_id, won.span_id]
    assert attributes(lost)["trioproxy.result"] == "hedge_lost" and attributes(won)["trioproxy.result"] == "200"
    assert (won.start_time_unix_nano - lost.start_time_unix_nano) == pytest.approx(1e9, rel=0.01)
    assert lost.end_time_unix_nano <= won.end_time_unix_nano and root.end_time_unix_nano >= won.end_time_unix_nano


async def test_a_client_that_leaves_ends_both_spans(clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    async def endless(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(WORD))
        await visit.wait_left()

    async with open_house(endless, tracer=tracer) as house:
        client = house.connect()
        await client.post(CHAT, headers=TRACED)
        await client.read_some()
        await trio.sleep(3)
        client.leave()
    root, child = tracer.spans
    check_tree(tracer.spans)
    assert attributes(root)["trioproxy.cancel_reason"] == "client_gone"
    assert root.status.code == child.status.code == Status.STATUS_CODE_UNSET
    took_ns = root.end_time_unix_nano - root.start_time_unix_nano
    assert took_ns == pytest.approx(3e9, rel=0.01)


async def test_a_cut_stream_is_an_error_of_both_spans(clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    async def cut(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(content("half")))
        await trio.sleep(1)
        visit.cut()

    async with open_house(cut, tracer=tracer) as house:
        assert not (await ask_stream(house)).is_complete
    assert [span.status.code for span in tracer.spans] == [Status.STATUS_CODE_ERROR] * 2
    assert {attributes(span)["error.type"] for span in tracer.spans} == {"upstream_truncated"}


async def test_a_shared_stream_is_a_span_below_the_request_that_began_it(
    clock: trio.testing.MockClock, tracer: ListTracer
) -> None:
    origin = Plays(slowly)
    async with open_house(origin, tracer=tracer) as house, trio.open_nursery() as nursery:
        nursery.start_soon(ask_shared, house, SHARED + TRACED)
        await ask_shared(house, SHARED, wait_s=2)
    by_kind = {kind: [span for span in tracer.spans if span.kind == kind] for kind in Span.SpanKind.values()}
    [shared], [tried] = by_kind[Span.SPAN_KIND_INTERNAL], by_kind[Span.SPAN_KIND_CLIENT]
    first, second = sorted(by_kind[Span.SPAN_KIND_SERVER], key=lambda span: span.start_time_unix_nano)
    assert (first.parent_span_id, shared.parent_span_id) == (CALLER.span_id, first.span_id)
    assert tried.parent_span_id == shared.span_id and told(origin)[0].span_id == tried.span_id
    assert second.trace_id != first.trace_id and second.parent_span_id == b""


async def test_probes_are_not_traced(clock: trio.testing.MockClock, tracer: ListTracer) -> None:
    async with open_house(Plays(OK), tracer=tracer) as house:
        for path in ("/healthz", "/readyz"):
            await ask(house, path=path, method="GET")
        await ask(house, path="/v1/no-such-thing/../x", method="GET")
    assert [span.name for span in tracer.spans] == ["GET /v1/{path}"]
