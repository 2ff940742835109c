"""The log of one live stream, its readers' places in it, and what becomes of one that is too slow. PURE.

The log holds a stream's newest events, numbered from 1, and its outcome as the last entry. Each reader has a cursor of
its own, and reads at its own pace as long as the log reaches back to it. Its policy matters only when the event that it
needs next is about to leave the log:

    policy         its next event is about to leave the log
    error          it leaves; the reader is overrun: it gets nothing more, and is told so
    block          it stays: the writer waits, and everyone with it, until it gives the reader up; then as `error`
    drop-oldest    it leaves; the reader goes on with the oldest that is there when it takes next
    drop-newest    it leaves; the reader keeps the oldest of its backlog (at most `max_kept_bytes`, at least one event)
                   and loses the rest of it. When it has read what it kept it goes on with the event that made the
                   others leave, or with the oldest that is there if that has left too

The last two lose whole events only, learn how many at the very place, and see the stream's end. They differ in what a
stall costs: `drop-oldest` loses no more than it must and stays behind by the whole log; `drop-newest` reads what it
would have read anyway, then loses most of a log at once and is up to date again.

**What an append costs.** Readers with `error` and `drop-oldest` cost nothing: where one stands is compared with the
log's first event when it takes next. Those with the other two stand in buckets by number, each under an event that it
needed at some time. A bucket is looked at when its event leaves, and who has read on meanwhile moves to the bucket of
what it needs now. So a reader that keeps up is looked at once while a whole log of events goes by, and an append has
only to do with the few whose turn that is, and with those that are in fact about to be overrun.

What this does not know: time, how a reader is woken (the driver does both), what is in an event. Driven by `hub`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

MAX_KEPT_BYTES = 65536
"""How much of its backlog a `drop-newest` reader keeps, unless told otherwise, or a single event is larger."""

_COMPACT = 64
"""So many places of events that left are let stand at least, before the lists are made short again."""


class Slow(StrEnum):
    """What becomes of a reader whose next event is about to leave the log. Named as `x-trioproxy-slow` names it."""

    ERROR = "error"
    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"


_WATCHED = frozenset({Slow.BLOCK, Slow.DROP_NEWEST})
_LOSSLESS = frozenset({Slow.ERROR, Slow.BLOCK})


@dataclass(slots=True)
class Counts:
    """What the readers of one policy came to, over all logs that were given these counts. They only grow.

    A loss is counted when its reader is told of it, or leaves; a backlog when its reader takes, or leaves.
    """

    readers: int = 0
    delivered: int = 0
    """Events that were taken."""
    dropped: int = 0
    """Events that a reader went on without; those of an overrun one are not among them."""
    overrun: int = 0
    """Readers that were."""
    waits: int = 0
    """Appends that had to wait for a reader."""
    waited_s: float = 0.0
    deepest_events: int = 0
    deepest_bytes: int = 0
    """The largest backlogs, in events and in bytes: not always the same one."""


def no_counts() -> dict[Slow, Counts]:
    """Counts to begin with, one for each policy."""
    return {slow: Counts() for slow in Slow}


class PositionGone(Exception):
    """What stands behind a reader's position has left the log in part; there are still `first` to `last`."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last


class PositionAhead(Exception):
    """A reader says that it has events which are not there yet: more than `last`."""

    def __init__(self, last: int) -> None:
        super().__init__(last)
        self.last = last


Outcome = TypeVar("Outcome")


class Batch(NamedTuple, Generic[Outcome]):
    """What a reader gets at once, in this order: what it lost, events, the end."""

    events: list[bytes]
    """They follow each other without a gap; the first is number `next_number - len(events)`."""
    lost: int
    """How many events it goes on without, just before these; of an overrun reader, how many of those that it needs have
    left the log so far. Else there is an event with each loss."""
    is_overrun: bool
    """It gets nothing more; so says each batch from then on."""
    outcome: Outcome | None
    """How the stream ended, if there is nothing behind these events; so says each batch from then on."""
    next_number: int
    """The number after these events."""


@dataclass(slots=True)
class Pool:
    """What several logs hold together: where nothing is left, a log that gets an event drops as much of its own."""

    max_bytes: int
    held_bytes: int = 0


