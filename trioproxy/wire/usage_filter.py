"""A chat stream without the usage that we asked for and its client did not: the chunk that tells it is left out, and so
is the `"usage":null` that all others have meanwhile.

`UsageFilter` is fed the bytes of one origin's stream in any cutting and gives what goes on; an event goes on as soon as
it is whole. Every other byte stays as it came. Driven by `relay`.

Source: OpenAI's API reference ("Chat completions", `stream_options.include_usage`).
"""

import re

from trioproxy.errors import BadRequest
from trioproxy.wire.event_filter import BOM, LINE_END, MAX_HELD_BYTES, EventFilter
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sse import fields

_USAGE = b'"usage"'
_NULL = b',"usage":null'
# Members of plain values, and the brace that ends the chunk: what stands before them is a member of the chunk itself.
_REST = re.compile(rb'(?:,"\w+":(?:"[^"\\\r\n]*"|[-\w.]+))*+\}[\r\n]*+')


class UsageFilter(EventFilter):
    """Follows one origin's stream.

    Attributes:
        left_out: how many events were left out.
    """

    __slots__ = ("left_out",)

    def __init__(self, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        super().__init__(max_held_bytes)
        self.left_out = 0

    def feed(self, data: bytes) -> bytes:
        """What goes on now that these bytes have come. O(len(data)), whatever the cutting. Never raises."""
        if self.is_between and data.endswith(b"\n\n"):  # whole events, as nearly always
            short = data if _USAGE not in data else _without_null(data) if len(data) <= self._max_held else None
            if short is not None:
                self._is_at_start = False
                return short
        return super().feed(data)

    def _filtered(self, block: bytes) -> bytes | None:
        """An event as it goes on; None if it does not."""
        mark = BOM if self._is_at_start and block.startswith(BOM) else b""
        self._is_at_start = False
        if _USAGE not in block:
            return block
        if (short := _without_null(block)) is not None:
            return short
        lines = LINE_END.split(block[len(mark) :])
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
