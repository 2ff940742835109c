"""How long a stream was silent between its events, counted as it goes by: a bisection per event, no list of gaps."""

from bisect import bisect_left
from typing import Final

BOUNDS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1200.0)
"""The upper bounds of what is counted together, 1 ms to 20 min; what is longer stands behind the last."""


class Gaps:
    """The gaps of one stream. `counts` are by `BOUNDS_S`."""

    __slots__ = ("counts", "longest_s", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.longest_s = 0.0
        self.total_s = 0.0

    def note(self, gap_s: float, events: int) -> None:
        """So many events came at once, behind a silence of `gap_s`; between them there is none."""
        self.counts[bisect_left(BOUNDS_S, gap_s)] += 1
        self.total_s += gap_s
        self.longest_s = max(self.longest_s, gap_s)
        if events > 1:
            self.counts[0] += events - 1
