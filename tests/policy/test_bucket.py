"""A bucket never passes more than its rate in any minute, and no less than it must."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.bucket import WINDOW_S, Bucket
from trioproxy.policy.limits import Standing

SLOT_S = 0.25

MOMENTS = st.one_of(
    st.floats(0.0, 130.0),
    st.integers(0, 520).map(lambda number: number * SLOT_S),
    st.sampled_from([0.0, 1e-9, WINDOW_S, WINDOW_S + SLOT_S, SLOT_S / 3, 0.1]),
)
PAUSES = st.lists(
    st.tuples(MOMENTS, st.sampled_from(["take", "take", "take", "settle"]), st.integers(0, 12)), max_size=60
)


@dataclass
class Taken:
    """What was taken, and what is still held of it."""

    at: float
    count: int
    is_settled: bool = False


@dataclass
class Model:
    """All that ever counted: what was taken, less what came back, and what was charged."""

    taken: list[Taken] = field(default_factory=list)
    charged: list[Taken] = field(default_factory=list)

    def within(self, start: float, end: float) -> int:
        return sum(one.count for one in (*self.taken, *self.charged) if start <= one.at <= end)


@given(st.integers(1, 10), st.floats(0, 1e6), PAUSES)
def test_no_window_of_a_minute_passes_more_than_the_rate_and_what_has_room_is_passed(
    rate: int, start: float, steps: list[tuple[float, str, int]]
) -> None:
    """Windows are looked at when something is taken: that is when one could become too full."""
    bucket, model, now = Bucket(rate), Model(), start
    for pause_s, what, n in steps:
        now += pause_s / 10
        if what == "settle":
            for one in [one for one in model.taken if not one.is_settled][:1]:
                one.is_settled = True
                if n < one.count:
                    bucket.give_back(one.count - n, one.at, now)
                    one.count = n
                else:
                    bucket.charge(n - one.count, now)
                    model.charged.append(Taken(now, n - one.count))
            continue
        wait_s = bucket.wait_s(n, now)
        has_room = model.within(now - WINDOW_S - SLOT_S, now) + n <= rate
        if wait_s == 0.0:
            bucket.take(n, now)
            model.taken.append(Taken(now, n))
            assert n == 0 or model.within(now - WINDOW_S, now) <= rate
        else:
            assert not has_room
            assert (wait_s is None) == (n > rate)
        assert bucket.standing(now).remaining >= rate - model.within(now - WINDOW_S - SLOT_S, now)


@given(st.integers(1, 10), st.floats(0, 1e6), PAUSES)
def test_the_wait_that_is_told_is_enough_and_not_too_long(
    rate: int, start: float, steps: list[tuple[float, str, int]]
) -> None:
    bucket, now = Bucket(rate), start
    for pause_s, _, n in steps:
        now += pause_s / 10
        wait_s = bucket.wait_s(n, now)
        if wait_s == 0.0:
            bucket.take(n, now)
        elif wait_s is not None:
            assert wait_s <= WINDOW_S + SLOT_S + 0.001
            assert wait_s <= SLOT_S or bucket.wait_s(n, now + wait_s - 0.001) != 0.0
            assert bucket.wait_s(n, now + wait_s) == 0.0
            now += wait_s


def test_a_minute_begins_anywhere() -> None:
    bucket = Bucket(10)
    bucket.take(10, 59.9)
    for now in (60.0, 61.0, 119.9):
        assert bucket.wait_s(1, now) is not None and bucket.wait_s(1, now) != 0.0
    assert bucket.wait_s(10, 120.0) == 0.0


def test_the_wait_is_until_enough_is_there() -> None:
    bucket = Bucket(10)
    for at, n in ((0.0, 2), (10.0, 3), (20.0, 5)):
        bucket.take(n, at)
    for n, wait_s in ((1, 30.25), (2, 30.25), (3, 40.25), (5, 40.25), (6, 50.25), (10, 50.25)):
        assert bucket.wait_s(n, 30.0) == pytest.approx(wait_s, abs=1e-5)
    assert bucket.wait_s(11, 30.0) is None
    assert bucket.wait_s(0, 30.0) == 0.0


def test_what_is_given_back_can_be_taken_again_and_no_more_than_that() -> None:
    bucket = Bucket(10)
    bucket.take(4, 0.0)
    bucket.take(6, 5.0)
    bucket.give_back(3, 0.0, 10.0)
    assert bucket.standing(10.0).remaining == 3
    bucket.give_back(100, 5.1, 10.0)
    assert bucket.standing(10.0).remaining == 9
    bucket.give_back(5, 2.0, 10.0)
    bucket.give_back(5, 9.0, 10.0)
    assert bucket.standing(10.0).remaining == 9
    bucket.take(9, 61.0)
    bucket.give_back(1, 0.0, 61.0)
    assert bucket.standing(61.0).remaining == 1
    assert bucket.standing(61.0).reset_s == pytest.approx(60.25, abs=1e-5)
    bucket.give_back(9, 61.0, 61.0)
    assert bucket.standing(61.0) == Standing(10, 10, 0.0)


def test_more_than_the_rate_may_be_charged_and_is_waited_for() -> None:
    bucket = Bucket(10)
    bucket.charge(25, 0.0)
    bucket.charge(5, 1.0)
    assert bucket.standing(1.0).remaining == 0
    assert bucket.standing(1.0).reset_s == pytest.approx(60.25, abs=1e-5)
    assert bucket.wait_s(1, 1.0) == pytest.approx(59.25, abs=1e-5)
    assert bucket.standing(60.5).remaining == 5
    assert bucket.standing(61.25) == Standing(10, 10, 0.0)


def test_the_rate_may_change() -> None:
    bucket = Bucket(10)
    bucket.take(8, 0.0)
    bucket.rate = 5
    assert bucket.standing(0.0).remaining == 0
    assert bucket.wait_s(1, 0.0) == pytest.approx(60.25, abs=1e-5)
    bucket.rate = 20
    assert bucket.standing(0.0).remaining == 12


def test_time_that_goes_back_stands_still() -> None:
    bucket = Bucket(10)
    bucket.take(4, 100.0)
    bucket.take(6, 50.0)
    assert bucket.wait_s(7, 100.0) == pytest.approx(60.25, abs=1e-5)
    assert bucket.wait_s(1, 0.0) != 0.0
    assert bucket.wait_s(1, 160.0) != 0.0
    assert bucket.wait_s(10, 160.25) == 0.0


def test_memory_does_not_grow_with_traffic() -> None:
    bucket = Bucket(10**9)
    for number in range(10_000):
        bucket.take(1, 1e6 + number / 20)
    assert len(bucket._slots) <= 241
    assert bucket.standing(2e6) == Standing(10**9, 10**9, 0.0)
    assert len(bucket._slots) == 0
