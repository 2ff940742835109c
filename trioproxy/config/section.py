"""What all sections of the configuration share: their base, and the kinds of numbers. A rule raises `Wrong`."""

import math
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from trioproxy.config.secrets import MAX_BYTES, Wrong, got

MAX_SECONDS: Final = 1e9
MAX_COUNT: Final = 1_000_000
MAX_WEIGHT: Final = 1e6


class Section(BaseModel):
    """What all sections share: frozen, no unknown key, no guessing of types, and no input in pydantic's own errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )


def _seconds(value: object, expected: str = "seconds > 0", least: float = math.ulp(0.0)) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong("is not a number", expected, got(value))
    if not least <= value <= MAX_SECONDS:  # Also refuses nan.
        raise Wrong("is out of range", expected, got(value))
    return float(value)


def _positive_seconds(value: object) -> float:
    return _seconds(value)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("is not a whole number", "bytes > 0", got(value))
    if not 0 < value <= MAX_BYTES:
        raise Wrong("is out of range", "bytes > 0", got(value))
    return value


def _count(value: object, expected: str = "a number > 0", least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("is not a whole number", expected, got(value))
    if not least <= value <= MAX_COUNT:
        raise Wrong("is out of range", expected, got(value))
    return value


def _positive_count(value: object) -> int:
    return _count(value)


def _number(value: object, expected: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong("is not a number", expected, got(value))
    if not 0 <= value <= most:  # Also refuses nan.
        raise Wrong("is out of range", expected, got(value))
    return float(value)


Seconds = Annotated[float, BeforeValidator(_positive_seconds)]
SecondsFromZero = Annotated[float, BeforeValidator(lambda value: _seconds(value, "seconds >= 0", 0))]
Size = Annotated[int, BeforeValidator(_size)]
Count = Annotated[int, BeforeValidator(_positive_count)]
CountFromZero = Annotated[int, BeforeValidator(lambda value: _count(value, "a number >= 0", 0))]
Share = Annotated[float, BeforeValidator(lambda value: _number(value, "a share from 0 to 1", 1))]
Weight = Annotated[float, BeforeValidator(lambda value: _number(value, "a number >= 0", MAX_WEIGHT))]
