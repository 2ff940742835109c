"""A client that leaves takes everything with it: the origin's work, the connection, every file descriptor.

A client that stays and does not read costs nothing but the kernel's buffers.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import (
    WAIT_S,
    Origin,
    Wire,
    ask,
    chat,
    chunk,
    event_stream_head,
    request_bytes,
)

CHAT = "/v1/chat/completions"
CLIENTS = 100
MIB = 1024 * 1024


def streams(upstream: Server) -> int:
    """How many generations run at the origin."""
    running: int = ask(upstream.port, "GET", "/stats").json["streams"]
    return running


@dataclass(frozen=True)
class Quiet:
    """A proxy of our own, so that nobody else's connections are counted, and how many files it had open with none."""

    server: Server
    files: int

    @property
    def port(self) -> int:
        return self.server.port


@pytest.fixture(scope="module")
def quiet_proxy(upstream: Server) -> Iterator[Quiet]:
    with serving(upstream.base_url) as server:
        yield Quiet(server, server.open_files())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened, also when it fails."""
    with ExitStack() as opened:
        yield opened


def start_chat(port: int, model: str, request_id: str = "") -> Wire:
    """Ask for a stream and read nothing of it."""
    client = Wire.to(port)
    headers = {"x-request-id": request_id} if request_id else None
    client.send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), headers))
    return client


@pytest.mark.parametrize("when", ["in mid-stream", "before the first event", "before the head"])
def test_a_hundred_clients_that_leave_are_released(
    quiet_proxy: Quiet, upstream: Server, stack: ExitStack, when: str
) -> None:
    until(lambda: streams(upstream) == 0, "a quiet origin")
    model = {"in mid-stream": "m-n9999-i20-t0", "before the first event": "m-silent", "before the head": "m-mute"}[when]
    mark = f"{when.replace(' ', '-')}-{time.monotonic_ns()}"
    clients = [
        stack.enter_context(start_chat(quiet_proxy.port, model, f"{mark}-{number}")) for number in range(CLIENTS)
    ]
    if when == "in mid-stream":
        for client in clients:
            client.read_head()
            client.read_chunk()
    until(lambda: streams(upstream) == CLIENTS, "every generation runs")
    assert quiet_proxy.server.open_files() >= quiet_proxy.files + 2 * CLIENTS
    left = time.monotonic()
    for number, client in enumerate(clients):
        if number % 2:
            client.leave()
        else:
            client.reset()
    until(lambda: streams(upstream) == 0, "no generation runs", pause_s=0.001)
    origin_ms = 1000 * (time.monotonic() - left)
    until(lambda: quiet_proxy.server.open_files() <= quiet_proxy.files, "no file descriptor is left", pause_s=0.001)
    print(f"{when}: origin free after {origin_ms:.0f} ms, proxy after {1000 * (time.monotonic() - left):.0f} ms")
    assert origin_ms < 1000
    lines = [quiet_proxy.server.exchange(f"{mark}-{number}") for number in range(CLIENTS)]
    assert {(line["outcome"], line["reason"]) for line in lines} == {("cancelled", "client_gone")}


def test_a_client_that_leaves_after_the_last_byte_has_finished(quiet_proxy: Quiet) -> None:
    for word in ("n2-i0-t0", "linger-n2-i0-t0"):
        request_id = f"{word}-{time.monotonic_ns()}"
        with start_chat(quiet_proxy.port, f"m-{word}", request_id) as client:
            assert client.read_answer().is_clean
        assert quiet_proxy.server.exchange(request_id)["outcome"] == "finished"


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_leaves_while_it_uploads_is_released(
    origin: Origin, scripted_proxy: Server, *, is_reset: bool
) -> None:
    request_id = f"upload-{time.monotonic_ns()}"
    has_begun, is_released = threading.Event(), threading.Event()

    def play(wire: Wire) -> None:
        wire.read_head()
        wire.read_exactly(1000)
        has_begun.set()
        wire.read_all()
        is_released.set()

    with origin.playing(play), Wire.to(scripted_proxy.port) as client:
        headers = {"content-length": str(MIB), "x-request-id": request_id}
        client.send(request_bytes("POST", "/v1/files", headers=headers) + bytes(1000))
        assert has_begun.wait(WAIT_S)
        client.reset() if is_reset else client.leave()
        assert is_released.wait(1.0)
    assert scripted_proxy.exchange(request_id)["reason"] == "client_gone"


def test_a_client_that_leaves_within_a_held_body_is_released(quiet_proxy: Quiet) -> None:
    request_id = f"held-{time.monotonic_ns()}"
    with Wire.to(quiet_proxy.port) as client:
        headers = {"content-length": str(MIB), "x-request-id": request_id}
        client.send(request_bytes("POST", CHAT, headers=headers) + b'{"model":')
        until(lambda: quiet_proxy.server.open_files() > quiet_proxy.files, "the connection is there")
        time.sleep(0.05)
    line = quiet_proxy.server.exchange(request_id)
    assert (line["outcome"], line["reason"]) == ("cancelled", "client_gone")
    assert (line["status"], line["code"]) == (499, "client_gone")


def test_a_client_that_leaves_before_the_head_is_logged_as_499(quiet_proxy: Quiet) -> None:
    request_id = f"gone-{time.monotonic_ns()}"
    with start_chat(quiet_proxy.port, "m-mute", request_id):
        time.sleep(0.1)
    line = quiet_proxy.server.exchange(request_id)
    assert line["status"] == 499
    assert line["code"] == "client_gone"


class Endless:
    """An origin that writes events for ever and counts how many bytes were taken from it."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_over = threading.Event()

    def play(self, wire: Wire) -> None:
        wire.read_request()
        wire.send(event_stream_head())
        data = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 1000)
        wire.socket.settimeout(None)
        try:
            while True:
                wire.send(chunk(data))
                self.sent += len(data)
        finally:
            self.is_over.set()


