"""Which share of a route's requests its canary gets: raised step by step while it is as good as the others. PURE.

    the canary's figures, compared with those of the others                      its share
    clearly more errors                                                          0, at once and for ever
    the step is younger than `step_s`, or fewer than `min_requests` answers      as it is
    slower: mean time to first content above `max_slower` times the others'      half; below the first step 0, for ever
    more errors, but it may be chance                                            as it is, until it is clear
    else                                                                         double, `max_share` at most

The figures start anew with each decision, also with one that leaves the share where it was, at `max_share`: a canary
that was good for a day and fails now is found out soon. Errors of the step before still count beside this step's: at a
step's beginning there are few answers, and by chance a canary that is like the others would be stopped some day.

    errors       a share of all answers; of `min_requests`, if there were fewer, the others being taken for good ones
    more         by more than `max_errors`
    clearly      by so much more that chance does not explain it (three standard deviations of two samples of what the
                 others have); or `RUN` errors in a row, where not even a quarter of all answers may be errors
    slower       only judged when both have half of `min_requests` times: errors bring none

So nothing waits for `min_requests` that they could not change any more: with 50 of them, a `max_errors` of 0.02 and
others that had a thousand answers and no error, a new canary's second error is the end. With others that have answered
nothing the canary's errors are compared with none, and its speed with nothing.

Zero is for ever because nobody could tell that it has become better: it gets no requests. A reload makes a new canary.
All times are seconds of one clock that never goes back.
"""

from dataclasses import dataclass
from math import inf, sqrt

RUN = 10
_SIGMAS = 3.0


@dataclass(frozen=True)
class CanaryRules:
    """How a canary's share is raised, and what it must not be worse in."""

    share: float = 0.01
    """The first step; not above `max_share`."""
    max_share: float = 0.5
    step_s: float = 60.0
    """How long a step lasts at least."""
    min_requests: int = 50
    """So many answers of the canary must be there before its share changes; to stop it, see above."""
    max_errors: float = 0.02
    """By how much its share of errors may be above the others'."""
    max_slower: float = 1.5
    """Its mean time to first content, as a multiple of the others'."""


@dataclass(frozen=True)
class Step:
    """A change of the canary's share; `reason` is a sentence with the figures, for the log."""

    old: float
    new: float
    reason: str


class _Figures:
    """What answers came to: those of the canary, or those of the others."""

    __slots__ = ("answers", "errors", "errors_in_a_row", "times", "times_sum_s")

    def __init__(self) -> None:
        self.answers = self.errors = self.errors_in_a_row = self.times = 0
        self.times_sum_s = 0.0

    def note(self, is_error: bool, first_content_s: float | None) -> None:
        self.answers += 1
        self.errors += is_error
        self.errors_in_a_row = self.errors_in_a_row + 1 if is_error else 0
        if first_content_s is not None and 0 <= first_content_s < inf:
            self.times += 1
            self.times_sum_s += first_content_s

    @property
    def mean_s(self) -> float:
        return self.times_sum_s / self.times


class Canary:
    """The canary of one route. `share` is the share of the requests that it gets now."""

    def __init__(self, rules: CanaryRules) -> None:
        self.rules = rules
        self.share = rules.share
        self._since: float | None = None  # when this step began
        self._canary, self._others = _Figures(), _Figures()
        self._canary_before, self._others_before = _Figures(), _Figures()

    def note(self, *, is_canary: bool, is_error: bool, first_content_s: float | None) -> None:
        """What a request came to at the canary, or at one of the others; `first_content_s` is None if none came."""
        (self._canary if is_canary else self._others).note(is_error, first_content_s)

    def step(self, now: float) -> Step | None:
        """Change the share, if it is time to. Called often; the first call is when the first step begins."""
        if self.share == 0:
            return None
        if self._since is None:
            self._since = now
        if self._is_clearly_worse:
            return self._go(0.0, now, "more errors")
        if now - self._since < self.rules.step_s or self._canary.answers < self.rules.min_requests:
            return None
        if self._is_slower:
            half = self.share / 2
            return self._go(half if half >= self.rules.share else 0.0, now, "slower")
        if self._errors > self._allowed:
            return None
        return self._go(min(2 * self.share, self.rules.max_share), now, "as good")

    # How many errors the canary had, how many it would have had if it were like the others, and how many it may have.

    @property
    def _errors(self) -> int:
        return self._canary.errors + self._canary_before.errors

    @property
    def _counted(self) -> int:
        return max(self._canary.answers + self._canary_before.answers, self.rules.min_requests)

    @property
    def _expected(self) -> float:
        return self._counted * (self._others.errors + self._others_before.errors) / self._compared

    @property
    def _compared(self) -> int:
        return max(self._others.answers + self._others_before.answers, self.rules.min_requests)

    @property
    def _allowed(self) -> float:
        return self._expected + self._counted * self.rules.max_errors

    @property
    def _is_clearly_worse(self) -> bool:
        is_run = self._canary.errors_in_a_row >= RUN and self._allowed < self._counted / 4
        return is_run or self._errors > self._allowed + _SIGMAS * sqrt(self._variance)

    @property
    def _variance(self) -> float:
        """That of the canary's errors, if it were like the others, and of those expected: the others' are a sample too,
        and where it has none yet, the next answer might be one."""
        if not self._others.answers + self._others_before.answers:
            return 0.0
        share = self._counted / self._compared
        return max(self._expected, share) * (1 + share)

    @property
    def _is_slower(self) -> bool:
        return self._has_times and self._canary.mean_s > self.rules.max_slower * self._others.mean_s

    @property
    def _has_times(self) -> bool:
        return 2 * min(self._canary.times, self._others.times) >= self.rules.min_requests

    def _go(self, new: float, now: float, verdict: str) -> Step | None:
        old, reason = self.share, self._reason(verdict)
        self.share = new
        self._since = now
        self._canary_before, self._others_before = self._canary, self._others
        self._canary, self._others = _Figures(), _Figures()
        return Step(old, new, reason) if new != old else None

    def _reason(self, verdict: str) -> str:
        errors = f"{_errors(self._canary, self._canary_before)}, elsewhere {_errors(self._others, self._others_before)}"
        if not self._has_times:
            return f"{verdict}: {errors}; too few times to first content to compare"
        times = f"{self._canary.mean_s:.3g} s, elsewhere {self._others.mean_s:.3g} s"
        return f"{verdict}: {errors}; mean time to first content {times}"


def _errors(now: _Figures, before: _Figures) -> str:
    return f"{now.errors + before.errors} errors in {now.answers + before.answers} answers"
