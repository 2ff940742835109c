"""HTTP/1.1 on one stream, by h11: read a request, write a reply. The demo upstream's only use of framing.

The head of a reply is held back until its first bytes or until `flush`, so that head and first event leave in one
packet. Does not know routes or faults (`demo_script`), opens no nursery and spawns nothing. Called by `demo_upstream`.
"""

import contextlib
import socket
import struct
from http import HTTPStatus
from typing import Final

import h11
import trio

from .demo_script import Header

READ_BYTES: Final = 65_536
MAX_HEAD_BYTES: Final = 65_536
MAX_AHEAD_BYTES: Final = 262_144
"""What a peer may send of its next requests while an answer runs. Not a limit on bodies."""
IDLE_S: Final = 300.0
"""A peer that says nothing for so long, between requests or inside one, is let go."""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Malformed(Exception):
    """The peer does not speak HTTP/1. `status` is what to tell it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Gone(Exception):
    """The peer left, or was idle for too long, before its request was complete."""


class Connection:
    """One connection. Owns no lifetime: whoever made the stream closes it.

    Reads and writes may be done by two tasks, one each. Every method may raise `trio.BrokenResourceError` when the peer
    is gone. If a write is cancelled the connection cannot be used any more.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._held = b""
        self._is_head_request = False

    async def receive_head(self) -> h11.Request | None:
        """The next request's head; None at a clean end. Raises `Malformed`, `Gone`. Cancelled: nothing is lost."""
        event = await self._next_event()
        if isinstance(event, h11.Request):
            self._is_head_request = event.method == b"HEAD"
            return event
        return None

    async def receive_piece(self) -> bytes | None:
        """The next piece of the request's body; None at its end. Raises `Malformed`, `Gone`."""
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Malformed(str(error), error.error_status_hint) from error
            if isinstance(event, h11.Event):
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send_all(self._encoded(h11.InformationalResponse(status_code=100, headers=[])))
            with trio.move_on_after(IDLE_S) as patience:
                data = await self._stream.receive_some(READ_BYTES)
            if patience.cancelled_caught or (not data and self._http.their_state is h11.SEND_BODY):
                raise Gone
            self._http.receive_data(bytes(data))

    async def wait_gone(self) -> None:
        """Wait until the peer leaves, by EOF or reset; what it sends meanwhile is kept for the next request.

        A peer that sends more than `MAX_AHEAD_BYTES` ahead counts as gone: not to read is not to see it leave.
        Cancelled: nothing is lost.
        """
        ahead = 0
        while ahead <= MAX_AHEAD_BYTES:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            ahead += len(data)
            self._http.receive_data(bytes(data))

    def begin(self, status: int, headers: tuple[Header, ...]) -> None:
        """Prepare the head; it leaves with the first bytes of the body, or with `flush`."""
        reason = _REASONS.get(status, "Simulated")
        self._held += self._encoded(h11.Response(status_code=status, headers=list(headers), reason=reason))

    async def flush(self) -> None:
        """Write the head now, if it is still held."""
        if self._held:
            await self._send(b"")

    async def write(self, data: bytes) -> None:
        """Write a part of the body, as one chunk where the body is chunked."""
        await self._send(b"" if self._is_head_request else self._encoded(h11.Data(data=data)))

    async def write_raw(self, data: bytes) -> None:
        """Write bytes past h11. Only closing the connection makes sense after that."""
        await self._stream.send_all(data)

    async def finish(self) -> None:
        """End the response cleanly."""
        await self._send(self._encoded(h11.EndOfMessage()))

    def can_go_on(self) -> bool:
        """After a finished response: make ready for the next request, or say that there can be none."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    @property
    def can_answer(self) -> bool:
        """Whether no head was made yet for what the peer is asking."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def arm_reset(self) -> None:
        """Make the coming close a TCP reset. On a stream that is no socket nothing happens: it just closes."""
        if isinstance(self._stream, trio.SocketStream):
            # A peer that is gone already has no connection left to set options on, and none to reset.
            with contextlib.suppress(OSError):
                self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _encoded(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _send(self, data: bytes) -> None:
        data, self._held = self._held + data, b""
        await self._stream.send_all(data)
