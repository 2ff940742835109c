"""A client that speaks HTTP/2, by hand like the one in `raw_http`: what browsers and most SDKs say to a load balancer.

Proxy and origin speak HTTP/1.1 only; this side of a balancer is the only place with HTTP/2.
"""

import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from tests.loopback.raw_http import WAIT_S, Ended

_READ_BYTES: Final = 65536


class Http2:
    """A connection, and the streams on it. Every wait is bounded."""

    def __init__(self, connection: ssl.SSLSocket, authority: str) -> None:
        connection.settimeout(WAIT_S)
        self._socket = connection
        self._authority = authority
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._heads: dict[int, dict[str, str]] = {}
        self._data: dict[int, bytes] = {}
        self._ended: dict[int, bool] = {}
        """Streams that have ended, and whether they did so cleanly."""
        self._http.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Send a small request; gives its stream's number."""
        stream: int = self._http.get_next_available_stream_id()
        pseudo = {":method": "POST", ":scheme": "https", ":authority": self._authority, ":path": path}
        self._http.send_headers(stream, [*pseudo.items(), *(headers or {}).items()])
        self._http.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def cancel(self, stream: int) -> None:
        """Leave a stream; the connection stays."""
        self._http.reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()

    def read_head(self, stream: int) -> dict[str, str]:
        """The head of the answer. Raises Ended."""
        while stream not in self._heads:
            self._read()
        return self._heads[stream]

    def read_some(self, stream: int) -> bytes:
        """What came of the answer, at least one byte; b"" at its clean end. Raises Ended if it was cut."""
        while not self._data.get(stream) and stream not in self._ended:
            self._read()
        if data := self._data.pop(stream, b""):
            return data
        if not self._ended[stream]:
            raise Ended(f"stream {stream} was reset")
        return b""

    def _read(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise Ended("the connection has ended")
        for event in self._http.receive_data(data):
            if isinstance(event, ResponseReceived):
                self._heads[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self._data[event.stream_id] = self._data.get(event.stream_id, b"") + event.data
                if event.flow_controlled_length:
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._ended[event.stream_id] = True
            elif isinstance(event, StreamReset):
                self._ended[event.stream_id] = False
            elif isinstance(event, ConnectionTerminated) and event.error_code:
                raise Ended(f"the connection was ended with {event.error_code}")
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())
