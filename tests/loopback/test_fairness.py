"""One stream that floods does not slow the others down: each gets its turn, however much the one has to say."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.loopback.pacing import CHAT, bound_ms, measure, measure_both
from tests.loopback.processes import serving
from tests.loopback.raw_http import LAST_CHUNK, Wire, chat, chunk, event_stream_head, open_origin, request_bytes
from trioproxy.bench.demo_model import parse_model

CLIENTS = 50
PACED = "m-n200-i20"
MIB = 1024 * 1024


def event(text: bytes) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text


def play(wire: Wire) -> None:
    """Paced events, or a flood in pieces as large as they come: an origin that is faster than any proxy.

    Threads serve it. They hold the interpreter only between two sends, so a flood does not disturb their pace."""
    _, body = wire.read_request()
    behaviour = parse_model(json.loads(body)["model"])
    wire.socket.settimeout(None)
    wire.send(event_stream_head())
    if behaviour.flood:
        size = behaviour.pad_bytes or 1024
        block = chunk(event(b"x" * size)) * (256 * 1024 // size)
        while True:
            wire.send(block)
    due = time.monotonic()
    for _ in range(behaviour.events or 0):
        wire.send(chunk(event(b"word ")))
        due += behaviour.gap_s(1)
        time.sleep(max(0.0, due - time.monotonic()))
    wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
    wire.close()


@dataclass
class Greedy:
    """How much a greedy client has read."""

    read: int = 0
    started: float = field(default_factory=time.monotonic)
    is_over: bool = False

    @property
    def mib_per_s(self) -> float:
        return self.read / MIB / (time.monotonic() - self.started)


@contextmanager
def greedy_client(port: int, model: str) -> Iterator[Greedy]:
    """A client that reads a flood as fast as it can, in a thread."""
    greedy = Greedy()
    buffer = bytearray(256 * 1024)

    def read() -> None:
        while not greedy.is_over:
            greedy.read += wire.socket.recv_into(buffer)

    with Wire.to(port) as wire:
        wire.send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode()))
        assert wire.read_head().status == 200
        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield greedy
        finally:
            greedy.is_over = True
            thread.join()


async def test_a_flood_beside_them_does_not_slow_paced_streams_down() -> None:
    with open_origin(play) as origin, serving(origin.base_url) as proxy:
        alone = await measure(proxy.port, CLIENTS, PACED)
        with greedy_client(proxy.port, "m-flood") as greedy:
            beside, direct = await measure_both(proxy.port, origin.port, CLIENTS, PACED)
            flood = greedy.mib_per_s
    print(f"alone: {alone}\nbeside a flood of {flood:.0f} MiB/s: {beside}\nnot through the proxy: {direct}")
    assert flood > 10
    assert beside.p99 < bound_ms(alone, direct)


async def test_an_upload_in_chunks_of_one_byte_does_not_slow_paced_streams_down() -> None:
    """It ends when the measuring does; the body is one that is held."""
    block = chunk(b"x") * 2000
    is_over = threading.Event()

    def upload() -> None:
        with Wire.to(proxy.port) as wire:
            wire.send(request_bytes("POST", CHAT, headers={"transfer-encoding": "chunked"}))
            while not is_over.is_set():
                wire.send(block)

    with open_origin(play) as origin, serving(origin.base_url) as proxy:
        alone = await measure(proxy.port, CLIENTS, "m-n100-i20")
        before_kib = proxy.memory_kib()
        thread = threading.Thread(target=upload)
        thread.start()
        try:
            beside, direct = await measure_both(proxy.port, origin.port, CLIENTS, "m-n100-i20")
            grown_kib = proxy.memory_kib() - before_kib
        finally:
            is_over.set()
            thread.join()
    print(f"alone: {alone}\nbeside it: {beside}\nnot through the proxy: {direct}\ngrown by {grown_kib} KiB")
    assert beside.p99 <= bound_ms(alone, direct)
    assert grown_kib < 16 * 1024
