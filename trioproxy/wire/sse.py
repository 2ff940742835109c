"""Server-sent events as they pass: where an event ends, and what the few that matter say.

`Framer` is fed the bytes of a stream in any cutting and knows, in O(bytes), whether the output stands at an event's
border and which line ending the stream uses. It never changes, holds back or re-makes a byte: the caller passes on what
it fed. What an event *means* is the dialect's business (`wire/dialect`), and only the few events that can matter are
shown to it. Driven by `relay/pump`.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". A line ends with CRLF, LF or CR; a blank line ends an
event; a line that starts with a colon is a comment.
"""

import re
from collections.abc import Callable
from typing import Protocol

# A line end, and at least one more: with that the event's last line ends, and a blank one follows (or several). Atomic:
# without it "\r\n" would be read as two line ends after backtracking.
_BORDER = re.compile(rb"(?>\r\n|\n|\r)[\r\n]+")
_TAIL = 3
"""A border is known by three bytes, the start of an `id` line by four: so many of them may have come before."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\r\n"
_ID_LINE = re.compile(rb"[\r\n]id[:\r\n]")
_ID_STARTS = (b"id:", b"id\n", b"id\r")
_BOM = b"\xef\xbb\xbf"

MAX_EVENT_BYTES = 102_400
"""How much of an event is kept to be looked at. What is beyond passes unseen; only its end and `id` are looked for."""

LAST_BYTES = 40_960
"""How much of the end of a longer one is kept beside its start, for who wants to see that."""

_FIRST_EVENTS = 4
"""How many events may come before a stream's first content, usually."""


class Watch(Protocol):
    """What a dialect wants to know of a stream; see `wire/dialect`."""

    is_settled: bool
    """True once first event and first content were seen, so that only hinted events need a look."""

    def hints(self, block: bytes) -> bool:
        """Whether this stretch of whole events may hold one that matters. Cheap, may be wrong towards True."""
        ...

    def look(self, name: bytes, data: bytes) -> None:
        """Take note of one event that has data. Must not raise, whatever the bytes."""
        ...


