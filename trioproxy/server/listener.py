"""Accepting connections, each behind the crash barrier, and letting them go when the server drains."""

import errno
import socket
from collections.abc import Callable
from functools import partial

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from trioproxy.net.tcp import TcpStream, close_nowait
from trioproxy.server.barrier import CrashBarrier
from trioproxy.server.connection import ClientConnection

BACKLOG = 4096
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ABORTED = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO})
_EXHAUSTED_PAUSE_S = 0.1

log = structlog.get_logger()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, also if anybody listens there: never shares a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


class Listener:
    """Serves an app to every connection that comes in.

    Attributes:
        connections: those that are open.
        barrier: counts the crashes that it caught.
    """

    def __init__(
        self,
        app: ASGIFramework,
        *,
        max_header_bytes: int,
        keep_alive_s: float,
        client_stall_s: float,
        render_crash: Callable[..., tuple[int, list[tuple[bytes, bytes]], bytes]],
    ) -> None:
        self.connections: set[ClientConnection] = set()
        self._one_ended = trio.Event()
        self.barrier = CrashBarrier(render_crash)
        self._app = ASGIWrapper(app)
        self._config = _hypercorn_config(max_header_bytes)
        self._context = WorkerContext(None)
        self._keep_alive_s = keep_alive_s
        self._client_stall_s = client_stall_s

    async def accept(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        """Accept until cancelled; each connection is a task of `nursery`. Closes the socket when it leaves."""
        with trio.socket.from_stdlib_socket(listening) as acceptor:
            while True:
                try:
                    accepted, _ = await acceptor.accept()
                except OSError as error:
                    if error.errno in _EXHAUSTED:  # overload, not an error: those who wait are served when others end
                        log.warning("no room for another connection", errno=errno.errorcode[error.errno])
                        await trio.sleep(_EXHAUSTED_PAUSE_S)
                    elif error.errno not in _ABORTED:
                        raise
                else:
                    plain = socket.socket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
                    nursery.start_soon(self.serve, TcpStream(plain))

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one connection, on any stream, to its end. Raises nothing."""
        connection = ClientConnection(
            self._app,
            self._config,
            self._context,
            stream,
            barrier=self.barrier,
            keep_alive_s=self._keep_alive_s,
            client_stall_s=self._client_stall_s,
        )
        self.connections.add(connection)
        try:
            await self.barrier.run_connection(connection.run, partial(close_nowait, stream))
        finally:
            self.connections.discard(connection)
            self._one_ended.set()

    async def drain(self) -> None:
        """Let connections end: idle ones now, the others with their answer. Returns at once."""
        await self._context.terminated.set()
        for connection in list(self.connections):
            connection.end_if_idle()

    def abort_all(self) -> None:
        """Close every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    async def wait_empty(self) -> None:
        """Wait until no connection is open."""
        while self.connections:
            self._one_ended = trio.Event()
            await self._one_ended.wait()


def _hypercorn_config(max_header_bytes: int) -> HypercornConfig:
    config = HypercornConfig()
    config.h11_max_incomplete_size = max_header_bytes
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    return config
