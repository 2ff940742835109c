"""A stream told over a WebSocket: what the relay writes becomes messages, one for each event, which is its data.

It stands where a client's end of an HTTP answer would (`call.Downstream`), so a stream is made, shared, resumed and
ended by the same code. What HTTP says by status and framing is said by messages and by the closing frame's code:

    an event stream's honest end       1000
    an error, before or inside it      its JSON as a message, then 1008 (the request's fault) or 1011
    going down                         the error's JSON, then 1012
"""

from trioproxy.errors import UpstreamProtocolError
from trioproxy.relay.call import ClientSocket
from trioproxy.relay.shaper import LOST
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.headers import Headers, find, is_event_stream
from trioproxy.wire.messages import FAILED, NORMAL, REFUSED, RESTARTS, Close, Message
from trioproxy.wire.splitter import Splitter
from trioproxy.wire.sse import fields
from trioproxy.wire.words import lost_word, stream_word

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A longer event becomes no message: the answer breaks off there."""
_DRAINING = "draining"


class SocketAnswer:
    """Writes one answer to one client's WebSocket. See `call.Downstream` for what the methods promise. Beyond that
    `send` and `finish` raise UpstreamProtocolError for an event that is too long for a message.

    Attributes:
        stream_id: under which the stream can be joined, once that was told.
    """

    def __init__(self, socket: ClientSocket, exchange: Exchange) -> None:
        self._socket = socket
        self._exchange = exchange
        self._splitter = Splitter(MAX_EVENT_BYTES)
        self._status = 0
        self._headers: Headers = []
        self._plain: bytearray | None = None
        self.stream_id: str | None = None
        self.has_head = False
        self.is_finished = False

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    async def send(self, data: bytes) -> None:
        if not self.has_head:
            await self._begin()
        if self._plain is not None:
            self._plain += data
            return
        if data.startswith(LOST):
            await self._send(lost_word(int(data.removeprefix(LOST).split()[0])))
        for event in self._splitter.feed(data):
            await self._tell(event)
        if self._splitter.is_overlong:
            self._splitter = Splitter(MAX_EVENT_BYTES)  # for the words that say so
            raise UpstreamProtocolError(f"The upstream sent an event of more than {MAX_EVENT_BYTES} bytes.")

    async def finish(self, data: bytes = b"") -> None:
        await self.send(data)
        self.is_finished = True
        if self._plain is not None:
            await self._send(bytes(self._plain))
        elif (last := self._splitter.finish()) is not None:
            await self._tell(last)

    def abort(self) -> None:
        """Nothing to do: `close` says how it ended."""

    async def close(self) -> None:
        """Send the closing frame that says how the answer ended."""
        code = NORMAL if self.is_finished and self._plain is None else FAILED
        if self._plain is not None and 400 <= self._status < 500:
            code = REFUSED
        if self._exchange.code == _DRAINING:
            code = RESTARTS
        self._exchange.notes["client_close"] = code
        await self._socket.close(Close(code, self._exchange.code or ""))

    async def _begin(self) -> None:
        self.has_head = True
        if not is_event_stream(self._headers):
            self._plain = bytearray()
            return
        stream_id = find(self._headers, b"x-trioproxy-stream")
        if stream_id is not None:
            self.stream_id = stream_id.decode("ascii")
            await self._send(stream_word(self.stream_id))

    async def _tell(self, event: bytes) -> None:
        data = fields(event)[1]
        if data is not None:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        self._exchange.bytes_out += len(data)
        await self._socket.send(Message(data, is_text=True))
