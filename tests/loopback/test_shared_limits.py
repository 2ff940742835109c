"""A key's limits across two proxy processes and a real redis-server: never one stream too many at the origin, whoever
is killed; and what happens without the server is what was configured."""

import json
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest

from tests.harness.keys import key_table, secret
from tests.loopback.processes import PATIENCE_S, START_S, Server, serving, until
from tests.loopback.raw_http import LAST_CHUNK, Answer, Ended, Wire, ask, chat, chunk, event_stream_head, open_origin
from tests.loopback.redis_server import RedisServer, redis_server
from tests.loopback.streams import CHAT

CLIENTS: Final = 50
MOST: Final = 7
LEASE_S: Final = 2.0
CONNECTIONS: Final = 4
"""To the redis-server, of each process: one for limits, three for streams."""
CLOSED: Final = '[gate]\non_state_loss = "closed"'
EVENT: Final = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}


@dataclass
class CountingOrigin:
    """Streams a few events and knows at each moment how many requests it is working at.

    Attributes:
        seen: for each request when it came and how many there were then, itself included.
    """

    pause_s: float = 0.05
    seen: list[tuple[float, int]] = field(default_factory=list)
    _open: list[Wire] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, wire: Wire) -> None:
        wire.read_request()
        with self._lock:
            self._open.append(wire)
            self.seen.append((time.monotonic(), sum(not has_left(one) for one in self._open)))
        try:
            wire.send(event_stream_head())
            for _ in range(4):
                wire.send(chunk(f"data: {json.dumps(EVENT)}\n\n".encode()))
                time.sleep(self.pause_s)
        finally:
            with self._lock:
                self._open.remove(wire)
        wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    def most(self, after: float = 0.0) -> int:
        """The most requests at once that it has worked at, after some moment."""
        with self._lock:
            return max((count for at, count in self.seen if at > after), default=0)


def has_left(wire: Wire) -> bool:
    """Whether who asked has closed the connection: then it does not count any more that the answer is still sent."""
    try:
        is_told = bool(select.select([wire.socket], [], [], 0)[0])
        return is_told and not wire.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


@dataclass
class Service:
    """Two replicas of one service, the server that they share, and their origin."""

    a: Server
    b: Server
    redis: RedisServer
    origin: CountingOrigin


@contextmanager
def service(folder: Path, limits: str, *more: str) -> Iterator[Service]:
    origin = CountingOrigin()
    with redis_server() as redis, open_origin(origin.serve) as listening:
        lines = [
            *more,
            f'[state]\nurl = "redis://127.0.0.1:{redis.port}"\nlease_s = {LEASE_S}',
            f'[[upstream]]\nname = "origin"\nbase_url = "{listening.base_url}"',
            key_table("alice", f"limits = {{ {limits} }}"),
        ]
        (folder / "trioproxy.toml").write_text("\n".join(lines))
        with serving(None, directory=folder) as a, serving(None, directory=folder) as b:
            until(lambda: redis.clients() == 2 * CONNECTIONS, "all connections", START_S)
            yield Service(a, b, redis, origin)


def post(server: Server) -> Answer:
    """Ask for a stream and read it to its end."""
    headers = {"authorization": f"Bearer {secret('alice')}", "connection": "close"}
    return ask(server.port, "POST", CHAT, chat("demo"), headers)


@dataclass
class Clients:
    """Many that each want some streams, and ask again when they are refused, or cut off."""

    servers: tuple[Server, ...]
    streams: int
    done: int = 0
    refused: int = 0
    cut: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for future in [pool.submit(self._run_one, number) for number in range(CLIENTS)]:
                future.result()

    def _run_one(self, number: int) -> None:
        chance, server = random.Random(number), self.servers[number % len(self.servers)]
        for _ in range(self.streams):
            while not self._has_one(server):
                time.sleep(0.1 + 0.4 * chance.random())

    def _has_one(self, server: Server) -> bool:
        try:
            answer = post(server)
        except (OSError, Ended):
            answer = None
        with self._lock:
            if answer is not None and answer.status != 200:
                # On a busy machine the server may take too long to answer.
                assert answer.error["code"] in {"rate_limit_exceeded", "state_unavailable"}, answer
                self.refused += answer.status == 429
                return False
            is_whole = answer is not None and answer.is_clean
            self.done += is_whole
            self.cut += not is_whole
            return is_whole


def test_of_fifty_clients_seven_stream_and_never_an_eighth(tmp_path: Path) -> None:
    with service(tmp_path, f"streams = {MOST}", CLOSED) as both:
        clients = Clients((both.a, both.b), streams=2)
        clients.run()
        assert (clients.done, clients.cut) == (2 * CLIENTS, 0)
        assert clients.refused > CLIENTS
        assert both.origin.most() == MOST


def test_nor_when_a_process_is_killed_whose_streams_are_free_within_their_lease(tmp_path: Path) -> None:
    with service(tmp_path, f"streams = {MOST}", CLOSED) as both:
        clients = Clients((both.a, both.b), streams=4)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(clients.run)
            until(lambda: both.origin.most() == MOST, "as many streams as are allowed", START_S)
            [victim] = both.b.worker_pids()
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: both.origin.most(killed + LEASE_S) == MOST, "all of them in use again", START_S)
            running.result()
        assert clients.done == 4 * CLIENTS and clients.cut
        assert both.origin.most() == MOST
        until(lambda: _used(both.redis) == 0, "nothing is taken any more")


def _used(redis: RedisServer) -> int:
    return int(redis.ask("ZCARD", "trioproxy:limits:streams:alice"))


def is_ready(server: Server) -> bool:
    with urlopen(f"{server.url}/readyz", timeout=PATIENCE_S) as answer:
        return bool(answer.status == 200)


def counted(server: Server, name: str) -> float:
    """The sum of a metric's lines."""
    with urlopen(f"{server.admin_url}/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


LOSS: Final = [
    ("open", 200),
    ("closed", 503),
    ({"streams": "closed"}, 200),
    ({"requests": "closed"}, 503),
]
"""What is configured for the time without the server, and what a request gets then that is over a limit of requests."""


@pytest.mark.parametrize(("said", "status"), LOSS)
def test_without_the_server_each_kind_of_limit_is_open_or_closed_as_configured(
    tmp_path: Path, said: str | dict[str, str], status: int
) -> None:
    words = json.dumps(said).replace(": ", " = ")
    with service(tmp_path, "rpm = 2", f"[gate]\non_state_loss = {words}") as both:
        assert [post(server).status for server in (both.a, both.b, both.a, both.b)] == [200, 200, 429, 429]
        both.redis.kill()
        for server in (both.a, both.b):
            answer = post(server)
            assert answer.status == status
            if status == 503:
                assert answer.error["code"] == "state_unavailable"
                assert int(answer.headers["retry-after"]) >= 1
            assert is_ready(server)
            assert (counted(server, "trioproxy_uncounted_total") > 0) == (status == 200)
        both.redis.start()
        for server in (both.a, both.b):
            until(partial(_is_limited, server), "counted again", START_S, pause_s=0.1)


def _is_limited(server: Server) -> bool:
    return post(server).status == 429
