"""HTTP/1.1 towards one origin, as a client: one connection, one request at a time, kept for the next one.

    where = parse_url("http://127.0.0.1:8080")
    connection = Connection(where)
    await connection.ask("POST", "/chat/completions", body)      status
    while piece := await connection.read(): …                    "" once the answer is whole
    connection.close()

By llhttp on a plain trio stream: a client that measures streams must cost less than what it measures. It follows no
redirect, keeps no cookie, and knows no time limit but that of connecting. What a request does is `talk`'s business.
"""

import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httptools
import trio

CONNECT_S = 10.0
READ_BYTES = 65536
_PATH = re.compile(r"(/[!-~]*)?")
_HOST = re.compile(r"[A-Za-z0-9._~:-]+")


class Failed(Exception):
    """There is no answer, or only a part of one; the message says why, in few words of ours."""


@dataclass(frozen=True)
class Url:
    """Where an API is. `base` is its path, without a slash at the end; `text` the whole."""

    scheme: str
    host: str
    port: int
    base: str

    @property
    def authority(self) -> str:
        """Host and port as a request names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base}"


_PORTS = {"http": 80, "https": 443}

Connect = Callable[[Url], Awaitable[trio.abc.Stream]]


def parse_url(text: str) -> Url:
    """Where `text` leads: a base URL as clients have it. Without a path it gets `/v1`. Raises ValueError, and says why.

    The text is not in the message: somebody may have written a password into it.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in _PORTS:
        raise ValueError("has to begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a name or a password")
    if parts.query or parts.fragment or _PATH.fullmatch(parts.path) is None:
        raise ValueError("has to end with a path of plain characters, without ? and #")
    if not parts.hostname or _HOST.fullmatch(parts.hostname) is None:
        raise ValueError("has no host in it")
    base = parts.path.rstrip("/").removesuffix("/chat/completions")
    return Url(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], base or "/v1")


class Connection:
    """A connection to one origin, opened when it is needed. Whatever fails or is cancelled in `ask` or `read` closes
    it, and the next `ask` opens another."""

    def __init__(self, url: Url, key: str | None = None, connect: Connect | None = None) -> None:
        """`key` goes along as `Authorization: Bearer`. `connect` opens a stream, and raises Failed; by TCP, with TLS
        where the URL says so, unless another is given."""
        self._url = url
        self._key = key
        self._connect = connect or connect_tcp
        self._stream: trio.abc.Stream | None = None
        self._answer = _Answer()

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request to `path` below the base; returns the answer's status, once its head is here. Raises Failed.

        On a connection that was kept the origin may have hung up in between: then it is asked anew on another one.
        """
        head = self._head(method, path, body)
        was_kept = self._stream is not None
        try:
            try:
                await self._send_and_read_head(head + body)
            except Failed:
                if not was_kept or self._answer.has_begun:
                    raise
                self.close()
                await self._send_and_read_head(head + body)
        except BaseException:
            self.close()
            raise
        return self._answer.status

    async def read(self) -> bytes:
        """The next piece of the answer's body, b"" once it is whole. Raises Failed."""
        answer = self._answer
        try:
            while not answer.pieces:
                if answer.is_complete:
                    if answer.is_last:
                        self.close()
                    return b""
                await self._receive()
        except BaseException:
            self.close()
            raise
        pieces, answer.pieces = answer.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close at once, also in a cancelled scope; harmless when it is closed."""
        stream, self._stream = self._stream, None
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if isinstance(stream, trio.SocketStream):
            stream.socket.close()
        elif isinstance(stream, trio.StapledStream):
            stream.send_stream.close()
            stream.receive_stream.close()

    def _head(self, method: str, path: str, body: bytes) -> bytes:
        lines = [
            f"{method} {self._url.base}{path} HTTP/1.1",
            f"host: {self._url.authority}",
            "user-agent: trioproxy",
            "accept: */*",
            "accept-encoding: identity",
        ]
        if self._key is not None:
            lines.append(f"authorization: Bearer {self._key}")
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    async def _send_and_read_head(self, request: bytes) -> None:
        self._answer = _Answer()
        if self._stream is None:
            self._stream = await self._connect(self._url)
        try:
            await self._stream.send_all(request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what the origin has said before it hung up can still be read
        while not self._answer.has_head:
            await self._receive()

    async def _receive(self) -> None:
        assert self._stream is not None
        try:
            data = bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Failed("connection cut") from None
        if data:
            self._answer.feed(data)
        elif self._answer.ends_with_connection:
            self._answer.is_complete = True
        else:
            raise Failed("connection cut")


async def connect_tcp(url: Url) -> trio.abc.Stream:
    """A connection to where a URL leads. Raises Failed; if cancelled, nothing is left open."""
    try:
        with trio.fail_after(CONNECT_S):
            plain = await trio.open_tcp_stream(url.host, url.port)
            if url.scheme == "http":
                return plain
            stream = trio.SSLStream(plain, _tls(), server_hostname=url.host, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                plain.socket.close()
                raise
            return stream
    except trio.TooSlowError:
        raise Failed("cannot connect in time") from None
    except (OSError, trio.BrokenResourceError):
        raise Failed("cannot connect") from None


@cache
def _tls() -> ssl.SSLContext:
    """Made once: loading the authorities takes long."""
    return ssl.create_default_context()


class _Answer:
    """One answer, as it comes in. The methods that begin with `on_` are llhttp's."""

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._is_framed = False
        self._keeps_alive = False
        self.status = 0
        self.has_begun = False
        self.has_head = False
        self.is_complete = False
        self.pieces: list[bytes] = []

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        return self.has_head and not self._is_framed

    @property
    def is_last(self) -> bool:
        """Whether the connection is of no more use behind it."""
        return not self._keeps_alive or not self._is_framed

    def feed(self, data: bytes) -> None:
        """Take in what was received. Raises Failed."""
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise Failed("not HTTP/1.1") from None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.status = status
        self.has_head = True
        self._keeps_alive = self._parser.should_keep_alive()
        if status in (204, 304):
            self._is_framed = True

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True
            self._parser = None  # its callbacks are ours: a ring would be left to the garbage collector
