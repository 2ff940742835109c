"""Retries never exceed their share of the requests, whatever comes when; and the share can be had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.budget import RetryBudget

WINDOW_S = 10.0

STEPS = st.lists(
    st.tuples(
        st.just(0.0) | st.integers(0, 40).map(lambda eighths: eighths / 8) | st.floats(0, 30),
        st.integers(0, 20),  # requests
        st.integers(0, 20),  # retries asked for
    ),
    max_size=30,
)
SHARES = st.sampled_from([0.0, 0.2, 0.5, 1.0])
MINIMUMS = st.sampled_from([0.0, 0.1, 1.0])


def between(times: list[float], after: float, until: float) -> int:
    return sum(after < time <= until for time in times)


@given(STEPS, SHARES, MINIMUMS)
def test_no_window_holds_more_retries_than_its_share_and_hardly_fewer_can_be_had(
    steps: list[tuple[float, int, int]], share: float, minimum: float
) -> None:
    """Compared with the times of all that happened. At the window's old border a tenth of it is judged strictly."""
    budget = RetryBudget(share, minimum, WINDOW_S)
    now = 1000.0
    requests: list[float] = []
    taken: list[float] = []
    for later, came, asked in steps:
        now += later
        for _ in range(came):
            budget.note_request(now)
            requests.append(now)
        for _ in range(asked):
            if budget.take(now):
                taken.append(now)
                start = now - WINDOW_S
                assert between(taken, start, now) <= share * between(requests, start, now) + minimum * WINDOW_S
            else:
                strict = between(taken, now - 1.1 * WINDOW_S, now) + 1
                assert strict > share * between(requests, now - 0.9 * WINDOW_S, now) + minimum * WINDOW_S


@given(STEPS, SHARES, MINIMUMS, st.floats(0, 100))
def test_a_window_that_ends_anywhere_answers_for_the_requests_just_before_it_at_most(
    steps: list[tuple[float, int, int]], share: float, minimum: float, end: float
) -> None:
    budget = RetryBudget(share, minimum, WINDOW_S)
    now = 0.0
    requests: list[float] = []
    taken: list[float] = []
    for later, came, asked in steps:
        now += later
        for _ in range(came):
            budget.note_request(now)
        requests += [now] * came
        taken += [now for _ in range(asked) if budget.take(now)]
    allowed = share * between(requests, end - 2 * WINDOW_S, end) + minimum * WINDOW_S
    assert between(taken, end - WINDOW_S, end) <= allowed


def take_all(budget: RetryBudget, now: float) -> int:
    return next(count for count in range(10_000) if not budget.take(now))


@pytest.mark.parametrize(
    ("budget", "requests", "retries"),
    [
        (RetryBudget(), 0, 10),
        (RetryBudget(), 100, 30),
        (RetryBudget(min_per_s=0), 4, 0),
        (RetryBudget(min_per_s=0), 5, 1),
        (RetryBudget(share=0), 100, 10),
        (RetryBudget(share=0, min_per_s=0), 100, 0),
        (RetryBudget(share=0.5, min_per_s=2, window_s=1), 10, 7),
    ],
)
def test_a_window_gives_the_share_and_the_minimum(budget: RetryBudget, requests: int, retries: int) -> None:
    for _ in range(requests):
        budget.note_request(5.0)
    assert take_all(budget, 5.0) == retries


def test_what_left_the_window_counts_no_more() -> None:
    budget = RetryBudget(share=1, min_per_s=0)
    for _ in range(7):
        budget.note_request(0.5)
    assert budget.take(0.5)
    assert take_all(budget, 9.9) == 6
    assert take_all(budget, 10.0) == 0
    for _ in range(3):
        budget.note_request(30.0)
    assert take_all(budget, 30.0) == 3


def test_the_window_may_be_short_or_long() -> None:
    for window_s in (1.0, 60.0):
        budget = RetryBudget(share=1, min_per_s=0, window_s=window_s)
        for _ in range(5):
            budget.note_request(0.0)
        assert budget.take(0.8 * window_s)
        assert not budget.take(window_s)


def test_time_that_goes_back_stands_still() -> None:
    budget = RetryBudget(share=1, min_per_s=0)
    budget.note_request(100.0)
    budget.note_request(50.0)
    assert budget.take(0.0)
    assert take_all(budget, 100.0) == 1


def test_memory_does_not_grow_with_traffic() -> None:
    budget = RetryBudget()
    for now in (0.0, 1e3, 1e9):
        for _ in range(1000):
            budget.note_request(now)
            budget.take(now)
    assert len(budget._requests) + len(budget._taken) == 21
