"""A terminal with a command of ours on it: a pseudo-terminal, typed at, and a screen that shows what came.

The screen knows the few sequences that we mean to send, and keeps any other in `unknown`: a test that ends with an
empty one has shown that nothing else reached the terminal, whatever clients called their models.
"""

import codecs
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.loopback.processes import PATIENCE_S, START_S, STOP_S, until

_ROOT: Final = Path(__file__).resolve().parents[2]
# A session of its own has no terminal yet; Ctrl-C works only on a session's terminal.
_TAKE_TERMINAL: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(*eval(sys.argv[1]))"
)
_SEQUENCE: Final = re.compile(r"\x1b(?:\[([0-?]*)([ -/]*[@-~])|[^\[])")
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?")
CTRL_C: Final = "\x03"
UP: Final = "\x1b[A"
DOWN: Final = "\x1b[B"
END: Final = "\x1b[F"
ESCAPE: Final = "\x1b"


class Screen:
    """What a terminal shows.

    Attributes:
        is_alternate: the program has a screen of its own at the moment.
        shows_cursor: the cursor is to be seen.
        unknown: sequences and control characters that came and are none of ours.
        frames: how often the whole screen was drawn.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.is_alternate = False
        self.shows_cursor = True
        self.unknown: list[str] = []
        self.frames = 0
        self._kept = ""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Make it so large, and empty."""
        self._columns = columns
        self._cells = [[" "] * columns for _ in range(lines)]
        self._column = self._line = 0

    @property
    def lines(self) -> list[str]:
        """Its lines, without blanks at their ends."""
        return ["".join(line).rstrip() for line in self._cells]

    def feed(self, text: str) -> None:
        """Show what came, in any cutting."""
        text, self._kept = self._kept + text, ""
        while text:
            if text[0] != "\x1b":
                self._put(text[0])
                text = text[1:]
            elif _UNFINISHED.fullmatch(text):
                self._kept = text
                break
            elif found := _SEQUENCE.match(text):
                self._obey(found[0], found[1], found[2])
                text = text[found.end() :]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._down()
        elif not character.isprintable():
            self.unknown.append(character)
        else:
            if self._column == self._columns:
                self._column = 0
                self._down()
            self._cells[self._line][self._column] = character
            self._column += 1

    def _down(self) -> None:
        if self._line < len(self._cells) - 1:
            self._line += 1
        else:
            self._cells = [*self._cells[1:], [" "] * self._columns]

    def _obey(self, sequence: str, parameters: str | None, order: str | None) -> None:
        match order, parameters:
            case "m", _:
                pass  # colours
            case "H", "":
                self._column = self._line = 0
                self.frames += 1
            case (("h" | "l"), "?1049"):
                self.is_alternate = order == "h"
            case (("h" | "l"), "?25"):
                self.shows_cursor = order == "h"
            case _:
                self.unknown.append(sequence)


class Terminal:
    """A command on a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int, screen: Screen) -> None:
        self.process = process
        self.screen = screen
        self._ours = ours
        self._before = termios.tcgetattr(ours)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window so large."""
        self.screen.resize(columns, lines)
        set_size(self._ours, columns, lines)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return self.screen.lines

    def line_with(self, text: str) -> str:
        """The first line with this text; "" if there is none."""
        return next((line for line in self.lines if text in line), "")

    def wait_for(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """Wait until a line with this text is shown, and return it."""
        self._until(lambda: bool(self.line_with(text)), f"'{text}' on the screen", patience_s)
        return self.line_with(text)

    def wait_until_gone(self, text: str) -> None:
        """Wait until no line with this text is shown."""
        self._until(lambda: not self.line_with(text), f"no '{text}' on the screen", PATIENCE_S)

    def wait_for_start(self, text: str) -> str:
        """The same, of the first thing that is shown."""
        return self.wait_for(text, START_S)

    def _until(self, condition: Any, what: str, patience_s: float) -> None:
        try:
            until(lambda: condition() or self.process.poll() is not None, what, patience_s)
            assert condition(), f"ended with {self.process.poll()}, and still not: {what}"
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.lines])) from None

    def wait(self) -> int:
        """The exit code, once the command has ended and all that it wrote is shown."""
        code = self.process.wait(STOP_S)
        self._reader.join(STOP_S)
        return code

    @property
    def suspends(self) -> bool:
        """Whether Ctrl-Z would put what runs in the background."""
        key: bytes = termios.tcgetattr(self._ours)[6][termios.VSUSP]
        return key != b"\0"

    def is_as_before(self) -> bool:
        """Whether the terminal is left as it was found: its modes, its screen, its cursor."""
        modes = termios.tcgetattr(self._ours) == self._before
        return modes and not self.screen.is_alternate and self.screen.shows_cursor

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the command has ended: nobody has the other side any more
                return
            self.screen.feed(decoder.decode(data))


def set_size(terminal: int, columns: int, lines: int) -> None:
    """Make a terminal so large, and tell the command on it."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextmanager
def on_terminal(*arguments: str, columns: int = 160, lines: int = 24) -> Iterator[Terminal]:
    """`trioproxy` with these arguments on a terminal of its own. It is dead when the context is left."""
    ours, theirs = os.openpty()
    set_size(ours, columns, lines)
    command = [sys.executable, "-m", "trioproxy", *arguments]
    dropped = ("TRIOPROXY_", "COLUMNS", "LINES", "NO_COLOR")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    with TemporaryDirectory() as empty:
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, repr((sys.executable, command))],
            cwd=empty,
            env={**inherited, "PYTHONPATH": str(_ROOT), "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        terminal = Terminal(process, ours, Screen(columns, lines))
        os.close(theirs)
        try:
            yield terminal
        finally:
            process.kill()
            process.wait(STOP_S)
            terminal._reader.join(STOP_S)
            os.close(ours)
