"""Single connections, for what is tested below the house: TCP on the loopback, TLS, streams that tell what was done."""

import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import trio
import trio.testing
import trustme

from tests.harness.origin import Origin, Script, Visit
from trioproxy.net.tcp import TcpStream

HOST = "origin.test"
"""The name on the certificates of `tls_server`, beside 127.0.0.1, ::1 and a name in punycode."""
PUNYCODE_HOST = "xn--mnchen-3ya.test"
LIBRARY_WORDS = re.compile(r"httpx|trio|errno|ssl|Error\(|\[|/|0x|exception", re.IGNORECASE)
"""What is in no message that a client gets."""


def loopback() -> tuple[TcpStream, socket.socket]:
    """A real TCP connection: our end, and the peer's, which is non-blocking too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    peer.setblocking(False)
    return TcpStream(ours), peer


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def tls_server() -> ssl.SSLContext:
    """The context of an origin with a certificate that `tls_client` trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(HOST, PUNYCODE_HOST, "127.0.0.1", "::1").configure_cert(context)
    return context


def tls_client() -> ssl.SSLContext:
    """A context that trusts `tls_server` and nobody else."""
    context = ssl.create_default_context(cadata=_authority().cert_pem.bytes().decode("ascii"))
    assert len(context.get_ca_certs()) == 1
    return context


def is_closed(stream: trio.abc.Stream) -> bool:
    """Whether our end of a memory stream was closed, both ways. Looks inside, as every other way is a checkpoint."""
    assert isinstance(stream, trio.StapledStream)
    sender, receiver = stream.send_stream, stream.receive_stream
    if isinstance(sender, trio.testing.MemorySendStream):
        assert isinstance(receiver, trio.testing.MemoryReceiveStream)
        return sender._outgoing._closed and receiver._closed
    closed: bool = sender._lbq._sender_closed and receiver._lbq._receiver_closed
    return closed


class Net:
    """Opens memory streams to an origin, or to an outbound proxy, that does as its script says.

    Attributes:
        asked: the addresses that connections were opened to.
        opened: our ends of them, and `visits` the others.
    """

    def __init__(self, nursery: trio.Nursery, script: Script, lockstep: bool) -> None:
        self.origin = Origin(nursery, script, lockstep=lockstep)
        self.asked: list[tuple[str, int]] = []
        self.opened: list[trio.abc.Stream] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Stands in for `upstream.connect.open_tcp`."""
        self.asked.append((host, port))
        stream = await self.origin.open_tcp(host, port)
        self.opened.append(stream)
        return stream

    @property
    def visits(self) -> list[Visit]:
        return self.origin.visits

    @property
    def still_open(self) -> list[trio.abc.Stream]:
        """Those of our ends that are not closed, at this very moment."""
        return [stream for stream in self.opened if not is_closed(stream)]


@asynccontextmanager
async def open_net(script: Script, *, lockstep: bool = False) -> AsyncIterator[Net]:
    """A net that is gone when the block ends. With `lockstep` nothing is sent that is not being read."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            yield Net(nursery, script, lockstep)
            nursery.cancel_scope.cancel()


async def serve_tls(stream: trio.abc.Stream, context: ssl.SSLContext | None = None) -> trio.SSLStream[trio.abc.Stream]:
    """An origin's end of a connection, once its hands were shaken."""
    secured = trio.SSLStream(stream, context or tls_server(), server_side=True)
    await secured.do_handshake()
    return secured
