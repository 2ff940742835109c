"""The ring of keys: who is next, who is out and for how long, and what holds whatever is answered."""

from math import inf, nan

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioproxy.policy.keys import KeyRing


def outings(status: int, count: int) -> list[float]:
    """How long a key is out, each time that it is used again and refused again."""
    ring, now, times = KeyRing(2), 0.0, []
    for _ in range(count):
        ring.note(0, status, None, now)
        ring.note(1, status, None, now)
        times.append(ring.wait_s(now))
        now += times[-1]
    return times


def test_the_key_that_fewest_requests_hold_is_next_and_among_equals_they_take_turns() -> None:
    ring = KeyRing(3)
    assert [ring.take(0.0) for _ in range(3)] == [0, 1, 2]
    ring.give_back(1)
    assert [ring.take(0.0) for _ in range(2)] == [1, 0]
    for index in (0, 0, 1, 2):
        ring.give_back(index)
    assert [ring.take(0.0) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("status", [401, 402])
def test_a_refused_key_is_out_for_longer_each_time(status: int) -> None:
    assert outings(status, 6) == [60, 120, 240, 480, 600, 600]


def test_a_limited_key_is_out_for_longer_each_time() -> None:
    assert outings(429, 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert outings(429, 3000)[-1] == 60


@pytest.mark.parametrize(
    ("told_s", "out_s"), [(7.5, 7.5), (0.0, 0.0), (1e9, 3600), (inf, 3600), (-1.0, 1.0), (nan, 1.0), (None, 1.0)]
)
def test_a_limited_key_is_out_for_what_its_origin_says_within_reason(told_s: float | None, out_s: float) -> None:
    ring = KeyRing(1)
    ring.note(0, 429, told_s, 100.0)
    assert ring.wait_s(100.0) == out_s


@pytest.mark.parametrize("status", [200, 400, 403, 404, 408, 500, 503, 529])
def test_other_answers_put_no_key_out(status: int) -> None:
    ring = KeyRing(2)
    ring.note(0, status, 9.0, 0.0)
    assert ring.is_usable(0, 0.0) and ring.wait_s(0.0) == 0


def test_an_error_does_not_make_the_next_time_short_again() -> None:
    ring = KeyRing(2)
    ring.note(0, 401, None, 0.0)
    ring.note(0, 500, None, 60.0)
    ring.note(0, 400, None, 60.0)
    ring.note(0, 401, None, 60.0)
    assert not ring.is_usable(0, 179.0)


def test_a_key_that_is_out_is_passed_over_until_its_time() -> None:
    ring = KeyRing(2)
    ring.note(0, 429, 5.0, 0.0)
    assert [ring.take(4.9) for _ in range(3)] == [1, 1, 1]
    assert ring.wait_s(4.9) == 0
    assert ring.take(5.0) == 0


def test_when_all_are_out_there_is_none_but_a_time() -> None:
    ring = KeyRing(2)
    ring.note(0, 401, None, 0.0)
    ring.note(1, 429, 5.0, 0.0)
    assert ring.take(1.0) is None and ring.wait_s(1.0) == 4
    assert KeyRing(0).take(0.0) is None and KeyRing(0).wait_s(0.0) == 0


def test_the_only_key_is_used_all_the_same_and_its_success_brings_it_back() -> None:
    ring = KeyRing(1)
    ring.note(0, 429, 50.0, 0.0)
    assert ring.take(1.0) == 0
    ring.note(0, 200, None, 1.0)
    assert ring.wait_s(1.0) == 0
    ring.note(0, 429, None, 2.0)
    ring.note(0, 200, None, 2.5)  # was under way before
    assert ring.wait_s(2.5) == 0.5


def test_a_success_makes_the_next_time_short_again() -> None:
    for status, first_s in ((429, 1.0), (401, 60.0)):
        ring = KeyRing(2)
        ring.note(0, status, None, 0.0)
        ring.note(0, status, None, first_s)
        ring.note(0, 204, None, 3 * first_s)
        ring.note(0, status, None, 1000.0)
        assert not ring.is_usable(0, 1000.0 + 0.9 * first_s) and ring.is_usable(0, 1000.0 + first_s)


def test_requests_that_were_under_way_neither_lengthen_a_time_nor_end_it() -> None:
    ring = KeyRing(2)
    for status in (429, 429, 200, 401, 429, 200):
        ring.note(0, status, None, 0.0)
    assert not ring.is_usable(0, 0.9) and ring.is_usable(0, 1.0)
    ring.note(0, 429, None, 1.0)
    assert ring.is_usable(0, 3.0) and not ring.is_usable(0, 2.9)  # the second time, not the fourth


def test_a_longer_retry_after_counts_also_while_it_is_out_and_a_shorter_does_not() -> None:
    ring = KeyRing(2)
    for told_s in (5.0, 9.0, 2.0):
        ring.note(0, 429, told_s, 0.0)
    assert not ring.is_usable(0, 8.9) and ring.is_usable(0, 9.0)


def test_a_clients_own_key_is_never_counted() -> None:
    ring = KeyRing(1)
    for status in (401, 402, 429, 200):
        ring.note(None, status, 5.0, 0.0)
    ring.give_back(None)
    assert ring.is_usable(0, 0.0) and ring.take(0.0) == 0


class AnyAnswers(RuleBasedStateMachine):
    """Keys that are taken and answered in any order, and what must hold then."""

    count = 3

    def __init__(self) -> None:
        super().__init__()
        self.ring = KeyRing(self.count)
        self.now = 0.0
        self.held: list[int] = []

    def usable(self) -> list[int]:
        return [index for index in range(self.count) if self.ring.is_usable(index, self.now)]

    @rule(seconds=st.floats(0, 700))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        usable = self.usable()
        index = self.ring.take(self.now)
        assert (index is None) == (not usable)
        if index is not None:
            assert index in usable
            assert self.held.count(index) == min(self.held.count(other) for other in usable)
            self.held.append(index)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        status=st.sampled_from([200, 400, 401, 402, 403, 429, 500]),
        told_s=st.none() | st.floats(),
    )
    def end(self, data: st.DataObject, status: int, told_s: float | None) -> None:
        index = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        was_usable = index in self.usable()
        self.ring.note(index, status, told_s, self.now)
        self.ring.give_back(index)
        is_usable = index in self.usable()
        if status in (401, 402) or (status == 429 and told_s is None):
            assert not is_usable
        elif status != 429:
            assert is_usable == was_usable

    @invariant()
    def the_wait_ends_when_a_key_is_back(self) -> None:
        wait_s = self.ring.wait_s(self.now)
        assert 0 <= wait_s <= 3600 and (wait_s == 0) == bool(self.usable())
        assert [key.in_use for key in self.ring._keys] == [self.held.count(index) for index in range(self.count)]


TestAnyAnswers = AnyAnswers.TestCase
