"""Days and months are those of the calendar, in UTC."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.period import day_of, month_of, months_before

EPOCH = date(1970, 1, 1)
DAY_S = 86_400


def test_every_day_of_twelve_centuries_is_that_of_the_calendar() -> None:
    for days in range((date(1600, 1, 1) - EPOCH).days, (date(2800, 1, 1) - EPOCH).days):
        expected = EPOCH + timedelta(days=days)
        assert day_of(days * DAY_S) == expected.isoformat()


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_moment_has_its_day_and_month(moment: datetime) -> None:
    wall_s = moment.timestamp()
    shown = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=wall_s)).strftime("%Y-%m-%d").rjust(10, "0")
    assert (day_of(wall_s), month_of(wall_s)) == (shown, shown[:7])


@pytest.mark.parametrize(
    ("wall_s", "day"),
    [
        (0.0, "1970-01-01"),
        (-0.001, "1969-12-31"),
        (1_795_219_199.999, "2026-11-20"),
        (1_795_219_200.0, "2026-11-21"),
        (1_709_164_800.0, "2024-02-29"),
        (951_782_400.0, "2000-02-29"),
    ],
)
def test_a_day_begins_at_midnight_in_utc(wall_s: float, day: str) -> None:
    assert day_of(wall_s) == day
    assert month_of(wall_s) == day[:7]


@pytest.mark.parametrize(
    ("month", "count", "before"),
    [("2026-11", 0, "2026-11"), ("2026-11", 2, "2026-09"), ("2026-01", 1, "2025-12"), ("2026-02", 26, "2023-12")],
)
def test_months_are_counted_back_across_years(month: str, count: int, before: str) -> None:
    assert months_before(month, count) == before
