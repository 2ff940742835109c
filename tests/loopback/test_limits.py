"""Clients that are slow, many or half gone, on real sockets; and a proxy that runs out of file descriptors."""

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import (
    LAST_CHUNK,
    Ended,
    Origin,
    Wire,
    ask,
    chat,
    chunk,
    event_stream_head,
    request_bytes,
)

MIB: Final = 1024 * 1024
EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
CHAT: Final = "/v1/chat/completions"


@pytest.fixture(scope="module")
def impatient_proxy(origin: Origin) -> Iterator[Server]:
    """A proxy that keeps three connections and has little patience."""
    env = {"HEADER_S": "0.5", "BODY_IDLE_S": "0.5", "MAX_CONNECTIONS": "3", "HALF_CLOSE": "keep"}
    with serving(origin.base_url, env={f"TRIOPROXY_SERVER__{key}": value for key, value in env.items()}) as server:
        yield server


def chat_bytes(model: str = "m") -> bytes:
    return request_bytes("POST", CHAT, json.dumps(chat(model)).encode())


def test_a_slow_head_gets_a_408_and_the_end(impatient_proxy: Server) -> None:
    with Wire.to(impatient_proxy.port) as wire:
        start = time.monotonic()
        wire.send(chat_bytes()[:30])
        answer = wire.read_answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert 0.4 < time.monotonic() - start < 2
        assert wire.read_all() == b""


def test_an_upload_that_stops_gets_a_408_and_its_origin_is_let_go(impatient_proxy: Server, origin: Origin) -> None:
    ends = []

    def takes_all(wire: Wire) -> None:
        wire.read_head()
        with pytest.raises(Ended):
            wire.read_exactly(MIB)
        ends.append(True)
        wire.close()

    with origin.playing(takes_all), Wire.to(impatient_proxy.port) as wire:
        wire.send(request_bytes("POST", "/v1/files", headers={"content-length": str(MIB)}) + b"x" * 1000)
        answer = wire.read_answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        until(lambda: ends == [True], "the origin's connection has ended")


def test_a_connection_too_many_reads_its_503_though_it_has_sent_a_lot(impatient_proxy: Server) -> None:
    with ExitStack() as stack:
        kept = 0
        while kept < 3:  # those of the test before may still be there for a moment
            wire = stack.enter_context(Wire.to(impatient_proxy.port))
            wire.send(request_bytes("GET", "/healthz"))
            kept += wire.read_answer("GET").status == 200
        wire = stack.enter_context(Wire.to(impatient_proxy.port))
        request = request_bytes("POST", CHAT, b"x" * 200_000)
        wire.send(request[:100_000])
        time.sleep(0.2)  # it was answered long ago
        wire.send(request[100_000:])
        time.sleep(0.1)
        answer = wire.read_answer()
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert answer.is_clean and answer.headers["retry-after"] == "1"
        assert wire.read_all() == b""
    until(lambda: ask(impatient_proxy.port, "GET", "/healthz").status == 200, "there is room again")


def test_a_client_that_has_sent_its_end_of_file_gets_its_answer_if_that_is_wanted(
    impatient_proxy: Server, origin: Origin
) -> None:
    def streams(wire: Wire) -> None:
        wire.read_request()
        wire.send(event_stream_head())
        for event in (EVENT, EVENT, b"data: [DONE]\n\n"):
            time.sleep(0.3)
            wire.send(chunk(event))
        wire.send(LAST_CHUNK)

    with origin.playing(streams), Wire.to(impatient_proxy.port) as wire:
        wire.send(chat_bytes())
        wire.leave()
        answer = wire.read_answer()
        assert answer.is_clean and answer.body.endswith(b"[DONE]\n\n")
        start = time.monotonic()
        assert wire.read_all() == b"" and time.monotonic() - start < 0.2


def test_a_reset_behind_an_end_of_file_is_noticed_though_nothing_is_written(
    impatient_proxy: Server, origin: Origin
) -> None:
    ends = []

    def silent(wire: Wire) -> None:
        wire.read_request()
        wire.send(event_stream_head() + chunk(EVENT))
        wire.read_all()
        ends.append(time.monotonic())
        wire.close()

    with origin.playing(silent):
        wire = Wire.to(impatient_proxy.port)
        wire.send(chat_bytes())
        wire.leave()
        wire.read_until(b"word")
        time.sleep(0.3)
        assert not ends
        left = time.monotonic()
        wire.reset()
        until(lambda: bool(ends), "the origin is free")
        assert ends[0] - left < 1


def limit_descriptors(server: Server, spare: int) -> None:
    """Let no process of a server open more than so many file descriptors beyond what it has."""
    for pid in server.family():
        highest = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, highest + 1 + spare))


def status_now(wire: Wire) -> int | None:
    """The status of an answer that is here; None for a connection that waits, or was closed to make room."""
    wire.socket.settimeout(0.05)
    try:
        answer = wire.read_answer()
    except (TimeoutError, ConnectionResetError, Ended):
        return None
    if answer.status == 503:
        assert answer.error["code"] == "overloaded" and answer.headers["retry-after"] == "1"
    return answer.status


def test_without_file_descriptors_streams_go_on_and_new_requests_wait_or_are_told(upstream: Server) -> None:
    with serving(upstream.base_url) as proxy, ExitStack() as stack:
        running = [stack.enter_context(Wire.to(proxy.port)) for _ in range(5)]
        for wire in running:
            wire.send(chat_bytes("m-n40-i50-t0"))
            wire.read_until(b"data: ")
        limit_descriptors(proxy, 6)
        late = [stack.enter_context(Wire.to(proxy.port)) for _ in range(30)]
        for wire in late:
            wire.send(chat_bytes("m-n1-i0-t0"))
        time.sleep(0.5)
        statuses = Counter(status_now(wire) for wire in late)
        print(statuses)
        assert statuses[503] and statuses.keys() <= {200, 503, None}
        for wire in running:  # each is as whole as if nothing had happened
            assert wire.read_until(b"[DONE]\n\n").count(b'"content"') >= 39
        for wire in late:
            wire.close()
        until(lambda: ask(proxy.port, "POST", CHAT, chat("m-n1-i0-t0")).status == 200, "it serves again", pause_s=0.1)
        lines = Counter(line["event"] for line in list(proxy.log))
        assert lines["no room for another connection"] == 1
        assert {line.get("code") for line in proxy.exchanges if line["status"] == 503} == {"overloaded"}


def test_idle_connections_make_room_when_file_descriptors_run_out(upstream: Server) -> None:
    with serving(upstream.base_url) as proxy, ExitStack() as stack:
        idle = []
        for number in range(60):
            wire = stack.enter_context(Wire.to(proxy.port))
            wire.send(request_bytes("GET", "/healthz"))
            assert wire.read_answer("GET").status == 200
            idle.append(wire)
            if number == 10:
                limit_descriptors(proxy, 0)
        assert idle[0].read_all() == b""  # it was closed for those that came later
