"""One HTTP/1.1 connection to an origin, seen from the client's end: requests out, answers in.

Parsing is llhttp's (by httptools), strict. What llhttp lets through and a proxy must not is refused here: framing that
two readers could understand differently is never forwarded (RFC 9112 section 6.3, RFC 9110 section 8.6). It opens no
connection and knows no deadlines; `upstream/transport` does.

An answer is read piece by piece and nothing is read ahead: a piece is what one read of the socket brought.
"""

import re
import ssl
from typing import Any

import httptools
import httpx
import trio

from trioproxy.net.tcp import TcpStream, close_nowait
from trioproxy.telemetry.tally import Tally

READ_BYTES = 16384
MAX_HEAD_BYTES = 65536
MAX_INTERIM_HEADS = 16
"""How many 1xx heads may come before the answer."""
MAX_FRAMING_BYTES = 65536
"""How much of a body's framing (chunk extensions, trailers) may come without a byte of the body itself."""

_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_NO_BODY = frozenset({204, 304})
_VERSIONS = frozenset({"1.0", "1.1"})  # llhttp also reads 0.9 and 2.0


class OriginConnection:
    """A connection and the answer that is being read from it.

    Attributes:
        status, headers: the answer's head; names are lower case. Valid once `read_head` has returned.
        behind: what came behind a 101 that was asked for; all bytes from there on are another protocol's.
        is_complete: the whole answer has been received, by its own framing.
        idle_since, idle_limit_s: kept by the pool while the connection waits there.
        tally: where its end is counted, once, if it is counted.
    """

    __slots__ = (
        "_ends_with_connection",
        "_fed",
        "_interim",
        "_is_head_only",
        "_keeps_alive",
        "_may_upgrade",
        "_parser",
        "_pieces",
        "_surplus",
        "_version",
        "behind",
        "has_head",
        "headers",
        "idle_limit_s",
        "idle_since",
        "is_complete",
        "status",
        "stream",
        "tally",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.tally: Tally | None = None
        self.idle_since = 0.0
        self.idle_limit_s = 0.0
        self.begin("GET")

    def begin(self, method: str, *, may_upgrade: bool = False) -> None:
        """Forget the last answer and expect one to a request with this method. `may_upgrade`: the request asks for
        another protocol, so that 101 is an answer."""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._fed = 0
        self._interim = 0
        self._is_head_only = method == "HEAD"
        self._may_upgrade = may_upgrade
        self.behind = b""
        self._ends_with_connection = False
        self._surplus = False
        self._keeps_alive = False
        self._version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.has_head = False
        self.is_complete = False

    # llhttp's callbacks. An exception here would lose its type, so faults are raised by the readers below.

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.has_head:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status <= 199 and self.status != 101:
            self._interim += 1
            self.headers = []
            return
        self.has_head = True
        self.is_complete = self._is_head_only
        self._keeps_alive = self._parser.should_keep_alive()  # llhttp forgets both with the message's end
        self._version = self._parser.get_http_version()

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True

    async def read_head(self) -> None:
        """Read until the answer's head is here; interim (1xx) heads are skipped.

        Raises httpx.ReadError if the origin left before the head was whole, httpx.RemoteProtocolError for what is not
        an acceptable head. If cancelled, the connection can only be closed.
        """
        while not self.has_head:
            data = await self._receive()
            if not data:
                raise httpx.ReadError("the origin closed the connection before it answered")
            self._fed += len(data)
            self._feed(data)
            if self._interim > MAX_INTERIM_HEADS:
                raise httpx.RemoteProtocolError("the origin sent interim answers that nobody asked for")
            if not self.has_head and self._fed > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError("the origin's head is too large")
        self._check_head()

    async def read(self) -> bytes:
        """The next piece of the body; b"" once it is complete. Nothing is awaited after the socket was read.

        Raises httpx.ReadError if the connection broke or ended before the body did, httpx.RemoteProtocolError if the
        framing is wrong. If cancelled, nothing was taken: the next call goes on.
        """
        framing = 0
        while not self._pieces:
            if self.is_complete:
                return b""
            data = await self._receive()
            if data:
                self._feed(data)
                if self._pieces:
                    break
                framing += len(data)
                if framing > MAX_FRAMING_BYTES and not self.is_complete:
                    raise httpx.RemoteProtocolError("the origin sends framing without an end")
            elif self._ends_with_connection:
                self.is_complete = True
            else:
                raise httpx.ReadError("the origin closed the connection in the middle of its answer")
        pieces = self._pieces
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take_whole(self) -> bytes | None:
        """The whole body if it is here already, else None."""
        if not self.is_complete:
            return None
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def send_no_more(self) -> None:
        """Note that a send failed or was cut short. What the origin says can be read all the same.

        Trio would refuse that for TLS, whose two directions know nothing of each other: so its insides are used.
        """
        stream = self.stream
        if isinstance(stream, trio.SSLStream):
            stream._state = type(stream._state).OK

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError("the connection to the origin broke") from error

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.is_switched and isinstance(error, httptools.HttpParserUpgrade):
                self._surplus = True  # the connection is no HTTP any more
                self.behind = data[error.args[0] :]
                return
            if self.is_complete:  # bytes behind the answer: it is whole, the connection is not to be used again
                self._surplus = True
                return
            raise httpx.RemoteProtocolError("the origin's answer is not valid HTTP/1.1") from error

    def _check_head(self) -> None:
        lengths = [value for name, value in self.headers if name == b"content-length"]
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if len(lengths) > 1 or (lengths and (codings or not lengths[0].isdigit())):
            raise httpx.RemoteProtocolError("the origin's answer has an ambiguous length")
        if codings and (codings != [b"chunked"] or self._version != "1.1"):
            raise httpx.RemoteProtocolError("the origin's answer has an unknown transfer coding")
        if not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in self.headers):
            raise httpx.RemoteProtocolError("the origin's answer has an invalid header field")
        if not (200 <= self.status <= 599 or self.is_switched) or self._version not in _VERSIONS:
            raise httpx.RemoteProtocolError("the origin's answer has an unusable status or version")
        self._ends_with_connection = not lengths and not codings and self.status not in _NO_BODY

    @property
    def is_switched(self) -> bool:
        """Whether the origin agreed to another protocol that was asked for."""
        return self._may_upgrade and self.status == 101

    @property
    def can_be_reused(self) -> bool:
        """Whether the answer was complete, nothing was left over and both sides keep the connection open."""
        return (
            self.is_complete
            and not self._surplus
            and not self._pieces
            and not self._is_head_only
            and not self._ends_with_connection
            and self._keeps_alive
        )

    def is_stale(self) -> bool:
        """Whether an idle connection has become useless: the origin closed it, or sent what nobody asked for."""
        stream = self.stream
        if isinstance(stream, trio.SSLStream):
            return _tls_is_readable(stream)
        return isinstance(stream, TcpStream) and stream.is_readable()

    def close_nowait(self) -> None:
        """Close at once, synchronously: works inside a cancelled scope. Unread bytes make it a reset."""
        close_nowait(self.stream)
        if self.tally is not None:
            self.tally.release_one()
            self.tally = None
        self._parser = None  # its callbacks are ours: a ring would be left to the garbage collector


def _tls_is_readable(stream: trio.SSLStream[trio.abc.Stream]) -> bool:
    """Whether a read of an idle TLS connection would return at once: bytes, an end of file or an error.

    TLS itself is asked, because its socket does not know: bytes that came with the last answer have left it already,
    and what has arrived in it may be session tickets, which nobody reads. Trio has no way to ask, so its insides are
    used.
    """
    try:
        if isinstance(stream.transport_stream, TcpStream):
            arrived = stream.transport_stream.receive_nowait()
            if arrived == b"":
                return True
            stream._incoming.write(arrived or b"")
        stream._ssl_object.read(1)
    except ssl.SSLWantReadError:
        return False
    except (ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError):
        return True
    return True
