"""The bytes of an answer → events → what they say in the dialect of chat completions. Pure.

    EventReader   bytes in any cutting → the data of each event
    read_chunk    an event's data → text, the origin's own count of tokens, an error

A reader of its own: what the proxy reads events with is what is measured here (see the room's page). A line ends with
CRLF, LF or CR, a blank line ends an event (WHATWG HTML, section 9.2.6).
"""

import json
from dataclasses import dataclass
from typing import Any

MAX_EVENT_BYTES = 16 * 1024 * 1024
DONE = b"[DONE]"


class TooLong(Exception):
    """An event has no end in sight."""


class EventReader:
    """Follows one stream of events."""

    __slots__ = ("_data", "_held", "_rest", "_skips_lf")

    def __init__(self) -> None:
        self._rest = b""  # a line that has not ended
        self._data: list[bytes] = []
        self._held = 0
        self._skips_lf = False  # the last piece ended with a CR, which was taken for a whole line end

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece; those without data (comments) are left out. Raises TooLong."""
        if not piece:
            return []
        if self._skips_lf:
            piece = piece.removeprefix(b"\n")
        self._skips_lf = piece.endswith(b"\r")
        lines = (self._rest + piece).splitlines(keepends=True)
        ends_open = bool(lines) and not lines[-1].endswith((b"\n", b"\r"))
        self._rest = lines.pop() if ends_open else b""
        events = []
        for whole_line in lines:
            line = whole_line.rstrip(b"\r\n")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._held += len(line)
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
                self._held = 0
        if self._held + len(self._rest) > MAX_EVENT_BYTES:
            raise TooLong
        return events


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event, or one whole answer, says. `error`: its code, or its type, or just "error"; and its message."""

    text: str = ""
    tokens: int | None = None
    error: str | None = None
    message: str = ""
    is_readable: bool = True


_UNREADABLE = Chunk(is_readable=False)


def read_chunk(data: bytes) -> Chunk:
    """Read an event's data, a whole answer or an error's body. Never raises, whatever the bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _UNREADABLE
    match value:
        case {"error": {**error}}:
            return _failure(error)
        case {"error": str(message)}:
            return Chunk(error="error", message=message)
        case {"choices": list(choices)}:
            return Chunk(text="".join(map(_text, choices[:1])), tokens=_tokens(value))
        case _:
            return Chunk(is_readable=isinstance(value, dict))


def _failure(error: dict[Any, Any]) -> Chunk:
    names = (error.get("code"), error.get("type"))
    name = next((str(name) for name in names if isinstance(name, str | int) and name), "error")
    return Chunk(error=name, message=str(error.get("message") or ""))


def _text(choice: object) -> str:
    match choice:
        case {"delta": {"content": str(text)}} | {"message": {"content": str(text)}}:
            return text
        case _:
            return ""


def _tokens(value: dict[str, Any]) -> int | None:
    match value:
        case {"usage": {"completion_tokens": int(tokens)}} if tokens >= 0:
            return tokens
        case _:
            return None


def read_models(data: bytes) -> list[str]:
    """The names in a list of models, in its order; empty for whatever is none. Never raises."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return []
    match value:
        case {"data": list(entries)}:
            return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        case _:
            return []
