"""Live streams without a house: made by hand, written by whoever tests them."""

import trio

from trioproxy.hub.live import LiveStream, Outcome
from trioproxy.policy.replay import Replay
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.headers import Headers

PLENTY = 1 << 30
STREAM_HEAD: Headers = [(b"content-type", b"text/event-stream")]


def record() -> Exchange:
    return Exchange("req_1", "POST", "/v1/chat/completions", trio.current_time(), stream=True)


def live_stream(
    *, max_events: int = 100, max_bytes: int = PLENTY, linger_s: float = 0.0, client_stall_s: float = 30.0
) -> LiveStream:
    """A stream that nobody produces yet."""
    return LiveStream(
        "stream",
        caller="me",
        share_key=None,
        linger_s=linger_s,
        client_stall_s=client_stall_s,
        log=Replay[Outcome](max_events, max_bytes),
        exchange=record(),
    )


def event(number: int, size: int = 0) -> bytes:
    return (b"data: %d" % number).ljust(size, b"x") + b"\n\n"
