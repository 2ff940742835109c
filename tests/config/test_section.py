"""The kinds of numbers: what they take, and what they refuse."""

from math import inf, nan
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from trioproxy.config.section import (
    MAX_COUNT,
    MAX_SECONDS,
    MAX_WEIGHT,
    Count,
    CountFromZero,
    Seconds,
    SecondsFromZero,
    Share,
    Size,
    Weight,
)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Seconds, [1, 0.001, MAX_SECONDS], [0, -1, 2 * MAX_SECONDS]),
        (SecondsFromZero, [0, 0.5], [-0.1, 2 * MAX_SECONDS]),
        (Size, [1, 2**63 - 1], [0, -1, 2**63, 1.5]),
        (Count, [1, MAX_COUNT], [0, -1, MAX_COUNT + 1, 1.5]),
        (CountFromZero, [0, MAX_COUNT], [-1, MAX_COUNT + 1, 0.5]),
        (Share, [0, 0.2, 1], [-0.1, 1.1]),
        (Weight, [0, 0.2, MAX_WEIGHT], [-0.1, 2 * MAX_WEIGHT]),
    ],
)
def test_a_number_is_of_its_kind(kind: Any, good: list[float], bad: list[object]) -> None:
    adapter = TypeAdapter(kind)
    assert [adapter.validate_python(value) for value in good] == good
    for wrong in [*bad, nan, inf, True, "1", None, [1]]:
        with pytest.raises(ValidationError, match=r"is not a|is out of range"):
            adapter.validate_python(wrong)