class Replay(Generic[Outcome]):
    """One stream's log: at most `max_events` (at least 1) and `max_bytes` of events, but always the newest one, however
    large it is.

    Its driver asks for the `blockers` before each `append`, waits until there are none or gives them up, and wakes the
    readers after it. `first` is the number of the first event to come: more than 1 where a stream's start is gone.

    Attributes:
        first: the oldest event that is there; while there is none, the first to come.
        outcome: None while the stream is live, then what was given to `end`.
    """

    __slots__ = (
        "_buckets",
        "_counts",
        "_ends",
        "_events",
        "_left",
        "_max_bytes",
        "_max_events",
        "_max_kept_bytes",
        "_pool",
        "first",
        "outcome",
    )

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        counts: Mapping[Slow, Counts] | None = None,
        *,
        first: int = 1,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        pool: Pool | None = None,
    ) -> None:
        self._pool = pool
        self.first = first
        self.outcome: Outcome | None = None
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_kept_bytes = max_kept_bytes
        self._counts = no_counts() if counts is None else counts
        self._buckets: dict[int, dict[Cursor[Outcome], None]] = {}  # each a dict: a set has no order
        # Lists, for they are searched and cut. The places of events that left stand in front for a while, empty.
        self._events: list[bytes] = []
        self._ends = [0]  # the stream's bytes before the first place, and up to the end of each
        self._left = 0

    @property
    def last(self) -> int:
        """The newest event; `first - 1` if there is none."""
        return self.first + len(self._events) - self._left - 1

    @property
    def size_bytes(self) -> int:
        """Of the events that are there. What `drop-newest` readers keep comes beside it."""
        return self._ends[-1] - self._ends[self._left]

    def reader(self, after: int, slow: Slow) -> "Cursor[Outcome]":
        """A new reader, which has the events up to number `after` (0: none) and gets the others. To be closed.

        Raises:
            PositionGone: the event after that has left the log.
            PositionAhead: `after` itself is not there yet.
        """
        if after + 1 < self.first:
            raise PositionGone(self.first, self.last)
        if after > self.last:
            raise PositionAhead(self.last)
        return Cursor(self, after + 1, slow, self._counts[slow])

    def blockers(self, size: int) -> list["Cursor[Outcome]"]:
        """The readers that are to be waited for before an event of `size` bytes is appended."""
        return [cursor for cursor in self._behind(self._first_with(size)) if cursor.slow is Slow.BLOCK]

    def give_up_on(self, cursor: "Cursor[Outcome]") -> None:
        """A blocker is not waited for any more, now or later. It is overrun by the next append, not by this. May be
        done twice, and to one that was closed."""
        self._unwatch(cursor)

    def note_wait(self, waited_s: float) -> None:
        """An append had to wait for its blockers, for so long."""
        counts = self._counts[Slow.BLOCK]
        counts.waits += 1
        counts.waited_s += waited_s

    def append(self, event: bytes) -> None:
        """Publish an event; those that are beyond the bounds then leave. A blocker that was not waited for is overrun,
        as if it had been given up. Not after the end."""
        if self.outcome is not None:
            raise RuntimeError("the stream has ended")
        first = self._first_with(len(event))
        before = self.size_bytes
        for cursor in self._behind(first):
            self._unwatch(cursor)
            if cursor.slow is Slow.DROP_NEWEST:
                cursor._keep(self._from(cursor._place, self._max_kept_bytes), self.last + 1)
        left = self._left + first - self.first
        self._events[self._left : left] = [b""] * (left - self._left)
        self._left = left
        self.first = first
        if left >= _COMPACT and left * 2 >= len(self._events):
            del self._events[:left], self._ends[:left]
            self._left = 0
        self._events.append(event)
        self._ends.append(self._ends[-1] + len(event))
        if self._pool is not None:
            self._pool.held_bytes += self.size_bytes - before

    def leave_pool(self) -> None:
        """The log is forgotten: what it holds counts no more."""
        if self._pool is not None:
            self._pool.held_bytes -= self.size_bytes
            self._pool = None

    def end(self, outcome: Outcome) -> None:
        """The stream has ended like this, once and for all. `outcome` is not None."""
        if self.outcome is not None:
            raise RuntimeError("the stream has ended already")
        self.outcome = outcome

    def _first_with(self, size: int) -> int:
        """What the log's first event will be when one of `size` bytes is appended."""
        by_count = len(self._events) + 1 - self._max_events
        room = self._max_bytes
        if self._pool is not None:
            room = min(room, self.size_bytes + max(self._pool.max_bytes - self._pool.held_bytes, 0))
        by_bytes = bisect_left(self._ends, self._ends[-1] + size - room, self._left, len(self._events))
        return self.first + max(by_count, by_bytes) - self._left

    def _behind(self, first: int) -> list["Cursor[Outcome]"]:
        """The watched readers that need an event before `first`. Those found there that have read on are moved."""
        behind = []
        for number in range(self.first, first):
            for cursor in list(self._buckets.get(number, ())):
                if cursor._place < first:
                    behind.append(cursor)
                else:
                    self._watch(cursor)
        return behind

    def _watch(self, cursor: "Cursor[Outcome]") -> None:
        """Put a reader into the bucket of the event that it needs next."""
        self._unwatch(cursor)
        cursor._bucket = cursor._place
        self._buckets.setdefault(cursor._place, {})[cursor] = None

    def _unwatch(self, cursor: "Cursor[Outcome]") -> None:
        number, cursor._bucket = cursor._bucket, None
        if number is not None:
            bucket = self._buckets[number]
            del bucket[cursor]
            if not bucket:
                del self._buckets[number]

    def _from(self, number: int, max_bytes: int) -> list[bytes]:
        """The events from this one on (it is `first` at least), at most so many bytes, but at least one if any."""
        start = number - self.first + self._left
        limit = self._ends[start] + max_bytes
        if self._ends[-1] <= limit:
            return self._events[start:]
        stop = bisect_right(self._ends, limit, start) - 1
        return self._events[start : max(stop, start + 1)]

    def _bytes_from(self, number: int) -> int:
        return self._ends[-1] - self._ends[number - self.first + self._left]