def test_while_the_client_does_not_read_the_origin_is_not_read_either(origin: Origin) -> None:
    endless = Endless()
    with serving(origin.base_url) as proxy, origin.playing(endless.play):
        assert ask(proxy.port, "GET", "/healthz").status == 200
        before_kib = proxy.memory_kib()
        with Wire.to(proxy.port, receive_buffer=4096) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m")).encode()))
            client.read_head()
            client.read_chunk()
            until(lambda: _stands_still(endless), "the origin is held back", patience_s=10.0)
            sent = endless.sent
            time.sleep(0.5)
            assert endless.sent == sent
            grown_kib = proxy.memory_kib() - before_kib
            # Reading on, the client gets everything in order, and the origin is read again.
            for _ in range(2000):
                assert len(client.read_chunk()) > 0
            until(lambda: endless.sent > sent, "the origin is read again")
        assert endless.is_over.wait(WAIT_S)
    print(f"held back after {sent / MIB:.1f} MiB in the kernel's buffers; the proxy has grown by {grown_kib} KiB")
    assert sent < 16 * MIB
    assert grown_kib < 2048


def _stands_still(endless: Endless) -> bool:
    before = endless.sent
    time.sleep(0.2)
    return 0 < before == endless.sent


def test_readers_that_stall_cost_little_and_are_released_when_they_leave(
    quiet_proxy: Quiet, upstream: Server, stack: ExitStack
) -> None:
    before_kib = quiet_proxy.server.memory_kib()
    clients = []
    for _ in range(20):
        client = stack.enter_context(start_chat(quiet_proxy.port, "m-flood-t0"))
        client.read_head()
        clients.append(client)
    time.sleep(1.0)
    assert streams(upstream) == 20
    grown_kib = quiet_proxy.server.memory_kib() - before_kib
    left = time.monotonic()
    for client in clients:
        client.reset()
    until(lambda: streams(upstream) == 0, "no generation runs", pause_s=0.001)
    print(f"{grown_kib / 20:.0f} KiB for each; released after {1000 * (time.monotonic() - left):.0f} ms")
    assert grown_kib / 20 < 128
    # A connection to the origin that an earlier request has left in good order waits some seconds for its next use.
    until(lambda: quiet_proxy.server.open_files() <= quiet_proxy.files, "no file descriptor is left", patience_s=8.0)


def test_a_stalled_reader_that_leaves_by_a_fin_is_released(quiet_proxy: Quiet, upstream: Server) -> None:
    with start_chat(quiet_proxy.port, "m-flood-t0") as client:
        client.read_head()
        time.sleep(0.5)
        assert streams(upstream) == 1
        client.leave()
        took_s = until(lambda: streams(upstream) == 0, "no generation runs")
    print(f"released after {1000 * took_s:.0f} ms")


def test_a_reader_that_stalls_for_too_long_is_let_go(upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_DEADLINES__CLIENT_STALL_S": "0.3"}) as proxy:
        with start_chat(proxy.port, "m-flood-t0", "stalled") as client:
            client.read_head()
            until(lambda: streams(upstream) == 0, "no generation runs")
            assert not client.read_all().endswith(b"0\r\n\r\n")
        assert proxy.exchange("stalled")["reason"] == "client_stalled"
