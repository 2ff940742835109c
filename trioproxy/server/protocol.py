"""Hypercorn's HTTP/1.1 protocol, as small subclasses that mend what a streaming proxy cannot live with.

* Bytes behind a request (pipelining, or just a quick keep-alive client) do not stop the reader, so the client's
  departure stays visible; they wait, bounded, and are served in order after the answer.
* No h2c: `Upgrade: h2c` is ignored and the HTTP/2 preface is refused; there is no way to Hypercorn's other protocols.
* A wish for a WebSocket is an ordinary request until its route takes the `ClientSocket` that comes with it.
* Requests are read by `strict.StrictConnection`: what two readers could read in two ways is refused.
* Body pieces are framed here instead of going through h11 one by one, the head waits for the first piece, and the last
  piece carries the end: an answer of known length is one write.
* An answer that was not finished is cut: the connection ends without the chunked terminator, by a reset where only
  the end of file would say that the body is over.

It leans on the insides of hypercorn 0.18 and h11 0.16 (pinned exactly): `_handle_events`, `_create_stream`,
`_maybe_recycle`, `HTTPStream.app_send` and `h11.Connection._writer`. `tests/server` holds a test for each.
"""

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from secrets import token_hex
from time import time
from typing import Any

import h11
import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import suppress_body

from trioproxy.errors import BadRequest, Deadline, ProxyError, RequestTimeout
from trioproxy.server.client_socket import ClientSocket
from trioproxy.server.inbox import Inbox, Message
from trioproxy.server.strict import ChunkReader, StrictConnection
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers
from trioproxy.wire.upgrade import answer_fields, check_wish, wants_socket

MAX_WAITING_BYTES = 65536
"""How much may wait unread, of a body that the app does not take or behind a request, before reading stops."""

_CLOSE = (b"connection", b"close")

log = structlog.get_logger()


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")


class RequestStream(HTTPStream):
    """One request's app: its messages in (`inbox`) and its answer out (`app_send`). `socket`: what its connection could
    become."""

    inbox: Inbox
    protocol: "Protocol"
    target: bytes
    socket: ClientSocket | None = None
    _is_chunked = False
    _head: bytes | None = None

    async def app_send(self, message: Message | None) -> None:  # type: ignore[override]
        """The app's ASGI `send`. Silent once the client is gone: the app learns of that by being cancelled.

        None comes from Hypercorn when the app has returned; an answer that is not finished then is cut off.
        """
        if self.closed:
            return
        if message is None:
            if self.protocol.socket is not None:
                await self.protocol.end_socket()
            elif self.state != ASGIHTTPState.CLOSED:
                await self.protocol.cut()
        elif message["type"] == "http.response.body" and self.state is ASGIHTTPState.RESPONSE:
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif message["type"] == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            self.response = message  # type: ignore[assignment]
            self.state = ASGIHTTPState.RESPONSE
            self._head = self.protocol.head(message["status"], message["headers"])
            self._is_chunked = self.protocol.is_chunked
        else:
            raise RuntimeError(f"the app sent {message['type']} in state {self.state.name}")

    def forget(self) -> None:
        """Let go of what the request held: scope, inbox and app refer to each other in a ring, and a thousand such
        rings make the garbage collector stop every stream for a quarter of a second."""
        self.scope.clear()  # type: ignore[attr-defined]
        self.app_put = None  # type: ignore[assignment]
        if self.socket is not None:
            self.socket.forget()
            self.socket = self.protocol.socket = None
        self.inbox.fault = None  # its traceback has the frame that raised it, which has the inbox
        del self.inbox

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer in the app's stead, if it has not begun to."""
        if self.state is ASGIHTTPState.REQUEST:
            await self.app_send({"type": "http.response.start", "status": status, "headers": headers})
            await self.app_send({"type": "http.response.body", "body": body})

    async def _send_body(self, body: bytes, more_body: bool) -> None:
        if body and suppress_body(self.scope["method"], int(self.response["status"])):
            body = b""
        if not self._is_chunked:
            out = self.protocol.count(body) if body else b""
        elif body:
            out = b"%x\r\n%b\r\n" % (len(body), body)
        else:
            out = b""
        if self._head is not None:
            out, self._head = self._head + out, None
        if more_body:
            if out:
                await self.protocol.write(out)
            return
        self.state = ASGIHTTPState.CLOSED
        end = self.protocol.end_of_message()
        if out or end:
            await self.protocol.write(out + end)
        await self.protocol.recycle()


