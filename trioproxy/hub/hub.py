"""The hub: every stream that others may join or come back to, its producer's task, and the bounds on all of them.

It is handed callables that produce streams and owns their tasks (`run`, in the process nursery). A stream that has
ended stays for a while, so that who lost the connection at the end can still read the rest.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from secrets import token_urlsafe

import trio

from trioproxy.errors import CancelReason, HubFull, StreamNotFound
from trioproxy.hub.live import LiveStream, Outcome
from trioproxy.policy.replay import Pool, Replay, no_counts
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.tally import Tally

Guard = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs a task so that a bug in it ends nothing else."""
Produce = Callable[[LiveStream], Awaitable[None]]
"""Writes a stream, from its head to its end, and returns. Its own exit stack holds what it needs."""


_MIRROR_LINGER_S = 2.0
"""How long a mirror that nobody reads is kept: a reader that comes back at once finds it."""
_MIRROR_STALL_S = 30.0


def new_id() -> str:
    """A stream's id: nobody can guess it."""
    return token_urlsafe(18)


@dataclass(frozen=True, slots=True)
class HubBounds:
    """What the hub may hold: per stream `max_events` and `max_bytes`, over all streams `max_total_bytes` and
    `max_streams`, per caller `max_per_caller`; ended ones stay for `retain_s`."""

    max_events: int = 10_000
    max_bytes: int = 4 * 1024 * 1024
    max_total_bytes: int = 256 * 1024 * 1024
    max_streams: int = 1_000
    max_per_caller: int = 100
    retain_s: float = 60.0
    resume_max_s: float = 300.0


