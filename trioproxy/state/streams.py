"""Streams that every replica knows: the contract of their store. `memory` and `redis` keep it; one suite tests both.

A stream has one producer, on one replica, and any number of mirrors: a mirror is what another replica has of it, a copy
that its own readers read from. The store holds, for each stream, its record and a log:

    head (once known) · event 1 · event 2 · … · event N · end (an outcome in the producer's own words)

What holds:

* **Numbers.** Events are numbered from 1 by the producer, and the number is told with each batch. What the log has is
  not written again, so a call that failed or was cancelled may be made again. Numbers that were left out are a gap.
* **Bounds.** A log holds at most `max_events` events and about `max_bytes` of them, always the newest one, the head
  and the end. What a mirror's position has lost by that is told as a number of events, never skipped in silence.
* **The end** comes once, behind all events. It is final: nothing is written behind it.
* **The lease.** A producer calls `renew` at least every `renew_s`; an `append` is a sign of life too. When there was
  none for too long, the lease has run out, for good: its calls raise StreamLost, and mirrors are told within `lease_s`
  of its last sign that the owner is lost, behind all events that are there.
* **Sharing.** Of all streams of one caller with one share key, at most one is live; of two claims at the same moment
  one wins. A stream whose lease ran out, that was stopped or that has ended is not live.
* **Stopping.** Anyone may ask for it; the owner hears of it at once (`next_stop`), and if that message was lost, with
  its next `renew`. It is the owner that ends the stream.
* **Everything runs out.** A record and its log are forgotten `retain_s` after the end, or after the lease.
* **Time.** A call takes at most about `timeout_s`; `read` its waiting in addition; `next_stop` waits for as long as it
  takes. A store that does not answer raises StateUnavailable: whether the call took effect is not known.
* **If cancelled**, a call that changes something has changed all of it or nothing, and which is not known; a call that
  reads has changed nothing. All can be made again.

A store holds no keys of clients or origins and no request: only the events, the answer's head as it is given, and a
hash that stands for the caller. Whoever asks for a stream has its caller compared by the one who reads the record.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

START: Final = -1
"""The position of a mirror that has nothing, not even the head. 0: it has the head. N: it has event N."""


class StateUnavailable(Exception):
    """The store did not answer in time, or refused. What it says holds neither a password nor an event."""


class StreamLost(Exception):
    """The stream is not produced here any more: its lease ran out, it has ended, or the store has forgotten it."""


@dataclass(frozen=True)
class Limits:
    """How much of a stream is kept, and for how long.

    Attributes:
        max_events, max_bytes: what the log of one stream holds.
        lease_s: within what time after a producer's last sign mirrors hear that it is lost.
        retain_s: how long a stream is kept behind its end.
    """

    max_events: int = 10_000
    max_bytes: int = 4 * 1024 * 1024
    lease_s: float = 15.0
    retain_s: float = 60.0

    @property
    def held_s(self) -> float:
        """How long the lease itself holds; the rest of `lease_s` is for the mirrors to notice."""
        return self.lease_s * 0.75

    @property
    def renew_s(self) -> float:
        """How often a producer says that it is alive: one renewal may fail."""
        return self.lease_s / 4

    @property
    def look_s(self) -> float:
        """How often a mirror looks whether a quiet producer is alive."""
        return self.lease_s / 8


@dataclass(frozen=True)
class Head:
    """Status and headers of the origin's answer. The headers are those that every reader may see."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class StreamRecord:
    """What is known of a stream. Who claims one gives the first three.

    Attributes:
        stream_id: nobody can guess it.
        caller: a hash that stands for who made it.
        dialect: of its events.
        head: None until it is known.
        first, last: the numbers of the log's first and last event; 0 if it has none.
        outcome: how it ended, in the producer's words; None if it has not.
        has_owner: whether the lease of its producer holds. An ended stream has none.
    """

    stream_id: str
    caller: str
    dialect: str
    head: Head | None = None
    first: int = 0
    last: int = 0
    outcome: str | None = None
    has_owner: bool = False


