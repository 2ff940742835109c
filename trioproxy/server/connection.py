"""One client's connection: Hypercorn's connection server on a guarded stream.

It reads, hands the bytes to `protocol`, and knows when to stop: the client has left, is idle or slow for too long, or
was told to go. A client's departure is seen at every moment, also behind bytes that nobody reads. Every write goes out
in pieces, each with its deadline *below* the shield that Hypercorn puts round its sends; a stock send to a client that
has stopped reading could not be cancelled by anybody.

Over TLS all is the same, one layer higher. Only a connection that ends honestly says so by a close_notify; and once it
does, what still comes is read away below TLS.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from trioproxy.net.tls import TlsStream, end_tls
from trioproxy.server.barrier import CrashBarrier
from trioproxy.server.inbox import Inbox
from trioproxy.server.protocol import Protocol
from trioproxy.telemetry.flow import CLIENT

Address = tuple[str, int] | None

PIECE_BYTES = 16384
READ_BYTES = 65536
CHUNKS_BYTES = 16384
"""How much of a chunked body is read at once: chunks of one byte take long, and the other streams wait meanwhile."""
_LOOK_AFTER_S = 0.25
"""How often a client is looked after while nothing is read from it, because what it sent waits to be taken, or because
it has sent its end of file."""
_LAST_REQUEST_S = 1.0
"""How long, once the server goes, a connection is waited for whose client was not told yet that it goes: one that is
new, or whose answer began before. Its next request may be on the way."""
_LINGER_S = 2.0
"""How long a client's bytes are read away after our last one: closing before would reset what it has not read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may take, and how many there may be. What each means is in `conf/trioproxy.toml`.

    `keeps_half_open` is whether a client that has sent its end of file may still read (`half_close = "keep"`).
    """

    max_connections: int
    max_header_bytes: int
    header_s: float
    body_idle_s: float
    keep_alive_s: float
    client_stall_s: float
    keeps_half_open: bool


class Stop(WorkerContext):
    """What connections know of the server's end. `terminated` (Hypercorn's event): answers are a connection's last.

    `closes_idle`: connections without a request close too. Until then they may ask once more: a client that is just
    about to would take the close for a fault.
    """

    closes_idle = False


class RequestTasks(TaskGroup):
    """Starts one task per request, with an `Inbox` in place of Hypercorn's channel, behind a crash barrier."""

    def __init__(self, barrier: CrashBarrier, abort: Callable[[], None], body_idle_s: float) -> None:
        super().__init__()
        self._barrier = barrier
        self._abort = abort
        self._body_idle_s = body_idle_s

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Any, send: Any) -> Any:
        stream = send.__self__
        stream.inbox = inbox = Inbox(self._abort, stream.protocol.ask_for_body, patience_s=self._body_idle_s)
        scope["extensions"]["trioproxy.departure"] = inbox
        scope["extensions"]["trioproxy.target"] = stream.target
        scope["extensions"]["trioproxy.socket"] = stream.socket
        assert self._nursery is not None
        self._nursery.start_soon(self._barrier.run_request, app, scope, inbox.receive, send)
        return inbox.put


