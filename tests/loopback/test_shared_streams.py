"""One stream of two thousand events and five hundred readers, fifty of which do not read until it is over."""

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256

import httptools
import trio

from tests.loopback.crowd import CHAT, allow_files, ask_and_stall, chat_request, sent_by_demo
from tests.loopback.processes import Server, demo_upstream, serving
from tests.loopback.raw_http import Answer, Wire, ask, chat
from trioproxy.policy.replay import Slow

READERS = 450
STALLED = 50
EVENTS = 2000
MODEL = f"m-n{EVENTS}-i8-t3000-b200"
"""Three seconds for everyone to come, then sixteen of events, of about 450 bytes."""
LOG_BYTES = 512 * 1024
"""So much of it is kept: a little more than the half."""
MOST_KIB = 128
"""Of the process's own memory for each reader; the log comes beside it."""
ENV = {
    "TRIOPROXY_HUB__MAX_BYTES": str(LOG_BYTES),
    "TRIOPROXY_DEADLINES__CLIENT_STALL_S": "120",
}
SHARED = {"authorization": "Bearer me", "x-trioproxy-share": "auto"}
POLICIES = [Slow.ERROR, Slow.DROP_OLDEST, Slow.DROP_NEWEST]


@dataclass
class Reading:
    """What one reader got: how many bytes, their hash, and the bytes themselves if they are kept."""

    keeps: bool = False
    size: int = 0
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False

    def __post_init__(self) -> None:
        self.hash = sha256()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self.size += len(data)
        self.hash.update(data)
        if self.keeps:
            self.body += data

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.is_complete = True

    async def read(self, port: int) -> None:
        """Read the stream as it comes."""
        parser = httptools.HttpResponseParser(self)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(chat_request(MODEL, headers=SHARED))
            while not self.is_complete and (data := await stream.receive_some(65536)):
                parser.feed_data(data)


@dataclass
class Peak:
    """The most memory that the worker had beyond what it began with."""

    proxy: Server
    before_kib: int = 0
    grown_kib: int = 0

    async def watch(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            self.grown_kib = max(self.grown_kib, self.proxy.workers_memory_kib() - self.before_kib)
            await trio.sleep(0.25)


def test_five_hundred_readers_of_one_stream() -> None:
    allow_files(READERS + STALLED + 200)
    with demo_upstream() as upstream, serving(upstream.base_url, env=ENV) as proxy, ExitStack() as opened:
        for _ in range(20):
            assert ask(proxy.port, "POST", CHAT, chat("m-n20-i0-t0"), SHARED).is_clean
        asked = ask(upstream.port, "GET", "/stats").json["requests"]
        peak = Peak(proxy, proxy.workers_memory_kib())
        stalled = [
            opened.enter_context(ask_and_stall(proxy.port, MODEL, headers={**SHARED, "x-trioproxy-slow": slow}))
            for slow in (POLICIES[number % len(POLICIES)] for number in range(STALLED))
        ]
        readings = [Reading(keeps=number == 0) for number in range(READERS)]
        trio.run(read_all, proxy.port, readings, peak)
        assert ask(upstream.port, "GET", "/stats").json["requests"] == asked + 1
        whole = bytes(readings[0].body)
        (number,) = set(re.findall(rb'"id":"chatcmpl-demo(\d+)"', whole))
        sent = list(sent_by_demo(CHAT, json.dumps(chat(MODEL)).encode(), f"req_demo_{number.decode()}"))
        assert whole == b"".join(sent)
        assert {(each.size, each.hash.digest(), each.is_complete) for each in readings} == {
            (len(whole), sha256(whole).digest(), True)
        }
        for place, wire in enumerate(stalled):
            look_at_one_that_stalled(POLICIES[place % len(POLICIES)], wire, sent)
        figures = (
            f"{peak.grown_kib} KiB for {READERS + STALLED} readers, {peak.grown_kib / (READERS + STALLED):.0f} each"
        )
        print(f"{figures}; the log's {LOG_BYTES // 1024} among them")
    assert peak.grown_kib <= LOG_BYTES // 1024 + MOST_KIB * (READERS + STALLED)


async def read_all(port: int, readings: list[Reading], peak: Peak) -> None:
    async with trio.open_nursery() as watching:
        watching.start_soon(peak.watch)
        async with trio.open_nursery() as nursery:
            for reading in readings:
                nursery.start_soon(reading.read, port)
        watching.cancel_scope.cancel()


def look_at_one_that_stalled(slow: Slow, wire: Wire, sent: list[bytes]) -> None:
    """It gets what was on its way and then, by its policy, what is left of the stream or the reason why nothing is."""
    answer: Answer = wire.read_answer()
    events = answer.body.split(b"\n\n")[:-1]
    place, lost = 0, 0
    for event in (each + b"\n\n" for each in events):
        if event.startswith(b": lost "):
            lost = int(event.split()[2])
            place += lost
        elif event.startswith(b": keep-alive"):
            continue
        elif b'"reader_too_slow"' in event:
            assert slow is Slow.ERROR and event == events[-1] + b"\n\n"
            assert not answer.is_clean and 0 < place < len(sent)
            return
        else:
            assert event == sent[place]
            place += 1
    assert slow is not Slow.ERROR
    assert (answer.is_clean, place) == (True, len(sent))
    assert lost > 100
