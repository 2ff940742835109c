"""The canary: its table, its numbers, and what holds whatever happens."""

from itertools import count
from math import inf, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trioproxy.policy.canary import RUN, Canary, CanaryRules, Step

RULES = CanaryRules(share=0.1, max_share=0.5, step_s=60.0, min_requests=50, max_errors=0.02, max_slower=1.5)


def answer(
    canary: Canary, *, good: int = 0, bad: int = 0, is_canary: bool = True, first_content_s: float | None = None
) -> None:
    """So many answers, the errors scattered among them."""
    total = good + bad
    for number in range(total):
        is_error = (number + 1) * bad // total > number * bad // total
        canary.note(is_canary=is_canary, is_error=is_error, first_content_s=None if is_error else first_content_s)


def others(canary: Canary, *, good: int = 0, bad: int = 0, first_content_s: float | None = None) -> None:
    answer(canary, good=good, bad=bad, is_canary=False, first_content_s=first_content_s)


def begun(rules: CanaryRules = RULES) -> Canary:
    """A canary whose first step began at 0."""
    canary = Canary(rules)
    assert canary.step(0.0) is None and canary.share == rules.share
    return canary


def shares_of(canary: Canary, steps: int, *, good: int = 50, bad: int = 0) -> list[float]:
    """The shares after each of these steps, while the others are without fault."""
    shares = []
    for number in range(1, steps + 1):
        answer(canary, good=good, bad=bad)
        others(canary, good=1000)
        canary.step(60.0 * number)
        shares.append(canary.share)
    return shares


def test_a_canary_that_is_as_good_as_the_others_is_doubled_step_by_step_up_to_its_limit() -> None:
    assert shares_of(begun(), 5) == [0.2, 0.4, 0.5, 0.5, 0.5]


def test_a_step_that_changes_nothing_is_none_and_the_figures_start_anew_all_the_same() -> None:
    canary = begun()
    shares_of(canary, 3)
    for number in (4, 5):
        answer(canary, good=50, first_content_s=100.0)
        assert canary.step(60.0 * number) is None and canary.share == 0.5
    answer(canary, good=50, first_content_s=1.0)
    others(canary, good=50, first_content_s=1.0)
    assert canary.step(360.0) is None and canary.share == 0.5
    answer(canary, good=50)
    others(canary, good=50)
    assert canary.step(419.9) is None and canary.step(420.0) is None and canary.share == 0.5


def test_a_step_lasts_its_time_and_has_its_answers() -> None:
    canary = begun()
    answer(canary, good=49)
    assert canary.step(1000.0) is None
    answer(canary, good=1)
    assert canary.step(1000.0) == Step(
        0.1,
        0.2,
        "as good: 0 errors in 50 answers, elsewhere 0 errors in 0 answers; too few times to first content to compare",
    )
    answer(canary, good=1000)
    assert canary.step(1059.9) is None
    assert canary.step(1060.0) is not None and canary.share == 0.4


def test_the_first_step_begins_when_it_is_first_asked_for() -> None:
    canary = Canary(RULES)
    answer(canary, good=50)
    assert canary.step(1e6) is None
    assert canary.step(1e6 + 59.9) is None
    assert canary.step(1e6 + 60) is not None


def test_a_canary_that_fails_every_request_is_stopped_at_the_second_and_stays_so() -> None:
    canary = begun()
    others(canary, good=1000)
    answer(canary, bad=1)
    assert canary.step(0.1) is None
    answer(canary, bad=1)
    assert canary.step(0.2) == Step(
        0.1,
        0.0,
        "more errors: 2 errors in 2 answers, elsewhere 0 errors in 1000 answers; "
        "too few times to first content to compare",
    )
    assert shares_of(canary, 5) == [0.0] * 5


@pytest.mark.parametrize(
    ("good", "bad", "then"),
    [(49, 1, 0.2), (48, 2, 0.0), (98, 2, 0.2), (97, 3, 0.0), (980, 20, 0.2), (979, 21, 0.1), (970, 30, 0.0)],
)
def test_with_others_that_are_without_fault_hardly_more_errors_are_allowed_than_the_rules_say(
    good: int, bad: int, then: float
) -> None:
    assert shares_of(begun(), 1, good=good, bad=bad) == [then]


def test_where_others_have_answered_nothing_errors_are_compared_with_none_and_the_speed_with_nothing() -> None:
    canary = begun()
    answer(canary, good=49, bad=1, first_content_s=100.0)
    assert canary.step(60.0) is not None and canary.share == 0.2
    answer(canary, bad=2)
    assert canary.step(60.0) is not None and canary.share == 0


