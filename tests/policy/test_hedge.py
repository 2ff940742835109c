"""Hedging: when the second try starts, and that the budget is never exceeded."""

from math import ceil, inf, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.hedge import MAX_SAMPLES, MAX_SAVED, MIN_SAMPLES, Hedge, HedgeRules


def test_a_fixed_delay_needs_no_samples() -> None:
    assert Hedge(HedgeRules(after_s=0.5)).delay() == 0.5


def test_without_a_delay_nothing_is_hedged() -> None:
    hedge = Hedge(HedgeRules())
    for _ in range(100):
        hedge.note(1.0)
    assert hedge.delay() is None


def test_the_delay_is_where_95_of_100_had_content_once_enough_are_known() -> None:
    hedge = Hedge(HedgeRules(percentile=95))
    for number in range(MIN_SAMPLES - 1):
        hedge.note(float(number))
        assert hedge.delay() is None
    hedge.note(19.0)
    assert hedge.delay() == 18.0
    for number in range(20, 100):
        hedge.note(float(number))
    assert hedge.delay() == 94.0


@pytest.mark.parametrize("sample", [nan, inf, -inf, -1.0])
def test_what_is_no_time_is_not_noted(sample: float) -> None:
    hedge = Hedge(HedgeRules(percentile=95))
    for _ in range(100):
        hedge.note(sample)
    assert hedge.delay() is None


@given(st.lists(st.floats(0, 1e6), min_size=MIN_SAMPLES, max_size=2 * MAX_SAMPLES))
def test_the_delay_is_that_of_the_newest_samples_only(samples: list[float]) -> None:
    hedge = Hedge(HedgeRules(percentile=95))
    for sample in samples:
        hedge.note(sample)
    newest = sorted(samples[-MAX_SAMPLES:])
    assert len(newest) <= MAX_SAMPLES and hedge.delay() == newest[ceil(0.95 * len(newest)) - 1]
    assert len(hedge._sorted) == len(hedge._newest) == len(newest)


def test_so_many_samples_are_kept_and_no_more() -> None:
    hedge = Hedge(HedgeRules(percentile=95))
    for sample in range(MAX_SAMPLES + 7):
        hedge.note(float(sample))
    assert hedge._sorted == [float(sample) for sample in range(7, MAX_SAMPLES + 7)]


def test_an_old_slow_time_is_forgotten() -> None:
    hedge = Hedge(HedgeRules(percentile=95))
    for sample in [9.0] * MAX_SAMPLES + [1.0] * MAX_SAMPLES:
        hedge.note(sample)
    assert hedge.delay() == 1.0


@pytest.mark.parametrize("slow_share", [0.03, 0.05])
def test_hedges_that_win_do_not_make_ever_faster_tries_be_hedged(slow_share: float) -> None:
    """The loop as it is closed in the house: who loses to its hedge is noted with the time until then."""
    hedge, random = Hedge(HedgeRules(percentile=95)), Random(4)

    def draw() -> float:
        return 2.0 if random.random() < slow_share else random.uniform(0.1, 0.2)

    delays: list[float] = []
    for _ in range(5000):
        delay, first_s = hedge.delay(), draw()
        if delay is not None and first_s > delay:
            delays.append(delay)
            first_s = min(first_s, delay + draw())
        hedge.note(first_s)
    assert len(delays) < 0.065 * 5000
    assert min(delays) > 0.18


@pytest.mark.parametrize("budget", [0.29, 0.57, 0.58])
def test_a_budget_that_no_binary_fraction_hits_is_met_exactly(budget: float) -> None:
    hedge = Hedge(HedgeRules(after_s=1.0, budget=budget))
    hedges = 0
    for _ in range(100):
        hedge.note_request()
        hedges += hedge.take()
    assert hedges == round(100 * budget)


@given(st.sampled_from([0.0, 0.01, 0.1, 0.25, 1 / 3, 2 / 3, 0.5, 1.0]), st.lists(st.booleans(), max_size=300))
def test_the_budget_is_never_exceeded(budget: float, steps: list[bool]) -> None:
    hedge = Hedge(HedgeRules(after_s=1.0, budget=budget))
    requests = hedges = 0
    for is_request in steps:
        if is_request:
            hedge.note_request()
            requests += 1
        else:
            hedges += hedge.take()
        assert hedges <= budget * requests + 1e-3


def test_the_budget_is_used_to_the_last() -> None:
    hedge = Hedge(HedgeRules(after_s=1.0, budget=0.1))
    taken = []
    for _ in range(100):
        hedge.note_request()
        taken.append(hedge.take())
    assert [number for number, was in enumerate(taken, 1) if was] == list(range(10, 101, 10))


def test_only_so_many_hedges_are_saved_up() -> None:
    hedge = Hedge(HedgeRules(after_s=1.0, budget=0.5))
    for _ in range(10_000):
        hedge.note_request()
    assert sum(hedge.take() for _ in range(1000)) == MAX_SAVED
