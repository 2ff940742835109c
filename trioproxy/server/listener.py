"""Accepting connections, each behind the crash barrier, and letting them go when the server drains."""

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import ASGIFramework

from trioproxy.net.tcp import UNACKNOWLEDGED_S, TcpStream, close_nowait, guard_against_vanished_peers
from trioproxy.net.tls import accept_tls
from trioproxy.server.barrier import CrashBarrier
from trioproxy.server.connection import ClientConnection, Limits, Stop
from trioproxy.server.overload import Burst, Overflow
from trioproxy.telemetry.tally import Tally

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ABORTED = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO})
_EXHAUSTED_PAUSE_S = 0.1

log = structlog.get_logger()


class Listener:
    """Serves an app to every connection that comes in, up to a limit; over TLS if it is given a context.

    Attributes:
        connections: those that are open; `tally` counts all there ever were.
        overflow: counts those that were turned away.
        barrier: counts the crashes that it caught.
    """

    def __init__(
        self,
        app: ASGIFramework,
        limits: Limits,
        *,
        render_crash: Callable[..., tuple[int, list[tuple[bytes, bytes]], bytes]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections: set[ClientConnection] = set()
        self._one_ended = trio.Event()
        self._accepted = 0  # taken from a queue, and not begun yet
        self.barrier = CrashBarrier(render_crash)
        self._app = ASGIWrapper(app)
        self._config = _hypercorn_config(limits.max_header_bytes)
        self._stop = Stop(None)
        self.tally = Tally()
        self._limits = limits
        self._tls = tls
        self.overflow = Overflow()
        self._full = Burst()
        self._exhausted = Burst()

    async def accept(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        """Accept until cancelled; each connection is a task of `nursery`. Closes the socket when it leaves, and takes
        what waits in its queue first: the kernel would reset that."""
        with trio.socket.from_stdlib_socket(listening) as acceptor:
            try:
                while True:
                    try:
                        accepted, _ = await acceptor.accept()
                    except OSError as error:
                        if error.errno in _EXHAUSTED:
                            await self._wait_for_room(error)
                        elif error.errno not in _ABORTED:
                            raise
                    else:
                        plain = socket.socket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
                        self._begin(plain, nursery)
            finally:
                for plain in _waiting_in(listening):
                    self._begin(plain, nursery)

    async def _wait_for_room(self, error: OSError) -> None:
        """No descriptor is left. That is overload and no error: those who wait are served when others end."""
        if self._exhausted.is_new():
            log.warning("no room for another connection", errno=errno.errorcode[error.errno or 0])
        for connection in list(self.connections):
            connection.make_room()
        await trio.sleep(_EXHAUSTED_PAUSE_S)

    def _begin(self, accepted: socket.socket, nursery: trio.Nursery) -> None:
        if self._limits.client_stall_s > UNACKNOWLEDGED_S:  # the kernel shall not be less patient than we
            guard_against_vanished_peers(accepted, unacknowledged_s=self._limits.client_stall_s)
        self._accepted += 1
        nursery.start_soon(self._serve_accepted, TcpStream(accepted))

    async def _serve_accepted(self, stream: TcpStream) -> None:
        self._accepted -= 1
        try:
            await self.serve(stream)
        finally:
            self._one_ended.set()

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one connection, on any stream, to its end, or turn it away. Raises nothing."""
        if len(self.connections) >= self._limits.max_connections:
            if self._full.is_new():
                log.warning("too many connections", limit=self._limits.max_connections)
            await self.overflow.turn_away(stream, self._tls)
            return
        connection = ClientConnection(
            self._app,
            self._config,
            self._stop,
            stream if self._tls is None else accept_tls(stream, self._tls),
            barrier=self.barrier,
            limits=self._limits,
        )
        self.connections.add(connection)
        self.tally.open_one()
        try:
            await self.barrier.run_connection(connection.run, partial(close_nowait, stream))
        finally:
            self.connections.discard(connection)
            self.tally.release_one()
            self._one_ended.set()

    async def end_after_answers(self) -> None:
        """Let each connection end with its next answer. Returns at once."""
        await self._stop.terminated.set()

    def end_idle(self) -> None:
        """Close the connections that wait for a request, now and from now on."""
        self._stop.closes_idle = True
        for connection in list(self.connections):
            connection.end_if_idle()

    def abort_all(self) -> None:
        """Close every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    async def wait_empty(self) -> None:
        """Wait until no connection is open, nor accepted and not begun."""
        while self.connections or self._accepted:
            self._one_ended = trio.Event()
            await self._one_ended.wait()


def _waiting_in(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections in a listening socket's queue."""
    while True:
        try:
            yield listening.accept()[0]
        except OSError:  # none is left, or none can be taken
            return


def _hypercorn_config(max_header_bytes: int) -> HypercornConfig:
    config = HypercornConfig()
    config.h11_max_incomplete_size = max_header_bytes
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    return config
