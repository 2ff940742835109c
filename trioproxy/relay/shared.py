"""Streams that several clients read, or that outlive their client's connection: how one is produced and how it is read.

The producer is a request without a client: it runs in the hub's nursery, with an exit stack, clocks and a record of its
own, and is relayed as any other, into a log. A reader holds a place in that log and writes what is there to its client,
several events at once where it is behind. Called by `web`.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog
import trio

from trioproxy.errors import CancelReason, ProxyError, ReaderTooSlow, StateUnavailable, StreamNotFound
from trioproxy.hub.hub import Hub, new_id
from trioproxy.hub.live import Head, LiveStream, Outcome, Subscription
from trioproxy.hub.recorder import Recorder
from trioproxy.hub.replicas import Replicas
from trioproxy.policy.replay import Batch, Slow
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.relay import refuse, relay, stopped
from trioproxy.relay.shaper import send_comment, send_error_event, send_heartbeat
from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.wire.headers import Headers
from trioproxy.wire.sharing import Wish
from trioproxy.wire.sse import Framer

log = structlog.get_logger()

WARN_EVERY_S = 10.0
"""How often the log is told that nothing is shared."""
JOINED_BYTES = 65536
"""How much of what a reader lacks is written at once."""

_OF_ONE_REQUEST = frozenset({b"x-request-id", b"x-trioproxy-request-id", b"x-trioproxy-stream"})


class Books(Protocol):
    """Who keeps account of what is produced."""

    def begin_production(self, lifetime: Lifetime, stack: AsyncExitStack) -> None:
        """A stream's production begins; it may be refused by a ProxyError."""
        ...

    def end_production(self, lifetime: Lifetime, exchange: Exchange, stream: LiveStream) -> None:
        """It is over."""
        ...


@dataclass(frozen=True, slots=True)
class Studio:
    """What producing and reading take. `sees_all`: no other process has streams that cannot be seen here."""

    hub: Hub
    dispatcher: Dispatcher
    books: Books
    replicas: Replicas | None = None
    sees_all: bool = True

    def warn_alone(self) -> None:
        """Log that requests are relayed alone that should share, now and then."""
        now = trio.current_time()
        if now >= self.hub.warned_at + WARN_EVERY_S:
            self.hub.warned_at = now
            log.warning("streams cannot be shared now: requests are relayed alone", sees_all=self.sees_all)

    def check_sight(self) -> None:
        """Raise StateUnavailable where other workers may have streams that nobody here can see."""
        if not self.sees_all:
            raise StateUnavailable("Several workers serve here, and no store is configured that tells them of streams.")

    async def find(self, stream_id: str, caller: str | None) -> LiveStream:
        """A live or recent stream of this caller, wherever it is. Raises StreamNotFound or StateUnavailable."""
        self.check_sight()
        if self.replicas is None or self.hub.knows(stream_id):
            return self.hub.find(stream_id, caller)
        return await self.replicas.find(stream_id, caller)

    async def stop(self, stream: LiveStream) -> None:
        """End a stream for everyone. Raises StateUnavailable."""
        if stream.stop is not None:
            stream.stop(CancelReason.STOPPED)
        elif self.replicas is not None and stream.is_live:
            await self.replicas.stop(stream.id)


async def share(
    call: Call,
    wish: Wish,
    caller: str | None,
    linger_s: float,
    studio: Studio,
    timing: Timing,
    lifetime: Lifetime,
    downstream: Downstream,
    *,
    has_ids: bool = False,
    retry_ms: int | None = None,
) -> None:
    """Answer a request from a stream that it shares or may come back to: one that is live, or a new one.

    `call.exchange` is the client's own record; a new stream's production has another one. `has_ids` and `retry_ms` are
    as in `read_stream`. Raises HubFull.
    """
    key = None
    if wish.share_key is not None and caller is not None:  # nobody shares with nobody
        key = f"{call.dialect.value}:{wish.share_key}"  # the same body at another route asks for something else
    linger_s = max(linger_s if key is not None else 0.0, wish.resume_s)
    begin = partial(_start, call, studio, timing, caller, key, linger_s)
    try:
        stream = await _find_or_start(call, studio, caller, key, begin)
    except StateUnavailable:
        if wish.resume_s or has_ids:
            raise
        call.exchange.notes["shared"] = False
        studio.warn_alone()
        await relay(call, studio.dispatcher, timing, lifetime, downstream)
        return
    stream.linger_s = max(stream.linger_s, min(linger_s, studio.hub.bounds.resume_max_s))
    slow = Slow(wish.slow)
    await read_stream(stream, 0, slow, call, timing, lifetime, downstream, has_ids=has_ids, retry_ms=retry_ms)


