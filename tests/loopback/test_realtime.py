"""WebSocket sessions over real sockets, with the websockets package at both ends: what passes, and who stops whom."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server as SocketServer
from websockets.sync.server import ServerConnection, serve

from tests.loopback.processes import Server, serving, until

MIB = 1024 * 1024
Play = Callable[[ServerConnection], None]


class Origin:
    """Serves sessions with `play`; a path that ends with "refused" is refused.

    Attributes:
        closed: how each session ended, and when, in order.
    """

    def __init__(self) -> None:
        self.play: Play = echo
        self.closed: list[tuple[int | None, float]] = []
        self.server: SocketServer = serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._look,
            subprotocols=["realtime"],  # type: ignore[list-item]
            select_subprotocol=lambda _, offered: "realtime" if "realtime" in offered else None,  # type: ignore[arg-type, return-value]
            max_size=2 * 16 * MIB,
            compression="deflate",
            ping_interval=None,
        )
        self.port = int(self.server.socket.getsockname()[1])
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    @staticmethod
    def _look(session: ServerConnection, request: Request) -> Response | None:
        return session.respond(403, "not you") if request.path.endswith("refused") else None

    def _serve(self, session: ServerConnection) -> None:
        try:
            self.play(session)
        except ConnectionClosed:
            pass
        try:
            for _ in session:
                pass
        except ConnectionClosed:
            pass
        close = session.protocol.close_rcvd
        self.closed.append((None if close is None else close.code, time.monotonic()))

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()


def echo(session: ServerConnection) -> None:
    for message in session:
        session.send(message)


@pytest.fixture(scope="module")
def host() -> Iterator[Origin]:
    origin = Origin()
    try:
        yield origin
    finally:
        origin.close()


@pytest.fixture(scope="module")
def way(host: Origin) -> Iterator[Server]:
    """A proxy in front of it."""
    with serving(f"http://127.0.0.1:{host.port}/v1") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left(host: Origin, way: Server) -> Iterator[None]:
    """Let a test's sessions be closed by everybody, and everything that they held be released."""
    host.play, host.closed = echo, []
    yield
    until(lambda: not any(way.resources()["open"].values()), "everything was released", 12)


@contextmanager
def session(port: int, path: str = "/v1/realtime?model=m", **more: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=2 * 16 * MIB, **more) as client:
        yield client


def story(port: int) -> list[object]:
    """A session from end to end, and everything that the client saw of it."""
    seen: list[object] = []
    with session(port, subprotocols=["other", "realtime"]) as client:
        seen.append(client.subprotocol)
        for message in ('{"type":"session.update"}', b"\x00\xff" * 5000, "", b"", "ü" * 70_000, b"z" * (16 * MIB - 1)):
            client.send(message)
            seen.append(client.recv())
        client.send(["in ", "three ", "pieces"])
        seen.append(client.recv())
        client.send("close")
        with pytest.raises(ConnectionClosed) as ended:
            client.recv()
        seen.append(ended.value.rcvd)
    return seen


def until_told(session: ServerConnection) -> None:
    for message in session:
        if message == "close":
            session.close(4321, "as you wish")
            return
        session.send(message)


def test_a_session_through_the_proxy_equals_a_direct_one(host: Origin, way: Server) -> None:
    host.play = until_told
    assert story(way.port) == story(host.port)


def test_a_client_s_code_gets_to_the_origin(host: Origin, way: Server) -> None:
    with session(way.port) as client:
        client.close(4001, "bye")
    until(lambda: bool(host.closed), "the origin saw the end")
    assert host.closed[0][0] == 4001


@pytest.mark.parametrize("who", ["client", "origin"])
def test_more_than_16_mib_is_1009(host: Origin, way: Server, who: str) -> None:
    def send(session: ServerConnection) -> None:
        session.send(b"x" * (16 * MIB + 1))
        session.recv()

    if who == "origin":
        host.play = send
    with session(way.port) as client:
        if who == "client":
            client.send(b"x" * (16 * MIB + 1))
        with pytest.raises(ConnectionClosed) as ended:
            client.recv()
        assert ended.value.rcvd is not None and ended.value.rcvd.code == 1009


def test_a_refusal_is_the_origin_s(way: Server) -> None:
    with pytest.raises(InvalidStatus) as refused, session(way.port, "/v1/realtime?x=refused"):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"not you"


