"""In which order the upstreams of a route are tried. PURE: `now` and random draws are arguments.

    strategy     first is
    ordered      the first in the file
    weighted     one by chance, in proportion to its weight
    least_busy   the one with the fewest requests in flight for its weight
    fastest      the better one of two taken by chance: by time to first content, times what it has in flight

The others follow by the same rule. A weight of 0 makes a last resort, behind all that have one. Weights say nothing to
`ordered`, and nothing but that to `fastest`.

A sticky value (a user, a conversation) has its own order under every strategy: as good as random over many values and
fair to the weights, but the same for one value as long as the candidates are, so that caches stay warm.

What this does not know: why a candidate is not usable (the breaker does), and whether to try again at all (`retry`
does). `upstream/course` arranges once for each request, and walks along the answer.

Sources: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006), for the draws; Thaler and
Ravishankar's highest random weight hashing (1998) with Schindelhauer and Schomaker's weights (2005); Mitzenmacher,
"The power of two choices in randomized load balancing" (2001): always the best one would get everybody at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from itertools import groupby

FORGOTTEN_AFTER_HALF_LIVES = 6
"""By then a sample weighs 1/64. Whoever was slow has to be tried again some day, or it stays slow for ever."""

_Draw = Callable[[], float]


class Strategy(StrEnum):
    ORDERED = "ordered"
    WEIGHTED = "weighted"
    LEAST_BUSY = "least_busy"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of one target of a route when a request comes.

    Attributes:
        name: tells it from the other candidates, and is the same in every process: sticky values are bound to it.
        weight: a share of the requests, relative to the others'; not below 0.
        in_flight: requests that it works at.
        first_content_s: how long it lately took to the first content; None if that is not known (see `Ewma`).
        is_usable: whether it may be tried now.
    """

    name: str
    weight: float
    in_flight: int
    first_content_s: float | None
    is_usable: bool


def arrange(
    candidates: Sequence[Candidate], strategy: Strategy, *, draw: _Draw, sticky: str | None = None
) -> list[int]:
    """The indexes of the usable candidates, each once, in the order in which they are to be tried.

    `draw` gives random numbers from 0 up to but not including 1. With a `sticky` value nothing is drawn.
    """
    usable = [index for index, candidate in enumerate(candidates) if candidate.is_usable]
    if len(usable) <= 1:
        return usable
    if sticky is not None:
        return _by_lot(usable, candidates, lambda index: lot(sticky, candidates[index].name))
    match strategy:
        case Strategy.ORDERED:
            return usable
        case Strategy.WEIGHTED:
            return _by_lot(usable, candidates, lambda _: draw())
        case Strategy.LEAST_BUSY:
            # The sort is stable: among equally busy ones the lots decide, so idle ones get their share too.
            lots = _by_lot(usable, candidates, lambda _: draw())
            return sorted(lots, key=lambda index: _busy(candidates[index]))
        case Strategy.FASTEST:
            return _by_speed(usable, candidates, draw)


def _by_lot(indexes: list[int], candidates: Sequence[Candidate], number: Callable[[int], float]) -> list[int]:
    """A weighted permutation: each waits as long as a radioactive atom that decays at the rate of its weight, and the
    first to go is the first in proportion to the weights. The wait depends on nobody else, so one more or one less
    leaves the order of the others alone."""
    waits = {}
    for index in indexes:
        weight = candidates[index].weight
        wait = -math.log1p(-number(index))
        waits[index] = (weight <= 0, wait / weight if weight > 0 else wait)
    return sorted(indexes, key=waits.__getitem__)


def lot(sticky: str, name: str) -> float:
    """What is drawn for a value that sticks: a number from 0 up to but not including 1, the same on every machine. The
    length keeps two pairs of texts from being one text."""
    text = f"{len(name)}:{name}{sticky}".encode("utf-8", "surrogatepass")
    # 53 bits are what a float holds: more could be rounded up to 1.
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 11) / (1 << 53)


def _busy(candidate: Candidate) -> tuple[bool, float]:
    is_last = candidate.weight <= 0
    return is_last, candidate.in_flight / (1 if is_last else candidate.weight)


def _by_speed(indexes: list[int], candidates: Sequence[Candidate], draw: _Draw) -> list[int]:
    """Of two taken by chance the better one, then again of those that are left; only equals are compared."""

    def rank(index: int) -> tuple[bool, int, int]:
        return _rank(candidates[index])

    order = []
    for _, equals in groupby(sorted(indexes, key=rank), key=rank):
        left = list(equals)
        while len(left) > 1:
            one = int(draw() * len(left))
            other = int(draw() * (len(left) - 1))
            other += other >= one
            order.append(left.pop(min(one, other, key=lambda at: _slowness(candidates[left[at]]))))
        order += left
    return order


def _rank(candidate: Candidate) -> tuple[bool, int, int]:
    """Where it stands for `fastest`, before any speed: an unknown one first, so that it becomes known, but only while
    nobody is finding out; else a burst would all go to one that may hang. Of those, the least busy one."""
    is_last = candidate.weight <= 0
    if candidate.first_content_s is not None:
        return is_last, 1, 0
    return is_last, 2 if candidate.in_flight else 0, candidate.in_flight


def _slowness(candidate: Candidate) -> float:
    return (candidate.first_content_s or 0.0) * (1 + candidate.in_flight)


class Ewma:
    """A mean that forgets: a sample that is `half_life_s` older than another weighs half as much. Samples of the same
    moment weigh the same, however many they are."""

    __slots__ = ("_half_life_s", "_noted", "_sum", "_weight")

    def __init__(self, half_life_s: float = 10.0) -> None:
        self._half_life_s = half_life_s
        self._noted = -math.inf
        self._sum = 0.0
        self._weight = 0.0

    def note(self, value: float, now: float) -> None:
        """Take a sample in. One that comes late counts as of the latest."""
        faded = 0.5 ** (max(0.0, now - self._noted) / self._half_life_s)
        self._noted = max(self._noted, now)
        self._sum = self._sum * faded + value
        self._weight = self._weight * faded + 1.0

    def value(self, now: float) -> float | None:
        """The mean; None if there was no sample, or the last one is FORGOTTEN_AFTER_HALF_LIVES old."""
        if now - self._noted >= FORGOTTEN_AFTER_HALF_LIVES * self._half_life_s:
            return None
        return self._sum / self._weight
