"""Many times, kept as counts: a bucket every 2 percent, from a microsecond to an hour. Pure.

A percentile is right to 1 percent, whatever the number of times, and those of several processes add up: the counts are
summed. Nothing is kept of a single time, so a run of an hour takes no more memory than one of a second.
"""

from collections import Counter
from collections.abc import Mapping
from math import exp, inf, log
from typing import Any, Self

_GROWTH = log(1.02)
_SMALLEST_S = 1e-6


class Histogram:
    """Times in seconds. What is below a microsecond counts as one.

    Attributes:
        count: how many times there are.
        sum, smallest, largest: in seconds; inf and 0 for the last two while there is none.
    """

    __slots__ = ("_counts", "count", "largest", "smallest", "sum")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.sum = 0.0
        self.smallest = inf
        self.largest = 0.0

    def note(self, seconds: float) -> None:
        """Count one time."""
        seconds = max(seconds, _SMALLEST_S)
        self._counts[int(log(seconds / _SMALLEST_S) / _GROWTH)] += 1
        self.count += 1
        self.sum += seconds
        self.smallest = min(self.smallest, seconds)
        self.largest = max(self.largest, seconds)

    def percentile(self, percent: float) -> float | None:
        """The time that this share of all times does not exceed; None if there are none."""
        left = self.count * percent / 100
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return self._seconds(bucket)
        return None

    @property
    def mean(self) -> float | None:
        """None if there are none."""
        return self.sum / self.count if self.count else None

    def shares(self) -> list[tuple[float, float]]:
        """For a curve: times, rising, each with the share (0 to 1) of all that do not exceed it."""
        points, seen = [], 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            points.append((self._seconds(bucket), seen / self.count))
        return points

    def add(self, other: "Histogram") -> None:
        """Count all of another's times as well."""
        self._counts.update(other._counts)
        self.count += other.count
        self.sum += other.sum
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def dumped(self) -> dict[str, Any]:
        """As JSON: `{"counts": {bucket: count}, "sum", "range": [smallest, largest]}`."""
        return {"counts": dict(self._counts), "sum": self.sum, "range": [self.smallest, self.largest]}

    @classmethod
    def loaded(cls, value: Mapping[str, Any]) -> Self:
        """From what `dumped` returned, also by way of JSON's text."""
        histogram = cls()
        histogram._counts.update({int(bucket): count for bucket, count in value["counts"].items()})
        histogram.count = histogram._counts.total()
        histogram.sum = value["sum"]
        histogram.smallest, histogram.largest = value["range"]
        return histogram

    def _seconds(self, bucket: int) -> float:
        """The middle of a bucket, but nothing that was not there."""
        middle = _SMALLEST_S * exp((bucket + 0.5) * _GROWTH)
        return min(max(middle, self.smallest), self.largest)
