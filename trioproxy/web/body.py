"""Bytes from and to the server, by ASGI: the request's body as it comes, and the answer as the relay writes it."""

from collections.abc import AsyncIterator
from typing import Any

import trio

from trioproxy.errors import ClientGone, RequestTimeout, RequestTooLarge
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.flow import CLIENT
from trioproxy.wire.headers import Headers


class RequestBody(AsyncIterator[bytes]):
    """The request's body, piece by piece, as the server got it: nothing is taken before it is asked for, so a slow
    origin slows the client. Read by one task.

    Iterating raises RequestTooLarge once more came than `limit` allows, ClientGone if the client left before the end.
    If cancelled, no piece was lost.
    """

    def __init__(self, receive: Any, content_length: bytes | None, exchange: Exchange) -> None:
        self._receive = receive
        self._exchange = exchange
        self._max_bytes = 0
        self._reading: trio.CancelScope | None = None
        self.content_length = content_length
        self.is_complete = False

    def limit(self, max_bytes: int) -> None:
        """Set how many bytes may come. Raises RequestTooLarge at once if more were declared."""
        self._max_bytes = max_bytes
        if self.content_length is not None and int(self.content_length) > max_bytes:
            raise self._too_large()

    def __aiter__(self) -> "RequestBody":
        return self

    async def __anext__(self) -> bytes:
        while not self.is_complete:
            message = await self._wait()
            if message["type"] != "http.request":
                raise ClientGone("The client left before it had sent the whole request.")
            piece: bytes = message["body"]
            self._exchange.bytes_in += len(piece)
            if self._exchange.bytes_in > self._max_bytes:
                raise self._too_large()
            self.is_complete = not message["more_body"]
            if self.is_complete:
                self._exchange.read_at = trio.current_time()
            if piece:
                return piece
        raise StopAsyncIteration

    async def _wait(self) -> Any:
        """What the server got next; it is waited for the client meanwhile."""
        flow = self._exchange.flow
        waited_for = flow.on
        flow.turn(CLIENT, trio.current_time())
        try:
            return await self._receive()
        finally:
            if flow.on == CLIENT:
                flow.turn(waited_for, trio.current_time())

    async def read(self, deadline: float) -> bytes:
        """The whole body. Raises RequestTimeout if it is not here at the deadline (trio's clock), or at a `stop`."""
        with trio.move_on_at(deadline) as self._reading:
            pieces = [piece async for piece in self]
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        raise RequestTimeout("The request's body did not arrive in time.")

    def stop(self) -> None:
        """Let nobody wait for the rest of it any more."""
        if self._reading is not None:
            self._reading.cancel()

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The request body is larger than the {self._max_bytes} bytes that are allowed here.")


class ClientAnswer:
    """The answer to one client, as `relay.call.Downstream` describes it. The server never cuts a send short.

    Attributes:
        told: fields of ours that every head has, whatever the answer; they stand in the place of those that a head
            has by the same names. `vary` is a list, to which ours is added.
    """

    def __init__(self, send: Any, exchange: Exchange) -> None:
        self._send = send
        self._exchange = exchange
        self._head: Any = None
        self.told: Headers = []
        self.is_sending = False
        self.has_head = False
        self.is_finished = False

    def head(self, status: int, headers: Headers) -> None:
        if self.told:
            replaced = {name for name, _ in self.told} - {b"vary"}
            headers = [*(field for field in headers if field[0] not in replaced), *self.told]
        self._head = {"type": "http.response.start", "status": status, "headers": headers}
        self._exchange.status = status

    async def send(self, data: bytes) -> None:
        await self._write(data, more_body=True)

    async def finish(self, data: bytes = b"") -> None:
        self.is_finished = True
        await self._write(data, more_body=False)

    def abort(self) -> None:
        """Nothing to do: an answer that was not finished is cut when the request's task ends."""

    async def _write(self, data: bytes, more_body: bool) -> None:
        self.is_sending = True
        if not self.has_head:
            self.has_head = True
            await self._send(self._head)
        await self._send({"type": "http.response.body", "body": data, "more_body": more_body})
        self.is_sending = False
        self._exchange.bytes_out += len(data)