class ClientConnection(TCPServer):
    """Serves one accepted connection until it ends; `run` always closes it, also if cancelled or crashed."""

    stream: trio.abc.HalfCloseableStream | TlsStream  # type: ignore[assignment]
    protocol: Protocol  # type: ignore[assignment]
    context: Stop

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: Stop,
        stream: trio.abc.HalfCloseableStream | TlsStream,
        *,
        barrier: CrashBarrier,
        limits: Limits,
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self._barrier = barrier
        self._limits = limits
        self._tls = stream if isinstance(stream, trio.SSLStream) else None
        self._transport = stream if self._tls is None else self._tls.transport_stream
        self._reading = trio.CancelScope()
        self._deadline = inf  # of what is waited for while no request is under way
        self._is_new = True  # no request has come yet
        self._is_in_head = False  # a request has begun, and its head is not whole
        self._is_stuck = False  # a write waits for the client to take bytes
        self._is_ending = False  # our last byte is out; what still comes is read away
        self._is_half_open = False  # the client has sent its end of file, and may still read
        self._send_nowait = stream.send_nowait if isinstance(stream, TcpStream) else None
        self._has_left: Callable[[], bool] | None = None
        if isinstance(self._transport, TcpStream):
            keeps = limits.keeps_half_open
            self._has_left = self._transport.was_reset if keeps else self._transport.peer_has_left
        self.is_busy = False

    async def run(self) -> None:
        """Serve requests until either side ends the connection."""
        try:
            addresses = self._addresses()
            if addresses is None:
                return
            client, server = addresses
            self._await_head()
            if self._tls is not None and not await self._shake_hands(self._tls):
                return
            async with RequestTasks(self._barrier, self.abort, self._limits.body_idle_s) as tasks:
                self.protocol = Protocol(
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    self.state,
                    self._tls is not None,
                    client,
                    server,
                    self.protocol_send,
                    write=self._write,
                    wake_reader=self._wake_reader,
                    abort=self.abort,
                )
                await self._read_data()
            del self.protocol  # it and we hold each other: a ring would be left to the garbage collector
        finally:
            close_nowait(self.stream)

    async def _shake_hands(self, tls: TlsStream) -> bool:
        """TLS's handshake, whose time is the first head's; False if it came to nothing."""
        self._reading = trio.CancelScope(deadline=self._deadline)
        try:
            with self._reading:
                await tls.do_handshake()
                return True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return False

    def _addresses(self) -> tuple[Address, Address] | None:
        """The client's and our own; None if the client is gone before they can be asked for."""
        socket = self._transport.socket  # type: ignore[union-attr]
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
                self._is_new = self._is_in_head = False
                self._deadline = inf

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
        flow = self.protocol.stream.inbox.flow if self.protocol.stream is not None else None
        if flow is None:
            await self._wait_to_write(rest)
            return
        waited_for = flow.on
        flow.turn(CLIENT, trio.current_time())
        try:
            await self._wait_to_write(rest)
        finally:
            if flow.on == CLIENT:
                flow.turn(waited_for, trio.current_time())

    async def _wait_to_write(self, rest: memoryview) -> None:
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

    @property
    def _client_stall_s(self) -> float:
        """What the request under way says, whose route may have set it; else what holds for all."""
        stream = self.protocol.stream
        own = stream.inbox.client_stall_s if stream is not None else None
        return self._limits.client_stall_s if own is None else own

    async def _read_data(self) -> None:
        while True:
            await self.protocol.serve_what_waits()
            if not self._is_ending and not self.protocol.has_room and not await self._wait_for_room():
                break
            self._reading = trio.CancelScope(deadline=self._deadline)
            source = self._transport if self._is_ending else self.stream
            data: bytes | bytearray = b""
            try:
                with self._reading:
                    data = await source.receive_some(CHUNKS_BYTES if self.protocol.is_in_chunks else READ_BYTES)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            if self._reading.cancelled_caught:
                if self.is_busy or trio.current_time() < self._deadline:
                    continue
                if not self._is_in_head:
                    await self._end_tls()
                    break
                await self.protocol.give_up_head()
            elif not data:
                if self._limits.keeps_half_open and not self._is_ending and self.protocol.socket is None:
                    await self._outlast_end_of_file()
                break
            elif not self._is_ending:
                was_idle, deadline = not self.is_busy and not self._is_in_head, self._deadline
                if was_idle:
                    self._await_rest_of_head()
                await self.protocol.handle(RawData(bytes(data)))
                if was_idle and not self.is_busy and not self.protocol.has_begun:  # an empty line, as old clients send
                    self._is_in_head, self._deadline = False, deadline
        if self._is_stuck:  # the client has left and takes no more: nothing but the end of the socket ends that write
            close_nowait(self.stream)
        await self.protocol.handle(Closed())

    async def _outlast_end_of_file(self) -> None:
        """Stay until the requests that are here are answered, though the client sends no more. Reading tells nothing
        any longer, so a reset is looked for."""
        self._is_half_open = True
        protocol = self.protocol
        while not self._is_ending and (protocol.has_whole_request or protocol.is_behind):
            if self._has_left is not None and self._has_left():
                return
            await protocol.serve_what_waits()
            with trio.move_on_after(_LOOK_AFTER_S) as self._reading:
                await trio.sleep_forever()
        if not self._is_ending and protocol.stream is None:
            await self._end_tls()

    async def _wait_for_room(self) -> bool:
        """Wait until the app took some of what waits; False once the client has left. It does not read, so that it
        holds nothing back from TCP; a departure is looked for behind the unread bytes."""
        while not self.protocol.has_room:
            if self._has_left is not None and self._has_left():
                return False
            with trio.move_on_after(_LOOK_AFTER_S) as self._reading:
                taken = self.protocol.taken
                if taken is not None:
                    await taken.wait()
                else:
                    await trio.sleep_forever()
            if self.protocol.is_behind and self.protocol.stream is None:
                return True
        return True

    def _wake_reader(self) -> None:
        self._reading.cancel()

    def _await_head(self) -> None:
        """The connection was accepted: its first request, from the first byte of TLS to the end of the head, is due."""
        self._deadline = trio.current_time() + (_LAST_REQUEST_S if self.context.closes_idle else self._limits.header_s)

    def _await_rest_of_head(self) -> None:
        self._is_in_head = True
        if not self._is_new:
            self._deadline = trio.current_time() + self._limits.header_s

    def _become_idle(self) -> None:
        self.is_busy = False
        wait_s = _LAST_REQUEST_S if self.context.closes_idle else self._limits.keep_alive_s
        self._deadline = trio.current_time() + wait_s
        if self.protocol.is_behind:  # the next request has begun already
            self._await_rest_of_head()
        self._reading.deadline = self._deadline
        if self._is_half_open:
            self._wake_reader()

    def end_if_idle(self) -> None:
        """Close a connection on which no request is under way. Called when the server drains."""
        if not self.is_busy:
            self._is_in_head = False
            self._deadline = trio.current_time() + (_LAST_REQUEST_S if self._is_new else 0)
            self._wake_reader()

    def make_room(self) -> None:
        """Close a connection that is only kept for a next request, of which nothing has come."""
        if not self._is_new and not self._is_in_head:
            self.end_if_idle()

    async def _end(self) -> None:
        """Send our end of file and read away what still comes, for a moment, so that the client gets our last bytes."""
        if self._is_ending:
            return
        self._is_ending = True
        self.is_busy = self._is_in_head = False
        self._deadline = self._reading.deadline = trio.current_time() + _LINGER_S
        if not self.protocol.is_cut:
            await self._end_tls()
        with trio.move_on_after(_LINGER_S, shield=True):
            try:
                await self._transport.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass  # gone already, or still stuck in a write that is about to fail
        self._wake_reader()  # it reads the transport from now on

    async def _end_tls(self) -> None:
        """Say by TLS's own end that nothing is missing."""
        if self._tls is None:
            return
        with trio.move_on_after(_LINGER_S, shield=True):
            try:
                await end_tls(self._tls)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass  # the same

    def abort(self) -> None:
        """Close at once, by a reset; a write that waits for the client fails."""
        self._is_ending = True
        close_nowait(self.stream, reset=True)
