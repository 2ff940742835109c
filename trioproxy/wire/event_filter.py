"""An event stream of which some events do not go on as they came: each as soon as it is whole, and as nothing else is
touched, every other byte as it came.

`EventFilter` is fed the bytes of one origin's stream in any cutting and gives what goes on; what becomes of an event is
said by those that are derived from it. Driven by `relay`.
"""

import re

# As in `wire/sse`: a line end, and at least one more.
_BORDER = re.compile(rb"(?>\r\n|\n|\r)[\r\n]+")
_BORDER_START = 3
_LINE_ENDS = b"\r\n"

BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"(\r\n|\n|\r)")
MAX_HELD_BYTES = 65536
"""An event that is longer is not waited for: it passes as it comes."""


class EventFilter:
    """Follows one origin's stream. It holds at most `max_held_bytes`, a line end, and the piece while it is fed."""

    __slots__ = ("_drops_line_ends", "_held", "_is_at_start", "_last", "_max_held")

    def __init__(self, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._max_held = max_held_bytes
        self._held = bytearray()  # the unfinished event
        self._last: bytes | None = None  # of an event that passes as it comes, what may be the start of its border
        self._drops_line_ends = False  # behind an event that was left out
        self._is_at_start = True  # where a byte order mark may stand

    @property
    def shows_whole_events(self) -> bool:
        """What was given so far ends at an event's border; False if it need not."""
        return self._last is None

    @property
    def held_bytes(self) -> int:
        """How many bytes are held at this moment."""
        return len(self._held)

    @property
    def is_between(self) -> bool:
        """Whether nothing of an event is under way: what comes next may be taken by itself."""
        return not self._held and self._last is None and not self._drops_line_ends

    def feed(self, data: bytes) -> bytes:
        """What goes on now that these bytes have come. O(len(data)), whatever the cutting. Never raises."""
        out: list[bytes] = []
        if self._last is not None:
            data = self._pass_on(data, out)
        if data:
            self._take_events(data, out)
        return b"".join(out)

    def finish(self) -> bytes:
        """What is held: the stream is over. A last event without its blank line is one all the same, if it is whole."""
        last = bytes(self._held)
        self._held.clear()
        return self._filtered(last) or b""

    def _filtered(self, block: bytes) -> bytes | None:
        """An event as it goes on; None if it does not."""
        return block

    def _begun(self, start: bytes) -> bytes:
        """How an event goes on that is too long to be waited for, of which this is the start."""
        return start

    def _pass_on(self, data: bytes, out: list[bytes]) -> bytes:
        """Let an event pass that is too long to be waited for; what is behind it."""
        before = self._last or b""
        border = _BORDER.search(before + data)
        if border is None:
            out.append(data)
            self._last = (before + data)[-_BORDER_START:]
            return b""
        self._last = None
        end = border.end() - len(before)
        out.append(data[:end])
        return data[end:]

    def _take_events(self, data: bytes, out: list[bytes]) -> None:
        held = self._held
        if not held:
            rest = data.lstrip(_LINE_ENDS)  # more blank lines between events, or the LF of a border that was cut
            if len(rest) < len(data):
                self._is_at_start = False
                out.append(b"" if self._drops_line_ends else data[: len(data) - len(rest)])
            data = rest
        scan_from = max(0, len(held) - _BORDER_START)
        held += data
        start = 0
        for block_end, end in [border.span() for border in _BORDER.finditer(held, scan_from)]:
            block = bytes(held[start:end])
            event = self._filtered(block) if block_end - start <= self._max_held else self._begun(block)
            self._drops_line_ends = event is None
            out.append(event or b"")
            start = end
        del held[:start]
        if held:
            self._drops_line_ends = False
        if len(held) > self._max_held + len(_LINE_ENDS):  # longer, whatever line end may be among it
            out.append(self._begun(bytes(held)))
            self._last = bytes(held[-_BORDER_START:])
            held.clear()
