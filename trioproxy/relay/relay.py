"""One request's whole life between the two sides. Called by `web`, in the request's own task."""

import trio

from trioproxy.errors import (
    CancelReason,
    Draining,
    InternalError,
    ProxyError,
    StreamStopped,
    UpstreamErrorInStream,
    UpstreamFault,
    UpstreamTotalTimeout,
)
from trioproxy.relay.aggregator import Aggregator
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.copier import Copier, tells_usage
from trioproxy.relay.figures import timing_filter
from trioproxy.relay.heads import error_head, event_stream_head, json_head, plain_head
from trioproxy.relay.opening import Opening
from trioproxy.relay.pump import End, Follower, Piece, Pump
from trioproxy.relay.session import Session
from trioproxy.relay.shaper import Cut, ErrorInside, Shaper
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.flow import PROXY, UPSTREAM, Flow
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.wire import render
from trioproxy.wire.continuing import CONTINUED, Transcript
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers, find, is_encoded, is_event_stream
from trioproxy.wire.timing_filter import TimingFilter
from trioproxy.wire.usage import usage_of
from trioproxy.wire.usage_filter import UsageFilter


async def relay(call: Call, dispatcher: Dispatcher, timing: Timing, lifetime: Lifetime, downstream: Downstream) -> None:
    """Relay one call and end its answer, honestly, one way or another.

    Raises nothing but a bug. If cancelled, the client is gone and what was opened is on the request's exit stack.
    """
    opening = Opening(call, dispatcher, timing, lifetime, downstream)
    tries = _Tries(call, opening, timing, lifetime, downstream)
    error: ProxyError | None = None
    try:
        with lifetime.traffic:
            while await tries.make_one():
                pass
    except ErrorInside as inside:
        assert tries.attempt is not None
        await _answer_error_inside(call, tries.attempt, downstream, inside.data)
    except ProxyError as fault:
        error = fault.with_traceback(None)  # that holds this frame, which holds the error: a ring
    if lifetime.stopped is not None and lifetime.traffic.cancelled_caught:
        error = stopped(lifetime.stopped)
    if error is None or downstream.is_finished:
        return
    if downstream.has_head:
        await tries.answer.break_off(error)
    else:
        await refuse(error, call.dialect, call.exchange, downstream)


class _Tries:
    """The tries of one call; `attempt` and `answer` are those of the last one."""

    def __init__(
        self, call: Call, opening: Opening, timing: Timing, lifetime: Lifetime, downstream: Downstream
    ) -> None:
        self._call = call
        self._opening = opening
        self._timing = timing
        self._lifetime = lifetime
        self._downstream = downstream
        self.attempt: Attempt | None = None
        self.answer: Opening | Shaper | Copier | Aggregator | Session = opening
        may_continue = opening.may_continue and call.dialect in CONTINUED
        self._transcript = Transcript(call.dialect, call.json) if may_continue and call.json is not None else None
        self._timing_filter: TimingFilter | None = None
        self._cut: UpstreamFault | None = None  # behind which the present attempt goes on

    async def make_one(self) -> bool:
        """Relay what the next attempt brings; True if that failed and another is to be made."""
        call, downstream = self._call, self._downstream
        if self._cut is None:
            call.exchange.events = 0  # a try before this one came to nothing that anybody saw
        attempt = self.attempt = await self._open()
        if call.socket is not None and attempt.status == 101:
            session = Session(call, call.socket, attempt, downstream, self._timing, self._lifetime)
            await session.open()
            self.answer = session
            await session.run()
            return False
        if (whole := _whole(call, attempt)) is not None:
            if tells_usage(call, attempt):
                call.exchange.usage = usage_of(whole, call.dialect)
            downstream.head(
                attempt.status, plain_head(call.exchange, attempt, length=b"%d" % len(whole), is_whole=True)
            )
            await downstream.finish(whole)
            return False
        follower = self._follow(attempt)
        pump = Pump(attempt, follower, self._timing, call.exchange)
        self.answer, headers = self._answer(attempt, follower, pump)
        try:
            await _pass_on(self.answer, pump, call.exchange.flow, self._lifetime, attempt.status, headers)
        except (ErrorInside, UpstreamFault) as failure:
            fault = _fault(failure.with_traceback(None), attempt)  # that holds this frame: a ring
            attempt.note_fault(fault)
            if downstream.has_head or pump.first_content_at is not None:
                raise
            await pump.drained.wait()  # it reads what may be closed now
            if not await self._opening.goes_on(fault):
                raise
            return True
        except Cut as cut:
            await pump.drained.wait()
            return await self._continue(cut.fault.with_traceback(None))
        finally:
            if follower is not None:
                exchange = call.exchange
                exchange.events = pump.events
                if tells_usage(call, attempt):
                    exchange.usage = attempt.usage or follower.watch.usage or exchange.usage
        return False

    def _follow(self, attempt: Attempt) -> Follower | None:
        """Who follows the event stream that an attempt brings; None for what is none, or cannot be looked at."""
        call = self._call
        if not _is_stream(attempt) or call.method == "HEAD":
            return None
        if is_encoded(attempt.headers):
            call.exchange.notes["encoded_stream"] = True
            return None
        watch = call.dialect.watch()
        if not call.wants_timing or attempt.is_to_be_folded:
            self._timing_filter = None
        elif self._cut is None or self._timing_filter is None:
            self._timing_filter = timing_filter(call, call.exchange, watch)
        usage_filter = UsageFilter() if attempt.has_asked_usage else None
        return Follower(watch, self._transcript, usage_filter, self._timing_filter)

    async def _open(self) -> Attempt:
        try:
            return await self._opening.run()
        except ProxyError:
            if self._cut is not None:  # what went wrong with the stream, not with the going on
                raise self._cut from None
            raise

    def _answer(
        self, attempt: Attempt, follower: Follower | None, pump: Pump
    ) -> tuple[Shaper | Copier | Aggregator, Headers]:
        """Who writes the answer, and its head."""
        call, downstream = self._call, self._downstream
        exchange = call.exchange
        if follower is None:
            headers = plain_head(exchange, attempt, length=find(attempt.headers, b"content-length"))
            return Copier(call, attempt, downstream), headers
        if attempt.is_to_be_folded:
            exchange.notes["aggregated"] = True
            return Aggregator(call, attempt, follower, pump, downstream), json_head(exchange, attempt)
        shaper = Shaper(
            call,
            attempt,
            follower,
            pump,
            downstream,
            self._timing,
            quiet_since=self._opening.quiet_since,
            waits_for_content=self._opening.may_go_on,
        )
        return shaper, event_stream_head(exchange, attempt, may_continue=self._transcript is not None)

    async def _continue(self, fault: UpstreamFault) -> bool:
        """Have another origin go on with a stream that was cut, or tell the client that it was."""
        exchange, transcript = self._call.exchange, self._transcript
        assert transcript is not None
        if not self._opening.continues(transcript.continued_request()):
            await self.answer.break_off(fault)
            return False
        self._cut = fault
        transcript.begin_attempt()
        exchange.notes["continued"] = exchange.notes.get("continued", 0) + 1
        return True


