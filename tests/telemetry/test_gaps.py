"""How long a stream was silent between its events.

Run as a program, it says what noting one costs: `python -m tests.telemetry.test_gaps`.
"""

import time

from trioproxy.telemetry.gaps import BOUNDS_S, Gaps


def test_a_gap_is_counted_under_the_bound_that_it_does_not_pass() -> None:
    gaps = Gaps()
    for gap_s in (0.0, 0.001, 0.0011, 0.02, 5000.0):
        gaps.note(gap_s, 1)
    assert gaps.counts == [2, 1, 0, 1, *[0] * 9, 1]
    assert len(gaps.counts) == len(BOUNDS_S) + 1
    assert gaps.longest_s == 5000.0
    assert abs(gaps.total_s - 5000.0221) < 1e-9


def test_between_events_that_came_at_once_there_is_none() -> None:
    gaps = Gaps()
    gaps.note(0.5, 4)
    assert (sum(gaps.counts), gaps.counts[0], gaps.total_s) == (4, 3, 0.5)


def cost_s(times: int = 200_000) -> float:
    """What noting one gap takes."""
    gaps = Gaps()
    start = time.perf_counter()
    for _ in range(times):
        gaps.note(0.02, 1)
    return (time.perf_counter() - start) / times


if __name__ == "__main__":
    print(f"{1e6 * cost_s():.2f} µs")
