"""A stream with a comment of ours just before its terminal event, for a client that wants to know how its stream went.

`TimingFilter` is fed the bytes of one stream in any cutting and gives what goes on; every other byte stays as it came.
Once an `id:` line has gone by nothing is added: some clients die of a comment behind one. Nor is it where the dialect
has no terminal event. Driven by `relay`.
"""

import re
from collections.abc import Callable

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import StreamWatch
from trioproxy.wire.event_filter import BOM, LINE_END, MAX_HELD_BYTES, EventFilter
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.sse import fields

TIMING = b"x-trioproxy-timing"
_ID_LINE = re.compile(rb"(?:\A|[\r\n])id(?:[:\r\n]|\Z)")


def wants_timing(headers: Headers) -> bool:
    """Whether a client wants to know. Raises BadRequest for a wish that cannot be read."""
    said = find(headers, TIMING)
    if said not in (None, b"0", b"1"):
        raise BadRequest("'x-trioproxy-timing' has to be 1, or 0.", param="x-trioproxy-timing")
    return said == b"1"


class TimingFilter(EventFilter):
    """Follows one stream. `watch` is a fresh one of its dialect; `comment` makes the comment, with the line end that
    it is given, at the moment when the terminal event is here."""

    __slots__ = ("_comment", "_is_over", "_watch")

    def __init__(
        self, watch: StreamWatch, comment: Callable[[bytes], bytes], max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        super().__init__(max_held_bytes)
        self._watch = watch
        self._comment = comment
        self._is_over = False  # nothing is added any more

    def feed(self, data: bytes) -> bytes:
        """What goes on now that these bytes have come. O(len(data)), whatever the cutting. Never raises."""
        if self._is_over:
            data = bytes(self._held) + data
            self._held.clear()
            return data
        if self.is_between and self._are_plain(data):
            self._is_at_start = False
            return data
        return super().feed(data)

    @property
    def shows_whole_events(self) -> bool:
        """What was given so far ends at an event's border; False if it need not."""
        return not self._is_over

    def _are_plain(self, data: bytes) -> bool:
        """Whether these are whole events none of which matters, as nearly always."""
        return (
            data.endswith(b"\n\n")
            and not data.startswith(b"id")
            and b"\nid" not in data
            and b"\r" not in data
            and not self._watch.hints(data)
        )

    def _filtered(self, block: bytes) -> bytes | None:
        mark = BOM if self._is_at_start and block.startswith(BOM) else b""
        self._is_at_start = False
        if self._is_over or not block:
            return block
        event = block[len(mark) :]
        if _ID_LINE.search(event) is not None:
            self._is_over = True
            return block
        if self._watch.hints(event):
            name, data = fields(event)
            if data is not None:
                self._watch.look(name, data)
        if not self._watch.saw_done:
            return block
        self._is_over = True
        line_end = LINE_END.search(event)
        return mark + self._comment(b"\n" if line_end is None else line_end.group()) + event

    def _begun(self, start: bytes) -> bytes:
        begun = self._filtered(start[: self._max_held]) or b""
        self._is_over = True  # the rest of it is not looked at
        return begun + start[self._max_held :]
