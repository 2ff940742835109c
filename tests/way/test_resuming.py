"""Stories of streams that go on when their client is gone: who may come back to them, where, and for how long."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk
from tests.harness.plays import Plays, code
from tests.way.test_sharing import CHAT, EVENTS, ME, PATH, RESUMED, WHOLE, ask, get, slowly
from trioproxy.errors import CancelReason


@asynccontextmanager
async def left(house: HouseUnderTest, after_s: float = 2.5, headers: str = RESUMED) -> AsyncIterator[str]:
    """The id of a stream whose client has left."""
    client = house.connect()
    await client.post(CHAT, PATH, headers)
    head = await client.read_some()
    await trio.sleep(after_s)
    client.leave()
    yield head.partition(b"x-trioproxy-stream: ")[2].partition(b"\r\n")[0].decode()


def productions(house: HouseUnderTest) -> list[dict[str, object]]:
    return [line for line in house.log.lines if line["event"] == "stream"]


async def test_the_origin_goes_on_without_a_reader_and_the_rest_is_there(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house) as stream:
        await trio.sleep(20)
        (line,) = productions(house)
        assert (line["outcome"], line["events"]) == ("finished", 7)
        for after in range(8):
            answer = await get(house, f"{stream}?after={after}")
            assert answer.body == b"".join([*EVENTS, DONE][after:])
            assert (answer.status, answer.is_complete) == (200 if after < 7 else 204, True)


async def test_a_stream_goes_on_no_longer_than_the_house_allows(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly, hub__resume_max_s=2) as house, left(house) as stream:
        await trio.sleep(1.9)
        assert (await get(house, stream, method="OPTIONS")).status == 405
        assert not productions(house)
        await trio.sleep(0.2)
        (line,) = productions(house)
        assert (line["outcome"], line["reason"]) == ("cancelled", "abandoned")
        # What came is kept all the same; the end of it is not an honest one.
        answer = await get(house, stream)
        assert (answer.body, answer.is_complete) == (b"".join(EVENTS[:5]), False)
        assert house.log.exchanges[-1]["code"] == "abandoned"
        await trio.sleep(1)
        assert house.origin.visits[0].closed == 5  # when it sent the next event


async def test_one_who_comes_back_in_time_keeps_it_alive(clock: trio.testing.MockClock) -> None:
    resumed = ME + "x-trioproxy-resume: 2\r\n"
    async with open_house(slowly) as house, left(house, 1.5, resumed) as stream:
        await trio.sleep(1.5)
        client = house.connect()
        await client.send(f"GET /v1/streams/{stream}?after=1 HTTP/1.1\r\nhost: proxy\r\n{ME}\r\n".encode())
        await trio.sleep(1)
        client.leave()
        await trio.sleep(1.5)
        answer = await get(house, stream)
        assert (answer.body, answer.is_complete) == (WHOLE, True)
    assert len(productions(house)) == 1


@pytest.mark.parametrize("retain_s", [0, 5])
async def test_an_ended_stream_is_kept_for_its_time(retain_s: int, clock: trio.testing.MockClock) -> None:
    async with open_house(slowly, hub__retain_s=retain_s) as house, left(house) as stream:
        await trio.sleep(3.4 + retain_s)  # it ends at 6
        assert (await get(house, stream)).status == 200
        await trio.sleep(1)
        answer = await get(house, stream)
        assert (answer.status, code(answer)) == (404, "stream_not_found")
        assert house.house.hub.held_bytes == 0


async def test_a_reader_may_take_longer_than_its_stream_is_kept(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly), lockstep=True, hub__retain_s=1, deadlines__client_stall_s=100) as house:
        client = house.connect()
        await client.post(CHAT, PATH, RESUMED)
        await trio.sleep(30)
        assert not house.house.hub.streams
        answer = await client.answer()
        assert (answer.body, answer.is_complete) == (WHOLE, True)
        client.leave()


async def test_a_position_that_is_gone_says_what_is_still_there(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly, hub__max_events=3) as house, left(house) as stream:
        await trio.sleep(2)
        answer = await get(house, stream)
        assert (answer.status, code(answer)) == (410, "position_gone")
        assert "still 3 to 5" in json.loads(answer.body)["error"]["message"]
        await trio.sleep(10)
        assert (await get(house, stream + "?after=3")).status == 410
        answer = await get(house, stream + "?after=4")
        assert answer.body == b"".join([*EVENTS, DONE][4:])
        assert (await get(house, stream + "?after=7")).status == 204


@pytest.mark.parametrize(
    "position",
    ["?after=", "?after=-1", "?after=x", "?after=1.5.2", "?after=1&after=2", "?after=9999999999999999", "?after=4"],
)
async def test_a_position_that_makes_no_sense_is_refused(position: str, clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house) as stream:  # it has 3 events
        answer = await get(house, stream + position)
        assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, "after")
        await house.house.service.studio.stop(house.house.hub.streams[0])


async def test_an_event_s_id_belongs_to_its_stream(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, left(house) as stream, left(house, 10) as other:
        assert stream != other
        for last in (f"{other}.1", "x", f"{stream}.", f"{stream}.-1"):
            answer = await get(house, stream, ME + f"last-event-id: {last}\r\n")
            assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, "last-event-id")
        for last in (f"{stream}.5", "5"):
            answer = await get(house, stream + "?after=1", ME + f"last-event-id: {last}\r\n")
            ids = [line for line in answer.body.split(b"\n") if line.startswith(b"id: ")]
            assert ids == [f"id: {stream}.{number}".encode() for number in (6, 7)]
        # An EventSource that has got no event yet sends none, or an empty one.
        answer = await get(house, stream + "?after=5", ME + "last-event-id: \r\n")
        assert answer.body == EVENTS[5] + DONE


async def test_nobody_else_can_read_or_stop_it(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house) as stream:
        for headers in ("", "authorization: Bearer other\r\n", "x-api-key: me\r\n"):
            for method in ("GET", "DELETE"):
                answer = await get(house, stream, headers, method)
                assert (answer.status, code(answer)) == (404, "stream_not_found")
        for strange in (stream[:-1], stream + "x", "", "%2e%2e", "x" * 5000):
            assert (await get(house, strange)).status in (404, 400)
        assert (await get(house, stream)).body == WHOLE


async def test_who_shows_no_credentials_comes_back_by_the_id_alone(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house, headers="x-trioproxy-resume: 9\r\n") as stream:
        assert (await get(house, stream)).status == 404
        assert (await get(house, stream, "")).body == WHOLE


async def test_stopping_may_be_repeated_and_what_came_stays(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house) as stream:
        for _ in range(2):
            assert (await get(house, stream, method="DELETE")).status == 204
        answer = await get(house, stream)
        assert answer.body.startswith(b"".join(EVENTS[:3])) and not answer.is_complete
        assert answer.body.count(b"stream_stopped") == 1
        assert (await get(house, stream + "?after=4")).status == 204
        await trio.sleep(1)
        assert house.origin.visits[0].closed is not None
        (line,) = productions(house)
        assert (line["outcome"], line["code"]) == ("failed", "stream_stopped")


async def test_stopping_an_ended_stream_changes_nothing(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house, 10) as stream:
        assert (await get(house, stream, method="DELETE")).status == 204
        assert (await get(house, stream)).body == WHOLE


async def test_a_drain_ends_what_nobody_reads(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house, left(house):
        house.house.service.stop_all(CancelReason.DRAIN)
        await trio.sleep(1)
        (line,) = productions(house)
        assert (line["code"], line["total_ms"]) == ("draining", 2500)
        assert house.origin.visits[0].closed is not None


async def test_no_stream_begins_or_hangs_when_the_house_has_closed_its_hub(clock: trio.testing.MockClock) -> None:
    async def is_silent(visit: Visit) -> None:
        await visit.read_request()

    async with open_house(is_silent) as house:
        async with trio.open_nursery() as nursery:

            async def wait_for_a_head() -> None:
                answer = await ask(house, RESUMED)
                assert (answer.status, code(answer)) == (500, "internal_error")
                assert trio.current_time() == 1

            nursery.start_soon(wait_for_a_head)
            await trio.sleep(1)
            house.house.hub.stop()
        answer = await ask(house, RESUMED)
        assert (answer.status, code(answer)) == (503, "hub_full")


async def test_a_stream_s_whole_time_counts_without_a_reader_too(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly, deadlines__total_s=4.5) as house, left(house) as stream:
        await trio.sleep(10)
        (line,) = productions(house)
        assert (line["code"], line["deadline"]) == ("upstream_total_timeout", "total")
        answer = await get(house, stream)
        assert b"upstream_total_timeout" in answer.body and not answer.is_complete


async def test_an_origin_without_a_final_event_is_no_honest_end_for_one_who_comes_back(
    clock: trio.testing.MockClock,
) -> None:
    async def stops(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(5)
        await visit.send(LAST_CHUNK)

    async with open_house(stops) as house, left(house) as stream:
        answer = await get(house, stream)
        assert b"upstream_truncated" in answer.body and not answer.is_complete