class Protocol(H11Protocol):
    """One connection's HTTP/1.1. Bytes come in by `handle`, in the connection's reading task and nowhere else.

    Attributes:
        is_chunked: whether the answer under way has the chunked coding.
        is_behind: bytes of a next request wait for the current answer to end.
        is_cut: the last answer was broken off.
        socket: what the connection has become, if it is no HTTP any more.
    """

    connection: h11.Connection
    stream: RequestStream | None

    def __init__(
        self,
        *args: Any,
        write: Callable[[bytes], Awaitable[None]],
        wake_reader: Callable[[], None],
        abort: Callable[[], None],
    ) -> None:
        super().__init__(*args)
        self.connection = StrictConnection(self.config.h11_max_incomplete_size)
        self.write = write
        self._wake_reader = wake_reader
        self._abort = abort
        self.is_chunked = False
        self.is_behind = False
        self.is_cut = False
        self.socket: ClientSocket | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there are bytes of a head that is not whole."""
        return len(self.connection._receive_buffer) > 0

    @property
    def is_in_chunks(self) -> bool:
        """Whether a chunked body is being read."""
        return isinstance(self.connection._reader, ChunkReader)

    @property
    def has_room(self) -> bool:
        """Whether more may be read: neither the app nor the next request is too far behind."""
        if self.socket is not None:
            return self.socket.has_room
        if self.stream is not None and self.stream.inbox.waiting_bytes >= MAX_WAITING_BYTES:
            return False
        return not self.is_behind or len(self.connection.trailing_data[0]) < MAX_WAITING_BYTES

    @property
    def has_whole_request(self) -> bool:
        """Whether a request is under way that has come to its end."""
        return self.stream is not None and self.connection.their_state in (h11.DONE, h11.MUST_CLOSE)

    @property
    def taken(self) -> trio.Event | None:
        """An event that is set once the app has taken something; None without an app."""
        if self.socket is not None:
            return self.socket.taken
        return None if self.stream is None else self.stream.inbox.taken

    async def handle(self, event: Event) -> None:
        """Take bytes, or the end of the connection. A client that has closed its socket is not gone when it leaves:
        what it said is still on its way."""
        if self.socket is None:
            await super().handle(event)
        elif isinstance(event, RawData):
            self.socket.feed(event.data)
        elif not self.socket.is_over:
            await super().handle(event)

    async def switch(self, subprotocol: bytes | None, headers: Headers) -> None:
        """Answer 101: from here on the connection is the socket's. Raises BadRequest if the client has sent more
        already: that could be a next request as well (RFC 6455 section 4.1: it has to wait)."""
        stream = self.stream
        if stream is None or stream.socket is None or stream.closed:  # the client is gone
            return
        if self.connection.trailing_data[0]:
            stream.inbox.fault = BadRequest("There were bytes behind the handshake before it was answered.")
            raise stream.inbox.fault
        stream.state = ASGIHTTPState.CLOSED
        self.is_behind = False
        self.socket = stream.socket
        fields = [*answer_fields([*stream.scope["headers"]], subprotocol), *headers, (b"date", _date(int(time())))]
        await self.write(self.connection.send(h11.InformationalResponse(status_code=101, headers=fields)))

    async def end_socket(self) -> None:
        """The socket's request is over: end the connection."""
        self.stream = None
        self.socket = None
        await self.send(Closed())

    async def serve_what_waits(self) -> None:
        """Go on with the bytes that stood behind the last request. Called by the reader after `recycle` woke it."""
        if self.is_behind and self.stream is None:
            self.is_behind = False
            await self._handle_events()

    async def _handle_events(self) -> None:
        if self.connection.their_state is h11.ERROR:
            return
        try:
            await self._take_events()
        except h11.RemoteProtocolError:
            await self._give_up_request(BadRequest("The request is not valid HTTP/1.1."))
        except BadRequest as error:
            await self._give_up_request(error)

    async def _take_events(self) -> None:
        while True:
            event = self.connection.next_event()
            if event is h11.PAUSED:
                self.is_behind = True
                return
            if isinstance(event, h11.Request):
                await self.send(Updated(idle=False))
                await self._create_stream(event)
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    async def ask_for_body(self) -> None:
        """Tell a client that waits for it to go on (RFC 9110 section 10.1.1)."""
        if self.connection.they_are_waiting_for_100_continue:
            await self.write(self.connection.send(h11.InformationalResponse(status_code=100, headers=[])))

    async def give_up_head(self) -> None:
        """The rest of a request's head does not come: say so, and close."""
        await self._refuse(RequestTimeout("The request's head did not arrive in time.", deadline=Deadline.HEADER))

    async def _give_up_request(self, error: BadRequest) -> None:
        """What comes from the client makes no sense from here on. A body that turns to nonsense belongs to a request
        that has an app, which answers, and a record of its own."""
        if self.stream is None:
            await self._refuse(error)
        else:
            self.stream.inbox.fail(error)
            self.is_behind = True

    async def _refuse(self, error: ProxyError) -> None:
        """Answer a request that cannot be read and has no app, and close."""
        request_id = f"req_{token_hex(12)}"
        client = self.client[0] if self.client else None
        log.info(
            "request refused",
            request_id=request_id,
            status=error.status,
            code=error.code,
            deadline=error.deadline,
            client=client,
        )
        if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status, headers, body = render.response(error, Dialect.OTHER, request_id)
            out = self.head(status, [*headers, _CLOSE]) + self.count(body) + self.end_of_message()
            await self.write(out)
        await self.send(Closed())

    async def _create_stream(self, request: h11.Request) -> None:
        wish = list(request.headers)
        is_wish = wants_socket(request.method, request.http_version, request.target, wish)
        if is_wish:
            check_wish(wish)
        stream = RequestStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        stream.protocol = self
        stream.target = request.target
        if is_wish:
            stream.socket = ClientSocket(self.switch, self.write)
        self.stream = stream
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=wish,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The bytes of an answer's head. h11 adds the framing that the client's version allows."""
        if not any(name == b"date" for name, _ in headers):
            headers = [*headers, (b"date", _date(int(time())))]
        is_body_broken = self.stream is not None and self.stream.inbox.fault is not None
        is_last = self.context.terminated.is_set() or self.connection.their_state is h11.ERROR or is_body_broken
        if is_last and _CLOSE not in headers:
            headers = [*headers, _CLOSE]
        data = self.connection.send(h11.Response(status_code=status, headers=headers))
        self.is_chunked = type(self.connection._writer).__name__ == "ChunkedWriter"
        return data

    def count(self, body: bytes) -> bytes:
        """A piece of an answer that is not chunked: h11 counts it against the declared length."""
        return self.connection.send(h11.Data(data=body)) or b""

    def end_of_message(self) -> bytes:
        """The bytes that end an answer."""
        return self.connection.send(h11.EndOfMessage()) or b""

    async def recycle(self) -> None:
        """The answer is complete: be ready for the next request, or close. Nothing is awaited before the protocol is
        ready, so a client that is quicker than us finds it so."""
        self.stream = None
        if self.connection.their_state is not h11.DONE:
            await self.send(Closed())
            return
        try:
            self.connection.start_next_cycle()
        except h11.LocalProtocolError:  # the client, or its version, wants the connection closed
            await self.send(Closed())
            return
        await self.send(Updated(idle=True))
        if self.is_behind:
            self._wake_reader()

    async def cut(self) -> None:
        """End the connection so that the answer cannot be taken for a complete one."""
        self.stream = None
        self.is_cut = True
        if self.connection.our_state is h11.SEND_BODY and not self.is_chunked:
            self._abort()
        await self.send(Closed())