def test_a_page_of_another_site_may_not_use_a_loopback_address(way: Server) -> None:
    with pytest.raises(InvalidStatus) as refused, session(way.port, origin="https://evil.test"):
        pass
    assert refused.value.response.status_code == 403
    with session(way.port, origin=f"http://127.0.0.1:{way.port}") as client:
        client.send("hi")
        assert client.recv() == "hi"


def test_a_client_that_does_not_read_stops_the_origin(host: Origin, way: Server) -> None:
    sent = [0]

    def flood(session: ServerConnection) -> None:
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        while True:
            session.send(b"x" * 10_000)
            sent[0] += 10_000

    host.play = flood
    memory = way.workers_memory_kib()
    with small_session(way.port) as wire:
        stalls(lambda: sent[0])
        assert sent[0] < 24 * MIB  # the kernel's buffers, of two connections
        assert way.workers_memory_kib() - memory < 512
        wire.close()
        until(lambda: bool(host.closed), "the origin saw the end")


def test_an_origin_that_does_not_read_stops_the_client(host: Origin, way: Server) -> None:
    sent = [0]
    wakes = threading.Event()

    def sleep(session: ServerConnection) -> None:
        wakes.wait(20)

    host.play = sleep
    with small_session(way.port) as wire:
        frame = b"\x82\xfe\x27\x10" + bytes(4) + b"x" * 10_000
        wire.settimeout(0.5)
        memory = way.workers_memory_kib()
        try:
            while sent[0] < 64 * MIB:
                wire.sendall(frame)
                sent[0] += len(frame)
        except TimeoutError:
            pass
        assert sent[0] < 24 * MIB
        assert way.workers_memory_kib() - memory < 512
    wakes.set()


@contextmanager
def small_session(port: int) -> Iterator[socket.socket]:
    """A session by hand, whose client's kernel keeps little."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        wire.settimeout(10)
        wire.connect(("127.0.0.1", port))
        wire.sendall(
            b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += wire.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield wire


def stalls(count: Callable[[], int]) -> None:
    """Wait until a number does not grow for a while."""
    seen = -1
    while seen != count():
        seen = count()
        time.sleep(0.3)


def test_a_client_that_is_gone_closes_the_origin_at_once(host: Origin, way: Server) -> None:
    late = []
    for _ in range(5):
        host.closed = []
        with small_session(way.port) as wire:
            wire.sendall(b"\x81\x80\x00\x00\x00\x00")
            wire.recv(2)
            left = time.monotonic()
        until(lambda: bool(host.closed), "the origin saw the end")
        assert host.closed[0][0] is None
        late.append(host.closed[0][1] - left)
    assert min(late) < 0.1, late


def test_an_origin_that_is_killed_is_1011(host: Origin, way: Server) -> None:
    def die(session: ServerConnection) -> None:
        session.recv()
        session.socket.shutdown(socket.SHUT_RDWR)

    host.play = die
    with session(way.port) as client:
        client.send("die")
        with pytest.raises(ConnectionClosed) as ended:
            client.recv()
        assert ended.value.rcvd is not None
        assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1011, "upstream_truncated")


def test_a_drain_is_1012(host: Origin) -> None:
    with serving(f"http://127.0.0.1:{host.port}/v1") as server:
        with session(server.port) as client:
            client.send("hi")
            assert client.recv() == "hi"
            server.process.send_signal(signal.SIGHUP)  # another worker, and this one's sessions end after its time
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(timeout=10)
            assert ended.value.rcvd is not None and ended.value.rcvd.code == 1012
        with session(server.port) as client:
            client.send("hi again")
            assert client.recv() == "hi again"


def test_many_sessions_leave_nothing(way: Server) -> None:
    before = way.resources()["opened"]["requests"]
    for number in range(50):
        with session(way.port) as client:
            client.send(str(number))
            assert client.recv() == str(number)
            if number % 2:
                client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: way.resources()["opened"]["requests"] - before == 50, "all were counted")
    until(lambda: not way.resources()["open"]["requests"], "none is open")
    assert way.resources()["open"]["permits"] == way.resources()["open"]["attempts"] == 0
    assert way.resources()["open"]["upstream_connections"] == 0
