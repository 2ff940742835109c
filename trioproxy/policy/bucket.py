"""How much may be taken in any minute. PURE: `now` is an argument, in seconds of a clock that does not go back.

The minute slides: it is kept in slots of a quarter of a second, and what is taken in a slot counts until 60 s after its
end. So in no window of 60 s, wherever it begins, more is taken than the rate; what was taken comes back up to a quarter
of a second late. A bucket that fills steadily would let through twice its rate in the minute behind a pause.
"""

from collections import deque
from math import floor
from typing import Final

from trioproxy.policy.limits import Standing

WINDOW_S: Final = 60.0
_SLOTS_PER_S: Final = 4  # a power of two: the border of a slot is an exact number
_SLOTS: Final = int(WINDOW_S * _SLOTS_PER_S)
_HAIR_S: Final = 1e-6
"""Added to waits, so that no rounding of a sum brings a client back too early."""


class Bucket:
    """What was taken in the last minute: slots in which something was, oldest first. There are 241 at most, each
    comes and goes once."""

    __slots__ = ("_slots", "_total", "rate")

    def __init__(self, rate: int) -> None:
        self.rate = rate
        """May change at any time; what was taken stays taken."""
        self._slots: deque[list[int]] = deque()  # the slot's number, and how much counts in it
        self._total = 0

    def wait_s(self, n: int, now: float) -> float | None:
        """How long until there is room for so much, if nobody takes any: 0.0 if there is room now, None if there never
        will be, because it is more than the rate."""
        if n <= 0:
            return 0.0
        if n > self.rate:
            return None
        self._drop_old(now)
        missing = self._total + n - self.rate
        if missing <= 0:
            return 0.0
        for slot, count in self._slots:
            missing -= count
            if missing <= 0:
                return _until_free(slot, now)
        raise AssertionError("the slots hold the total, and n is not more than the rate")

    def take(self, n: int, now: float) -> None:
        """Take so much, of which `wait_s` said that there is room now."""
        self.charge(n, now)

    def charge(self, n: int, now: float) -> None:
        """Let so much count from now on, whether there is room or not."""
        self._drop_old(now)
        slot = floor(now * _SLOTS_PER_S)
        if self._slots and self._slots[-1][0] >= slot:
            self._slots[-1][1] += n
        elif n:
            self._slots.append([slot, n])
        self._total += n

    def give_back(self, n: int, taken_at: float, now: float) -> None:
        """What was taken then was too much by n. What does not count any more cannot come back."""
        self._drop_old(now)
        taken_in = floor(taken_at * _SLOTS_PER_S)
        for place in reversed(self._slots):
            if place[0] <= taken_in:
                back = min(n, place[1]) if place[0] == taken_in else 0
                place[1] -= back
                self._total -= back
                return

    def standing(self, now: float) -> Standing:
        """How the bucket stands."""
        self._drop_old(now)
        newest = next((slot for slot, count in reversed(self._slots) if count), None)
        reset_s = 0.0 if newest is None else _until_free(newest, now)
        return Standing(self.rate, max(self.rate - self._total, 0), reset_s)

    def _drop_old(self, now: float) -> None:
        """Drop what does not count any more."""
        oldest = floor(now * _SLOTS_PER_S) - _SLOTS
        while self._slots and self._slots[0][0] < oldest:
            self._total -= self._slots.popleft()[1]


def _until_free(slot: int, now: float) -> float:
    """How long a slot still counts."""
    return max((slot + 1 + _SLOTS) / _SLOTS_PER_S - now, 0.0) + _HAIR_S
