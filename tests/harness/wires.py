"""Single connections, for what is tested below the house: TCP on the loopback, TLS, and streams that tell what was done."""

import socket
import ssl
from functools import cache

import trio
import trio.testing
import trustme

from trioproxy.net.tcp import TcpStream

HOST = "origin.test"
"""The name on the certificates of `tls_server`, beside 127.0.0.1, ::1 and a name in punycode."""
PUNYCODE_HOST = "xn--mnchen-3ya.test"


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


class CountingSender(trio.abc.SendStream):
    """Passes on what is sent, and remembers each piece as it was sent."""

    def __init__(self, sender: trio.testing.MemorySendStream) -> None:
        self._sender = sender
        self.sent: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        await self._sender.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._sender.wait_send_all_might_not_block()

    def close(self) -> None:
        self._sender.close()

    async def aclose(self) -> None:
        await self._sender.aclose()


def is_closed(stream: trio.abc.Stream) -> bool:
    """Whether our end of a memory stream was closed, both ways. Asks its insides, as every other way is a checkpoint."""
    assert isinstance(stream, trio.StapledStream)
    sender, receiver = stream.send_stream, stream.receive_stream
    if isinstance(sender, CountingSender):
        sender = sender._sender
    assert isinstance(sender, trio.testing.MemorySendStream)
    assert isinstance(receiver, trio.testing.MemoryReceiveStream)
    return sender._outgoing._closed and receiver._closed