class Cursor(Generic[Outcome]):
    """One reader's place in a log. Made by `Replay.reader`, to be closed when the reader leaves.

    Attributes:
        slow: its policy.
        next_number: the event after the last that it got, or after what it had at its start.
    """

    __slots__ = (
        "_bucket",
        "_counts",
        "_is_counted",
        "_is_open",
        "_kept",
        "_kept_number",
        "_log",
        "_place",
        "next_number",
        "slow",
    )

    def __init__(self, log: Replay[Outcome], number: int, slow: Slow, counts: Counts) -> None:
        self.slow = slow
        self.next_number = number
        self._log = log
        self._place = number  # what it needs of the log next; what lies between `next_number` and this is lost, or kept
        self._kept: list[bytes] = []  # of its backlog, by `drop-newest`; while there is any, nothing of the log is read
        self._kept_number = 0  # of the first of them
        self._bucket: int | None = None
        self._counts = counts
        self._is_counted = False  # as overrun
        self._is_open = True
        counts.readers += 1
        if slow in _WATCHED:
            log._watch(self)

    @property
    def is_overrun(self) -> bool:
        """The event that it needs has left the log, and its policy lets it lose none."""
        return self.slow in _LOSSLESS and self._place < self._log.first

    @property
    def kept_bytes(self) -> int:
        """What it keeps for itself beside the log: at most `max_kept_bytes`, or one event."""
        return sum(map(len, self._kept))

    def take(self, max_bytes: int) -> Batch[Outcome]:
        """What is there for this reader now: at most `max_bytes` of events unless the first is larger, and at least one
        if any. With nothing in it, wait for the next append or the end."""
        if self._kept:
            return self._take_kept(max_bytes)
        log = self._log
        if self._place > log.last and log.outcome is None:  # what a reader that keeps up asks each second time
            return Batch([], 0, False, None, self.next_number)
        self._note_backlog()
        if self.is_overrun:
            return Batch([], log.first - self.next_number, True, None, self.next_number)
        number = max(self._place, log.first)  # more than its place only with `drop-oldest`
        events = log._from(number, max_bytes)
        self._place = number + len(events)
        outcome = log.outcome if self._place > log.last else None
        return self._batch(number, events, outcome)

    def close(self) -> None:
        """The reader leaves. May be done twice; nothing may be taken after it."""
        if not self._is_open:
            return
        self._is_open = False
        self._log._unwatch(self)
        self._note_backlog()
        if not self.is_overrun:
            self._counts.dropped += max(self._place, self._log.first) - self.next_number - len(self._kept)
        self._kept = []

    def _keep(self, oldest: list[bytes], number: int) -> None:
        """Keep the oldest of the backlog, before they leave, and lose the others: `number` is about to be appended."""
        self._note_backlog()
        self._kept = oldest
        self._kept_number = self._place
        self._place = number

    def _take_kept(self, max_bytes: int) -> Batch[Outcome]:
        count, size = 1, len(self._kept[0])
        while count < len(self._kept) and (size := size + len(self._kept[count])) <= max_bytes:
            count += 1
        events = self._kept[:count]
        del self._kept[:count]
        number = self._kept_number
        self._kept_number += count
        if not self._kept:
            self._place = max(self._place, self._log.first)
            self._log._watch(self)
        return self._batch(number, events, None)

    def _batch(self, number: int, events: list[bytes], outcome: Outcome | None) -> Batch[Outcome]:
        lost = number - self.next_number
        self.next_number = number + len(events)
        self._counts.delivered += len(events)
        self._counts.dropped += lost
        return Batch(events, lost, False, outcome, self.next_number)

    def _note_backlog(self) -> None:
        """Count how far behind it is, and whether it is overrun. What it keeps was counted when it was kept."""
        log, counts = self._log, self._counts
        number = max(self._place, log.first)
        # An event costs its readers little, and calls of max() would be a good part of that.
        if (events := log.last + 1 - number) > counts.deepest_events:
            counts.deepest_events = events
        if (size := log._bytes_from(number)) > counts.deepest_bytes:
            counts.deepest_bytes = size
        if self.is_overrun and not self._is_counted:
            self._is_counted = True
            counts.overrun += 1
