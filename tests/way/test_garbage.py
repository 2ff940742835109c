"""A request that is over leaves next to nothing to the garbage collector, whose pauses stop every stream."""

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness import plays
from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.plays import route
from tests.way.test_clocks import ROLE
from tests.way.test_connections import echo_models, post
from tests.way.test_main_job import EVENTS

REQUESTS = 50


async def two_words(visit: Visit) -> None:
    """Streams two words, again and again."""
    while True:
        await visit.read_request()
        for event in (OK_STREAM, *map(chunk, EVENTS), LAST_CHUNK):
            await visit.send(event)
            await trio.sleep(0.01)


async def test_finished_requests_leave_no_rings_behind(autojump_clock: trio.testing.MockClock) -> None:
    for script, request in ((echo_models, post()), (two_words, post(b'{"stream":true}', "/v1/chat/completions"))):
        async with open_house(script) as house:
            client = house.connect()
            for _ in range(3):
                await client.send(request)
                await client.answer()
            await trio.sleep(1)
            gc.collect()
            gc.disable()
            try:
                for _ in range(REQUESTS):
                    await client.send(request)
                    await client.answer()
                await trio.sleep(1)
                garbage = gc.collect()
            finally:
                gc.enable()
            client.leave()
        assert garbage / REQUESTS < 2, f"{garbage / REQUESTS} objects a request"


async def breaks_off(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM + chunk(EVENTS[0]))
    visit.cut()


async def leaves_at_once(visit: Visit) -> None:
    await visit.read_request()
    visit.cut()


async def is_silent(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM + chunk(EVENTS[0]))
    await visit.wait_left()


async def refuses(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM + chunk(b'data: {"error":{"message":"no"}}\n\n') + LAST_CHUNK)
    visit.cut()


