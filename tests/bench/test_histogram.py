"""Counts of times: percentiles right to 1 percent, and sums of several."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.bench.histogram import Histogram

TIMES = st.lists(st.floats(1e-6, 3600), min_size=1, max_size=60)


def of(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.note(seconds)
    return histogram


@given(TIMES, st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_one_of_the_times_to_one_percent(times: list[float], percent: int) -> None:
    rank = -(-len(times) * percent // 100)
    expected = sorted(times)[max(rank, 1) - 1]
    assert of(times).percentile(percent) == pytest.approx(expected, rel=0.0101)


@given(TIMES, TIMES)
def test_two_that_are_added_are_one_of_all_times(one: list[float], two: list[float]) -> None:
    both = of(one)
    both.add(Histogram.loaded(json.loads(json.dumps(of(two).dumped()))))
    all_of_them = of(one + two)
    assert both.count == all_of_them.count
    assert both.sum == pytest.approx(all_of_them.sum)
    assert (both.smallest, both.largest) == (min(one + two), max(one + two))
    assert both.shares() == all_of_them.shares()


def test_of_no_times_nothing_is_said() -> None:
    assert Histogram().percentile(50) is None
    assert Histogram().mean is None
    assert Histogram().shares() == []
    assert Histogram.loaded(json.loads(json.dumps(Histogram().dumped()))).percentile(50) is None


def test_no_time_at_all_is_a_time() -> None:
    assert of([0.0, -1.0]).percentile(50) == 1e-6


@given(TIMES)
def test_shares_rise_to_all_of_them(times: list[float]) -> None:
    shares = of(times).shares()
    assert shares == sorted(shares)
    assert shares[-1][1] == 1
