"""A TCP connection as a trio stream, made for relaying many small pieces.

What `trio.SocketStream` does not have, and why this exists:

* a send that fits into the kernel's buffer makes no checkpoint (the relay's own channel is one per event already),
  and a read first waits where the last one emptied the socket, instead of failing once: together a third of an
  event's cost;
* `close_nowait`: synchronous, so that a connection can be let go inside a cancelled scope, and as a reset if asked;
* `peer_has_left`: sees a FIN that stands behind bytes nobody has read.

TLS goes on top with `trio.SSLStream`. It opens no connections and knows no deadlines; callers do.
"""

import errno
import socket
import struct
import sys

import trio

_CLOSED_BY_US = "this connection was closed"
# tcp_info.tcpi_state, Linux's include/net/tcp_states.h: the states in which the peer has sent its FIN, or is gone.
_LEFT_STATES = frozenset({7, 8, 9, 11})  # CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING
_CLOSE_STATE = 7
_LINGER_NONE = struct.pack("ii", 1, 0)

PROBE_AFTER_S = 30
"""Silence after which the kernel asks whether a peer is still there. Below every load balancer's idle limit, so that
their tables keep the connection too."""
PROBE_EVERY_S = 10
PROBES = 3
"""So many probes without an answer, and the connection is broken: a minute after the peer was last heard."""
UNACKNOWLEDGED_S = 60
"""How long bytes may be on their way without a sign that they arrived. Probes are not sent while bytes are, and without
this the kernel would repeat them for a quarter of an hour."""


class TcpStream(trio.abc.HalfCloseableStream):
    """A connected, non-blocking TCP socket. One task may send while another receives.

    Raises as `trio.SocketStream` does: BrokenResourceError for a broken connection, ClosedResourceError once closed
    here, BusyResourceError never (callers keep to one task per direction).
    """

    __slots__ = ("_is_closed", "_is_drained", "socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        _try_to_set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._is_closed = False
        self._is_drained = True  # the last read emptied the socket, so the next one waits first

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand as much as it takes to the kernel; returns how many bytes that was (0: its buffer is full)."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. If cancelled, an unknown part was sent. No checkpoint if the kernel takes it all at once."""
        sent = self.send_nowait(memoryview(data))
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            await self.wait_send_all_might_not_block()
            rest = rest[self.send_nowait(rest) :]

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes bytes again."""
        if self._is_closed:
            raise trio.ClosedResourceError(_CLOSED_BY_US)
        await trio.lowlevel.wait_writable(self.socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to `max_bytes` (default 16 KiB), b"" at the end of file. If cancelled, nothing was taken."""
        wanted = max_bytes or 16384
        if self._is_closed:
            raise trio.ClosedResourceError(_CLOSED_BY_US)
        while True:
            if self._is_drained:
                await trio.lowlevel.wait_readable(self.socket)
            else:
                await trio.lowlevel.checkpoint()
            try:
                data = self.socket.recv(wanted)
            except BlockingIOError:
                self._is_drained = True
                continue
            except OSError as error:
                raise self._translated(error) from None
            self._is_drained = len(data) < wanted
            return data

    async def send_eof(self) -> None:
        """Shut down our sending side. A connection that is broken already is no error."""
        self.send_eof_nowait()
        await trio.lowlevel.checkpoint()

    def send_eof_nowait(self) -> None:
        """As `send_eof`, without a checkpoint."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise self._translated(error) from None

    async def aclose(self) -> None:
        """Close. Always closes, also if cancelled."""
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self, *, reset: bool = False) -> None:
        """Close at once. With `reset` the peer sees a reset, never what could look like an honest end."""
        if self._is_closed:
            return
        self._is_closed = True
        if reset:
            _try_to_set(self.socket, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def receive_nowait(self) -> bytes | None:
        """What has arrived (at most 16 KiB), b"" at the end of file, None if a read would have to wait."""
        try:
            return self.socket.recv(16384)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._translated(error) from None

    def is_readable(self) -> bool:
        """Whether a read would return at once: bytes, an end of file or an error."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK) or True)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def peer_has_left(self) -> bool:
        """Whether the peer's FIN or reset has arrived, also behind unread bytes. Linux only; elsewhere always False."""
        if self._is_closed:
            return True
        if sys.platform != "linux":
            return False
        try:
            return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT_STATES
        except OSError:
            return True

    def was_reset(self) -> bool:
        """Whether the connection is broken, by a reset or because the peer has vanished; an end of file alone is not
        enough. Linux only; elsewhere always False."""
        if self._is_closed:
            return True
        if sys.platform != "linux":
            return False
        try:
            return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_STATE
        except OSError:
            return True

    def _translated(self, error: OSError) -> Exception:
        if self._is_closed or error.errno == errno.EBADF:
            return trio.ClosedResourceError(_CLOSED_BY_US)
        return trio.BrokenResourceError(f"the connection is broken: {error.strerror}")


def _try_to_set(sock: socket.socket, level: int, option: int, value: int | bytes) -> None:
    """Set a socket's option, unless the peer has left already: some systems then refuse. The next read tells."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        pass


def guard_against_vanished_peers(sock: socket.socket, *, unacknowledged_s: float | None = UNACKNOWLEDGED_S) -> None:
    """Let the kernel notice, within a minute or so, a peer that is gone without a FIN or a reset: a machine without
    power, a cut cable, a table that forgot the connection. Waiting reads and writes then fail.

    On Linux connections inherit this from their listening socket. `unacknowledged_s` None leaves out the limit for
    bytes on their way: Linux also counts it against a peer that is alive and keeps its window shut, which is right for
    clients, but not for an origin that has not come to an upload yet.
    """
    _try_to_set(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform != "linux":
        return
    _try_to_set(sock, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    _try_to_set(sock, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
    _try_to_set(sock, socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    if unacknowledged_s is not None:
        _try_to_set(sock, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * unacknowledged_s))


def close_nowait(stream: trio.abc.Stream, *, reset: bool = False) -> None:
    """Close any stream at once and synchronously: a `TcpStream`, TLS on top of one, or a memory stream of the tests."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, TcpStream):
        stream.close_nowait(reset=reset)
    elif isinstance(stream, trio.StapledStream):
        for half in (stream.send_stream, stream.receive_stream):
            half.close()
    else:
        raise TypeError(f"cannot close {type(stream).__name__} synchronously")
