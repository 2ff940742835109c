"""Clients of paced streams that measure the gaps between events: what one stream feels of what others do."""

import json
import time
from dataclasses import dataclass, field
from typing import Final

import trio

from tests.loopback.raw_http import chat, request_bytes

CHAT: Final = "/v1/chat/completions"
FLOOR_MS: Final = 20.0
"""By how much a 99th percentile may differ on a noisy machine without meaning anything."""

_EVENT: Final = b"data: "
_END: Final = b"data: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass
class Gaps:
    """The milliseconds between two events of one stream, of all streams together."""

    gaps_ms: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Milliseconds; `share` is from 0 to 1."""
        ordered = sorted(self.gaps_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def p99(self) -> float:
        return self.quantile(0.99)

    def __str__(self) -> str:
        figures = ", ".join(f"p{share} {self.quantile(share / 100):.1f}" for share in (50, 90, 99, 100))
        return f"{len(self.gaps_ms)} gaps in ms: {figures}"


def bound_ms(*others: Gaps) -> float:
    """The largest 99th percentile that streams may have: twice that of the others, which had it easier."""
    worst = max(gaps.p99 for gaps in others)
    return max(2 * worst, worst + FLOOR_MS)


async def measure(port: int, clients: int, model: str) -> Gaps:
    """Read so many streams of a model at once to their honest ends. Raises AssertionError if one has none."""
    gaps = Gaps()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(_read_one, port, model, gaps, number / clients)
    return gaps


async def measure_both(proxy_port: int, origin_port: int, clients: int, model: str) -> tuple[Gaps, Gaps]:
    """The same through a proxy and, with a few clients, straight from its origin: what a busy machine does to streams
    in that moment, it does to both."""
    found: dict[int, Gaps] = {}

    async def note(port: int, count: int) -> None:
        found[port] = await measure(port, count, model)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, proxy_port, clients)
        nursery.start_soon(note, origin_port, clients // 5)
    return found[proxy_port], found[origin_port]


async def _read_one(port: int, model: str, gaps: Gaps, late: float) -> None:
    await trio.sleep(late / 10)  # so that they do not all have their events in the same moment
    data = b""
    last: float | None = None
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), {"connection": "close"}))
        while piece := await stream.receive_some(65536):
            now = time.perf_counter()
            # A mark that was cut in two is counted with its second half.
            count = (data[-len(_EVENT) + 1 :] + piece).count(_EVENT)
            data += piece
            if not count:
                continue
            if last is not None:
                gaps.gaps_ms.append(1000 * (now - last))
            gaps.gaps_ms += [0.0] * (count - 1)
            last = now
    assert data.startswith(b"HTTP/1.1 200 "), data[:200]
    assert data.endswith(_END), data[-200:]
