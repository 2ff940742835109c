"""What a generator measured: counts and times, as one value that goes from process to process and adds up. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from trioproxy.bench.histogram import Histogram
from trioproxy.bench.talk import Talk

MAX_ERRORS = 40
"""So many kinds of error are told apart; the rest is one more."""
_OTHERS = "others"


@dataclass
class Figures:
    """Of one process, or of several together. All times in seconds.

    `first_content`, `total` and `rate` (seconds per token) count answers that came whole; `gap`, between two events
    with text of one stream, all that were seen.
    """

    finished: int = 0
    under_way: int = 0
    """Requests that had not ended when the time was up; they are neither finished nor failed."""
    tokens: int = 0
    """The origins' figures, else events with text; of all answers, also of those under way."""
    errors: Counter[str] = field(default_factory=Counter)
    first_content: Histogram = field(default_factory=Histogram)
    gap: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    rate: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    """How late the generator itself was: a timer of 20 ms, and how long after it was served."""
    seconds: float = 0.0
    """How long was measured."""
    busy: list[float] = field(default_factory=list)
    """Of each process: its share (0 to 1) of a core."""

    @property
    def failed(self) -> int:
        return self.errors.total()

    def take(self, talk: Talk) -> None:
        """Count a request that has ended, less its gaps and tokens, which were counted as they came."""
        if talk.error is not None:
            known = talk.error in self.errors or len(self.errors) < MAX_ERRORS
            self.errors[talk.error if known else _OTHERS] += 1
            return
        self.finished += 1
        self.total.note(talk.total_s)
        if talk.first_content_s is not None:
            self.first_content.note(talk.first_content_s)
        if talk.tokens_per_s:
            self.rate.note(1 / talk.tokens_per_s)

    def add(self, other: "Figures") -> None:
        """Count another's as well, measured at the same time."""
        self.finished += other.finished
        self.under_way += other.under_way
        self.tokens += other.tokens
        self.errors.update(other.errors)
        for name in _HISTOGRAMS:
            getattr(self, name).add(getattr(other, name))
        self.seconds = max(self.seconds, other.seconds)
        self.busy += other.busy

    def dumped(self) -> dict[str, Any]:
        """As JSON, for `loaded`."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value.dumped() if isinstance(value, Histogram) else value for name, value in plain.items()}

    @classmethod
    def loaded(cls, value: Mapping[str, Any]) -> Self:
        """From what `dumped` returned, also by way of JSON's text."""
        histograms = {name: Histogram.loaded(value[name]) for name in _HISTOGRAMS}
        return cls(**{**value, "errors": Counter(value["errors"]), **histograms})


_HISTOGRAMS = ("first_content", "gap", "total", "rate", "late")
