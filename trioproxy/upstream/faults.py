"""httpx's errors as ours: the one place that maps them. Messages are ours too: no library's words reach a client."""

import httpx

from trioproxy.errors import (
    Overloaded,
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamDisconnected,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.upstream.connect import OutOfDescriptors


def fault_before_head(error: httpx.TransportError, upstream: str) -> ProxyError:
    """What went wrong before the origin's head was here: an UpstreamFault, or Overloaded where it was our own lack."""
    match error:
        case OutOfDescriptors():
            return Overloaded("This server has no room for another connection; try again in a moment.")
        case httpx.ConnectTimeout():
            return UpstreamConnectTimeout(f"The upstream '{upstream}' could not be reached in time.")
        case httpx.ConnectError():
            return UpstreamConnectFailed(f"Cannot connect to the upstream '{upstream}': {error}.")
        case httpx.RemoteProtocolError():
            return UpstreamProtocolError(f"The upstream '{upstream}' sent an answer that is not valid HTTP.")
        case _:
            return UpstreamDisconnected(f"The upstream '{upstream}' closed the connection before it answered.")


def fault_in_body(error: httpx.TransportError, upstream: str) -> UpstreamFault:
    """What went wrong after the origin's head."""
    if isinstance(error, httpx.RemoteProtocolError):
        return UpstreamProtocolError(f"The upstream '{upstream}' broke off: its answer is not valid HTTP.")
    return UpstreamTruncated(f"The upstream '{upstream}' ended its answer too early; what came is incomplete.")
