"""Streams that several clients read, or that outlive their client's connection: how one is found, or produced.

The producer is a request without a client: it runs in the hub's nursery, with an exit stack, clocks and a record of its
own, and is relayed as any other, into a log. How a client reads it is in `reading`. Called by `web`.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog
import trio

from trioproxy.errors import CancelReason, ProxyError, StateUnavailable, StreamNotFound
from trioproxy.hub.hub import Hub, new_id
from trioproxy.hub.live import LiveStream
from trioproxy.hub.recorder import Recorder
from trioproxy.hub.replicas import Replicas
from trioproxy.policy.replay import Slow
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.reading import read_stream
from trioproxy.relay.relay import refuse, relay
from trioproxy.telemetry.exchange import MAX_WORD
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.wire.sharing import Wish

log = structlog.get_logger()

WARN_EVERY_S = 10.0
"""How often the log is told that nothing is shared."""


class Books(Protocol):
    """Who keeps account of what is produced."""

    async def begin_production(self, call: Call, lifetime: Lifetime, stream: LiveStream) -> None:
        """A stream's production begins, and is over when the lifetime's stack is left; it may be refused by a
        ProxyError."""
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
        # At another route, or of another model, something else is asked for; and who may not ask for that model shall
        # not read what others do.
        model = (call.exchange.model or "")[:MAX_WORD]
        key = f"{call.dialect.value}:{len(model)}:{model}:{wish.share_key}"
    linger_s = max(linger_s if key is not None else 0.0, wish.resume_s)
    begin = partial(_start, call, studio, timing, caller, key, linger_s)
    try:
        stream = await _find_or_start(call, studio, caller, key, begin)
    except StateUnavailable:
        if wish.resume_s or has_ids:
            raise
        call.exchange.notes["shared"] = False
        studio.warn_alone()
        if call.ticket is not None:
            await call.ticket.enter(call.exchange, lifetime.stack)
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
        partial(_produce, replace(call, exchange=exchange, wants_timing=False), studio, timing),
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
                await studio.books.begin_production(call, lifetime, stream)
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