def test_one_error_of_others_that_have_hardly_answered_excuses_few() -> None:
    canary = begun()
    others(canary, bad=1)
    answer(canary, bad=6)
    assert canary.step(1.0) is None
    answer(canary, bad=1)
    assert canary.step(1.0) is not None and canary.share == 0


def test_errors_that_the_others_have_too_are_allowed() -> None:
    canary = begun()
    for number in range(1, 6):
        others(canary, good=900, bad=100)
        answer(canary, good=45, bad=5)
        canary.step(60.0 * number)
    assert canary.share == 0.5


def test_when_all_fail_the_canary_is_no_worse() -> None:
    canary = begun()
    others(canary, bad=1000)
    answer(canary, bad=100)
    assert canary.step(60.0) is not None and canary.share == 0.2


def test_errors_that_may_be_chance_neither_raise_it_nor_stop_it_until_it_is_clear() -> None:
    for good, bad, then in ((450, 0, 0.2), (400, 100, 0.0)):
        canary = begun()
        others(canary, good=9500, bad=500)
        answer(canary, good=45, bad=5)
        assert canary.step(60.0) is None and canary.share == 0.1
        answer(canary, good=good, bad=bad)
        assert canary.step(60.1) is not None and canary.share == then


def test_a_row_of_errors_stops_a_canary_however_many_answers_its_rules_want_and_were_good_before() -> None:
    canary = begun(CanaryRules(share=0.1, min_requests=10_000, max_errors=0.1))
    others(canary, good=99_000, bad=1000)
    for time in (1.0, 2.0):
        answer(canary, good=5000)
        answer(canary, bad=RUN - 1)
        assert canary.step(time) is None
    answer(canary, good=1)
    answer(canary, bad=RUN - 1)
    answer(canary, bad=1)
    assert canary.step(3.0) is not None and canary.share == 0


def test_a_canary_that_was_good_for_long_is_stopped_after_a_row_of_errors() -> None:
    canary = begun()
    shares_of(canary, 100, good=1000)
    answer(canary, bad=RUN)
    assert canary.step(6001.0) is not None and canary.share == 0


def test_errors_of_the_step_before_count_and_older_ones_do_not() -> None:
    for good_steps, then in ((0, 0.0), (1, 0.5)):
        canary = begun()
        assert shares_of(canary, 1, good=49, bad=1) == [0.2]
        others(canary, good=1000)
        for _ in range(good_steps):
            answer(canary, good=50)
            others(canary, good=1000)
            assert canary.step(120.0) is not None and canary.share == 0.4
        answer(canary, good=48, bad=2)
        canary.step(1000.0)
        assert canary.share == then


def test_a_canary_that_is_slower_goes_back_a_step_and_below_the_first_to_zero() -> None:
    canary = begun()
    assert shares_of(canary, 2) == [0.2, 0.4]
    seen = []
    for number in range(3, 7):
        answer(canary, good=50, first_content_s=1.6)
        others(canary, good=50, first_content_s=1.0)
        seen.append(canary.step(60.0 * number))
    assert [step and (step.old, step.new) for step in seen] == [(0.4, 0.2), (0.2, 0.1), (0.1, 0.0), None]
    assert seen[0] is not None and seen[0].reason == (
        "slower: 0 errors in 100 answers, elsewhere 0 errors in 1050 answers; "
        "mean time to first content 1.6 s, elsewhere 1 s"
    )


def test_a_canary_that_is_hardly_slower_goes_on() -> None:
    canary = begun()
    answer(canary, good=50, first_content_s=1.5)
    others(canary, good=50, first_content_s=1.0)
    step = canary.step(60.0)
    assert step is not None and step.new == 0.2 and "1.5 s, elsewhere 1 s" in step.reason


def test_a_slow_step_says_nothing_about_the_next() -> None:
    canary = begun()
    assert shares_of(canary, 1) == [0.2]
    for number, (time_s, then) in enumerate([(1000.0, 0.1), (1.0, 0.2)], 2):
        answer(canary, good=50, first_content_s=time_s)
        others(canary, good=50, first_content_s=1.0)
        canary.step(60.0 * number)
        assert canary.share == then


@pytest.mark.parametrize(("canary_times", "others_times", "then"), [(24, 99, 0.2), (99, 24, 0.2), (25, 25, 0.0)])
def test_the_speed_is_judged_only_when_both_have_enough_times(
    canary_times: int, others_times: int, then: float
) -> None:
    canary = begun()
    answer(canary, good=canary_times, first_content_s=9.0)
    others(canary, good=others_times, first_content_s=1.0)
    answer(canary, good=50)
    others(canary, good=50)
    canary.step(60.0)
    assert canary.share == then


