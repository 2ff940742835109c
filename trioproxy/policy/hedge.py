"""When a second try is started beside one that is slow, and how often that may be. PURE.

The delay is fixed, or where 95 of 100 requests of this route had their first content lately, so that only the slow ones
are doubled. A budget keeps an origin that is slow as a whole from getting twice the load: each request adds its share,
each hedge takes one from it.

What this does not know: whether there is another endpoint to ask (`upstream/course` looks before it takes from the
budget), and which try wins. All times are seconds.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

MAX_SAMPLES = 500
MIN_SAMPLES = 20
"""With fewer the slowest ones are not known yet, and nothing is hedged."""
MAX_SAVED = 10
"""So many hedges can be saved up: a long quiet time must not pay for a crowd of them."""

_ONE = 1_000_000  # shares are added as whole millionths: a sum of tenths would miss the one


@dataclass(frozen=True)
class HedgeRules:
    """One of `after_s` (fixed) and `percentile` is given; `budget` is how many of all requests may be hedged."""

    after_s: float | None = None
    percentile: Literal[95] | None = None
    budget: float = 0.1


class Hedge:
    """The hedging of one route."""

    def __init__(self, rules: HedgeRules) -> None:
        self._rules = rules
        self._share = round(rules.budget * _ONE)
        self._saved = 0
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []

    def delay(self) -> float | None:
        """How long after its start a try that brought no content gets a second beside it, in seconds; None: never."""
        if self._rules.after_s is not None:
            return self._rules.after_s
        if self._rules.percentile is None or len(self._sorted) < MIN_SAMPLES:
            return None
        return self._sorted[ceil(self._rules.percentile * len(self._sorted) / 100) - 1]

    def note(self, first_content_s: float) -> None:
        """How long a request's first try took to its first content; one that lost to its hedge, how long until then.

        That is not its whole time, but it is behind the percentile as that would be, and only this counts. Without it
        the slow ones would vanish from the samples, the percentile would sink, and ever faster tries be hedged. The
        hedges themselves and tries that failed are not noted.
        """
        if not 0 <= first_content_s < inf:
            return
        self._newest.append(first_content_s)
        insort(self._sorted, first_content_s)
        if len(self._newest) > MAX_SAMPLES:
            del self._sorted[bisect_left(self._sorted, self._newest.popleft())]

    def note_request(self) -> None:
        """A request came, whether it will be hedged or not."""
        self._saved = min(self._saved + self._share, MAX_SAVED * _ONE)

    def take(self) -> bool:
        """Whether the budget allows one more hedge, which is then spent."""
        if self._saved < _ONE:
            return False
        self._saved -= _ONE
        return True