class Framer:
    """Follows one event stream.

    Attributes:
        at_border: nothing of an event is under way: a comment block may be written here without splicing.
        line_end: the stream's own line ending, LF until one was seen.
        saw_id: an `id:` line has gone by (after which some clients die of a comment block).
        events: how many events went by; blocks of nothing but comments do not count.
    """

    __slots__ = (
        "_kept",
        "_kept_last",
        "_max_seen",
        "_note_last",
        "_prefix",
        "_started",
        "_watch",
        "at_border",
        "events",
        "line_end",
        "saw_id",
    )

    def __init__(
        self,
        watch: Watch,
        max_event_bytes: int = MAX_EVENT_BYTES,
        *,
        note_last: Callable[[bytes], None] | None = None,
    ) -> None:
        """`note_last` is given the last bytes of an event that was too long to be kept, behind the look at its start;
        `max_event_bytes` are more than `LAST_BYTES` then."""
        self.at_border = True
        self.line_end = b"\n"
        self.saw_id = False
        self.events = 0
        self._watch = watch
        self._note_last = note_last
        self._kept_last = _TAIL if note_last is None else LAST_BYTES
        self._max_seen = max_event_bytes - self._kept_last
        self._kept = bytearray()  # the unfinished event; once that is too long, only its last bytes
        self._prefix: bytes | None = None  # the start of an event that is too long to keep
        self._started = False  # past the place where a byte order mark may stand

    @property
    def kept_bytes(self) -> int:
        """How many bytes are held at this moment: never more than `max_event_bytes`, and the piece while it is fed."""
        return len(self._kept) + len(self._prefix or b"")

    def feed(self, data: bytes) -> None:
        """Follow the next bytes of the stream. O(len(data)), whatever the cutting. Never raises."""
        for _ in range(_FIRST_EVENTS):  # one by one, so that the rest of a large first piece can go the quick way
            first = data.find(b"\n\n") + 2
            if self._watch.is_settled or not 2 <= first < len(data):
                break
            self._follow(data[:first])
            data = data[first:]
        end = data.rfind(b"\n\n") + 2
        if end < 2 or not self._watch.is_settled or self.line_end != b"\n" or b"\r" in data:
            self._follow(data)
            return
        # The common case is cut in three: the rest of the event under way, whole events, the start of the next one.
        start = 0
        if not self.at_border:
            start = data.find(b"\n\n") + 2
            self._follow(data[:start])
        if start < end:
            self._pass_whole_events(data[start:end] if start or end < len(data) else data)
        if end < len(data):
            self._follow(data[end:])

    def finish(self) -> None:
        """The stream has ended. A last event without its blank line is looked at all the same: the clients that read
        lines take it (a `data: [DONE]` with one line end is common)."""
        if self._kept:
            self._end_event(bytes(self._kept))
            self._kept.clear()

    def _pass_whole_events(self, data: bytes) -> None:
        """Count events without taking them apart, unless one of them may matter."""
        if (
            data.startswith((b"data:", b"event:"))
            and b"\n:" not in data
            and b"\nid" not in data
            and b"\n\n\n" not in data
            and not self._watch.hints(data)
        ):
            self.events += data.count(b"\n\n")
        else:
            self._follow(data)

    def _follow(self, data: bytes) -> None:
        kept = self._kept
        scan_from = max(0, len(kept) - _TAIL)
        kept += data
        if not self._started and (len(kept) >= len(_BOM) or kept != _BOM[: len(kept)]):
            self._started = True
            if kept.startswith(_BOM):
                del kept[: len(_BOM)]
                scan_from = 0
        if kept and kept[0] in _LINE_ENDS and self._prefix is None:
            kept[:] = kept.lstrip(_LINE_ENDS)  # more blank lines between events, or the LF of a border that was cut
            scan_from = 0
        start = 0
        for block_end, end in [border.span() for border in _BORDER.finditer(kept, scan_from)]:
            if self.events == 0:
                self._learn_line_end(kept, block_end)
            self._end_event(bytes(kept[start : block_end + 1]))
            start = end
        del kept[:start]
        if len(kept) > self._max_seen or self._prefix is not None:
            self._shorten(kept, scan_from)
        self.at_border = not kept

    def _learn_line_end(self, kept: bytearray, at: int) -> None:
        found = _LINE_END.match(kept, at)
        if found:
            self.line_end = found.group()

    def _shorten(self, kept: bytearray, scan_from: int) -> None:
        """Keep of an event that is too long its start, and as much of its tail as its end may need, or is wanted."""
        if self._prefix is None:
            self._prefix = bytes(kept[: self._max_seen])
            scan_from = 0
        self._look_for_id(kept[scan_from:])
        del kept[: -self._kept_last]

    def _look_for_id(self, text: bytes | bytearray) -> None:
        if not self.saw_id and (b"\nid" in text or b"\rid" in text):
            self.saw_id = _ID_LINE.search(text) is not None

    def _end_event(self, block: bytes) -> None:
        """Take the lines of an event that has ended; where its start was put by, the last of them."""
        self._look_for_id(block)
        last = None
        if self._prefix is not None:
            last, block, self._prefix = block, self._prefix, None
        elif len(block) > self._max_seen:
            last, block = block, block[: self._max_seen]  # as when it comes in pieces
        if block.startswith(_ID_STARTS):
            self.saw_id = True
        if not self._watch.is_settled or self._watch.hints(block):
            name, data = fields(block)
            if data is not None:
                self._watch.look(name, data)
        if last is not None and self._note_last is not None:
            self._note_last(last[-LAST_BYTES:])
        if block.startswith((b"data:", b"event:")) or any(
            line and not line.startswith(b":") for line in _LINE_END.split(block)
        ):
            self.events += 1


def fields(block: bytes) -> tuple[bytes, bytes | None]:
    """The event name (empty if none) and the data of one event's lines; data is None where no `data` line stands."""
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(block):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b"\n".join(data) if data else None
