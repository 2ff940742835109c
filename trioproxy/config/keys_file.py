"""The keys file: `[[key]]` tables in a file of their own, which `trioproxy keys` writes and the service reads again
when it changes. Here it is read and judged as a whole: either all its keys are good, or none is taken.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from trioproxy.config.fit_keys import apart_workers, misfits_of_keys
from trioproxy.config.gate import Key
from trioproxy.config.problems import Step, bare, dotted_path, place_in, told
from trioproxy.config.schema import Config
from trioproxy.config.secrets import Wrong, kind_of, unsaid
from trioproxy.config.toml_file import content_of, table_of
from trioproxy.errors import ConfigError, Problem

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
MAX_KEYS: Final = 100_000
MAX_PROBLEMS: Final = 100
"""More are not told: whoever broke the file in so many places broke it in one way."""

_ONLY: Final = "[[key]] tables, and nothing else"
_KEYS = TypeAdapter(tuple[Key, ...])
_KEY = r"(?:key|\"key\"|'key')"
# Strings and comments are matched so that nothing in them is taken for a header.
_SYMBOLS = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    rf"|(?P<header>^[ \t]*\[\[[ \t]*{_KEY}[ \t]*\]\])",
    re.MULTILINE | re.DOTALL,
)


def read_keys_file(config: Config) -> tuple[Key, ...] | None:
    """The keys in `gate.keys_file`; None if there is no such file.

    Raises ConfigError with its problems, each with the line of the key's `[[key]]`. It takes a few seconds for the
    largest file: a service calls it in a thread.
    """
    path = config.gate.keys_file
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # what is wrong with it is told by reading it
    content = content_of(path, MAX_FILE_BYTES)
    if isinstance(content, Problem):
        raise ConfigError([content])
    return keys_in(content, config)


def keys_in(content: bytes, config: Config) -> tuple[Key, ...]:
    """The keys in what is, or is to be, in the keys file of a configuration. Raises ConfigError."""
    path = config.gate.keys_file
    table = table_of(path, content)
    if isinstance(table, Problem):
        raise ConfigError([table])
    text = content.decode("utf-8-sig")
    problems = [_problem(path, where, unsaid(str(wrong))) for where, wrong in _strangers(table, text)]
    entries = table.get("key", [])
    if not isinstance(entries, list):
        raise ConfigError([*problems, _problem(path, "key", str(Wrong("is not a list", _ONLY, kind_of(entries))))])
    if len(entries) > MAX_KEYS:
        wrong = Wrong("has too many keys", f"at most {MAX_KEYS}", str(len(entries)))
        raise ConfigError([_problem(path, "key", str(wrong))])
    keys, found = _judged(entries, config)
    if found:
        lines = _lines_of_keys(text, len(entries))
        problems += [_problem(path, _where(place, lines), what) for place, what in found]
    if problems:
        raise ConfigError(problems[:MAX_PROBLEMS])
    return keys


def keys_of(config: Config, file_keys: tuple[Key, ...] | None) -> tuple[Key, ...] | None:
    """All keys: the configuration's own and those of the keys file (None: there is none). None if nobody asked for
    keys, so that clients' own credentials pass; an operator who names a keys file has asked for them."""
    if file_keys is None and not config.key and not config.gate.names_keys_file:
        return None
    return config.key + (file_keys or ())


def _strangers(table: Mapping[str, Any], text: str) -> Iterator[tuple[str, Wrong]]:
    """What is in the file and is no key, with its line where that can be told."""
    for name in table:
        if name != "key":
            found = re.search(rf"^[ \t\[]*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
            line = "" if found is None else f"line {text.count(chr(10), 0, found.start()) + 1}: "
            yield line + bare(name), Wrong("is not known here", _ONLY, "another name")


def _judged(entries: Sequence[object], config: Config) -> tuple[tuple[Key, ...], list[tuple[tuple[Step, ...], str]]]:
    """The keys, and what is wrong with them, each with its place in the list."""
    keys: tuple[Key, ...] = ()
    found: list[tuple[tuple[Step, ...], str]] = []
    try:
        keys = _KEYS.validate_python(tuple(entries))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            place = place_in(detail)
            found.append((place, told(detail, ("key", *place))))
    names = [upstream.name for upstream in config.upstream]
    apart = apart_workers(config.server.workers, str(config.state.url))
    own = [key.model_dump(include={"name", "hash"}) for key in config.key]
    found += [(place, unsaid(str(wrong))) for place, wrong in misfits_of_keys(entries, names, apart, own)]
    return keys, sorted(found, key=lambda one: one[0][0])


def _lines_of_keys(text: str, count: int) -> list[int]:
    """The line of each key's header. Keys that are written otherwise (`key = [{…}]`) all have the line of that."""
    headers = [found.start("header") for found in _SYMBOLS.finditer(text) if found.group("header") is not None]
    if len(headers) != count:
        listed = re.search(rf"^[ \t]*{_KEY}[ \t]*=", text, re.MULTILINE)
        headers = [0 if listed is None else listed.start()] * count
    lines, line, at = [], 1, 0
    for start in headers:
        line, at = line + text.count("\n", at, start), start
        lines.append(line)
    return lines


def _where(place: tuple[Step, ...], lines: Sequence[int]) -> str:
    index = place[0]
    assert isinstance(index, int)
    return f"line {lines[index]}: {dotted_path(('key', *place))}"


def _problem(path: Path, where: str, what: str) -> Problem:
    return Problem(str(path), where, what)
