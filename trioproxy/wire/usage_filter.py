"""A chat stream without the usage that we asked for and its client did not: the chunk that tells it is left out, and so
is the `"usage":null` that all others have meanwhile.

`UsageFilter` is fed the bytes of one origin's stream in any cutting and gives what goes on; an event goes on as soon as
it is whole. Every other byte stays as it came. Driven by `relay`.

Source: OpenAI's API reference ("Chat completions", `stream_options.include_usage`).
"""

import re

from trioproxy.errors import BadRequest
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sse import fields

# As in `wire/sse`: a line end, and at least one more.
_BORDER = re.compile(rb"(?>\r\n|\n|\r)[\r\n]+")
_BORDER_START = 3
_LINE_END = re.compile(rb"(\r\n|\n|\r)")
_LINE_ENDS = b"\r\n"
_BOM = b"\xef\xbb\xbf"
_USAGE = b'"usage"'
_NULL = b',"usage":null'
# Members of plain values, and the brace that ends the chunk: what stands before them is a member of the chunk itself.
_REST = re.compile(rb'(?:,"\w+":(?:"[^"\\\r\n]*"|[-\w.]+))*+\}[\r\n]*+')

MAX_HELD_BYTES = 65536
"""An event that is longer is not waited for: it passes as it comes."""


class UsageFilter:
    """Follows one origin's stream. It holds at most `max_held_bytes`, a line end, and the piece while it is fed.

    Attributes:
        left_out: how many events were left out.
    """

    __slots__ = ("_drops_line_ends", "_held", "_is_at_start", "_last", "_max_held", "left_out")

    def __init__(self, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self.left_out = 0
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

    def feed(self, data: bytes) -> bytes:
        """What goes on now that these bytes have come. O(len(data)), whatever the cutting. Never raises."""
        is_between = not self._held and self._last is None and not self._drops_line_ends
        if is_between and data.endswith(b"\n\n"):  # whole events, as nearly always
            short = data if _USAGE not in data else _without_null(data) if len(data) <= self._max_held else None
            if short is not None:
                self._is_at_start = False
                return short
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
            event = self._filtered(block) if block_end - start <= self._max_held else block
            self._drops_line_ends = event is None
            out.append(event or b"")
            start = end
        del held[:start]
        if held:
            self._drops_line_ends = False
        if len(held) > self._max_held + len(_LINE_ENDS):  # longer, whatever line end may be among it
            out.append(bytes(held))
            self._last = bytes(held[-_BORDER_START:])
            held.clear()

    def _filtered(self, block: bytes) -> bytes | None:
        """An event as it goes on; None if it does not."""
        mark = _BOM if self._is_at_start and block.startswith(_BOM) else b""
        self._is_at_start = False
        if _USAGE not in block:
            return block
        if (short := _without_null(block)) is not None:
            return short
        lines = _LINE_END.split(block[len(mark) :])
        data = fields(block[len(mark) :])[1]
        try:
            chunk = JsonObject.parse(data or b"")
        except BadRequest:
            return block
        usage = bytes(chunk.members.get("usage", b""))
        if usage.startswith(b"{") and _is_empty_list(bytes(chunk.members.get("choices", b""))):
            self.left_out += 1
            return None
        places = [place for place, line in enumerate(lines) if line.startswith(b"data:")]
        if usage != b"null" or len(places) != 1:  # nobody writes chunks in several lines
            return block
        line = lines[places[0]]
        lines[places[0]] = line[: len(line) - len(data or b"")] + chunk.without("usage")
        return mark + b"".join(lines)


def _without_null(event: bytes) -> bytes | None:
    """A chunk without its null usage if that stands among its last members, as nearly always: a tenth of the cost of
    reading it. None if this may not be one such chunk."""
    before, null, behind = event.partition(_NULL)
    if not null or _USAGE in before or _USAGE in behind or b"\n" in before or b"\r" in before:
        return None
    if not before.startswith(b"data: {") or _REST.fullmatch(behind) is None:
        return None
    return before + behind


def _is_empty_list(value: bytes) -> bool:
    return value.startswith(b"[") and not value[1:-1].strip()