class Fate(Enum):
    """Why nothing more will come."""

    ENDED = auto()
    """The producer ended it; its outcome says how."""
    OWNER_LOST = auto()
    """The producer's lease ran out."""
    FORGOTTEN = auto()
    """The store does not know it: its time is over, or the store has lost what it had."""


@dataclass(frozen=True)
class Batch:
    """What comes next behind a mirror's position: first what is lost, then events, then why nothing more will come.

    Attributes:
        head: the head, behind START only.
        lost: how many events between the position and these (or the end) are gone.
        first: the number of the first of `events`, which follow one another without a gap.
        fate: None as long as more may come.
        outcome: the producer's words, with ENDED.
    """

    head: Head | None = None
    lost: int = 0
    first: int = 0
    events: tuple[bytes, ...] = ()
    fate: Fate | None = None
    outcome: str = ""

    def position_behind(self, position: int) -> int:
        """Where a mirror stands that was at `position` and has taken this."""
        if self.events:
            return self.first + len(self.events) - 1
        return max(position, 0) + self.lost if self.head is not None or self.lost else position


def batch_behind(
    position: int,
    found: Sequence[tuple[int, bytes]],
    *,
    head: Head | None = None,
    last: int = 0,
    fate: Fate | None = None,
    outcome: str = "",
) -> Batch:
    """The batch made of what a log has behind a position: numbered events, rising. It ends before the next gap, and the
    rest comes with the next one. `last` is the number of the last event that there ever was, told with a fate."""
    at = max(position, 0)
    if not found:
        return Batch(head=head, lost=max(last - at, 0) if fate else 0, fate=fate, outcome=outcome)
    first = found[0][0]
    run = [event for n, (number, event) in enumerate(found) if number == first + n]
    if len(run) < len(found) or first + len(run) - 1 < last:
        fate, outcome = None, ""
    return Batch(head=head, lost=first - at - 1, first=first, events=tuple(run), fate=fate, outcome=outcome)


@dataclass(frozen=True)
class Renewal:
    """What a producer hears when it renews: which of its streams were stopped, and which are not its own any more."""

    stopped: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


class StreamStore(Protocol):
    """One replica's hold on the store. Many tasks may call it at once; `read` and `next_stop` one each."""

    @property
    def limits(self) -> Limits:
        """What the store keeps; the same on every replica."""
        ...

    async def run(self) -> None:
        """Keep what the store needs, until cancelled; in the process nursery. Without it no call is answered."""
        ...

    async def claim(self, record: StreamRecord, share_key: str | None) -> str:
        """Register a stream that this replica will produce, with its lease; returns its id. If the same caller has a
        live stream with this share key, nothing is registered and that stream's id is returned. If cancelled, or on
        StateUnavailable, a stream that nobody will produce may be left: its lease runs out."""
        ...

    async def set_head(self, stream_id: str, head: Head) -> None:
        """Tell the head, before the first event; another one, or one that comes later, is not kept. Raises
        StreamLost."""
        ...

    async def append(self, stream_id: str, first: int, events: Sequence[bytes]) -> None:
        """Write events, of which the first has this number. Those that the log has are left out. Raises StreamLost."""
        ...

    async def end(self, stream_id: str, outcome: str) -> None:
        """Write the end. A stream that has ended stays as it is. Raises StreamLost if the lease ran out before."""
        ...

    async def renew(self, stream_ids: Collection[str]) -> Renewal:
        """Say that this replica still produces these streams."""
        ...

    async def look(self, stream_id: str) -> StreamRecord | None:
        """What is known of a stream; None if nothing is."""
        ...

    async def read(self, positions: Mapping[str, int]) -> Mapping[str, Batch]:
        """What there is behind these positions: of the streams that have something to tell, and not always all of it.
        Waits for a moment if there is nothing; then the answer is empty. A mirror asks again with its new positions,
        and leaves out a stream that has come to its fate."""
        ...

    async def stop(self, stream_id: str) -> bool:
        """Ask the owner to end a stream; False if it has none. From now on no claim shares it."""
        ...

    async def next_stop(self) -> str:
        """Wait until somebody asks that a stream of this replica be stopped, and return its id; each is told once. It
        may be one that has just ended. If cancelled, none is missed."""
        ...
