"""The recorder: a client that is none. What the relay writes to it becomes a live stream's log.

It stands where a client's end of an answer would (`relay.call.Downstream`), so a shared stream is relayed by the same
code as any other: retried, hedged, kept to its deadlines, ended honestly. Comments are left out: they belong to one
connection, and each reader gets its own.
"""

from trioproxy.errors import HubFull
from trioproxy.hub.live import Head, LiveStream, Outcome
from trioproxy.wire.headers import Headers, is_encoded, is_event_stream
from trioproxy.wire.splitter import Splitter

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A longer event ends the stream: nothing can be numbered that has no end."""
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""An answer that is no event stream, an error mostly, is kept whole; a longer one breaks off here."""


class Recorder:
    """Writes one answer into one live stream. See `relay.call.Downstream` for what the methods promise.

    Beyond that `send` and `finish` raise HubFull for what is too long to be kept: the answer is to break off there."""

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        self._splitter = Splitter(MAX_EVENT_BYTES)
        self._status = 0
        self._headers: Headers = []
        self._body: bytearray | None = None
        self.has_head = False
        self.is_finished = False

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers
        self._stream.exchange.status = status

    async def send(self, data: bytes) -> None:
        self._begin()
        self._stream.exchange.bytes_out += len(data)
        if self._body is not None:
            self._body += data[: MAX_ANSWER_BYTES - len(self._body)]
            if self._stream.exchange.bytes_out > MAX_ANSWER_BYTES:
                raise HubFull("This answer is longer than what is kept to be shared or resumed; ask without that.")
            return
        for event in self._splitter.feed(data):
            await self._stream.publish(event)
        if self._splitter.is_overlong:
            self._splitter = Splitter(MAX_EVENT_BYTES)  # for the words that say so
            raise HubFull("An event is longer than what is kept to be shared or resumed; ask without that.")

    async def finish(self, data: bytes = b"") -> None:
        await self.send(data)
        self.is_finished = True
        if self._body is not None:
            self._stream.begin(Head(self._status, self._headers, bytes(self._body)))
        elif (last := self._splitter.finish()) is not None:
            await self._stream.publish(last)
        self._stream.end(Outcome(is_clean=True))

    def abort(self) -> None:
        """The answer ends without an honest end; what was written so far stands, the error's event among it."""

    def close(self) -> None:
        """The production is over, however: a stream without an end gets the one of its record."""
        if self._body is not None and not self.is_finished:
            self._stream.begin(Head(self._status, self._headers, bytes(self._body), is_whole=False))
        self._stream.end(Outcome(is_clean=False, code=self._stream.exchange.code))

    def _begin(self) -> None:
        if self.has_head:
            return
        self.has_head = True
        if is_event_stream(self._headers) and not is_encoded(self._headers):
            self._stream.begin(Head(self._status, self._headers))
        else:
            self._body = bytearray()
