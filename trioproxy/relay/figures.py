"""What a client is told of how its own stream went, in a comment before the terminal event."""

from functools import partial

import trio

from trioproxy.relay.call import Call
from trioproxy.relay.shaper import comment
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.dialect import StreamWatch
from trioproxy.wire.timing_filter import TimingFilter


def timing_filter(call: Call, produced: Exchange, watch: StreamWatch | None = None) -> TimingFilter:
    """What writes a stream's figures into it. `produced` is the record of who reads the origin, the call's own or that
    of a shared stream's production; `watch` sees all of the stream, also what the client does not; None: that sees
    all."""
    own = call.dialect.watch()
    return TimingFilter(own, partial(_comment, call, produced, watch or own))


def _comment(call: Call, produced: Exchange, watch: StreamWatch, line_end: bytes) -> bytes:
    return comment(_figures(call.exchange, produced, watch).encode("ascii"), call, line_end)


def _figures(exchange: Exchange, produced: Exchange, watch: StreamWatch) -> str:
    words = []
    began = exchange.first_content_at
    if began is not None:
        words.append(f"first_content={began - exchange.accepted:.3f}")
    words.append(f"events={exchange.events}")
    took_s = 0.0 if began is None else trio.current_time() - began
    if watch.usage is not None and took_s > 0:  # by the origin's own figure, or not at all
        words.append(f"tokens_per_s={watch.usage.output / took_s:.1f}")
    if produced.gaps is not None:
        words.append(f"longest_gap={produced.gaps.longest_s:.3f}")
    return " ".join(words)
