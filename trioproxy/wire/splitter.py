"""A stream of server-sent events, taken apart into its events: what a log holds, and every reader of it gets.

`Splitter` is fed the bytes of a stream in any cutting and gives each event once it is whole, in the bytes it came in.
What is not given: comments, which belong to one connection (a heartbeat is for that one alone), blank lines beyond the
one that ends an event, and a byte order mark at the stream's start. So the events of any stretch can be written one
after the other to a reader that joins there, with comments of ours between any two of them.

`wire/sse.Framer` follows the same borders without taking anything apart, for the path of bytes that nobody keeps.
Driven by `hub`.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". A line ends with CRLF, LF or CR; a blank line ends an
event; a line that starts with a colon is a comment.
"""

import re

# The end of an event's last line, and the blank one (then more of them, which are no part of it). A CR that came last
# may be half a CRLF: behind a line that ended with LF or CRLF its other half is waited for, so that an event does not
# depend on how the stream was cut. Behind a CR it is not: where all lines end so, each event would come too late.
_BORDER = re.compile(rb"(\r?\n(?:\r?\n|\r(?=[^\n]))|\r\r)[\r\n]*")
_TAIL = 2
"""Of a border that is known by what comes now, so many bytes at most have to be seen again: LF and CR."""

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\r\n"
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:")


class Splitter:
    """Takes one event stream apart. It holds at most `max_event_bytes`, and beside them the piece while it is fed.

    Attributes:
        is_overlong: an event is longer than `max_event_bytes`, its comments and its blank line included. Nothing is
            given from there on, for a stream without one of its events is not that stream: the caller ends it, and
            says why.
    """

    __slots__ = ("_kept", "_max_event_bytes", "_started", "is_overlong")

    def __init__(self, max_event_bytes: int) -> None:
        self.is_overlong = False
        self._max_event_bytes = max_event_bytes
        self._kept = bytearray()  # the unfinished event
        self._started = False  # past the place where a byte order mark may stand

    @property
    def kept_bytes(self) -> int:
        """How many bytes are held at this moment: never more than `max_event_bytes`."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole with these bytes, each with its blank line, in order. Never raises. O(len(data)),
        whatever the cutting."""
        end = data.rfind(b"\n\n") + 2
        if end < 2 or b"\r" in data:
            return self._follow(data)
        # The common case is cut in three: the rest of the event under way, whole events, the start of the next one.
        start, events = 0, []
        if self._kept:
            start = data.find(b"\n\n") + 2
            events = self._follow(data[:start])
        if start < end:
            events += self._whole_events(data[start:end])
        if end < len(data):
            events += self._follow(data[end:])
        return events

    def finish(self) -> bytes | None:
        """The stream has ended: its last event if that lacks its blank line, with the line ends that were missing.

        Clients that read lines take such an event (a `data: [DONE]` with one line end is common); those that read as
        the standard says would not, without what is put behind it here. None if there is none, or if it is overlong.
        """
        block = bytes(self._kept)
        self._kept.clear()
        if not block:
            return None
        if not block.endswith((b"\n\r", b"\n", b"\r")):
            own = _LINE_END.search(block)
            block += own.group() if own else b"\n"
        if not block.endswith(b"\n\r"):  # with that the blank line was there, and only a LF might have followed
            block += b"\r\n" if block.endswith(b"\r\n") else block[-1:]
        return _without_comments(block)

    def _whole_events(self, data: bytes) -> list[bytes]:
        """Take whole events apart, without a look at their lines if there can be no comment among them."""
        if (
            not data.startswith(_FIELDS)
            or b"\n:" in data
            or b"\n\n\n" in data
            or len(data) > self._max_event_bytes
            or self.is_overlong
        ):
            return self._follow(data)
        self._started = True
        return [event + b"\n\n" for event in data[:-2].split(b"\n\n")]

    def _follow(self, data: bytes) -> list[bytes]:
        if self.is_overlong:
            return []
        kept = self._kept
        scan_from = max(0, len(kept) - _TAIL)
        kept += data
        if not self._started:
            if len(kept) < len(_BOM) and _BOM.startswith(kept):
                return []  # it may become one
            self._started = True
            if kept.startswith(_BOM):
                del kept[: len(_BOM)]
        if kept and kept[0] in _LINE_ENDS:
            kept[:] = kept.lstrip(_LINE_ENDS)  # more blank lines between events, or the LF of one that ended with CR
        events = []
        start = 0
        for block_end, end in [(border.end(1), border.end()) for border in _BORDER.finditer(kept, scan_from)]:
            if block_end - start > self._max_event_bytes:
                self.is_overlong = True
                break
            event = _without_comments(bytes(kept[start:block_end]))
            if event is not None:
                events.append(event)
            start = end
        del kept[:start]
        if self.is_overlong or len(kept) > self._max_event_bytes:
            self.is_overlong = True
            kept.clear()
        return events


def _without_comments(block: bytes) -> bytes | None:
    """A block of lines, the last one blank, without those that are comments; None if all others are."""
    if not block.startswith(b":") and b"\n:" not in block and b"\r:" not in block:
        return block
    *lines, blank = _LINE.findall(block)
    lines = [line for line in lines if not line.startswith(b":")]
    if not lines:
        return None
    if lines[-1].endswith(b"\r") and blank == b"\n":
        blank = b"\r"  # the two would become one CRLF, and the event would not end
    return b"".join([*lines, blank])