async def _find_or_start(
    call: Call, studio: Studio, caller: str | None, key: str | None, begin: Callable[[str], LiveStream]
) -> LiveStream:
    """The stream that others produce already, here or on another replica, else a new one. Raises HubFull or
    StateUnavailable."""
    hub, replicas = studio.hub, studio.replicas
    studio.check_sight()
    if replicas is None:
        shared = None if key is None else hub.find_shared(caller, key)
        return shared or begin(new_id())
    async with replicas.claiming(caller, key):
        shared = None if key is None else hub.find_shared(caller, key)
        if shared is not None:
            return shared
        stream_id = new_id()
        winner = await replicas.claim(stream_id, caller, call.dialect, key)
        if winner != stream_id:
            try:
                mirrored = await replicas.find(winner, caller)
                if mirrored.can_be_joined:
                    return mirrored
            except StreamNotFound:
                pass  # it ended in this moment
            await replicas.claim(stream_id, caller, call.dialect, None)
        stream = begin(stream_id)
        replicas.tell(stream)
        return stream


def _start(
    call: Call,
    studio: Studio,
    timing: Timing,
    caller: str | None,
    key: str | None,
    linger_s: float,
    stream_id: str,
) -> LiveStream:
    """Begin to produce a stream; who asked for it reads it before the next checkpoint."""
    exchange = call.exchange.beginning(trio.current_time())
    exchange.endpoint = call.dialect.value  # the client may have asked by another path
    return studio.hub.start(
        partial(_produce, replace(call, exchange=exchange), studio, timing),
        exchange,
        caller=caller,
        share_key=key,
        linger_s=linger_s,
        client_stall_s=timing.client_stall_s,
        stream_id=stream_id,
    )


async def _produce(call: Call, studio: Studio, timing: Timing, stream: LiveStream) -> None:
    recorder = Recorder(stream)
    exchange = call.exchange
    async with AsyncExitStack() as stack:
        stack.callback(recorder.close)
        async with trio.open_nursery() as nursery:
            lifetime = Lifetime(nursery, stack, stream.stop_waiting)
            stream.stop = lifetime.stop
            lifetime.end_at(exchange.accepted + timing.total_s)
            nursery.start_soon(_watch, stream, lifetime)
            try:
                studio.books.begin_production(lifetime, stack)
                stack.callback(studio.books.end_production, lifetime, exchange, stream)
                # Readers join events, each by itself: the log is never behind.
                await relay(call, studio.dispatcher, replace(timing, coalesce_s=0.0), lifetime, recorder)
            except ProxyError as error:
                await refuse(error, call.dialect, exchange, recorder)
            finally:
                stream.stop = None  # it holds the lifetime, which holds the stream
            nursery.cancel_scope.cancel(reason=CancelReason.FINISHED.value)


async def _watch(stream: LiveStream, lifetime: Lifetime) -> None:
    """End the production when nobody reads it any more; stop it when its whole time is over."""
    with lifetime.whole:
        await stream.wait_abandoned()
    if lifetime.whole.cancelled_caught:
        lifetime.stop(CancelReason.TOTAL)
        await stream.wait_abandoned()
    stream.stop_waiting()
    reason = lifetime.stopped or CancelReason.ABANDONED
    stream.exchange.cancel(reason.value)
    lifetime.nursery.cancel_scope.cancel(reason=reason.value)


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
        call.exchange.notes["stream_id"] = stream.id

    async def run(self) -> None:
        """Write until the end."""
        downstream, exchange = self._downstream, self._call.exchange
        head = await self._subscription.wait_head()
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
                    await self._subscription.wait_news()
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
        ]
