"""Hedging over real sockets: two upstreams begin one answer in twenty two seconds late, and hardly anyone waits."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trio

from tests.loopback.crowd import chat_request
from tests.loopback.processes import Server, demo_upstream, serving, until
from tests.loopback.raw_http import ask

REQUESTS: Final = 600
UNHEDGED: Final = 200
PACE_S: Final = 0.02
LATE_S: Final = 2.0
PROMISED_S: Final = 0.4
PROMISED_MORE: Final = 0.10
WORDS: Final = "late5-t20-n3-i1"
WARM_UP: Final = 40
"""Requests that are not measured: where the delay is learnt, nothing is hedged before 20 are known."""

ROUTES: Final = """
[[route]]
models = ["learnt-*"]
hedge = { after = "p95" }

[[route]]
models = ["fixed-*"]
hedge = { after_s = 0.2 }

[[route]]
models = ["plain-*"]
"""


@dataclass(frozen=True)
class Pair:
    """A proxy in front of two upstreams, of which the second is asked where the first is late."""

    proxy: Server
    upstreams: tuple[Server, Server]

    @property
    def requests(self) -> int:
        """How many requests the upstreams have had."""
        return sum(ask(upstream.port, "GET", "/stats").json["requests"] for upstream in self.upstreams)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    with demo_upstream() as first, demo_upstream() as second:
        upstreams = [
            f'[[upstream]]\nname = "{name}"\nbase_url = "{server.base_url}"\n'
            for name, server in (("first", first), ("second", second))
        ]
        (directory / "trioproxy.toml").write_text("".join([*upstreams, ROUTES]))
        with serving(None, directory=directory) as proxy:
            yield Pair(proxy, (first, second))


async def stream_once(port: int, model: str, first_s: list[float]) -> None:
    """One stream on a connection of its own, whole; adds the seconds to its first byte, for which the head waits."""
    start, data = time.monotonic(), b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        await connection.send_all(chat_request(model))
        while not data.endswith(b"0\r\n\r\n"):
            piece = await connection.receive_some(65536)
            assert piece, f"cut after {data!r}"
            if not data:
                first_s.append(time.monotonic() - start)
            data += piece
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"data: [DONE]\n\n" in data


async def paced_streams(port: int, model: str, count: int) -> list[float]:
    """So many streams, one started every `PACE_S` whether those before it are over or not: seconds to first content,
    in ascending order."""
    first_s: list[float] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await trio.sleep_until(start + number * PACE_S)
            nursery.start_soon(stream_once, port, model, first_s)
    return sorted(first_s)


def p99(ordered: list[float]) -> float:
    return ordered[int(0.99 * len(ordered))]


def told(first_s: list[float], more: int) -> str:
    shares = ", ".join(f"p{share} {1000 * first_s[share * len(first_s) // 100]:.0f} ms" for share in (50, 90, 95, 99))
    return f"{shares}, worst {1000 * first_s[-1]:.0f} ms; {more} requests more for {len(first_s)}"


@pytest.mark.parametrize("delay", ["learnt", "fixed"])
async def test_a_second_try_brings_what_one_in_twenty_would_wait_for(pair: Pair, delay: str) -> None:
    model = f"{delay}-{WORDS}"
    await paced_streams(pair.proxy.port, model, WARM_UP)
    before = pair.requests
    first_s = await paced_streams(pair.proxy.port, model, REQUESTS)
    more = pair.requests - before - REQUESTS
    figures = told(first_s, more)
    print(f"{delay}: {figures}")
    assert p99(first_s) < PROMISED_S, figures
    assert 0 < more < PROMISED_MORE * REQUESTS, figures
    until(lambda: len(lines_of(pair.proxy, model)) == WARM_UP + REQUESTS, "a line for each request")
    hedged = [line for line in lines_of(pair.proxy, model) if line.get("hedged")]
    assert {(line["outcome"], line["attempts"]) for line in hedged} == {("finished", 2)}


async def test_without_one_who_meets_a_late_one_waits_for_it(pair: Pair) -> None:
    before = pair.requests
    first_s = await paced_streams(pair.proxy.port, f"plain-{WORDS}", UNHEDGED)
    more = pair.requests - before - UNHEDGED
    figures = told(first_s, more)
    print(f"plain: {figures}")
    assert p99(first_s) >= LATE_S, figures
    assert more == 0


def lines_of(proxy: Server, model: str) -> list[dict[str, Any]]:
    return [line for line in proxy.exchanges if line["model"] == model]
