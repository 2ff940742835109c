"""What sections of the configuration share: their base, and the kinds of numbers and names. A rule raises `Wrong`."""

import ipaddress
import math
import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from trioproxy.config.secrets import MAX_BYTES, Wrong, got, shortened

MAX_SECONDS: Final = 1e9
MAX_COUNT: Final = 1_000_000
MAX_WEIGHT: Final = 1e6
MAX_TIMES: Final = 1e6
MAX_MILLIS: Final = 1_000
MAX_MODEL_CHARACTERS: Final = 200

BIND: Final = '"HOST:PORT", for example "127.0.0.1:8080" or "[::1]:8080"'

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?")


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


def _number(value: object, expected: str, most: float, least: float = 0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong("is not a number", expected, got(value))
    if not least <= value <= most:  # Also refuses nan.
        raise Wrong("is out of range", expected, got(value))
    return float(value)


def _millis(value: object) -> float:
    return _number(value, f"milliseconds > 0, at most {MAX_MILLIS:g}", MAX_MILLIS, math.ulp(0.0))


def _some_share(value: object) -> float:
    return _number(value, "a share above 0, up to 1", 1, math.ulp(0.0))


def _model(value: object) -> str:
    expected = 'a model, such as "gpt-4o"'
    if not isinstance(value, str):
        raise Wrong("is not text", expected, got(value))
    if not 0 < len(value) <= MAX_MODEL_CHARACTERS:
        raise Wrong("is empty or too long", expected, got(value))
    if re.search(r"[*?]", value):
        raise Wrong("is a glob", expected, got(value))
    return value


def is_host(host: str) -> bool:
    """Whether this is the name or address of a host; an IPv6 address without its brackets."""
    try:
        if ":" in host:
            return bool(ipaddress.IPv6Address(host))
        if re.fullmatch(r"[0-9.]+", host):
            return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False
    return _HOST.fullmatch(host) is not None


def split_bind(bind: str) -> tuple[str, int]:
    """The host (without brackets) and the port of "HOST:PORT"; port 0 lets the system choose. Raises Wrong."""
    host, _, port = bind.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not is_host(bare) or (":" in bare) != (bare != host):
        raise Wrong("is not an address", BIND, shortened(bind))
    if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise Wrong("has no port from 0 to 65535", BIND, shortened(bind))
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Seconds = Annotated[float, BeforeValidator(_positive_seconds)]
SecondsFromZero = Annotated[float, BeforeValidator(lambda value: _seconds(value, "seconds >= 0", 0))]
Millis = Annotated[float, BeforeValidator(_millis)]
Size = Annotated[int, BeforeValidator(_size)]
Count = Annotated[int, BeforeValidator(_positive_count)]
CountFromZero = Annotated[int, BeforeValidator(lambda value: _count(value, "a number >= 0", 0))]
Share = Annotated[float, BeforeValidator(lambda value: _number(value, "a share from 0 to 1", 1))]
Weight = Annotated[float, BeforeValidator(lambda value: _number(value, "a number >= 0", MAX_WEIGHT))]
SomeShare = Annotated[float, BeforeValidator(_some_share)]
Times = Annotated[float, BeforeValidator(lambda value: _number(value, "a number >= 1", MAX_TIMES, 1))]
Model = Annotated[str, BeforeValidator(_model)]
