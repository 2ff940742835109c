"""HTTP/1.1 by hand on real sockets: a client that does exactly what it is told, and an origin that plays a script.

Nothing here retries, decodes or repairs. `Wire` is one end of a connection, for both sides; `ask` is one request on a
connection of its own; `open_origin` serves connections with a function, each in a thread.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

WAIT_S: Final = 10.0


@dataclass
class Head:
    """The first line and the header fields (names in lower case) of a message."""

    line: str
    headers: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class Answer:
    """An answer as it was framed.

    Attributes:
        is_clean: it ended as its framing says, and not by the end of the connection.
        interim: the statuses (1xx) of the heads before its own.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    is_clean: bool = False
    interim: list[int] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The inside of OpenAI's envelope."""
        assert list(self.json) == ["error"], self.body
        error: dict[str, Any] = self.json["error"]
        assert sorted(error) == ["code", "message", "param", "type"]
        assert self.headers["content-type"] == "application/json"
        return error

    @property
    def request_id(self) -> str:
        """The proxy's own id of this exchange."""
        return self.headers.get("x-trioproxy-request-id") or self.headers["x-request-id"]


class Ended(Exception):
    """The peer ended the connection before what was waited for was there."""


class Wire:
    """One end of a connection. Every wait is bounded; what was read too far is kept."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._kept = b""

    @classmethod
    def to(cls, port: int, receive_buffer: int | None = None) -> Self:
        """Connect to a port on this machine."""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(WAIT_S)
        try:
            connection.connect(("127.0.0.1", port))
        except OSError:
            connection.close()
            raise
        return cls(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.socket.sendall(data)

    def close(self) -> None:
        """Close, as a program does that has read everything."""
        self.socket.close()

    def leave(self) -> None:
        """Send a FIN and nothing else: the connection stays open on this side."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave by a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def is_asked(self) -> bool:
        """Wait for the first byte of a request, however long; False if the connection ends instead."""
        if self.socket.fileno() < 0:
            return False
        if self._kept:
            return True
        self.socket.settimeout(None)
        is_asked = bool(self.socket.recv(1, socket.MSG_PEEK))
        self.socket.settimeout(WAIT_S)
        return is_asked

    def read_some(self) -> bytes:
        """What is there, at least one byte; b"" at the end of file. Raises OSError for a reset."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        return self.socket.recv(65536)

    def read_all(self) -> bytes:
        """Everything up to the end of the connection, however that comes."""
        data = b""
        try:
            while piece := self.read_some():
                data += piece
        except ConnectionResetError:
            pass
        return data

    def read_until(self, mark: bytes) -> bytes:
        """Up to and with the mark. Raises Ended."""
        data = self._kept
        while mark not in data:
            piece = self._more()
            if not piece:
                self._kept = data
                raise Ended(f"after {data[-200:]!r}, waiting for {mark!r}")
            data += piece
        found, mark, self._kept = data.partition(mark)
        return found + mark

    def read_exactly(self, size: int) -> bytes:
        """So many bytes. Raises Ended."""
        pieces, got = [self._kept], len(self._kept)
        while got < size:
            piece = self._more()
            if not piece:
                self._kept = b"".join(pieces)
                raise Ended(f"after {got} of {size} bytes")
            pieces.append(piece)
            got += len(piece)
        data = b"".join(pieces)
        self._kept = data[size:]
        return data[:size]

    def _more(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def read_head(self) -> Head:
        """The head of a request or an answer."""
        line, *fields = self.read_until(b"\r\n\r\n").decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (each.split(":", 1) for each in fields)
        return Head(line, {name.strip().lower(): value.strip() for name, value in pairs})

    def read_chunk(self) -> bytes:
        """One chunk's data; b"" for the last chunk."""
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        return self.read_exactly(size + 2)[:-2]

    def read_body(self, head: Head) -> bytes:
        """A request's body."""
        if head.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while piece := self.read_chunk():
                pieces.append(piece)
            return b"".join(pieces)
        return self.read_exactly(int(head.headers.get("content-length", "0")))

    def read_request(self) -> tuple[Head, bytes]:
        """A whole request."""
        head = self.read_head()
        return head, self.read_body(head)

    def read_answer(self, method: str = "POST") -> Answer:
        """A whole answer, or as much of it as came before the connection ended."""
        head = self.read_head()
        interim = []
        while head.status < 200:
            interim.append(head.status)
            head = self.read_head()
        answer = Answer(head.status, head.headers, interim=interim)
        try:
            if method == "HEAD" or head.status in (204, 304):
                answer.is_clean = True
            elif head.headers.get("transfer-encoding") == "chunked":
                while piece := self.read_chunk():
                    answer.chunks.append(piece)
                answer.is_clean = True
            elif "content-length" in head.headers:
                answer.chunks.append(self.read_exactly(int(head.headers["content-length"])))
                answer.is_clean = True
            else:
                answer.chunks.append(self.read_all())
        except Ended:
            answer.chunks.append(self._kept)
        answer.body = b"".join(answer.chunks)
        return answer


def request_bytes(method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request; its length is declared if it has a body."""
    given = {"host": "localhost", **(headers or {})}
    if body and "transfer-encoding" not in given:
        given.setdefault("content-length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | dict[str, Any] = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; a dict goes as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with Wire.to(port) as wire:
        wire.send(request_bytes(method, target, sent, headers))
        return wire.read_answer(method)


def chat(model: str, *, stream: bool = True, **more: object) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}], **more}


Handler = Callable[[Wire], None]


class Origin:
    """Serves each request with what `handler` is at that moment. What a handler raises fails the test.

    A handler is called when the first byte of a request is here. If it returns, the connection stays open for the next
    request, as HTTP has it; a handler that wants it to end closes it.
    """

    def __init__(self, listening: socket.socket) -> None:
        self.port: int = listening.getsockname()[1]
        self.handler: Handler = self._unscripted
        self.connections = 0
        self.failures: list[BaseException] = []
        self._listening = listening
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextmanager
    def playing(self, handler: Handler) -> Iterator[None]:
        """Let connections be served by `handler`, and look afterwards whether it got what it expected."""
        self.handler = handler
        try:
            yield
        finally:
            self.handler = self._unscripted
        self.check()

    def check(self) -> None:
        """Raise what a handler raised."""
        failures, self.failures = self.failures, []
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Close everything and wait for the threads."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        for thread in self._threads:
            thread.join(WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with Wire(connection) as wire:
            try:
                while wire.is_asked():
                    self.handler(wire)
            except (OSError, Ended):
                pass  # the proxy left, as it may
            except BaseException as error:  # noqa: BLE001 - it is raised again where the test can see it
                self.failures.append(error)

    @staticmethod
    def _unscripted(wire: Wire) -> None:
        if wire.read_some():
            raise AssertionError("a request came when no test expected one")


@contextmanager
def open_origin(handler: Handler | None = None) -> Iterator[Origin]:
    """An origin on a free port."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen(256)
    origin = Origin(listening)
    if handler is not None:
        origin.handler = handler
    try:
        yield origin
    finally:
        origin.close()
    origin.check()


def event_stream_head(*more: str) -> bytes:
    """The head of a chunked event stream."""
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
