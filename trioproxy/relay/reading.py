"""One client's reading of a stream that others may read too, or that it comes back to.

A reader holds a place in the stream's log and writes what is there to its client, several events at once where it is
behind; where nothing is there it waits for news, and writes a heartbeat now and then. Called by `shared` and by `web`.
"""

import trio

from trioproxy.errors import CancelReason, ReaderTooSlow
from trioproxy.hub.live import Head, LiveStream, Outcome, Subscription
from trioproxy.policy.replay import Batch, Slow
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.figures import timing_filter
from trioproxy.relay.heads import head_time
from trioproxy.relay.relay import refuse, stopped
from trioproxy.relay.shaper import send_comment, send_error_event, send_heartbeat
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.wire.headers import Headers
from trioproxy.wire.sse import Framer

JOINED_BYTES = 65536
"""How much of what a reader lacks is written at once."""

_OF_ONE_REQUEST = frozenset({b"x-request-id", b"x-trioproxy-request-id", b"x-trioproxy-stream", b"server-timing"})


async def read_stream(
    stream: LiveStream,
    after: int,
    slow: Slow,
    call: Call,
    timing: Timing,
    lifetime: Lifetime,
    downstream: Downstream,
    *,
    has_ids: bool = False,
    retry_ms: int | None = None,
) -> None:
    """Write a stream to a client, from behind event `after` on, until both have come to its end.

    `has_ids`: each event with its id. `retry_ms`: the client is a browser's EventSource; it is told with the head where
    it is, and to come back so soon when the connection is lost.

    Raises PositionGone while nothing went out. If cancelled, the client is gone; its place is given up.
    """
    subscription = lifetime.stack.enter_context(stream.subscribed(after, slow))
    greeting = b"" if retry_ms is None else b"retry: %d\nid: %b.%d\n\n" % (retry_ms, stream.id.encode("ascii"), after)
    reading = _Reading(stream, subscription, call, timing, downstream, has_ids, greeting)
    with lifetime.traffic:
        await reading.run()
    if lifetime.stopped is not None and lifetime.traffic.cancelled_caught and not downstream.is_finished:
        await reading.stop(lifetime.stopped)


