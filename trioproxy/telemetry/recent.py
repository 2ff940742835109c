"""The requests that have ended lately: their records, for whoever looks at the live table."""

from collections import deque
from typing import Final, NamedTuple

from trioproxy.telemetry.record import Record

KEPT_S: Final = 60.0
MAX_KEPT: Final = 1000


class Ended(NamedTuple):
    """A request that is over: which one of all, its record, and the shared or resumable stream that it produced, with
    how many ever read that."""

    number: int
    record: Record
    produced: str | None = None
    readers: int = 0


class Recent:
    """Of the last minute, at most `MAX_KEPT`. `last` is how many there ever were."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: deque[Ended] = deque(maxlen=MAX_KEPT)

    def add(self, record: Record, produced: str | None = None, readers: int = 0) -> None:
        """One more."""
        self.last += 1
        kept = self._kept
        while kept and kept[0].record.ended < record.ended - KEPT_S:
            kept.popleft()
        kept.append(Ended(self.last, record, produced, readers))

    def since(self, now: float, after: int = 0) -> list[Ended]:
        """Those behind number `after`, the last one first; `now` is trio's clock."""
        found = []
        for one in reversed(self._kept):
            if one.number <= after or one.record.ended < now - KEPT_S:
                break
            found.append(one)
        return found
