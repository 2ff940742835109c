"""h11's connection with readers that forgive nothing: what of a request is ambiguous is refused, not repaired.

h11 takes bare line feeds, folded lines, equal lengths that are repeated, control characters in values, chunk sizes of
20 digits. So a request's head and the lines of a chunked body are read by `wire/request_head` and `wire/chunks`
instead; what they refuse they raise through h11, which then is in its error state and reads no further.

It leans on the insides of h11 0.16 (pinned exactly): `Connection._get_io_object` hands out a reader for each state, a
reader is called with the `ReceiveBuffer` and returns an event, None for "more", or raises; the bytes are in `_data`.
`tests/server/test_strict.py` holds a test for each.
"""

import re
from typing import Any

import h11
from h11._readers import READERS
from h11._receivebuffer import ReceiveBuffer

from trioproxy.errors import BadRequest, HeadersTooLarge, UriTooLong
from trioproxy.wire.chunks import MAX_EXTRA_BYTES, MAX_LINE_BYTES, check_trailer, read_size
from trioproxy.wire.request_head import read_head, read_request_line

_END = b"\r\n\r\n"
_NO_LINE_END = re.compile(rb"(?<!\r)\n|\r[^\n]")


class HeadReader:
    """Reads one request's head. Bytes that were looked at are not looked at again when more come.

    What can never become a head (another protocol, HTTP/0.9, other line ends) is refused as soon as that shows: its
    client may well wait for an answer, and not send the empty line for which a head waits.
    """

    __slots__ = ("_has_line", "_has_skipped", "_max_bytes", "_searched")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._searched = 0
        self._has_line = False
        self._has_skipped = False

    def __call__(self, buffer: ReceiveBuffer) -> h11.Request | None:
        data = buffer._data
        if not self._has_skipped and data.startswith(b"\r\n"):  # RFC 9112 section 2.2: ignore one empty line
            self._has_skipped = True
            buffer.maybe_extract_at_most(2)
        end = data.find(_END, self._searched) + len(_END)
        if end < len(_END):
            self._look_at_unfinished(data)
            return None
        if end > self._max_bytes:
            read_request_line(bytes(data[: data.find(b"\r\n")]))
            raise HeadersTooLarge("The request's head is too large.")
        method, target, version, fields = read_head(bytes(data[:end]))
        buffer.maybe_extract_at_most(end)
        return h11.Request(method=method, target=target, http_version=version, headers=fields, _parsed=True)

    def _look_at_unfinished(self, data: bytearray) -> None:
        if not data or (data == b"\r" and not self._has_skipped):
            return
        if data[0] <= 0x20 or _NO_LINE_END.search(data, self._searched):
            raise BadRequest("The request is not valid HTTP/1.1.")
        if not self._has_line:
            line_end = data.find(b"\r\n", self._searched)
            if line_end > 0:
                read_request_line(bytes(data[:line_end]))
                self._has_line = True
        if len(data) > self._max_bytes:
            if not self._has_line:
                raise UriTooLong("The request's URL is too long.")
            raise HeadersTooLarge("The request's head is too large.")
        self._searched = max(0, len(data) - len(_END) + 1)


class ChunkReader:
    """Reads one chunked body: its pieces as they come, not its chunks. Extensions and trailers are dropped."""

    __slots__ = ("_extra", "_is_behind_piece", "_is_in_trailer", "_is_over", "_left")

    def __init__(self) -> None:
        self._left = 0
        self._is_behind_piece = False
        self._is_in_trailer = False
        self._is_over = False
        self._extra = 0

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """All pieces that are here, as one: a message for each would cost a hundred times what a chunk of a byte is."""
        pieces = []
        while not self._is_over and self._is_at_piece(buffer):
            data = buffer.maybe_extract_at_most(self._left)
            if data is None:
                break
            self._left -= len(data)
            pieces.append(data)
        if pieces:
            return h11.Data(data=b"".join(pieces))
        return h11.EndOfMessage() if self._is_over else None

    def _is_at_piece(self, buffer: ReceiveBuffer) -> bool:
        while not self._left:
            line = self._take_line(buffer)
            if line is None:
                return False
            if self._is_in_trailer:
                if not line:
                    self._is_over = True
                    return False
                check_trailer(line)
                self._count(len(line))
            elif self._is_behind_piece:
                self._is_behind_piece = False
            else:
                self._left, extension = read_size(line)
                self._is_behind_piece = self._left > 0
                self._is_in_trailer = self._left == 0
                self._count(extension)
        return True

    def _take_line(self, buffer: ReceiveBuffer) -> bytes | None:
        """The next line without its line end; None if it is not there yet."""
        if self._is_behind_piece and not b"\r\n".startswith(buffer._data[:2]):
            raise BadRequest("The request's body holds a chunk that is longer than its size.")
        line = buffer.maybe_extract_next_line()
        if line is None:
            if b"\n" in buffer._data:
                raise BadRequest("The request's body holds a line end that is not CR LF.")
            if len(buffer) > MAX_LINE_BYTES:
                raise BadRequest("The request's body holds a chunk extension or a trailer that is too long.")
            return None
        if len(line) > MAX_LINE_BYTES:
            raise BadRequest("The request's body holds a chunk extension or a trailer that is too long.")
        return bytes(line[:-2])

    def _count(self, extra: int) -> None:
        self._extra += extra
        if self._extra > MAX_EXTRA_BYTES:
            raise BadRequest("The request's body holds too much in chunk extensions and trailers.")


_READERS: Any = {**READERS, h11.SEND_BODY: {**READERS[h11.SEND_BODY], "chunked": ChunkReader}}  # type: ignore[dict-item]


class StrictConnection(h11.Connection):
    """The server's end of a connection. `next_event` raises BadRequest, or a kind of it, for what is refused."""

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_bytes)

    def _get_io_object(self, role: Any, event: Any, io_dict: Any) -> Any:
        if role is not h11.CLIENT:
            return super()._get_io_object(role, event, io_dict)
        if self.their_state is h11.IDLE:
            return HeadReader(self._max_incomplete_event_size)
        return super()._get_io_object(role, event, _READERS)
