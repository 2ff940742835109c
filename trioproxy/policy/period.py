"""The day and the month of a moment, as budgets name them: "2026-11-21" and "2026-11", in UTC. PURE: no clock.

Source of the arithmetic: the proleptic Gregorian calendar, in eras of 400 years, which have 146,097 days each; the year
is taken to begin in March, so that a leap day is its last.
"""

from functools import lru_cache
from typing import Final

_DAY_S: Final = 86_400
_DAYS_TO_1970: Final = 719_468
"""From the first of March of the year 0 to the first of January 1970."""
_DAYS_OF_ERA: Final = 146_097
_DAYS_OF_CENTURY: Final = 36_524
_DAYS_OF_FOUR_YEARS: Final = 1461


def day_of(wall_s: float) -> str:
    """The day of a moment, which is given in seconds since 1970."""
    return _day(int(wall_s // _DAY_S))


def month_of(wall_s: float) -> str:
    """The month of a moment, which is given in seconds since 1970."""
    return _month(int(wall_s // _DAY_S))


def months_before(month: str, count: int) -> str:
    """The month that lies so many before another, both as "2026-11"."""
    year, number = month.split("-")
    year_before, number_before = divmod(12 * int(year) + int(number) - 1 - count, 12)
    return f"{year_before:04d}-{number_before + 1:02d}"


@lru_cache(maxsize=8)
def _day(days: int) -> str:
    year, month, day = _date(days)
    return f"{year:04d}-{month:02d}-{day:02d}"


@lru_cache(maxsize=8)
def _month(days: int) -> str:
    year, month, _ = _date(days)
    return f"{year:04d}-{month:02d}"


def _date(days: int) -> tuple[int, int, int]:
    """Year, month and day, so many days behind the first of January 1970."""
    era, day_of_era = divmod(days + _DAYS_TO_1970, _DAYS_OF_ERA)
    # The last day of an era is the leap day of its fourth century, and the last of four years that of their fourth.
    century = min(day_of_era // _DAYS_OF_CENTURY, 3)
    day_of_century = day_of_era - century * _DAYS_OF_CENTURY
    fours, day_of_fours = divmod(day_of_century, _DAYS_OF_FOUR_YEARS)
    year_of_fours = min(day_of_fours // 365, 3)
    day_of_year = day_of_fours - 365 * year_of_fours
    # Months from March on have 31, 30, 31, 30, 31 days, and so on again: 153 days for each five of them.
    months_behind_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * months_behind_march + 2) // 5 + 1
    year = 400 * era + 100 * century + 4 * fours + year_of_fours
    is_next_year = months_behind_march >= 10
    return year + is_next_year, months_behind_march + (-9 if is_next_year else 3), day
