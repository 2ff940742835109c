"""The corpus of malformed requests against a real proxy, again and again on many connections at once: each is answered
and closed, nothing of it reaches the origin, and afterwards the process is as it was before."""

import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.harness.malformed import MALFORMED, Malformed
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import Origin, Wire, ask, open_origin

ROUNDS = 200
WARM_UP = 10
"""So many of the rounds come before the first look at the process."""
CONNECTIONS = 8
"""How many are open at once."""
BOUND_S = 5.0
"""How long one may take until it is closed; the clocks of a slow head or body are longer."""
MAX_GROWTH_KIB = 4096
ROOM = 1 << 16


@pytest.fixture(scope="module")
def silent_origin() -> Iterator[Origin]:
    """An origin that fails the test when it is asked for anything."""
    with open_origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def target(silent_origin: Origin) -> Iterator[Server]:
    """The proxy that is thrown at; `serving` looks for crashes in its log."""
    with serving(silent_origin.base_url) as server:
        yield server


class Thrower(threading.Thread):
    """Throws requests at a proxy, one connection after the other.

    Attributes:
        answered: how often each request got which status; 0 where no answer came.
        slowest_s: the longest that a connection was open.
    """

    def __init__(self, port: int, work: "queue.SimpleQueue[Malformed | None]") -> None:
        super().__init__()
        self._address = ("127.0.0.1", port)
        self._work = work
        self.answered: Counter[tuple[str, int]] = Counter()
        self.slowest_s = 0.0

    def run(self) -> None:
        while (bad := self._work.get()) is not None:
            start = time.monotonic()
            self.answered[bad.name, self._throw(bad.raw)] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)

    def _throw(self, raw: bytes) -> int:
        data = b""
        with socket.create_connection(self._address, BOUND_S) as connection:
            connection.sendall(raw)
            try:
                while piece := connection.recv(ROOM):
                    data += piece
            except OSError:
                return 0  # no end within the bound, or a reset, by which answers get lost
        assert data.count(b"\r\n\r\n") == 1, data
        return int(data[9:12])


def throw(port: int, rounds: int) -> tuple[Counter[tuple[str, int]], float]:
    """The whole corpus, so many times: the answers, and the longest that one took."""
    work: queue.SimpleQueue[Malformed | None] = queue.SimpleQueue()
    for bad in MALFORMED * rounds:
        work.put(bad)
    throwers = [Thrower(port, work) for _ in range(CONNECTIONS)]
    for thrower in throwers:
        work.put(None)
        thrower.start()
    for thrower in throwers:
        thrower.join()
    return sum((thrower.answered for thrower in throwers), Counter()), max(thrower.slowest_s for thrower in throwers)


def answer_models(wire: Wire) -> None:
    """An origin's answer to one good request."""
    assert wire.read_request()[0].target == "/v1/models"
    wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


def test_the_corpus_thrown_200_times_does_no_harm(target: Server, silent_origin: Origin) -> None:
    throw(target.port, WARM_UP)
    family, memory_kib, files = target.family(), target.memory_kib(), target.open_files()
    answered, slowest_s = throw(target.port, ROUNDS - WARM_UP)
    assert answered == {(bad.name, bad.status): ROUNDS - WARM_UP for bad in MALFORMED}
    assert slowest_s < BOUND_S
    assert target.family() == family, "a process has died"
    until(lambda: target.open_files() <= files, "as many file descriptors as before")
    assert target.memory_kib() - memory_kib < MAX_GROWTH_KIB
    silent_origin.check()
    with silent_origin.playing(answer_models):
        assert ask(target.port, "GET", "/v1/models").status == 200
