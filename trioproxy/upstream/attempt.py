"""One try at one endpoint: from the connection to the answer's head, and the body until it is let go.

An `Attempt` holds no nursery and no cancel scope, only a connection with a synchronous close and what was read of the
answer. So it may be opened in one task and moved to another's exit stack.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from types import TracebackType

import httpx
import trio

from trioproxy.errors import UpstreamErrorInStream, UpstreamFault, UpstreamHeadTimeout, UpstreamProtocolError
from trioproxy.policy.breaker import Outcome
from trioproxy.telemetry.exchange import Trying
from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.faults import fault_before_head, fault_in_body
from trioproxy.upstream.stay import Stay, outcome_of
from trioproxy.upstream.transport import SENT_AT_ONCE_BYTES, HeldBody, OriginBody
from trioproxy.wire.headers import Headers
from trioproxy.wire.usage import Usage

_AHEAD_BYTES = 65536
_AHEAD_S = 5.0


class Attempt(AbstractContextManager["Attempt"]):
    """An origin that has answered. Leaving it lets go of the connection at once, whatever was read.

    Attributes:
        status, headers: the answer's head; names are lower case.
        started, answered: when the request began and when the head was here, trio's clock.
        ahead: what was read of the body by `read_ahead` and not by `read`.
        stay: what the try holds at its endpoint, let go of with the connection.
        is_to_be_folded: it is a stream, and the client is to get a whole answer of it.
        model: what the model is called there, as far as that is known.
        trying: what becomes of the try, if somebody wants to know.
        has_asked_usage: it was asked for the stream's usage, and the client did not ask for that.
        usage: what the whole answer told of which this stream was made.
    """

    __slots__ = (
        "_body",
        "_is_read",
        "_tally",
        "ahead",
        "answered",
        "endpoint",
        "has_asked_usage",
        "headers",
        "is_to_be_folded",
        "model",
        "started",
        "status",
        "stay",
        "trying",
        "usage",
    )

    def __init__(self, endpoint: Endpoint, response: httpx.Response, started: float) -> None:
        assert isinstance(response.stream, OriginBody)
        self.endpoint = endpoint
        self.started = started
        self.answered = trio.current_time()
        self.status = response.status_code
        self._body = response.stream
        self.headers: Headers = self._body.connection.headers
        self.ahead = b""
        self._is_read = False  # to its honest end
        self.is_to_be_folded = False
        self.model: str | None = None
        self.has_asked_usage = False
        self.usage: Usage | None = None
        self.stay: Stay | None = None
        self.trying: Trying | None = None
        self._tally: Tally | None = endpoint.attempts
        self._tally.open_one()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection, and of what the try holds, at once. Harmless when repeated."""
        self._body.close_nowait()
        if self._tally is not None:
            self._tally.release_one()
            self._tally = None
            if self.trying is not None:
                self.trying.ended = trio.current_time()
        if self.stay is not None:
            self.stay.leave()
            self.stay = None

    def note_first_content(self, now: float) -> None:
        """The first content is here; only the first time counts."""
        if self.stay is not None:
            self.stay.note_first_content(now)
        if self.trying is not None and self.trying.first_content is None:
            self.trying.first_content = now

    def note_fault(self, fault: UpstreamFault) -> None:
        """What became of the answer behind its head."""
        if self.stay is not None:
            is_told = isinstance(fault, UpstreamErrorInStream)
            self.stay.note(outcome_of(fault.status) if is_told else Outcome.FAULT, is_error=True)

    def take_whole(self) -> bytes | None:
        """The whole body, if it came with the head or was read ahead; else None."""
        if self._is_read:
            whole, self.ahead = self.ahead, b""
            return whole
        return None if self.ahead else self._body.connection.take_whole()

    def take_stream(self) -> tuple[trio.abc.Stream, bytes]:
        """The connection, and what came behind the head, where the origin agreed to speak another protocol on it. It
        stays the attempt's, which closes it."""
        connection = self._body.connection
        behind, connection.behind = connection.behind, b""
        return connection.stream, behind

    async def read_ahead(self) -> None:
        """Read the body, or as much of it as comes soon; `ahead` has it then. A fault shows when it is read on."""
        whole = self.take_whole()
        if whole is not None:
            self.ahead, self._is_read = whole, True
            return
        with trio.move_on_after(_AHEAD_S):
            try:
                while len(self.ahead) < _AHEAD_BYTES and await self.read_more():
                    pass
            except UpstreamFault:
                return

    async def read_more(self) -> bytes:
        """The next piece of the body, which is also added to `ahead`; b"" at the honest end. Raises UpstreamFault. If
        cancelled, nothing was taken."""
        ahead, self.ahead = self.ahead, b""
        try:
            piece = await self.read()
            self._is_read = not piece
            ahead += piece
        finally:
            self.ahead = ahead
        return piece

    async def read_whole(self, max_bytes: int) -> bytes:
        """The whole body. Raises UpstreamFault, also for one that is longer than that."""
        piece = self.take_whole() or await self.read()
        pieces: list[bytes] = []
        size = 0
        while piece:
            size += len(piece)
            if size > max_bytes:
                name = self.endpoint.name
                raise UpstreamProtocolError(f"The upstream '{name}' sent an answer of more than {max_bytes} bytes.")
            pieces.append(piece)
            piece = await self.read()
        return b"".join(pieces)

    def become(self, headers: Headers, body: bytes) -> None:
        """Stand for another answer, made of the one that was read: with this head and this body."""
        self.headers = headers
        self.ahead, self._is_read = body, True

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its honest end. Raises UpstreamFault. If cancelled, nothing was taken."""
        if self.ahead:
            piece, self.ahead = self.ahead, b""
            return piece
        if self._is_read:
            return b""
        try:
            return await self._body.read()
        except httpx.TransportError as error:
            raise fault_in_body(error, self.endpoint.name) from error


class _WatchedBody(httpx.AsyncByteStream):
    """A body that is sent in pieces: each one that the origin takes restarts its time for the head."""

    def __init__(self, source: AsyncIterator[bytes], head: trio.CancelScope, head_s: float) -> None:
        self._source = source
        self._head = head
        self._head_s = head_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._source)
        self._head.deadline = trio.current_time() + self._head_s
        return piece


def _stream(body: bytes | AsyncIterator[bytes], head: trio.CancelScope, head_s: float) -> httpx.AsyncByteStream:
    if not isinstance(body, bytes):
        return _WatchedBody(body, head, head_s)
    if len(body) > SENT_AT_ONCE_BYTES:
        return _WatchedBody(HeldBody(body), head, head_s)
    return httpx.ByteStream(body)


async def open_attempt(
    endpoint: Endpoint,
    method: str,
    target: bytes,
    headers: Headers,
    body: bytes | AsyncIterator[bytes],
    *,
    key: int | None = None,
    connect_s: float,
    head_s: float,
    nursery: trio.Nursery,
    trying: Trying | None = None,
) -> Attempt:
    """Send a request and wait for the origin's head; redirects are answers like any other. A new connection may take
    `connect_s` seconds, the head `head_s`, both from the start; each piece of a body in pieces restarts the head's.
    What becomes of it is noted in `trying`.

    Raises UpstreamFault, Overloaded for want of a socket, or what a streamed body's source raised. If cancelled, the
    connection is closed. The caller puts the attempt on its exit stack before it awaits anything.
    """
    started = trio.current_time()
    with trio.CancelScope(deadline=started + head_s) as scope:
        request = httpx.Request(
            method,
            endpoint.url,
            headers=endpoint.dress(headers, key),
            stream=_stream(body, scope, head_s),
            extensions={
                "target": target,
                "timeout": {"connect": connect_s},
                "nursery": nursery,
                "note_connected": None if trying is None else trying.note_connected,
            },
        )
        try:
            attempt = Attempt(endpoint, await endpoint.transport.handle_async_request(request), started)
        except httpx.TransportError as error:
            raise fault_before_head(error, endpoint.name) from error
        if trying is not None:
            attempt.trying = trying
            trying.head = attempt.answered
        return attempt
    raise UpstreamHeadTimeout(f"The upstream '{endpoint.name}' did not begin to answer within {head_s:g} s.")
