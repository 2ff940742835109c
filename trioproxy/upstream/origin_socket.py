"""An origin's WebSocket: the connection of an attempt that was answered with 101. Nothing is read that nobody asks for,
so a slow client stops the origin, by TCP.
"""

from collections import deque

import trio

from trioproxy.errors import UpstreamProtocolError
from trioproxy.net.websocket import MAX_ANSWERS_BYTES, WebSocket
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.headers import Headers
from trioproxy.wire.messages import VANISHED, Close, Codec, Message
from trioproxy.wire.upgrade import agreed

READ_BYTES = 16384


class OriginSocket(WebSocket):
    """The origin's end. The connection is the attempt's, which closes it.

    Attributes:
        subprotocol: the one that the origin chose.
    """

    def __init__(self, stream: trio.abc.Stream, behind: bytes, subprotocol: bytes | None) -> None:
        """`behind` is what came behind the origin's 101."""
        super().__init__(Codec(is_client=True))
        self._stream = stream
        self._found: deque[Message | Close] = deque(self.take_in(behind) if behind else ())
        self._is_receiving = False
        self.subprotocol = subprotocol

    @property
    def is_listening(self) -> bool:
        return self._is_receiving

    async def receive(self) -> Message | Close:
        """The next message; the Close is the last thing that comes, and behind it only that the origin is gone. If
        cancelled, nothing was taken."""
        self._is_receiving = True
        try:
            while not self._found:
                if self._codec.is_over:
                    return Close(VANISHED)
                self._found.extend(self.take_in(await self._read()))
                if self._codec.out_bytes >= MAX_ANSWERS_BYTES:  # it pings, and does not read: so we do not either
                    async with self._sending:
                        await self._flush()
        finally:
            self._is_receiving = False
        return self._found.popleft()

    async def _read(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what it said before may still be read


def socket_of(attempt: Attempt, wish: Headers) -> OriginSocket:
    """The WebSocket of an attempt whose status is 101; `wish` are the fields of our handshake. Raises
    UpstreamProtocolError if the origin agreed to something else."""
    is_sound, subprotocol = agreed(wish, attempt.headers)
    if not is_sound:
        name = attempt.endpoint.name
        fault = UpstreamProtocolError(f"The upstream '{name}' answered the WebSocket handshake with another protocol.")
        attempt.note_fault(fault)
        raise fault
    stream, behind = attempt.take_stream()
    return OriginSocket(stream, behind, subprotocol)
