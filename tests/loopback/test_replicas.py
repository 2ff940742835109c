"""Shared and resumed streams across two proxy processes and a real redis-server."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.loopback.processes import Server, demo_upstream, serving, until
from tests.loopback.raw_http import Answer, Wire, ask, chat, request_bytes
from tests.loopback.redis_server import RedisServer, redis_server

PATH = "/v1/chat/completions"
ME = {"authorization": "Bearer me"}
SHARED = {**ME, "x-trioproxy-share": "auto"}
RESUMED = {**ME, "x-trioproxy-resume": "60"}
LEASE_S = 3.0


@dataclass
class Service:
    """Two replicas of one service, their store, and their upstream."""

    a: Server
    b: Server
    redis: RedisServer
    upstream: Server

    def asked(self) -> int:
        """How many requests the upstream got."""
        return requests_at(self.upstream)


def requests_at(upstream: Server) -> int:
    with urlopen(f"{upstream.url}/stats", timeout=5) as answer:
        return int(json.load(answer)["requests"])


@contextmanager
def service(directory: Path) -> Iterator[Service]:
    with redis_server() as redis, demo_upstream() as upstream:
        file = directory / "trioproxy.toml"
        file.write_text(
            f'[state]\nurl = "redis://127.0.0.1:{redis.port}"\nlease_s = {LEASE_S}\n'
            f'[[upstream]]\nname = "demo"\nbase_url = "{upstream.base_url}"\n'
        )
        with serving(None, directory=directory) as a, serving(None, directory=directory) as b:
            yield Service(a, b, redis, upstream)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("replicas")) as both:
        yield both


def post(server: Server, model: str, headers: dict[str, str], prompt: str = "") -> Answer:
    body = json.dumps({**chat(model, stream=True), "user": prompt}).encode()
    return ask(server.port, "POST", PATH, body, headers)


def events(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def at_once(*calls: Callable[[], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def later(seconds: float, call: Callable[[], Answer]) -> Callable[[], Answer]:
    def run() -> Answer:
        time.sleep(seconds)
        return call()

    return run


def test_a_hundred_resumes_at_random_positions_on_both(replicas: Service) -> None:
    """While the stream is made and behind its end, byte for byte."""
    draw = random.Random(5)
    begun = threading.Event()
    whole: list[bytes] = []
    stream_id: list[str] = []

    def first() -> None:
        body = json.dumps(chat("demo-n150-i20", stream=True)).encode()
        with Wire.to(replicas.a.port) as wire:
            wire.send(request_bytes("POST", PATH, body, {**RESUMED, "connection": "close"}))
            head = wire.read_head()
            stream_id.append(head.headers["x-trioproxy-stream"])
            begun.set()
            whole.append(wire.read_body(head))

    reader = threading.Thread(target=first)
    reader.start()
    assert begun.wait(10)

    def resume(number: int) -> tuple[int, Answer]:
        server = draw.choice([replicas.a, replicas.b])
        time.sleep(number * 0.04)
        after = draw.randint(0, number)  # an event comes every 20 ms
        return after, ask(server.port, "GET", f"/v1/streams/{stream_id[0]}?after={after}", b"", ME)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(resume, range(100)))
    reader.join(10)
    expected = events(whole[0])
    assert len(expected) > 150
    for after, answer in answers:
        assert (answer.status, answer.is_clean) == (200, True), (after, answer.status, answer.body[:200])
        assert answer.body == b"".join(expected[after:])


def test_requests_at_both_share_one_stream(replicas: Service) -> None:
    before = replicas.asked()
    answers = at_once(
        *[
            later(0.05 * number, lambda server=server: post(server, "demo-n60-i20", SHARED, "both"))  # type: ignore[misc]
            for number, server in enumerate([replicas.a, replicas.b] * 5)
        ]
    )
    assert len({answer.body for answer in answers}) == 1
    assert all(answer.is_clean for answer in answers)
    assert replicas.asked() == before + 1


def test_a_stream_is_stopped_from_the_other_one(replicas: Service) -> None:
    calls = [
        lambda: post(replicas.a, "demo-n500-i20", SHARED, "stop"),
        later(0.2, lambda: post(replicas.b, "demo-n500-i20", SHARED, "stop")),
    ]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(call) for call in calls]
        time.sleep(1)
        stream = _live_stream(replicas)
        assert ask(replicas.b.port, "DELETE", f"/v1/streams/{stream}", b"", ME).status == 204
        answers = [future.result() for future in futures]
    for answer in answers:
        assert not answer.is_clean
        assert b"stream_stopped" in answer.body


def _live_stream(replicas: Service) -> str:
    """The id of the stream that was begun last, as its store has it."""
    with Wire.to(replicas.a.port) as wire:
        body = json.dumps({**chat("demo-n500-i20", stream=True), "user": "stop"}).encode()
        wire.send(request_bytes("POST", PATH, body, {**SHARED, "connection": "close"}))
        return wire.read_head().headers["x-trioproxy-stream"]


def test_readers_elsewhere_are_told_when_the_producer_is_killed(tmp_path: Path) -> None:
    with service(tmp_path) as both:
        with ThreadPoolExecutor(1) as pool, Wire.to(both.a.port) as wire:
            body = json.dumps({**chat("demo-n500-i20", stream=True), "user": "killed"}).encode()
            wire.send(request_bytes("POST", PATH, body, {**SHARED, "connection": "close"}))
            wire.read_head()
            future = pool.submit(lambda: post(both.b, "demo-n500-i20", SHARED, "killed"))
            time.sleep(1)
            for pid in both.a.worker_pids():
                os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            answer = future.result()
            assert time.monotonic() - killed < LEASE_S + 1.5
        assert (answer.status, answer.is_clean, b"state_unavailable" in answer.body) == (200, False, True)
        until(lambda: post(both.a, "demo-n3-i0", SHARED, "again").status == 200, "the worker was replaced", 10)


def test_redis_killed_and_started_again_in_the_middle(tmp_path: Path) -> None:
    """Who reads where a stream is produced notices nothing; who reads elsewhere is told; new ones are shared again."""
    with service(tmp_path) as both:
        with ThreadPoolExecutor(3) as pool:
            producer = pool.submit(lambda: post(both.a, "demo-n300-i20", SHARED, "redis"))
            time.sleep(0.5)
            elsewhere = pool.submit(lambda: post(both.b, "demo-n300-i20", SHARED, "redis"))
            time.sleep(1)
            both.redis.kill()
            alone = pool.submit(lambda: post(both.b, "demo-n5-i10", ME, "alone"))
            assert alone.result().is_clean
            degraded = post(both.b, "demo-n5-i10", SHARED, "degraded")
            assert (degraded.status, degraded.is_clean) == (200, True)
            refused = post(both.b, "demo-n5-i10", RESUMED)
            assert (refused.status, refused.error["code"]) == (503, "state_unavailable")
            both.redis.start()
            whole, told = producer.result(), elsewhere.result()
        assert (whole.is_clean, len(events(whole.body)) > 300) == (True, True)
        assert (told.is_clean, b"state_unavailable" in told.body) == (False, True)
        before = both.asked()
        answers = at_once(
            lambda: post(both.a, "demo-n60-i20", SHARED, "after"),
            later(0.3, lambda: post(both.b, "demo-n60-i20", SHARED, "after")),
        )
        assert [answer.is_clean for answer in answers] == [True, True]
        assert answers[0].body == answers[1].body
        assert both.asked() == before + 1


def test_the_workers_of_one_service_share_too(tmp_path: Path) -> None:
    with redis_server() as redis, demo_upstream() as upstream:
        (tmp_path / "trioproxy.toml").write_text(
            f'[server]\nworkers = 2\n[state]\nurl = "redis://127.0.0.1:{redis.port}"\n'
            f'[[upstream]]\nname = "demo"\nbase_url = "{upstream.base_url}"\n'
        )
        with serving(None, directory=tmp_path) as proxy:
            answers = at_once(
                *[later(0.05 * n, lambda: post(proxy, "demo-n60-i20", SHARED, "workers")) for n in range(12)]
            )
            assert len({answer.body for answer in answers}) == 1
            assert requests_at(upstream) == 1
