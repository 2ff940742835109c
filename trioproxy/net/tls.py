"""TLS on the side where connections come in, by `trio.SSLStream`; and its end, which that leaves to others.

`SSLStream` has no way to end only one direction, and its own `aclose` says no close_notify where HTTP is spoken. Here
the end is said while another task reads, and the bytes that still come are read from the transport below.
"""

import ssl
from typing import Any

import trio

TlsStream = trio.SSLStream[Any]


def accept_tls(transport: trio.abc.Stream, context: ssl.SSLContext) -> TlsStream:
    """The server's end of TLS on an accepted connection; no hands were shaken yet.

    An end of file without a close_notify reads as an end of file: a request's framing says whether it is whole.
    """
    return trio.SSLStream(transport, context, server_side=True, https_compatible=True)


async def end_tls(stream: TlsStream) -> None:
    """Say close_notify, behind everything that was sent before; the transport stays open, for its own end. Only the
    transport is read afterwards. Raises BrokenResourceError or ClosedResourceError, as a send does.

    trio has no way to do so while another task receives, so its insides are used (trio 0.35).
    """
    try:
        stream._ssl_object.unwrap()
    except ssl.SSLError:
        pass  # no close_notify of the peer is here yet, or unread bytes of it are: ours was written all the same
    async with stream._inner_send_lock:
        delayed, stream._delayed_outgoing = stream._delayed_outgoing or b"", None
        await stream.transport_stream.send_all(delayed + stream._outgoing.read())
