"""Changes one thing in a configuration file, whole or not at all, and can undo it. Comments and form stay."""

import tomllib
from pathlib import Path
from typing import Any

import tomlkit

from trioproxy.cli.whole_file import write_whole

_BOM = "\ufeff"


class NotEdited(Exception):
    """The file is as it was; the message is the reason."""


class KeysInFile:
    """The references to keys that a configuration file holds; it is one that `load` has taken. Raises NotEdited if it
    cannot be read any more."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # a link stays one: what it leads to is what is changed
        try:
            self._content = self.path.read_bytes()
        except OSError as error:
            raise NotEdited(error.strerror or str(error)) from None
        self._text = self._content.decode("utf-8-sig")

    def of(self, upstream: int) -> list[str]:
        """The references of the upstream at this place in the file; none if it has no key, or is not in the file."""
        entries = tomllib.loads(self._text).get("upstream", [])
        keys = entries[upstream].get("api_key", []) if upstream < len(entries) else []
        return [keys] if isinstance(keys, str) else keys

    def with_other(self, upstream: int, old: str, new: str) -> "Edit":
        """The change that puts one reference in another's place; nothing is written yet. Raises NotEdited."""
        document = tomlkit.parse(self._text)
        wanted = tomllib.loads(self._text)
        for table in (document, wanted):
            _put(table["upstream"][upstream], old, new)
        text = document.as_string()
        if tomllib.loads(text) != wanted:
            raise NotEdited("this file's form cannot be kept; change the reference by hand, and reload")
        bom = _BOM if self._content.startswith(_BOM.encode()) else ""
        return Edit(self.path, self._content, (bom + text).encode())


def _put(entry: Any, old: str, new: str) -> None:
    if entry["api_key"] == old:
        entry["api_key"] = new
    else:
        entry["api_key"][entry["api_key"].index(old)] = new


class Edit:
    """A file's content before and after a change."""

    def __init__(self, path: Path, before: bytes, after: bytes) -> None:
        self._path = path
        self._before = before
        self._after = after

    def write(self) -> None:
        """Make the change. Raises NotEdited."""
        self._replace(self._before, self._after)

    def undo(self) -> None:
        """Put the file back as it was, byte for byte. Raises NotEdited."""
        self._replace(self._after, self._before)

    def _replace(self, old: bytes, new: bytes) -> None:
        try:
            if self._path.read_bytes() != old:
                raise NotEdited("somebody else has changed it meanwhile")
            write_whole(self._path, new)
        except OSError as error:
            raise NotEdited(error.strerror or str(error)) from None