@pytest.mark.parametrize("time_s", [nan, inf, -1.0])
def test_what_is_no_time_is_not_noted(time_s: float) -> None:
    canary = begun()
    answer(canary, good=50, first_content_s=time_s)
    others(canary, good=50, first_content_s=1.0)
    step = canary.step(60.0)
    assert step is not None and step.new == 0.2 and "too few times" in step.reason


def test_answers_that_come_when_it_was_stopped_change_nothing() -> None:
    canary = begun()
    answer(canary, bad=2)
    assert canary.step(1.0) is not None
    answer(canary, good=1000)
    assert [canary.step(time) for time in (2.0, 1000.0)] == [None, None] and canary.share == 0


@pytest.mark.parametrize("share_of_errors", [0.0, 0.01, 0.05, 0.2])
def test_a_canary_that_is_like_the_others_is_not_stopped_by_chance(share_of_errors: float) -> None:
    """A hundred steps of 600 answers at each of three canaries."""
    for seed in range(3):
        random, canary = Random(seed), begun()
        for number in range(1, 60_000):
            canary.note(
                is_canary=random.random() < canary.share,
                is_error=random.random() < share_of_errors,
                first_content_s=random.expovariate(1.0),
            )
            canary.step(number / 10)
        assert canary.share == 0.5


@given(st.floats(0.0, 0.2), st.integers(1, 200), st.floats(0.0, 0.5), st.integers(0, 3000))
def test_a_canary_that_fails_every_request_is_stopped_after_a_row_at_the_latest(
    max_errors: float, min_requests: int, first: float, others_good: int
) -> None:
    canary = Canary(CanaryRules(share=max(first, 1e-6), min_requests=min_requests, max_errors=max_errors))
    others(canary, good=others_good)
    for failed in count(1):
        answer(canary, bad=1)
        if canary.step(0.0) is not None:
            break
        assert failed <= RUN
    assert canary.share == 0


class AnyTraffic(RuleBasedStateMachine):
    """A canary with any traffic, and what must hold then."""

    numbers = CanaryRules(share=0.03, max_share=0.4, step_s=10.0, min_requests=5, max_errors=0.1, max_slower=2.0)

    def __init__(self) -> None:
        super().__init__()
        self.canary = Canary(self.numbers)
        self.now = 0.0
        self.canary.step(self.now)
        self.stepped = 0.0
        self.was_stopped = False
        self.answers = self.errors = 0  # of the canary in this step

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        is_canary=st.booleans(),
        is_error=st.sampled_from([False, False, False, True]),
        times=st.integers(1, 20),
        first_content_s=st.sampled_from([None, 0.0, 0.1, 1.0]),
    )
    def note(self, is_canary: bool, is_error: bool, times: int, first_content_s: float | None) -> None:
        for _ in range(times):
            self.canary.note(is_canary=is_canary, is_error=is_error, first_content_s=first_content_s)
        self.answers += is_canary * times
        self.errors += is_canary * is_error * times

    @rule()
    def step(self) -> None:
        before = self.canary.share
        step = self.canary.step(self.now)
        assert (step is not None) == (self.canary.share != before)
        if step is None:
            return
        assert (step.old, step.new) == (before, self.canary.share) and step.reason
        if step.reason.startswith("more errors"):
            assert step.new == 0
        else:
            assert self.now >= self.stepped + self.numbers.step_s and self.answers >= self.numbers.min_requests
            doubled, half = min(2 * before, self.numbers.max_share), before / 2
            assert step.new in (doubled, half if half >= self.numbers.share else 0.0)
        assert step.new < before or self.errors <= self.answers / 2 or "elsewhere 0 errors" not in step.reason
        self.stepped, self.answers, self.errors = self.now, 0, 0
        self.was_stopped = step.new == 0

    @invariant()
    def it_stays_within_its_bounds_and_at_zero_for_ever(self) -> None:
        if self.was_stopped:
            assert self.canary.share == 0
        else:
            assert self.numbers.share <= self.canary.share <= self.numbers.max_share

    def teardown(self) -> None:
        """However it came to where it is: like the others it ends at its limit, and failing it ends."""
        if self.was_stopped:
            return
        fails = self.answers % 2 == 1
        for _ in range(40):
            for is_canary in (True, False):
                for number in range(200):
                    is_error = number % 50 == 0 or (fails and is_canary)
                    self.canary.note(is_canary=is_canary, is_error=is_error, first_content_s=1.0)
            self.now += self.numbers.step_s
            step = self.canary.step(self.now)
            if step is not None and step.new == 0:
                break
        assert self.canary.share == 0 if fails else self.canary.share in (0, self.numbers.max_share)


TestAnyTraffic = AnyTraffic.TestCase