STREAM = post(b'{"stream":true}', "/v1/chat/completions")
BROKEN_BODY = b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n"
NO_HEAD = b"GET / HTTP/0.9\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "request_bytes"),
    [
        *((script, STREAM) for script in (breaks_off, leaves_at_once, is_silent, refuses)),
        (Visit.wait_left, BROKEN_BODY),
        (Visit.wait_left, NO_HEAD),
    ],
)
@pytest.mark.parametrize("leaves_after_s", [0.5, 100])
async def test_requests_that_failed_or_were_left_leave_none_either(
    script: Script, request_bytes: bytes, leaves_after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(script, deadlines__idle_s=2) as house:

        async def ask() -> None:
            client = house.connect()
            with trio.move_on_after(leaves_after_s):
                await client.send(request_bytes)
                await client.answer()
            client.leave()
            await trio.sleep(5)

        assert await rings_of(house, ask) == set()


async def rings_of(house: HouseUnderTest, ask: Callable[[], Awaitable[None]]) -> set[str]:
    """The types of ours in what only the garbage collector can free when this is over."""
    await ask()
    house.origin.visits.clear()
    house.log.lines.clear()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(5):
            await ask()
        gc.collect()
        ours = {type(one).__module__ + "." + type(one).__qualname__ for one in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    found = {name for name in ours if name.startswith(("trioproxy.", "h11.", "hypercorn.", "httptools.", "httpx."))}
    return found | (ours & {"builtins.traceback", "builtins.frame"})


def after(seconds: float, *pieces: bytes, ends: bool = False) -> Script:
    async def script(visit: Visit) -> None:
        for piece in pieces:
            await visit.send(piece)
            await trio.sleep(seconds)
        if ends:
            visit.cut()

    return script


HEDGED = route("hedge = { after_s = 1, budget = 1 }")
SHADOWED = route('targets = [{ upstream = "a" }]', 'shadow = { upstream = "b", share = 1 }')
BEGUN = OK_STREAM + chunk(ROLE)
GONE = after(0, ends=True)
CUT = after(1, BEGUN, ends=True)
SLOW = after(0.5, b"", plays.STREAM)
ERROR_INSIDE = after(1, OK_STREAM, chunk(b'data: {"error":{"message":"no","code":429}}\n\n'), ends=True)


@pytest.mark.parametrize(
    ("routes", "a", "b", "flags"),
    [
        (HEDGED, BEGUN, SLOW, {}),
        (HEDGED, BEGUN, BEGUN, {"deadlines__first_content_s": 3}),
        (HEDGED, CUT, CUT, {}),
        (HEDGED, after(2, BEGUN, ends=True), CUT, {}),
        (HEDGED, plays.status(503), plays.status(503), {}),
        (HEDGED, GONE, GONE, {"stream__commit_before_head_s": 0.5}),
        ("", GONE, plays.STREAM, {}),
        (route("retry = { repeat_sent = true }"), GONE, GONE, {}),
        ("", CUT, SLOW, {}),
        ("", CUT, CUT, {}),
        ("", CUT, CUT, {"stream__commit_after_s": 0.5}),
        ("", ERROR_INSIDE, plays.STREAM, {}),
        ("", plays.status(503, fields="retry-after: 1\r\n"), plays.status(503), {}),
        (SHADOWED, plays.STREAM, CUT, {}),
        (SHADOWED, plays.STREAM, BEGUN, {"deadlines__total_s": 2}),
        (SHADOWED, plays.STREAM, GONE, {}),
    ],
)
@pytest.mark.parametrize("leaves_after_s", [1.25, 100])
async def test_neither_do_those_that_were_hedged_or_tried_again_or_copied(
    routes: str,
    a: plays.Step,
    b: plays.Step,
    flags: dict[str, Any],
    leaves_after_s: float,
    ways: plays.Ways,
    clock: trio.testing.MockClock,
) -> None:
    async with open_house(plays.Both(a, b), file=ways(routes), **flags) as house:

        async def ask() -> None:
            client = house.connect()
            with trio.move_on_after(leaves_after_s):
                await client.post()
                await client.answer()
            client.leave()
            await trio.sleep(20)

        assert await rings_of(house, ask) == set()


ME = "authorization: Bearer me\r\n"
SHARED = ME + "x-trioproxy-share: auto\r\n"


@pytest.mark.parametrize(
    ("script", "headers", "flags"),
    [
        (two_words, SHARED, {}),
        (breaks_off, SHARED, {}),
        (leaves_at_once, SHARED, {}),
        (refuses, SHARED, {}),
        (is_silent, SHARED, {"deadlines__idle_s": 2}),
        (is_silent, SHARED, {"deadlines__total_s": 2}),
        (is_silent, SHARED, {"server__max_streams": 1}),
        (is_silent, SHARED, {"hub__max_total_bytes": 1}),
        (two_words, ME + "x-trioproxy-resume: 2\r\n", {}),
        (is_silent, ME + "x-trioproxy-resume: 2\r\n", {}),
    ],
)
@pytest.mark.parametrize("leaves_after_s", [0.5, 100])
async def test_neither_do_shared_streams_nor_their_readers(
    script: Script, headers: str, flags: dict[str, Any], leaves_after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(script, hub__retain_s=1, **flags) as house:

        async def read() -> None:
            client = house.connect()
            with trio.move_on_after(leaves_after_s):
                await client.post(headers=headers)
                await client.answer()
            client.leave()

        async def ask() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(read)
            await trio.sleep(20)
            assert not house.house.hub.streams

        assert await rings_of(house, ask) == set()


async def test_neither_do_streams_that_were_come_back_to(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(two_words, hub__retain_s=1) as house:

        async def ask() -> None:
            client = house.connect()
            await client.post(headers=ME + "x-trioproxy-resume: 9\r\n")
            stream = (await client.answer()).headers["x-trioproxy-stream"]
            for method, where in (("GET", ""), ("GET", "?after=1"), ("GET", "?after=x"), ("DELETE", "")):
                line = f"{method} /v1/streams/{stream}{where} HTTP/1.1"
                await client.send(f"{line}\r\nhost: proxy\r\n{ME}\r\n".encode())
                await client.answer(method)
            client.leave()
            await trio.sleep(20)

        assert await rings_of(house, ask) == set()
