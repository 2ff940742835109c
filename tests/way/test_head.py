"""When the head goes out: held for the first event, so that an error there becomes a status, but not for too long."""

import json

import pytest
import trio

from tests.harness.house import open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content

WORD = content("word")

ERRORS = [
    ("/v1/chat/completions", b'data: {"error":{"message":"slow down","code":429}}\n\n', 429),
    ("/v1/chat/completions", b'data: {"error":{"message":"slow down","type":"rate_limit_error"}}\n\n', 429),
    ("/v1/chat/completions", b'data: {"error":{"message":"too long","code":"context_length_exceeded"}}\n\n', 400),
    ("/v1/chat/completions", b'data: {"error":"it broke"}\n\n', 502),
    ("/v1/completions", b'data: {"error":{"message":"no","code":"404"}}\n\n', 404),
    ("/v1/responses", b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"no"}\n\n', 429),
    ("/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n', 503),
]


def says_in_a_200(first: bytes, *later: bytes) -> Script:
    async def origin(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        for data in (first, *later):
            await trio.sleep(1)
            await visit.send(chunk(data))
        await visit.send(LAST_CHUNK)

    return origin


@pytest.mark.parametrize(("path", "event", "status"), ERRORS)
@pytest.mark.parametrize("comment", [b"", b": comes from afar\n\n"])
async def test_an_error_in_the_first_event_becomes_the_status(
    path: str, event: bytes, status: int, comment: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(says_in_a_200(comment + event)) as house:
        client = house.connect()
        await client.post(path=path)
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.is_complete) == (status, True)
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == event.partition(b"data: ")[2].strip()
    assert json.loads(answer.body)


async def test_an_error_in_a_later_event_is_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    error = b'data: {"error":{"message":"broke","code":500}}\n\n'
    async with open_house(says_in_a_200(WORD, error)) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.status == 200 and answer.body.startswith(WORD + error) and not answer.is_complete


async def test_the_head_goes_out_alone_when_the_first_event_is_late(autojump_clock: trio.testing.MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        await trio.sleep(100)
        await visit.send(chunk(WORD + DONE) + LAST_CHUNK)

    async with open_house(thinks, stream__commit_after_s=10, stream__heartbeat_s=15) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        head = await client.read_some()
        assert head.startswith(b"HTTP/1.1 200") and head.endswith(b"\r\n\r\n")
        assert trio.current_time() - start == pytest.approx(10)
        rest = await client.read_some()
        assert b": keep-alive\n\n" in rest and trio.current_time() - start == pytest.approx(25)
        await trio.sleep(80)
        client.leave()


async def test_head_and_first_event_leave_together(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(says_in_a_200(WORD, DONE)) as house:
        client = house.connect()
        await client.post()
        first = await client.read_some()
        assert first.startswith(b"HTTP/1.1 200") and WORD in first
        await trio.sleep(2)
        client.leave()


async def test_an_errors_own_event_stream_passes_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async def rejects(visit: Visit) -> None:
        await visit.read_request()
        body = b'data: {"error":{"message":"slow down"}}\n\n'
        head = b"HTTP/1.1 429 Slow\r\ncontent-type: text/event-stream\r\nretry-after: 7\r\ncontent-length: %d\r\n\r\n"
        await visit.send(head % len(body) + body)

    async with open_house(rejects) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.is_complete, answer.headers["retry-after"]) == (429, True, "7")


async def test_a_compressed_stream_is_passed_raw(autojump_clock: trio.testing.MockClock) -> None:
    async def compresses(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + chunk(b"\x1f\x8b zzz"))
        await trio.sleep(100)
        await visit.send(chunk(b"more") + LAST_CHUNK)

    async with open_house(compresses) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.is_complete and answer.body == b"\x1f\x8b zzzmore"
    assert house.log.exchanges[0]["encoded_stream"] is True


async def test_a_client_that_asks_for_a_stream_makes_us_ask_for_no_compression(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked: list[bytes] = []

    async def listens(visit: Visit) -> None:
        asked.append(await visit.read_request())
        await visit.send(OK_STREAM + chunk(WORD + DONE) + LAST_CHUNK)

    async with open_house(listens) as house:
        client = house.connect()
        await client.post(headers="accept-encoding: gzip, br\r\n")
        await client.answer()
        client.leave()
    assert b"accept-encoding: identity\r\n" in asked[0] and b"gzip" not in asked[0]
