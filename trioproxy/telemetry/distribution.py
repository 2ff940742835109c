"""A histogram that costs a bisection: how many of some figures are below each of a few bounds."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

Sample = tuple[str, dict[str, str], float]
"""A name, labels, a value."""


class Distribution:
    """Figures by `bounds`, which are upper ones and grow; what is beyond the last is counted behind it."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def note(self, figure: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, figure)] += 1
        self._total += figure

    def add(self, counts: Sequence[int], total: float) -> None:
        """Count many, which were counted by the same bounds and come to `total` together."""
        for place, count in enumerate(counts):
            if count:
                self._counts[place] += count
        self._total += total

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """As Prometheus wants them: each bound with all that is below it, how many there are, and their sum."""
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            below += count
            shown = "+Inf" if bound == float("inf") else str(float(bound))
            yield f"{name}_bucket", {**labels, "le": shown}, below
        yield f"{name}_count", dict(labels), below
        yield f"{name}_sum", dict(labels), self._total
