"""Opening a connection to an origin: TCP (happy eyeballs), an outbound HTTP proxy by CONNECT, TLS.

Raises httpx.ConnectError for whatever goes wrong; its message names the step, never a secret. What is our own lack and
not the origin's doing is told apart: OutOfDescriptors. If cancelled, also in the
middle of a TLS handshake, the socket is closed synchronously. SOCKS is not supported.

Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 7617 (Basic).
"""

import base64
import errno
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

import httpx
import trio

from trioproxy.net.tcp import TcpStream, close_nowait, guard_against_vanished_peers
from trioproxy.upstream.http1 import OriginConnection

OpenTcp = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""How a TCP connection is opened; tests put memory streams here."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TUNNEL_IS_OPEN = re.compile(rb"HTTP/1\.[01] 2\d\d[ \r]")


class OutOfDescriptors(httpx.ConnectError):
    """This process, or this machine, has no room for another socket; the origin was not even asked."""


async def open_tcp(host: str, port: int) -> trio.abc.Stream:
    """A TCP connection, whichever of the host's addresses answers first."""
    stream = await trio.open_tcp_stream(host, port)
    taken = stream.socket
    plain = socket.socket(taken.family, taken.type, taken.proto, fileno=taken.detach())
    guard_against_vanished_peers(plain, unacknowledged_s=None)
    return TcpStream(plain)


def _is_our_lack(error: BaseException | None) -> bool:
    """Whether one of the attempts, as trio lists them behind its own error, failed for want of a socket."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_our_lack(one) for one in error.exceptions)
    return isinstance(error, OSError) and (error.errno in _EXHAUSTED or _is_our_lack(error.__cause__))


class Connector:
    """Opens connections for one upstream: how to reach it and whom to trust.

    `tls` is the context for https origins (None where none is reached), `proxy` an HTTP proxy for outbound traffic or
    None.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None, proxy: httpx.URL | None = None, open_tcp: OpenTcp = open_tcp
    ) -> None:
        self._tls = tls
        self._proxy = proxy
        self._open_tcp = open_tcp

    async def open(self, scheme: str, host: str, port: int) -> OriginConnection:
        """A connection that is ready for a request."""
        via = self._proxy
        try:
            if via is None:
                stream = await self._open_tcp(host, port)
            else:
                stream = await self._open_tcp(via.raw_host.decode("ascii"), via.port or 80)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name that could be looked up
            if _is_our_lack(error):
                raise OutOfDescriptors("there is no room for another socket") from error
            raise httpx.ConnectError("the address cannot be resolved, or refuses the connection") from error
        try:
            if via is not None:
                await _tunnel(stream, via, host, port)
            if scheme == "https":
                stream = await self._wrap(stream, host)
        except BaseException:
            close_nowait(stream)
            raise
        return OriginConnection(stream)

    async def _wrap(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        if self._tls is None:
            raise httpx.ConnectError("no certificates are trusted for this origin")
        try:
            # Not https_compatible: a body that ends with the connection is whole only if TLS says so, by its own end
            # (RFC 9112 section 9.8).
            secured = trio.SSLStream(stream, self._tls, server_hostname=host)
            await secured.do_handshake()
        except ValueError as error:
            raise httpx.ConnectError("the origin's name cannot be one in a certificate") from error
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise httpx.ConnectError("the origin's certificate is not trusted") from error
            raise httpx.ConnectError("the TLS handshake failed") from error
        return secured


async def _tunnel(stream: trio.abc.Stream, proxy: httpx.URL, host: str, port: int) -> None:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.userinfo:
        user, _, password = proxy.userinfo.partition(b":")
        token = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {token}")
    head = b""
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode("ascii"))
        while not head.endswith(b"\r\n\r\n"):
            # Byte by byte: what comes behind the head belongs to the origin, and nobody could put it back.
            byte = await stream.receive_some(1)
            head += byte
            if not byte or len(head) > 16384:
                raise httpx.ConnectError("the outbound proxy closed the tunnel")
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise httpx.ConnectError("the outbound proxy broke the connection") from error
    if _TUNNEL_IS_OPEN.match(head) is None:
        raise httpx.ConnectError("the outbound proxy refused the tunnel")
