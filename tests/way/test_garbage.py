"""A request that is over leaves next to nothing to the garbage collector, whose pauses stop every stream."""

import gc

import trio

from tests.harness.house import open_house
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Visit, chunk
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
        assert garbage / REQUESTS < 15, f"{garbage / REQUESTS} objects a request"
