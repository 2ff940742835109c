"""Changes one key in the text of a keys file: added behind all others, or changed on its own lines. PURE.

Nothing else of the text is touched, so that comments and form stay; and whether the result says what it should is not
left to how it was made: it is read again, and compared.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from trioproxy.config.secrets import quoted

Table = Mapping[str, str]
"""Keys, and their values as TOML writes them."""


class NotChanged(Exception):
    """The text is in a form that cannot be kept; the message says what to do instead."""


def with_key(text: str, table: Table) -> str:
    """The text with one more `[[key]]` behind all others. Raises NotChanged."""
    end = _line_end(text)
    gap = "" if not text.strip() else end if text.endswith("\n") else 2 * end
    lines = ["[[key]]", *(f"{name} = {value}" for name, value in table.items())]
    return _proven(text, text + gap + "".join(line + end for line in lines), lambda keys: keys.append(_read(table)))


def with_hash(text: str, old: str, new: str) -> str:
    """The text with another hash in one's place. Raises NotChanged."""
    line = _line_of(text, old)
    changed = text[: line.start()] + line[0].replace(old, new) + text[line.end() :]
    return _proven(text, changed, lambda keys: _key_with(keys, old).update(hash=new))


def with_more(text: str, of: str, table: Table) -> str:
    """The text with more said of the key that has this hash, behind that one's line. Raises NotChanged."""
    line = _line_of(text, of)
    end = _line_end(text)
    more = "".join(f"{line[1]}{name} = {value}{end}" for name, value in table.items())
    gap = "" if line[0].endswith("\n") else end
    changed = text[: line.end()] + gap + more + text[line.end() :]
    return _proven(text, changed, lambda keys: _key_with(keys, of).update(_read(table)))


def listed(values: tuple[str, ...]) -> str:
    """Texts as a TOML array."""
    return f"[{', '.join(map(quoted, values))}]"


def inline(table: Table) -> str:
    """A TOML table on one line."""
    return "{ " + ", ".join(f"{name} = {value}" for name, value in table.items()) + " }"


def _line_of(text: str, of: str) -> re.Match[str]:
    """The line of a key's hash, whole; its group 1 is what it is indented by."""
    pattern = rf"^([ \t]*)hash[ \t]*=[ \t]*([\"']){re.escape(of)}\2[^\n]*(?:\n|\Z)"
    found = list(re.finditer(pattern, text, re.MULTILINE))
    if len(found) != 1:
        raise NotChanged("this key's hash is not on a line of its own; change it by hand")
    return found[0]


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _read(table: Table) -> dict[str, Any]:
    return tomllib.loads("".join(f"{name} = {value}\n" for name, value in table.items()))


def _key_with(keys: list[dict[str, Any]], of: str) -> dict[str, Any]:
    return next(key for key in keys if key.get("hash") == of)


def _proven(before: str, after: str, change: Callable[[list[dict[str, Any]]], None]) -> str:
    """The text after a change, if it says what was said before, with that change."""
    wanted = tomllib.loads(before)
    change(wanted.setdefault("key", []))
    try:
        says_it = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        says_it = False
    if not says_it:
        raise NotChanged(
            "this file's form cannot be kept; write each key as a [[key]] of its own, or change it by hand"
        )
    return after
