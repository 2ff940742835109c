"""Reads a TOML file, or says the one thing that keeps it from being one, with its place. It judges nothing inside."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from trioproxy.config.secrets import Wrong, unsaid
from trioproxy.errors import Problem

_PLACE = re.compile(r" \(at (?:(line \d+, column \d+)|end of document)\)$")
_EXPECTED: Final = "a TOML file"


def content_of(path: Path, max_bytes: int) -> bytes | Problem:
    """What is in the file."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        return _problem(path, "", "cannot be read", error.strerror or type(error).__name__)
    except ValueError:  # A NUL in the path.
        return _problem(path, "", "is not a path", "a NUL character in it")
    if len(content) > max_bytes:
        return _problem(path, "", "is too large", f"more than {max_bytes} bytes")
    return content


def table_of(path: Path, content: bytes) -> dict[str, Any] | Problem:
    """The file's table; `path` is only named in the problem."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _problem(path, f"line {line}", "is not text", "bytes that are not UTF-8")
    except RecursionError:
        return _problem(path, "", "is nested too deeply", "too many brackets")
    except ValueError as error:  # TOMLDecodeError, and what int() says to a number with too many digits.
        place = _PLACE.search(str(error))
        last = content.count(b"\n") + 1
        where = (place.group(1) or f"line {last}") if place else ""
        return _problem(path, where, "is not TOML", unsaid(_PLACE.sub("", str(error))))


def _problem(path: Path, where: str, what: str, found: str) -> Problem:
    return Problem(str(path), where or "file", str(Wrong(what, _EXPECTED, found)))
