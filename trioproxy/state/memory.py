"""The store of one process alone: what `streams` promises, in dictionaries, for as long as the process lives."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence

import trio

from trioproxy.state.streams import (
    Batch,
    Fate,
    Head,
    Limits,
    Renewal,
    StreamLost,
    StreamRecord,
    batch_behind,
)

MOMENT_S = 0.2
"""How long a read waits for something to come."""
_SWEEP_S = 1.0
"""How often claims look for what has run out."""

_Share = tuple[str, str]
"""A caller and its share key."""


class _Stream:
    """One stream: its record, its log, and until when."""

    def __init__(self, record: StreamRecord, share: _Share | None) -> None:
        self.record = record
        self.share = share
        self.head: Head | None = None
        self.log: deque[tuple[int, bytes]] = deque()
        self.log_bytes = 0
        self.last = 0
        self.outcome: str | None = None
        self.is_stopped = False
        self.lease_until = 0.0
        self.forget_at = 0.0

    def has_owner(self, now: float) -> bool:
        return self.outcome is None and now < self.lease_until

    def renew(self, now: float, limits: Limits) -> None:
        self.lease_until = now + limits.held_s
        self.forget_at = self.lease_until + limits.retain_s


class MemoryStore:
    """The streams of this process. Time is trio's clock.

    Everything that changes is changed at once behind a checkpoint: what was cancelled has changed nothing.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[str, _Stream] = {}
        self._shares: dict[_Share, str] = {}
        self._stops: dict[str, None] = {}
        self._has_changed = trio.Event()
        self._next_sweep = 0.0

    @property
    def limits(self) -> Limits:
        return self._limits

    async def run(self) -> None:
        """Nothing is needed."""

    async def claim(self, record: StreamRecord, share_key: str | None) -> str:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._sweep(now)
        share = None if share_key is None else (record.caller, share_key)
        if share is not None:
            shared = self._find(self._shares.get(share, ""), now)
            if shared is not None and shared.share == share and shared.has_owner(now):
                return shared.record.stream_id
            self._shares[share] = record.stream_id
        stream = self._streams[record.stream_id] = _Stream(record, share)
        stream.renew(now, self._limits)
        return record.stream_id

    async def set_head(self, stream_id: str, head: Head) -> None:
        stream = await self._owned(stream_id)
        if stream.head is None and not stream.last:
            stream.head = head
        self._tell()

    async def append(self, stream_id: str, first: int, events: Sequence[bytes]) -> None:
        stream = await self._owned(stream_id)
        for number, event in enumerate(events, first):
            if number > stream.last:
                stream.log.append((number, event))
                stream.log_bytes += len(event)
                stream.last = number
        while len(stream.log) > 1 and (
            len(stream.log) > self._limits.max_events or stream.log_bytes > self._limits.max_bytes
        ):
            stream.log_bytes -= len(stream.log.popleft()[1])
        self._tell()

    async def end(self, stream_id: str, outcome: str) -> None:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        ended = self._find(stream_id, now)
        if ended is not None and ended.outcome is not None:
            return
        stream = await self._owned(stream_id)
        stream.outcome = outcome
        stream.forget_at = now + self._limits.retain_s
        self._drop_share(stream)
        self._tell()

    async def renew(self, stream_ids: Collection[str]) -> Renewal:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        stopped, lost = set(), set()
        for stream_id in stream_ids:
            stream = self._find(stream_id, now)
            if stream is None or not stream.has_owner(now):
                lost.add(stream_id)
                continue
            stream.renew(now, self._limits)
            if stream.is_stopped:
                stopped.add(stream_id)
        return Renewal(frozenset(stopped), frozenset(lost))

    async def look(self, stream_id: str) -> StreamRecord | None:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        stream = self._find(stream_id, now)
        if stream is None:
            return None
        return StreamRecord(
            stream_id=stream_id,
            caller=stream.record.caller,
            dialect=stream.record.dialect,
            head=stream.head,
            first=stream.log[0][0] if stream.log else 0,
            last=stream.last,
            outcome=stream.outcome,
            has_owner=stream.has_owner(now),
        )

    async def read(self, positions: Mapping[str, int]) -> Mapping[str, Batch]:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(MOMENT_S):
            while not (found := self._behind(positions)):
                await self._has_changed.wait()
            return found
        return self._behind(positions)

    async def stop(self, stream_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        stream = self._find(stream_id, now)
        if stream is None or not stream.has_owner(now):
            return False
        self._drop_share(stream)
        if not stream.is_stopped:
            stream.is_stopped = True
            self._stops[stream_id] = None
            self._tell()
        return True

    async def next_stop(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._stops:
            await self._has_changed.wait()
        stream_id = next(iter(self._stops))
        del self._stops[stream_id]
        return stream_id

    def _find(self, stream_id: str, now: float) -> _Stream | None:
        """A stream that is not forgotten yet."""
        stream = self._streams.get(stream_id)
        return stream if stream is not None and now < stream.forget_at else None

    async def _owned(self, stream_id: str) -> _Stream:
        """A stream whose producer is alive, as of now. Raises StreamLost."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        stream = self._find(stream_id, now)
        if stream is None or not stream.has_owner(now):
            raise StreamLost(f"The stream {stream_id} is not produced here any more.")
        stream.renew(now, self._limits)
        return stream

    def _behind(self, positions: Mapping[str, int]) -> dict[str, Batch]:
        """What there is behind these positions, now."""
        now = trio.current_time()
        found = {}
        for stream_id, position in positions.items():
            batch = _batch(self._find(stream_id, now), position, now)
            if batch != Batch():
                found[stream_id] = batch
        return found

    def _drop_share(self, stream: _Stream) -> None:
        if stream.share is not None and self._shares.get(stream.share) == stream.record.stream_id:
            del self._shares[stream.share]

    def _tell(self) -> None:
        """Wake who waits."""
        self._has_changed.set()
        self._has_changed = trio.Event()

    def _sweep(self, now: float) -> None:
        """Drop what has run out."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_S
        for stream in [stream for stream in self._streams.values() if now >= stream.forget_at]:
            self._drop_share(stream)
            del self._streams[stream.record.stream_id]


def _batch(stream: _Stream | None, position: int, now: float) -> Batch:
    """What a stream has behind a position; an empty batch if that is nothing."""
    if stream is None:
        return Batch(fate=Fate.FORGOTTEN)
    fate = Fate.ENDED if stream.outcome is not None else None if stream.has_owner(now) else Fate.OWNER_LOST
    return batch_behind(
        position,
        [entry for entry in stream.log if entry[0] > position],
        head=stream.head if position < 0 else None,
        last=stream.last,
        fate=fate,
        outcome=stream.outcome or "",
    )