class _Reading:
    """One client's reading of one stream."""

    def __init__(
        self,
        stream: LiveStream,
        subscription: Subscription,
        call: Call,
        timing: Timing,
        downstream: Downstream,
        has_ids: bool,
        greeting: bytes,
    ) -> None:
        self._stream = stream
        self._subscription = subscription
        self._call = call
        self._timing = timing
        self._downstream = downstream
        self._has_ids = has_ids
        self._greeting = greeting
        self._quiet_since = 0.0
        self._joining = timing.joining()
        self._watch = call.dialect.watch()  # of what is written; looked at only where events are joined
        self._framer = Framer(self._watch)
        self._timing_filter = timing_filter(call, stream.exchange) if call.wants_timing else None
        call.exchange.notes["stream_id"] = stream.id

    async def run(self) -> None:
        """Write until the end."""
        downstream, exchange = self._downstream, self._call.exchange
        exchange.flow.turn(UPSTREAM, trio.current_time())
        head = await self._subscription.wait_head()
        exchange.flow.turn(PROXY, trio.current_time())
        exchange.upstream = self._stream.exchange.upstream
        exchange.head_at = trio.current_time()
        downstream.head(head.status, self._fields(head))
        if head.body is not None:
            exchange.outcome, exchange.code = self._stream.exchange.outcome, self._stream.exchange.code
            if head.is_whole:
                await downstream.finish(head.body)
            else:
                await downstream.send(head.body)
                downstream.abort()
            return
        if self._greeting:
            await downstream.send(self._greeting)
        self._quiet_since = trio.current_time()
        while not await self._write_what_is_there():
            # As in the shaper: one scope for many waits, which looks when it fires. A send is not cut short by it.
            with trio.CancelScope(deadline=self._due) as scope:
                while True:
                    exchange.flow.turn(UPSTREAM, trio.current_time())
                    await self._subscription.wait_news()
                    exchange.flow.turn(PROXY, trio.current_time())
                    if await self._write_what_is_there():
                        return
                    if self._joining is not None:
                        scope.deadline = min(scope.deadline, self._due)
            await self._keep_alive()

    async def stop(self, reason: CancelReason) -> None:
        """The request was stopped, not the stream: tell the client."""
        error = stopped(reason)
        if self._downstream.has_head:
            await self._write_held()
            await send_error_event(error, self._call, self._downstream)
        else:
            await refuse(error, self._call.dialect, self._call.exchange, self._downstream)

    async def _write_what_is_there(self) -> bool:
        """Write events until none is there; True if the answer is over."""
        downstream, exchange = self._downstream, self._call.exchange
        while True:
            batch = self._subscription.take(JOINED_BYTES)
            if batch.lost and batch.events:  # an overrun reader is told in another way
                await self._write_held()
                await send_comment(b"lost %d events" % batch.lost, self._call, downstream)
            if batch.events:
                if exchange.first_content_at is None:
                    exchange.first_content_at = trio.current_time()
                exchange.events += len(batch.events)
                data = b"".join(self._numbered(batch) if self._has_ids else batch.events)
                if self._timing_filter is not None:
                    data = self._timing_filter.feed(data)
                if self._joining is not None:
                    if self._holds(batch, data):
                        continue
                    data = self._joining.take(data)
                await downstream.send(data)
                self._quiet_since = trio.current_time()
            elif batch.is_overrun:
                await self._write_held()
                error = ReaderTooSlow("This reader was too slow: what comes next is not kept any more.")
                await send_error_event(error, self._call, downstream)
                return True
            elif batch.outcome is not None:
                await self._end(batch.outcome)
                return True
            elif downstream.has_head:
                return False
            else:
                await downstream.send(b"")  # the head alone: it may be long until something comes behind it

    def _numbered(self, batch: Batch[Outcome]) -> list[bytes]:
        first = batch.next_number - len(batch.events)
        name = self._stream.id.encode("ascii")
        return [b"id: %b.%d\n%b" % (name, number, event) for number, event in enumerate(batch.events, first)]

    @property
    def _due(self) -> float:
        """When there is something to write though nothing comes: what is held, or else a heartbeat."""
        if self._joining is not None and self._joining.is_holding:
            return self._joining.due
        return self._quiet_since + self._timing.heartbeat_s

    def _holds(self, batch: Batch[Outcome], data: bytes) -> bool:
        """Hold events that may wait: neither the first content nor the end, nor so many that it is enough."""
        assert self._joining is not None
        has_content = self._watch.saw_content
        self._framer.feed(b"".join(batch.events))
        may_wait = has_content and not self._watch.saw_done
        if not may_wait or not self._joining.has_room_for(data, len(batch.events)):
            return False
        self._joining.hold(data, len(batch.events), trio.current_time())
        return True

    async def _write_held(self) -> None:
        if self._joining is not None and self._joining.is_holding:
            await self._downstream.send(self._joining.take())
            self._quiet_since = trio.current_time()

    async def _end(self, outcome: Outcome) -> None:
        if outcome.is_clean:
            await self._downstream.finish(b"" if self._joining is None else self._joining.take())
            return
        await self._write_held()
        produced, exchange = self._stream.exchange, self._call.exchange
        exchange.outcome, exchange.code = "failed", outcome.code or produced.code or produced.reason
        self._downstream.abort()

    async def _keep_alive(self) -> None:
        """Write what was held for long enough; else a comment, if the stream was silent for long enough."""
        if trio.current_time() < self._due:
            return
        if self._joining is not None and self._joining.is_holding:
            await self._write_held()
            return
        self._quiet_since = trio.current_time()
        await send_heartbeat(self._call, self._downstream)

    def _fields(self, head: Head) -> Headers:
        exchange = self._call.exchange
        kept = [field for field in head.headers if field[0] not in _OF_ONE_REQUEST]
        return [
            *kept,
            (b"x-request-id", exchange.request_id.encode("ascii")),
            (b"x-trioproxy-stream", self._stream.id.encode("ascii")),
            head_time(exchange, trio.current_time()),
        ]
