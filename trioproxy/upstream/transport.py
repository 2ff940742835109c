"""`TrioTransport`: an `httpx.AsyncBaseTransport` on trio streams and llhttp, HTTP/1.1 only.

Why not httpx's own: its pool costs O(n) per request and loses slots when waiting requests are cancelled, its bodies are
nested async generators, and a cancel does not close at once. Here a body is an object with `read`, is released or
closed synchronously, and a request and its answer cost one send and as many reads as the origin makes writes. HTTP/2 is
left out: cancelling a stream would not stop the origin's work.

Extensions that it reads from a request:
    target: the raw request target, bytes (httpx.URL would rewrite it).
    timeout: {"connect": seconds}, as in httpx; covers name look-up, TCP, an outbound proxy and TLS.
    note_connected: told when the connection is there, trio's clock.
    nursery: where a body that is not sent at once is sent from, while the answer is awaited. Without it the body is
        sent first and the answer read afterwards.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Protocol

import httpx
import trio

from trioproxy.errors import ProxyError
from trioproxy.upstream.connect import Connector
from trioproxy.upstream.http1 import OriginConnection
from trioproxy.upstream.pool import Origin, Pool

SENT_AT_ONCE_BYTES = 65536
_CHUNKED_END = b"0\r\n\r\n"
_PORTS = {"http": 80, "https": 443}


class Spawner(Protocol):
    """What is needed of a nursery."""

    def start_soon(self, function: object, *arguments: object) -> None: ...


class HeldBody(AsyncIterator[bytes]):
    """A body that is in memory, in pieces, as TLS would hold the whole of it once more. httpx's own iterator is a
    generator, which an upload that ends early would leave to the garbage collector."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._sent = 0

    async def __anext__(self) -> bytes:
        piece = self._body[self._sent : self._sent + SENT_AT_ONCE_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._sent += len(piece)
        return piece


class Upload:
    """The sending of a request's body, beside the reading of the answer. `length` is the declared one, None if chunked.

    An origin that stops reading, or has answered already, ends it silently: the answer tells what happened. If the
    body's source fails, the origin must not take what it has for the whole: the connection is closed.

    Attributes:
        is_over: everything was sent; until then the connection cannot be used for another request.
    """

    def __init__(self, connection: OriginConnection, body: AsyncIterator[bytes], length: int | None) -> None:
        self._connection = connection
        self._body = body
        self._left = length
        self._scope = trio.CancelScope()
        self.is_over = False
        self._fault: ProxyError | None = None

    async def run(self) -> None:
        """Send the body piece by piece; nothing is read from its source before the last piece was taken."""
        with self._scope:
            try:
                self.is_over = await self._send_all()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except ProxyError as fault:
                self._fault = fault.with_traceback(None)
                self._connection.close_nowait()
        if not self.is_over:
            self._connection.send_no_more()

    async def _send_all(self) -> bool:
        async for piece in self._body:
            if not piece:
                continue
            if self._left is None:
                await self._send(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self._left -= len(piece)
                if self._left < 0:
                    break
                await self._send(piece)
        if self._left:
            self._connection.close_nowait()  # what was declared is not what came: the next request would be misread
            return False
        if self._left is None:
            await self._send(_CHUNKED_END)
        return True

    async def _send(self, data: bytes) -> None:
        await self._connection.stream.send_all(data)

    def raise_fault(self, consequence: Exception) -> None:
        """Raise what the body's source raised, if it did; `consequence` is what came of that here."""
        if self._fault is not None:
            try:
                raise self._fault from consequence
            finally:
                self._fault = None  # its traceback has this frame: a ring

    def stop(self) -> None:
        """Send no more."""
        self._scope.cancel(reason="the answer is here")


class OriginBody(httpx.AsyncByteStream):
    """The body of an answer. `read` is the relay's way in; iterating does the same for httpx's."""

    def __init__(self, connection: OriginConnection, origin: Origin, pool: Pool, upload: Upload | None) -> None:
        self.connection = connection
        self._origin = origin
        self._pool = pool
        self._upload = upload
        self._is_open = True
        self.read: Callable[[], Awaitable[bytes]] = connection.read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.read()
        if not piece:
            self.close_nowait()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self.close_nowait()

    def close_nowait(self) -> None:
        """Let go of the connection, synchronously: back to the pool if answer and request are complete, else closed.
        Harmless when repeated."""
        if not self._is_open:
            return
        self._is_open = False
        self.read = _read_no_more
        if self._upload is not None and not self._upload.is_over:
            self._upload.stop()
            self.connection.close_nowait()
        else:
            self._pool.give_back(self._origin, self.connection)


class TrioTransport(httpx.AsyncBaseTransport):
    """Sends requests to the origins that one `Connector` reaches. Follows nothing, adds nothing, keeps no cookies."""

    def __init__(self, connector: Connector, pool: Pool) -> None:
        self._connector = connector
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the answer's head.

        Raises httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError (no answer), httpx.RemoteProtocolError, or what
        the body's source raised. If cancelled, or on an error, the connection is closed at once.
        """
        origin = origin_of(request.url)
        timeout = request.extensions.get("timeout", {}).get("connect")
        connection = self._pool.take(origin) or await self._connect(origin, inf if timeout is None else timeout)
        if (note_connected := request.extensions.get("note_connected")) is not None:
            note_connected(trio.current_time())
        upload: Upload | None = None
        try:
            connection.begin(request.method, may_upgrade="upgrade" in request.headers)
            upload = await self._send(request, connection)
            await connection.read_head()
        except BaseException as error:
            connection.close_nowait()
            if upload is not None:
                upload.stop()
                if isinstance(error, httpx.TransportError):
                    upload.raise_fault(error)
            raise
        if upload is not None and not upload.is_over and connection.status >= 300:
            upload.stop()
        body = OriginBody(connection, origin, self._pool, upload)
        return httpx.Response(connection.status, headers=connection.headers, stream=body)

    async def aclose(self) -> None:
        self._pool.close_nowait()

    async def warm_up(self, url: httpx.URL, connect_s: float) -> None:
        """Make sure that a connection to this origin waits in the pool. Raises as a request's connecting does."""
        origin = origin_of(url)
        if not self._pool.has(origin):
            self._pool.keep(origin, await self._connect(origin, connect_s))

    async def _connect(self, origin: Origin, connect_s: float) -> OriginConnection:
        with trio.move_on_after(connect_s):
            connection = await self._connector.open(*origin)
            connection.tally = self._pool.connections
            connection.tally.open_one()
            return connection
        raise httpx.ConnectTimeout("the origin could not be reached in time")

    async def _send(self, request: httpx.Request, connection: OriginConnection) -> Upload | None:
        head = _head(request)
        stream = request.stream
        body: AsyncIterator[bytes]
        if isinstance(stream, httpx.ByteStream):
            held = b"".join(stream)
            if len(held) <= SENT_AT_ONCE_BYTES:
                await _send_and_read_on(connection, head + held)
                return None
            body = HeldBody(held)
        else:
            assert isinstance(stream, httpx.AsyncByteStream)
            body = aiter(stream)
        await _send_and_read_on(connection, head)
        is_chunked = "transfer-encoding" in request.headers
        length = None if is_chunked else int(request.headers.get("content-length", 0))
        upload = Upload(connection, body, length)
        nursery: Spawner | None = request.extensions.get("nursery")
        if nursery is None:
            await upload.run()
        else:
            nursery.start_soon(upload.run)
        return upload


def origin_of(url: httpx.URL) -> Origin:
    """Scheme, host (as it is looked up, not as it is shown) and port that a URL's connections go to."""
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]


async def _read_no_more() -> bytes:
    """What a body that was let go reads: its connection may be another request's by now."""
    raise httpx.StreamClosed


async def _send_and_read_on(connection: OriginConnection, data: bytes) -> None:
    try:
        await connection.stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        connection.send_no_more()  # the origin may have answered and closed before it read everything: reading tells


def _head(request: httpx.Request) -> bytes:
    target = request.extensions.get("target", request.url.raw_path)
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    lines += (b"", b"")
    return b"\r\n".join(lines)
