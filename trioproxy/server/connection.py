"""One client's connection: Hypercorn's connection server on a guarded stream.

It reads, hands the bytes to `protocol`, and knows when to stop: the client has left, is idle for too long, or was told
to go. A client's departure is seen at every moment, also behind bytes that nobody reads. Every write goes out in
pieces, each with its deadline *below* the shield that Hypercorn puts round its sends; a stock send to a client that
has stopped reading could not be cancelled by anybody.
"""

from collections.abc import Callable
from math import inf
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from trioproxy.errors import CancelReason
from trioproxy.net.tcp import TcpStream, close_nowait
from trioproxy.server.barrier import CrashBarrier
from trioproxy.server.inbox import Inbox
from trioproxy.server.protocol import Protocol

Address = tuple[str, int] | None

PIECE_BYTES = 16384
READ_BYTES = 65536
_LOOK_AFTER_S = 0.25
"""How often a client is looked after while nothing is read from it, because what it sent waits to be taken."""
_LINGER_S = 2.0
"""How long a client's bytes are read away after our last one: closing before would reset what it has not read."""


class RequestTasks(TaskGroup):
    """Starts one task per request, with an `Inbox` in place of Hypercorn's channel, behind a crash barrier."""

    def __init__(self, barrier: CrashBarrier, abort: Callable[[], None]) -> None:
        super().__init__()
        self._barrier = barrier
        self._abort = abort

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Any, send: Any) -> Any:
        stream = send.__self__
        stream.inbox = inbox = Inbox(self._abort, stream.protocol.ask_for_body)
        scope["extensions"]["trioproxy.departure"] = inbox
        scope["extensions"]["trioproxy.target"] = stream.target
        assert self._nursery is not None
        self._nursery.start_soon(self._barrier.run_request, app, scope, inbox.receive, send)
        return inbox.put


class ClientConnection(TCPServer):
    """Serves one accepted connection until it ends; `run` always closes it, also if cancelled or crashed."""

    stream: trio.abc.HalfCloseableStream  # type: ignore[assignment]
    protocol: Protocol  # type: ignore[assignment]

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.abc.HalfCloseableStream,
        *,
        barrier: CrashBarrier,
        keep_alive_s: float,
        client_stall_s: float,
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self._barrier = barrier
        self._keep_alive_s = keep_alive_s
        self._client_stall_s = client_stall_s
        self._reading = trio.CancelScope()
        self._idle_deadline = inf
        self._is_stuck = False  # a write waits for the client to take bytes
        self._is_ending = False  # our last byte is out; what still comes is read away
        self._send_nowait = stream.send_nowait if isinstance(stream, TcpStream) else None
        self._has_left = stream.peer_has_left if isinstance(stream, TcpStream) else None
        self.is_busy = False

    async def run(self) -> None:
        """Serve requests until either side ends the connection."""
        try:
            addresses = self._addresses()
            if addresses is None:
                return
            client, server = addresses
            async with RequestTasks(self._barrier, self.abort) as tasks:
                self.protocol = Protocol(
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    self.state,
                    False,
                    client,
                    server,
                    self.protocol_send,
                    write=self._write,
                    wake_reader=self._wake_reader,
                    abort=self.abort,
                )
                self._become_idle()
                await self._read_data()
        finally:
            close_nowait(self.stream)

    def _addresses(self) -> tuple[Address, Address] | None:
        """The client's and our own; None if the client is gone before they can be asked for."""
        socket = self.stream.socket  # type: ignore[attr-defined]
        try:
            return (
                parse_socket_addr(socket.family, socket.getpeername()),
                parse_socket_addr(socket.family, socket.getsockname()),
            )
        except OSError:
            return None

    async def protocol_send(self, event: Event) -> None:
        """Hypercorn's way out: bytes, the end of the connection, or a change between idle and busy."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._end()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            if event.idle:
                self._become_idle()
            else:
                self.is_busy = True
                self._idle_deadline = inf

    async def _write(self, data: bytes) -> None:
        """Send in pieces. The client that takes no byte for `client_stall_s` is cut off; a broken connection is told to
        the protocol and raises nothing, as in Hypercorn. Not cancelled by anything else: half a piece would corrupt."""
        if self._is_ending:
            return
        try:
            sent = self._send_nowait(data) if self._send_nowait is not None else 0
            if sent < len(data):
                await self._write_slowly(memoryview(data)[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())

    async def _write_slowly(self, rest: memoryview) -> None:
        self._is_stuck = True
        while rest:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._client_stall_s) as stall:
                if self._send_nowait is None:
                    await self.stream.send_all(rest[:PIECE_BYTES])
                    rest = rest[PIECE_BYTES:]
                else:
                    await self.stream.wait_send_all_might_not_block()
                    rest = rest[self._send_nowait(rest[:PIECE_BYTES]) :]
            if stall.cancelled_caught:
                if self.protocol.stream is not None:
                    self.protocol.stream.inbox.reason = CancelReason.CLIENT_STALLED.value
                self.abort()
                raise trio.BrokenResourceError("the client takes no bytes")
        self._is_stuck = False

    async def _read_data(self) -> None:
        while True:
            await self.protocol.serve_what_waits()
            if not self._is_ending and not self.protocol.has_room and not await self._wait_for_room():
                break
            self._reading = trio.CancelScope(deadline=self._idle_deadline)
            data: bytes | bytearray = b""
            try:
                with self._reading:
                    data = await self.stream.receive_some(READ_BYTES)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            if self._reading.cancelled_caught:
                if not self.is_busy and trio.current_time() >= self._idle_deadline:
                    break
            elif not data:
                break
            elif not self._is_ending:
                await self.protocol.handle(RawData(bytes(data)))
        if self._is_stuck:  # the client has left and takes no more: nothing but the end of the socket ends that write
            close_nowait(self.stream)
        await self.protocol.handle(Closed())

    async def _wait_for_room(self) -> bool:
        """Wait until the app took some of what waits; False once the client has left. It does not read, so that it
        holds nothing back from TCP; a departure is looked for behind the unread bytes."""
        while not self.protocol.has_room:
            if self._has_left is not None and self._has_left():
                return False
            with trio.move_on_after(_LOOK_AFTER_S) as self._reading:
                if self.protocol.stream is not None:
                    await self.protocol.stream.inbox.taken.wait()
                else:
                    await trio.sleep_forever()
            if self.protocol.is_behind and self.protocol.stream is None:
                return True
        return True

    def _wake_reader(self) -> None:
        self._reading.cancel()

    def _become_idle(self) -> None:
        self.is_busy = False
        self._idle_deadline = trio.current_time() + (0 if self.context.terminated.is_set() else self._keep_alive_s)
        self._reading.deadline = self._idle_deadline

    def end_if_idle(self) -> None:
        """Close a connection on which no request is under way. Called when the server drains."""
        if not self.is_busy:
            self._idle_deadline = trio.current_time()
            self._wake_reader()

    async def _end(self) -> None:
        """Send our end of file and read away what still comes, for a moment, so that the client gets our last bytes."""
        if self._is_ending:
            return
        self._is_ending = True
        self.is_busy = False
        self._idle_deadline = self._reading.deadline = trio.current_time() + _LINGER_S
        with trio.move_on_after(_LINGER_S, shield=True):
            try:
                await self.stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass  # gone already, or still stuck in a write that is about to fail

    def abort(self) -> None:
        """Close at once, by a reset; a write that waits for the client fails."""
        self._is_ending = True
        close_nowait(self.stream, reset=True)
