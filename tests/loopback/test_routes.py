"""Several upstreams behind one address, as real processes: one is down, one is slow, one goes and comes back."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from tests.loopback.crowd import CHAT, Received
from tests.loopback.processes import PATIENCE_S, START_S, Server, demo_upstream, running, serving, until
from tests.loopback.raw_http import Ended, chat, request_bytes

SLOW_S = 1.5
CLIENTS = 20
EACH = 50


@dataclass
class Answers:
    """What clients got: `whole` answers, what the `others` brought, and the seconds to each one's first byte."""

    whole: int = 0
    others: list[bytes] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        ordered = sorted(self.first_s)
        return ordered[int(0.99 * len(ordered))]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses every connection, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def upstream_at(name: str, port: int) -> str:
    return f'[[upstream]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}/v1"\n'


async def ask_once(port: int, answers: Answers, *, stream: bool) -> None:
    """One request on a connection of its own, read to its end."""
    start, data = time.monotonic(), b""
    body = json.dumps(chat("m", stream=stream)).encode()
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        await connection.send_all(request_bytes("POST", CHAT, body, {"connection": "close"}))
        try:
            while piece := await connection.receive_some(65536):
                if not data:  # the head waits for the first content
                    answers.first_s.append(time.monotonic() - start)
                data += piece
        except trio.BrokenResourceError:
            pass  # then it is not whole
    if is_whole(data, stream=stream):
        answers.whole += 1
    else:
        answers.others.append(data)


def is_whole(data: bytes, *, stream: bool) -> bool:
    try:
        answer = Received(data).read_answer()
    except Ended:
        return False
    return answer.status == 200 and answer.is_clean and (not stream or answer.body.endswith(b"data: [DONE]\n\n"))


async def ask_often(port: int, answers: Answers) -> None:
    """As many requests as one client makes, one after the other, every other one for a stream."""
    for number in range(EACH):
        await ask_once(port, answers, stream=number % 2 == 0)


def tries_at(proxy: Server, upstream: str) -> int:
    """How many tries at an upstream were in requests that needed more than one, which a failed one always is."""
    return sum(one.startswith(f"{upstream} ") for line in proxy.exchanges for one in line.get("tries", []))


def answers_of(proxy: Server, upstream: str) -> int:
    """How many requests had their answer from an upstream."""
    return sum(line["upstream"] == upstream and line["outcome"] == "finished" for line in proxy.exchanges)


@pytest.mark.parametrize(("strategy", "pace"), [("fastest", f"t{1000 * SLOW_S:.0f}"), ("weighted", "t200")])
async def test_one_that_is_down_and_one_that_is_slow_cost_nobody_his_answer(
    strategy: str, pace: str, tmp_path: Path
) -> None:
    with closed_port() as dead, demo_upstream() as slow, demo_upstream() as fine:
        (tmp_path / "trioproxy.toml").write_text(
            upstream_at("dead", dead)
            + upstream_at("slow", slow.port)
            + upstream_at("fine", fine.port)
            + f"""
[[route]]
models = ["m"]
strategy = "{strategy}"
targets = [
    {{ upstream = "dead" }},
    {{ upstream = "slow", model = "demo-n3-i1-{pace}" }},
    {{ upstream = "fine", model = "demo-n3-i1-t20" }},
]
"""
        )
        with serving(None, directory=tmp_path) as proxy:
            warm, answers = Answers(), Answers()
            for _ in range(3):  # until each was tried once, nobody knows who is fast
                await ask_once(proxy.port, warm, stream=True)
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(ask_often, proxy.port, answers)
            assert (warm.whole, warm.others) == (3, [])
            assert (answers.whole, answers.others) == (CLIENTS * EACH, [])
            until(lambda: len(proxy.exchanges) == 3 + CLIENTS * EACH, "a line for each request")
            in_vain, from_slow = tries_at(proxy, "dead"), answers_of(proxy, "slow")
            figures = f"{in_vain} tries at the dead one, {from_slow} answers of the slow one, p99 {answers.p99_s:.3f} s"
            print(f"{strategy}: {figures}")
            # Five in a row, those under way beside the fifth, and a probe now and then.
            assert 1 <= in_vain <= 5 + CLIENTS, figures
            if strategy == "fastest":
                assert answers.p99_s < SLOW_S / 2, figures
            else:
                assert 0.3 < from_slow / len(proxy.exchanges) < 0.7, figures


async def test_one_that_is_killed_under_load_loses_nobodys_request_and_is_used_again(tmp_path: Path) -> None:
    """Of answers that are no streams: once a stream has begun, nobody can begin it anew."""
    answers, is_over = Answers(), trio.Event()
    with ExitStack() as fleeting, demo_upstream() as steady:
        first = fleeting.enter_context(running("demo-upstream", "--bind", "127.0.0.1:0"))
        address = first.wait_for_text("http://", START_S).partition("http://")[2].partition("/")[0]
        (tmp_path / "trioproxy.toml").write_text(
            upstream_at("fleeting", int(address.partition(":")[2]))
            + upstream_at("steady", steady.port)
            + """
[[route]]
models = ["m"]
strategy = "weighted"
retry = { repeat_sent = true }
targets = [
    { upstream = "fleeting", model = "demo-n3-t40" },
    { upstream = "steady", model = "demo-n3-t40" },
]
"""
        )
        with serving(None, directory=tmp_path) as proxy:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask_until, is_over, proxy.port, answers)
                await wait_until(lambda: answers_of(proxy, "fleeting") >= 20, "in use", PATIENCE_S)
                first.kill()
                await trio.sleep(1)
                before = answers_of(proxy, "fleeting")
                second = fleeting.enter_context(running("demo-upstream", "--bind", address))
                await trio.to_thread.run_sync(second.wait_for_text, "http://", START_S)
                took_s = await wait_until(lambda: answers_of(proxy, "fleeting") >= before + 20, "in use again", 10)
                is_over.set()
            lost = tries_at(proxy, "fleeting")
    print(f"{answers.whole} answers; {lost} tries in vain; in use again after {took_s:.1f} s")
    assert answers.others == []
    assert 1 <= lost <= 25


async def ask_until(is_over: trio.Event, port: int, answers: Answers) -> None:
    while not is_over.is_set():
        await ask_once(port, answers, stream=False)


async def wait_until(condition: Callable[[], bool], what: str, patience_s: float) -> float:
    return await trio.to_thread.run_sync(until, condition, what, patience_s, 0.05)
