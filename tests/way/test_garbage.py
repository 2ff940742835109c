"""A request that is over leaves next to nothing to the garbage collector, whose pauses stop every stream."""

import gc

import pytest
import trio

from tests.harness.house import open_house
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
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
    assert found | (ours & {"builtins.traceback", "builtins.frame"}) == set()