class Hub:
    """The live and the recent streams of one process.

    Attributes:
        producers: those that are at work.
        counts: what readers came to, by what becomes of slow ones.
        warned_at: when it was last said that nothing can be shared, trio's clock.
    """

    def __init__(self, guard: Guard, bounds: HubBounds | None = None) -> None:
        self.bounds = bounds or HubBounds()
        self._guard = guard
        self.producers = Tally()
        self.counts = no_counts()
        self.warned_at = -inf
        self._nursery: trio.Nursery | None = None
        self._pool = Pool(self.bounds.max_total_bytes)
        self._under_way = 0
        self._idle = trio.lowlevel.ParkingLot()
        self._streams: dict[str, LiveStream] = {}
        self._shared: dict[tuple[str | None, str], LiveStream] = {}
        self._per_caller: Counter[str | None] = Counter()
        self._ended: deque[LiveStream] = deque()
        self._has_ended = trio.Event()

    async def run(self) -> None:
        """Own the producers, and forget what ended long enough ago, until stopped or cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await self._forget_expired()
            finally:
                self._nursery = None  # none begins any more
                for stream in self._streams.values():
                    stream.stop_waiting()

    def stop(self) -> None:
        """End all producers at once."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=CancelReason.DRAIN.value)

    def find_shared(self, caller: str | None, share_key: str) -> LiveStream | None:
        """The live stream of this caller with this key, if one who comes now would get the whole of it."""
        stream = self._shared.get((caller, share_key))
        return stream if stream is not None and stream.can_be_joined else None

    def knows(self, stream_id: str) -> bool:
        """Whether a stream is produced, kept or mirrored here."""
        return stream_id in self._streams

    def find(self, stream_id: str, caller: str | None) -> LiveStream:
        """A live or recent stream of this caller. Raises StreamNotFound, also for somebody else's."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.caller != caller:
            raise StreamNotFound("There is no such stream, or it is too long ago, or it is not yours.")
        return stream

    def start(
        self,
        produce: Produce,
        exchange: Exchange,
        *,
        caller: str | None,
        share_key: str | None,
        linger_s: float,
        client_stall_s: float,
        stream_id: str | None = None,
    ) -> LiveStream:
        """Begin a stream; who started it subscribes before the next checkpoint. Raises HubFull."""
        self._check_room(caller)
        bounds = self.bounds
        stream = LiveStream(
            stream_id or new_id(),
            caller=caller,
            share_key=share_key,
            linger_s=min(linger_s, bounds.resume_max_s),
            client_stall_s=client_stall_s,
            log=Replay[Outcome](bounds.max_events, bounds.max_bytes, self.counts, pool=self._pool),
            exchange=exchange,
        )
        self._keep(stream)
        if share_key is not None:
            self._shared[caller, share_key] = stream
        self.producers.open_one()
        self.spawn(partial(self._produce, produce, stream))
        return stream

    def adopt(self, stream_id: str, caller: str | None, exchange: Exchange, *, first: int) -> LiveStream:
        """Keep a stream that is produced elsewhere, from event `first` on, until `disown`. Raises HubFull."""
        self._check_room(caller)
        bounds = self.bounds
        stream = LiveStream(
            stream_id,
            caller=caller,
            share_key=None,
            linger_s=_MIRROR_LINGER_S,
            client_stall_s=_MIRROR_STALL_S,
            log=Replay[Outcome](bounds.max_events, bounds.max_bytes, self.counts, first=first, pool=self._pool),
            exchange=exchange,
        )
        self._keep(stream)
        return stream

    def disown(self, stream: LiveStream) -> None:
        """Forget a stream that was adopted."""
        stream.end(Outcome(is_clean=False))
        self._forget(stream)

    def spawn(self, run: Callable[[], Awaitable[None]], *, is_awaited: bool = True) -> None:
        """Run something beside the producers, for as long as they may run. `is_awaited`: a process that goes down
        lets it come to its end, if there is time."""
        if self._nursery is not None:
            self._under_way += is_awaited
            self._nursery.start_soon(self._guard, partial(self._run, run, is_awaited))

    async def _run(self, run: Callable[[], Awaitable[None]], is_awaited: bool) -> None:
        try:
            await run()
        finally:
            self._under_way -= is_awaited
            if not self._under_way:
                self._idle.unpark_all()

    async def wait_idle(self) -> None:
        """Wait until nothing is produced any more, and all replicas know how it ended."""
        while self._under_way:
            await self._idle.park()

    def stop_stream(self, stream_id: str) -> None:
        """End a stream for everyone, if it is produced here."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.stop is not None:
            stream.stop(CancelReason.STOPPED)

    @property
    def held_bytes(self) -> int:
        """The bytes of all logs."""
        return self._pool.held_bytes

    @property
    def streams(self) -> list[LiveStream]:
        """The live and the recent ones."""
        return list(self._streams.values())

    def _check_room(self, caller: str | None) -> None:
        bounds = self.bounds
        if (
            self._nursery is None
            or len(self._streams) >= bounds.max_streams
            or self._per_caller[caller] >= bounds.max_per_caller
            or self.held_bytes >= bounds.max_total_bytes
        ):
            raise HubFull("Too many streams are kept here to be shared or resumed; ask without that, or later.")

    def _keep(self, stream: LiveStream) -> None:
        self._streams[stream.id] = stream
        self._per_caller[stream.caller] += 1

    async def _produce(self, produce: Produce, stream: LiveStream) -> None:
        try:
            await produce(stream)
        finally:
            self.producers.release_one()
            stream.end(Outcome(is_clean=False, code=stream.exchange.code))
            key = (stream.caller, stream.share_key or "")
            if self._shared.get(key) is stream:
                del self._shared[key]
            if stream.head is None or stream.head.body is not None:
                self._forget(stream)  # an error: nobody comes back to that
            else:
                self._ended.append(stream)
                self._has_ended.set()

    async def _forget_expired(self) -> None:
        """Wait until a stream has been over for long enough, and forget it."""
        while not self._ended:
            self._has_ended = trio.Event()
            await self._has_ended.wait()
        stream = self._ended[0]
        assert stream.ended_at is not None
        await trio.sleep_until(stream.ended_at + self.bounds.retain_s)
        self._ended.popleft()
        self._forget(stream)

    def _forget(self, stream: LiveStream) -> None:
        self._streams.pop(stream.id, None)
        stream.log.leave_pool()
        self._per_caller[stream.caller] -= 1
        if not self._per_caller[stream.caller]:
            del self._per_caller[stream.caller]
