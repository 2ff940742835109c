"""A terminal's keys, one by one as they are pressed."""

import codecs
import os
import re
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

_SEQUENCE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|O([A-Za-z]))")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")
_BY_LETTER: Final = {"A": "up", "B": "down", "H": "home", "F": "end"}
_BY_NUMBER: Final = {"1": "home", "4": "end", "5": "page up", "6": "page down", "7": "home", "8": "end"}
_BY_CHARACTER: Final = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x15": "clear"}

_ESCAPE_S: Final = 0.05
"""A terminal sends the rest of a key's sequence at once; an escape with nothing behind it was the key itself."""
_READ_BYTES: Final = 1024
_CONTROL_FLAGS, _LOCAL_FLAGS, _CHARACTERS = 0, 3, 6  # places in what termios tells


class Keys:
    """What was typed, as keys: a character stands for itself, others have names ("up", "page down", "escape", …)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._kept = ""

    @property
    def is_under_way(self) -> bool:
        """Whether an escape was the last that came: a key, or the start of one's sequence."""
        return bool(self._kept)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole with these bytes."""
        text, self._kept = self._kept + self._decoder.decode(data), ""
        keys = []
        while text:
            if found := _SEQUENCE.match(text):
                keys.append(_BY_NUMBER.get(found[1]) if found[2] == "~" else _BY_LETTER.get(found[2] or found[3]))
                text = text[found.end() :]
            elif _UNFINISHED.fullmatch(text):
                self._kept = text
                break
            else:
                first, text = text[0], text[1:]
                keys.append("escape" if first == "\x1b" else _BY_CHARACTER.get(first, first))
        return [key for key in keys if key is not None and (len(key) > 1 or key.isprintable())]

    def finish(self) -> list[str]:
        """Nothing follows: an escape was the key of that name."""
        kept, self._kept = self._kept, ""
        return ["escape"] if kept else []


@contextmanager
def single_keys(terminal: int) -> Iterator[None]:
    """While it is open, the terminal gives each key at once and shows none. Ctrl-C still interrupts; Ctrl-Z, which
    would leave a shell with our screen, and Ctrl-S, which would stop the screen, are keys like others."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        given = termios.tcgetattr(terminal)
        given[_CONTROL_FLAGS] &= ~termios.IXON
        # A Ctrl-C that emptied the queue would leave a read waiting that was told of a key just before.
        given[_LOCAL_FLAGS] |= termios.NOFLSH
        given[_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(terminal, termios.TCSANOW, given)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


async def read_keys(terminal: int, keys: Keys) -> list[str] | None:
    """Wait for the next keys. None once the terminal is gone."""
    with trio.move_on_after(_ESCAPE_S if keys.is_under_way else float("inf")) as waiting:
        await trio.lowlevel.wait_readable(terminal)
    if waiting.cancelled_caught:
        return keys.finish()
    try:
        data = os.read(terminal, _READ_BYTES)
    except OSError:
        return None
    return keys.feed(data) if data else None
