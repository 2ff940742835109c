"""Watches the keys file: reads it when it has changed, and keeps the last good keys when it is broken or gone.

Run by the supervisor, which hands what is found to the workers. A worker never reads the file: all have the same keys
at nearly the same time, and one that is replaced while the file is broken gets the last good ones.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from trioproxy.config import Config, Key, keys_of, read_keys_file
from trioproxy.errors import ConfigError, Problem

_LOOK_EVERY_S: Final = 1.0
_SETTLE_S: Final = 0.1
"""A file that was changed has to stay as it is for so long: one that is written in place is empty for a moment."""

log = structlog.get_logger()

Keys = tuple[Key, ...] | None
"""Virtual keys; None: there are none at all, and clients' own credentials go through."""

Stamp = tuple[int, ...]
"""What shows that a file was changed: its times, size and inode, or why nobody can look."""


@dataclass(frozen=True)
class KeysFound:
    """The keys of a configuration and of its keys file. `has_file`: that was there; `stamp`: what it looked like."""

    keys: Keys
    has_file: bool
    stamp: Stamp


@dataclass(frozen=True)
class KeysBroken:
    """What is wrong with a keys file, and what it looked like."""

    problems: list[Problem]
    stamp: Stamp


def find_keys(config: Config) -> KeysFound:
    """Read the keys file of a configuration; it takes seconds if that holds many. Raises ConfigError."""
    stamp = _stamp_of(config)
    file_keys = read_keys_file(config)
    return KeysFound(keys_of(config, file_keys), file_keys is not None, stamp)


class KeysWatch:
    """The keys that are in force, and the file that they are from.

    Attributes:
        refused: how often the file was changed and not taken.
    """

    def __init__(self, config: Config, found: KeysFound, give: Callable[[Keys], None]) -> None:
        """`give` is called with all keys whenever there are others."""
        self._config = config
        self._found = found
        self._give = give
        self._seen = found.stamp
        self.refused = 0

    @property
    def keys(self) -> Keys:
        return self._found.keys

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(_LOOK_EVERY_S)
            config = self._config
            # In a thread, so that neither a slow disk nor a large file stops the supervisor; what nobody waits for any
            # more does no harm there.
            looked = await trio.to_thread.run_sync(_look, config, self._seen, abandon_on_cancel=True)
            if looked is not None and config is self._config and self._is_taken(looked):
                self._give(self.keys)

    def follow(self, config: Config, found: KeysFound) -> None:
        """Watch the keys file of another configuration from now on; `found` is what it held some time ago. Does not
        wait: if the file has changed since, it is read at once, so that no key that was revoked comes back."""
        self._config, self._found, self._seen = config, found, found.stamp
        if _stamp_of(config) != found.stamp:
            self._is_taken(_read(config))
        self._give(self.keys)

    def _is_taken(self, looked: KeysFound | KeysBroken) -> bool:
        """Take what the file holds now, unless it is broken or gone; whether there are other keys then."""
        self._seen = looked.stamp
        problems = looked.problems if isinstance(looked, KeysBroken) else self._lost(looked)
        if isinstance(looked, KeysBroken) or problems:
            self.refused += 1
            log.error("keys file refused: the old keys stay", problems=[str(problem) for problem in problems])
            return False
        before, self._found = self._found, looked
        if looked.keys == before.keys:
            return False
        log.info("keys file read", keys=len(looked.keys or ()))
        return True

    def _lost(self, found: KeysFound) -> list[Problem]:
        """What is wrong if there is no file any more: it is not taken for the wish to have no keys."""
        if found.has_file or not self._found.has_file:
            return []
        return [Problem(str(self._config.gate.keys_file), "file", "is gone; a restart or a reload does without it")]


def _look(config: Config, seen: Stamp) -> KeysFound | KeysBroken | None:
    """What there is, if it is not what was seen and nobody is writing it."""
    stamp = _stamp_of(config)
    if stamp == seen:
        return None
    time.sleep(_SETTLE_S)
    if _stamp_of(config) != stamp:
        return None
    looked = _read(config)
    return looked if _stamp_of(config) == stamp == looked.stamp else None


def _read(config: Config) -> KeysFound | KeysBroken:
    stamp = _stamp_of(config)
    try:
        return find_keys(config)
    except ConfigError as error:
        return KeysBroken(error.problems, stamp)


def _stamp_of(config: Config) -> Stamp:
    try:
        status = config.gate.keys_file.stat()
    except OSError as error:
        return (error.errno or 0,)
    # The time of the last change of anything too: what nobody could read is read again after a chmod.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
