"""A WebSocket session: messages between a client and the origin that agreed to it, both ways, until one side closes.

Each direction takes a message only when the one before it was taken on the other side: a slow side stops the other.
Each side's pings are answered by us, and each is asked whether it is still there.
"""

from collections.abc import Awaitable, Callable

import trio

from trioproxy.errors import (
    BadRequest,
    CancelReason,
    ClientGone,
    Draining,
    ProxyError,
    RequestTooLarge,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.relay.call import Call, ClientSocket, Downstream, Lifetime, Timing
from trioproxy.relay.heads import switched_head
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.origin_socket import OriginSocket, socket_of
from trioproxy.wire.messages import FAILED, GOING_AWAY, RESTARTS, TOO_LARGE, VANISHED, Close, Message

CLOSE_S = 2.0
"""How long the origin has to answer our closing frame. What it still sends is read away, or a reset would overtake
that frame."""


class Session:
    """One session. `open` before `run`; `break_off` after a `run` that did not end by itself."""

    def __init__(
        self,
        call: Call,
        client: ClientSocket,
        attempt: Attempt,
        downstream: Downstream,
        timing: Timing,
        lifetime: Lifetime,
    ) -> None:
        self._call = call
        self._exchange = call.exchange
        self._client = client
        self._attempt = attempt
        self._origin: OriginSocket = socket_of(attempt, call.headers)
        self._downstream = downstream
        self._idle_s = timing.idle_s
        self._lifetime = lifetime
        self._beside: list[trio.CancelScope] = []  # round each task but the request's own
        self._reading = trio.CancelScope()  # round that task's reading of the origin
        self._said: Close | None = None  # how the client closed
        self._fault: ProxyError | None = None  # what became of one side, seen beside

    async def open(self) -> None:
        """Tell the client that the session begins. Raises BadRequest if it did not wait for that."""
        await self._client.accept(self._origin.subprotocol, switched_head(self._exchange, self._attempt))
        self._exchange.status = 101
        self._downstream.has_head = True

    async def run(self) -> None:
        """Pass messages until both sides know how it ends. Raises UpstreamFault if the origin broke off, BadRequest if
        the client broke the rules. If cancelled, neither side was told."""
        for run in (self._upwards, self._tend_client, self._tend_origin):
            scope = trio.CancelScope()
            self._beside.append(scope)
            self._lifetime.nursery.start_soon(_run_within, scope, run)
        try:
            with self._reading:
                await self._downwards()
        finally:
            for scope in self._beside:
                scope.cancel(reason="the session is over")
        if self._fault is not None:
            fault, self._fault = self._fault, None
            if isinstance(fault, UpstreamFault):
                self._attempt.note_fault(fault)
            raise fault
        if self._said is not None:
            await self._client.close(self._said)  # sends the answer to the client's closing frame
        await self._part_from_origin(Close(FAILED) if self._said is None else self._said.passed_on())

    async def break_off(self, error: ProxyError) -> None:
        """End both sides, each with what became of the other."""
        if isinstance(error, ClientGone):
            self._exchange.cancel(CancelReason.CLIENT_GONE.value)
        else:
            self._exchange.fail(error)
        stops = isinstance(error, Draining)
        failed = TOO_LARGE if TOO_LARGE in (self._client.failed_with, self._origin.failed_with) else FAILED
        await self._client.close(Close(RESTARTS if stops else failed, error.code))
        self._exchange.notes.setdefault("client_close", RESTARTS if stops else failed)
        await self._part_from_origin(Close(GOING_AWAY if stops else failed))

    async def _downwards(self) -> None:
        """From the origin to the client. Whoever is silent, it counts as the origin's turn."""
        exchange, flow = self._exchange, self._exchange.flow
        while True:
            flow.turn(UPSTREAM, trio.current_time())
            said = await self._origin.receive()
            flow.turn(PROXY, trio.current_time())
            if isinstance(said, Close):
                break
            await self._client.send(said)
            exchange.events += 1
            exchange.bytes_out += len(said.data)
        exchange.notes["upstream_close"] = said.code
        if said.code == VANISHED:
            raise self._origin_fault()
        await self._client.close(said.passed_on())

    def _origin_fault(self) -> UpstreamFault:
        name = self._attempt.endpoint.name
        fault: UpstreamFault
        if self._origin.failed_with is not None:
            fault = UpstreamProtocolError(f"The upstream '{name}' broke the rules of WebSocket.")
        else:
            fault = UpstreamTruncated(f"The upstream '{name}' ended its WebSocket without closing it.")
        self._attempt.note_fault(fault)
        return fault

    async def _upwards(self) -> None:
        """From the client to the origin; ends the reading of the origin once the client has closed."""
        exchange, messages = self._exchange, 0
        while True:
            said = await self._client.receive()
            if isinstance(said, Close):
                break
            await self._send_up(said)
            messages += 1
            exchange.bytes_in += len(said.data)
            exchange.notes["messages_in"] = messages
        exchange.notes["client_close"] = said.code
        failed = self._client.failed_with
        if failed == TOO_LARGE:
            self._end(RequestTooLarge("The message is larger than a message may be here."))
        elif failed is not None:
            self._end(BadRequest("The client broke the rules of WebSocket."))
        elif said.code != VANISHED:
            self._said = said
            self._end(None)

    async def _send_up(self, message: Message) -> None:
        with trio.move_on_after(self._idle_s) as patience:
            await self._origin.send(message)
        if patience.cancelled_caught:
            self._end(self._silent_origin())
            await trio.sleep_forever()

    async def _tend_client(self) -> None:
        await self._client.tend()
        self._end(ClientGone("The client gave no sign of life."))

    async def _tend_origin(self) -> None:
        await self._origin.tend()
        self._end(self._silent_origin())

    def _silent_origin(self) -> UpstreamFault:
        return UpstreamTruncated(f"The upstream '{self._attempt.endpoint.name}' gave no sign of life.")

    def _end(self, fault: ProxyError | None) -> None:
        if self._fault is None:
            self._fault = fault
        self._reading.cancel(reason="the session is over")

    async def _part_from_origin(self, close: Close) -> None:
        """Close towards the origin, or answer its closing frame, and wait a moment for what it says to that."""
        with trio.move_on_after(CLOSE_S):
            await self._origin.close(close)
            while isinstance(await self._origin.receive(), Message):
                pass


async def _run_within(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()
