"""A short form of `make chaos`: streams with random fates at both ends, and what must hold afterwards."""

from tests.chaos.chaos import run


def test_six_hundred_random_fates_leave_nothing_behind_and_tell_no_lie() -> None:
    assert run(600, 100, seed=7) == []