async def _pass_on(
    answer: Shaper | Copier | Aggregator, pump: Pump, flow: Flow, lifetime: Lifetime, status: int, headers: Headers
) -> None:
    """Let the pump read and the answer be written, until one of them has come to its end."""
    flow.turn(UPSTREAM, trio.current_time())
    sender, receiver = trio.open_memory_channel[Piece | End](0)
    lifetime.nursery.start_soon(pump.run, sender)
    try:
        await answer.run(receiver, status, headers)
    finally:
        pump.stop()
        flow.turn(PROXY, trio.current_time())


def _fault(failure: ErrorInside | UpstreamFault, attempt: Attempt) -> UpstreamFault:
    if isinstance(failure, UpstreamFault):
        return failure
    return render.error_in_stream(render.status_of(failure.data), failure.data, attempt.endpoint.name)


async def refuse(error: ProxyError, dialect: Dialect, exchange: Exchange, downstream: Downstream) -> None:
    """Answer with an error, while no head went out."""
    status, headers, body = render.response(error, dialect, exchange.request_id)
    exchange.fail(error)
    downstream.head(status, headers)
    await downstream.finish(body)


def stopped(reason: CancelReason) -> ProxyError:
    """What a client is told of a request that was stopped."""
    match reason:
        case CancelReason.TOTAL:
            return UpstreamTotalTimeout("The request took longer than it may take in all.")
        case CancelReason.DRAIN:
            return Draining("This server is going down; send the request again.")
        case CancelReason.STOPPED | CancelReason.ADMIN:
            return StreamStopped("This stream was stopped.")
        case _:
            return InternalError("The request was stopped.")


def _whole(call: Call, attempt: Attempt) -> bytes | None:
    """The body, if it came with the head and needs no looking at: it goes out in one write, without a pump."""
    if call.method == "HEAD" or attempt.status in (204, 304) or _is_stream(attempt):
        return None
    return attempt.take_whole()


def _is_stream(attempt: Attempt) -> bool:
    """Whether the answer is an event stream that has to end with its dialect's terminal; an error's body has not."""
    return attempt.status < 300 and is_event_stream(attempt.headers)


async def _answer_error_inside(call: Call, attempt: Attempt, downstream: Downstream, data: bytes) -> None:
    """The origin said 200 and then sent an error: the client gets the error, with the status it stands for."""
    status = render.status_of(data)
    call.exchange.fail(UpstreamErrorInStream("The first event is an error.", status=status))
    downstream.head(status, error_head(call.exchange, attempt, len(data)))
    await downstream.finish(data)
