"""The ends of a WebSocket session, in other hands than the proxy's: wsproto, on any stream."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

import trio
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from tests.harness.origin import Visit
from trioproxy.net.tcp import close_nowait

GONE = -1
"""In place of a code: the connection ended without a closing frame."""


class Talker:
    """One end. Pings are answered while it listens.

    Attributes:
        closed: the code, and reason, with which the other side closed; GONE if it did not.
        pings, pongs: how many came.
    """

    def __init__(self, stream: trio.abc.Stream, side: wsproto.ConnectionType) -> None:
        self.stream = stream
        self._wsproto = wsproto.WSConnection(side)
        self._events: deque[Event] = deque()
        self._parts: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.pings = self.pongs = 0
        self.answers_pings = True
        self.subprotocol: str | None = None
        self.request: Request | None = None

    async def send(self, message: str | bytes, *, pieces: int = 1) -> None:
        """Send a message, in so many fragments."""
        size = -(-len(message) // pieces) or 1
        parts: list[str | bytes] = [message[at : at + size] for at in range(0, len(message), size)] or [message]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            if isinstance(part, str):
                await self._say(TextMessage(data=part, message_finished=is_last))
            else:
                await self._say(BytesMessage(data=part, message_finished=is_last))

    async def ping(self, payload: bytes = b"") -> None:
        await self._say(Ping(payload=payload))

    async def close(self, code: int | None = 1000, reason: str | None = None) -> None:
        """Send a closing frame; None is one without a code."""
        await self._say(CloseConnection(code=CloseReason.NO_STATUS_RCVD if code is None else code, reason=reason))

    async def _say(self, event: Event) -> None:
        await self.stream.send_all(self._wsproto.send(event))

    def leave(self) -> None:
        """End the connection, without a closing frame."""
        close_nowait(self.stream)

    async def hear(self) -> str | bytes | None:
        """The next message; None once the other side has closed, in whatever way."""
        while (event := await self._next()) is not None:
            match event:
                case Message():
                    self._parts.append(event.data)
                    if event.message_finished:
                        parts, self._parts = self._parts, []
                        return "".join(parts) if isinstance(parts[0], str) else b"".join(parts)  # type: ignore[arg-type]
                case CloseConnection():
                    self.closed = (int(event.code), event.reason or "")
                    if self._wsproto.state is ConnectionState.REMOTE_CLOSING:
                        try:
                            await self._say(event.response())
                        except (trio.BrokenResourceError, trio.ClosedResourceError):
                            pass
                    return None
                case Ping():
                    self.pings += 1
                    if self.answers_pings:
                        await self._say(event.response())
                case Pong():
                    self.pongs += 1
        self.closed = self.closed or (GONE, "")
        return None

    async def hear_all(self) -> list[str | bytes]:
        """Every message until the other side closes."""
        heard = []
        while (message := await self.hear()) is not None:
            heard.append(message)
        return heard

    async def _next(self) -> Event | None:
        while not self._events:
            try:
                data = await self.stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._wsproto.receive_data(bytes(data))
            self._events.extend(self._wsproto.events())
        return self._events.popleft()


class Guest(Talker):
    """The client's end. `refusal`: status, fields and body of the answer to a handshake that came to nothing."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream, wsproto.ConnectionType.CLIENT)
        self.refusal: tuple[int, dict[str, str], bytes] | None = None
        self.headers: dict[str, str] = {}

    async def enter(
        self,
        target: str = "/v1/realtime?model=m",
        *,
        subprotocols: tuple[str, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
    ) -> bool:
        """Make the handshake; whether it came to a session."""
        extra = [(name.encode(), value.encode()) for name, value in headers]
        await self._say(Request(host="proxy", target=target, subprotocols=list(subprotocols), extra_headers=extra))
        body, status, fields = b"", 0, {}
        while True:
            try:
                event = await self._next()
            except RemoteProtocolError:
                return False
            match event:
                case AcceptConnection():
                    self.subprotocol = event.subprotocol
                    self.headers = {name.decode(): value.decode() for name, value in event.extra_headers}
                    return True
                case RejectConnection():
                    status = event.status_code
                    fields = {name.decode(): value.decode() for name, value in event.headers}
                    self.refusal = (status, fields, body)
                    if not event.has_body:
                        return False
                case RejectData():
                    body += event.data
                    self.refusal = (status, fields, body)
                    if event.body_finished:
                        return False
                case None:
                    return False


class Host(Talker):
    """The origin's end, on a visit of the proxy."""

    @classmethod
    async def receive(cls, stream: trio.abc.Stream, *, subprotocol: str | None = None) -> Self:
        """Take a handshake and agree to it."""
        host = cls(stream, wsproto.ConnectionType.SERVER)
        request = await host._next()
        if not isinstance(request, Request):
            raise trio.BrokenResourceError("the proxy left")
        host.request = request
        await host._say(AcceptConnection(subprotocol=subprotocol))
        return host


def hosting(
    play: Callable[[Host], Awaitable[None]], *, subprotocol: str | None = None
) -> Callable[..., Awaitable[None]]:
    """An origin's script: agrees to the handshake, then plays."""

    async def script(visit: Visit) -> None:
        await play(await Host.receive(visit.stream, subprotocol=subprotocol))

    return script


async def echo(host: Host) -> None:
    """Sends back what it hears."""
    while (message := await host.hear()) is not None:
        await host.send(message)
