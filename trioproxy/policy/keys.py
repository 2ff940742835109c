"""Which of an upstream's several keys the next request gets, and which keys are left alone for a while. PURE.

    401, 402     out for 60 s, twice as long each time, 600 s at most    the key is refused, or its money is gone
    429          out for what retry-after says, else 1 s, twice as long each time, 60 s at most
    2xx          the next time out is short again
    all other    says nothing about the key

A key that is already out is not put out for longer by the requests that were under way with it (but a longer
retry-after counts), and their success does not bring it back. The client's own key is none of the ring: its index is
None, and nothing is counted. All times are seconds of one clock that never goes back.
"""

from dataclasses import dataclass

REFUSED_S = 60.0
MAX_REFUSED_S = 600.0
LIMITED_S = 1.0
MAX_LIMITED_S = 60.0
MAX_RETRY_AFTER_S = 3600.0
"""An origin that says more than that is asked again all the same."""

_REFUSED = (401, 402)
_LIMITED = 429
_MAX_DOUBLINGS = 64


@dataclass(slots=True)
class _Key:
    in_use: int = 0
    last_taken: int = 0  # which take it was, counted over all keys
    out_until: float | None = None
    refusals: int = 0  # times out in a row
    limits: int = 0
    was_forced: bool = False  # taken while it was out, because there is no other


class KeyRing:
    """The keys of one upstream, by their index in the configuration."""

    def __init__(self, count: int) -> None:
        self._keys = [_Key() for _ in range(count)]
        self._taken = 0

    def take(self, now: float) -> int | None:
        """The usable key that fewest requests hold, of those the one that was taken longest ago.

        None if all are out (see `wait_s`), or there is none; the only key is given although it is out.
        """
        usable = [index for index in range(len(self._keys)) if self.is_usable(index, now)]
        is_forced = not usable and len(self._keys) == 1
        if is_forced:
            usable = [0]
        if not usable:
            return None
        index = min(usable, key=lambda index: (self._keys[index].in_use, self._keys[index].last_taken))
        key = self._keys[index]
        self._taken += 1
        key.in_use += 1
        key.last_taken = self._taken
        key.was_forced = key.was_forced or is_forced
        return index

    def give_back(self, index: int | None) -> None:
        """The request with this key is over, whatever it came to. Once for each `take`."""
        if index is not None:
            self._keys[index].in_use -= 1

    def note(self, index: int | None, status: int, retry_after_s: float | None, now: float) -> None:
        """What the origin answered to a request with this key. `retry_after_s` is what its head said, if it did."""
        if index is None:
            return
        key = self._keys[index]
        is_out = key.out_until is not None and now < key.out_until
        if status in _REFUSED:
            if not is_out:
                key.out_until = now + _doubled(REFUSED_S, key.refusals, MAX_REFUSED_S)
                key.refusals += 1
        elif status == _LIMITED:
            told_s = _told(retry_after_s)
            if told_s is not None:
                key.out_until = max(key.out_until or now, now + told_s)
            elif not is_out:
                key.out_until = now + _doubled(LIMITED_S, key.limits, MAX_LIMITED_S)
            key.limits += not is_out
        elif 200 <= status < 300 and (key.was_forced or not is_out):
            key.out_until, key.refusals, key.limits, key.was_forced = None, 0, 0, False

    def wait_s(self, now: float) -> float:
        """How long until a key is usable, in seconds; 0 if one is, or if there is none."""
        waits = [max((key.out_until or now) - now, 0.0) for key in self._keys]
        return min(waits, default=0.0)

    def is_usable(self, index: int, now: float) -> bool:
        """Whether a key is not out; for tables and metrics."""
        until = self._keys[index].out_until
        return until is None or now >= until

    def usable(self, now: float) -> int:
        """How many keys are not out."""
        return sum(self.is_usable(index, now) for index in range(len(self._keys)))


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(first_s * 2.0 ** min(times, _MAX_DOUBLINGS), most_s)


def _told(retry_after_s: float | None) -> float | None:
    """What an origin's retry-after counts for; None if it said none, or nonsense."""
    if retry_after_s is None or not retry_after_s >= 0:  # also refuses nan
        return None
    return min(retry_after_s, MAX_RETRY_AFTER_S)
