"""Stories of the main job: a client streams through the proxy, and everything ends when it should."""

import json

import trio

from tests.harness.house import open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content

EVENTS = [content("Hel"), content("lo"), content("", '"stop"'), DONE]


async def two_words(visit: Visit) -> None:
    """An origin that streams two words, properly."""
    await visit.read_request()
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await trio.sleep(1)
        await visit.send(chunk(event))
    await visit.send(LAST_CHUNK)


async def test_a_stream_passes_byte_for_byte_and_ends_cleanly(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(two_words) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        assert (answer.status, answer.is_complete) == (200, True)
        assert answer.body == b"".join(EVENTS)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-request-id"] == "req_origin"
        client.leave()
    (exchange,) = house.log.exchanges
    assert (exchange["outcome"], exchange["events"], exchange["model"]) == ("finished", 4, "m")


async def test_each_event_leaves_when_it_came(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(two_words) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        gaps = [round(later - earlier, 3) for earlier, later in zip(answer.times, answer.times[1:], strict=False)]
        assert gaps == [1.0, 1.0, 1.0]
        client.leave()


async def test_a_truncated_stream_gets_an_error_event_and_no_clean_end(autojump_clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(1)
        visit.cut()

    async with open_house(dies) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        assert not answer.is_complete
        assert answer.body.startswith(EVENTS[0])
        error = json.loads(answer.body.removeprefix(EVENTS[0]).removeprefix(b"data: "))
        assert error["error"]["code"] == "upstream_truncated"
        assert b"[DONE]" not in answer.body
        client.leave()


async def test_the_client_leaving_frees_the_origin_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(EVENTS[0]))

    async with open_house(silent) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(5)
        left = trio.current_time()
        client.leave()
        await trio.sleep(1)
        assert house.origin.visits[0].closed == left
    (exchange,) = house.log.exchanges
    assert (exchange["outcome"], exchange["reason"]) == ("cancelled", "client_gone")
