"""Who was waited for: on origins and clients that are slow by known amounts each side gets what it took."""

from math import isclose
from typing import Any

import pytest
import trio

from tests.harness.house import CHAT, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import OK, Plays, Ways, ask, ask_stream, opened, route, status
from tests.harness.talk import Guest, echo, hosting
from trioproxy.telemetry.record import Record

EVENTS = [content("word")] * 9 + [DONE]


def waited(record: Record) -> tuple[float, float, float]:
    """For origin, client and proxy; together the whole time, to the unit."""
    assert isclose(record.upstream_s + record.client_s + record.proxy_s, record.ended - record.accepted, abs_tol=1e-6)
    return round(record.upstream_s, 6), round(record.client_s, 6), round(record.proxy_s, 6)


def streams(head_s: float = 0, gap_s: float = 0) -> Plays:
    async def stream(visit: Visit) -> None:
        await trio.sleep(head_s)
        await visit.send(OK_STREAM)
        for event in EVENTS:
            await trio.sleep(gap_s)
            await visit.send(chunk(event))
        await visit.send(LAST_CHUNK)

    return Plays(stream)


@pytest.mark.parametrize(("head_s", "gap_s"), [(3, 0), (0, 1), (3, 1), (0.05, 0.02)])
async def test_a_slow_origin_is_the_origin(head_s: float, gap_s: float, clock: trio.testing.MockClock) -> None:
    async with open_house(streams(head_s, gap_s)) as house:
        assert (await ask_stream(house)).is_complete
    assert waited(house.log.records[0]) == (round(head_s + 10 * gap_s, 6), 0, 0)


def sends(*pieces: bytes) -> Plays:
    """An origin that is silent for a second before each piece."""

    async def play(visit: Visit) -> None:
        for piece in pieces:
            await trio.sleep(1)
            await visit.send(piece)

    return Plays(play)


CHAT_WHOLE = b'{"model":"m","messages":[]}'
HALVES = [chunk(EVENTS[0][:9]), chunk(EVENTS[0][9:])]
END = chunk(content("", '"stop"') + DONE) + LAST_CHUNK


@pytest.mark.parametrize(
    ("origin", "body", "headers", "flags"),
    [
        (sends(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", b"a", b"b", b"c"), CHAT_WHOLE, "", {}),
        (sends(OK_STREAM, *HALVES, END), CHAT_WHOLE, "", {}),
        (sends(OK_STREAM, *HALVES, END), CHAT, "x-trioproxy-timing: 1\r\n", {}),
        (sends(OK_STREAM, chunk(b": wait\n\n"), *HALVES, END), CHAT, "", {}),
        (sends(OK_STREAM, *map(chunk, EVENTS), LAST_CHUNK), CHAT, "", {"stream__coalesce_ms": 700}),
        (sends(OK_STREAM, END), CHAT, "", {"stream__commit_before_head_s": 0.3, "stream__heartbeat_s": 0.3}),
    ],
    ids=["whole", "folded", "held for the figures", "a comment first", "joined", "early head"],
)
async def test_whatever_is_made_of_an_answer_its_origin_is_waited_for(
    origin: Plays, body: bytes, headers: str, flags: dict[str, Any], ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(route("aggregate = true")), origin, **flags) as house:
        assert (await ask(house, body, "/v1/chat/completions", headers)).is_complete
    record = house.log.records[0]
    assert waited(record) == (record.ended - record.accepted, 0, 0)
    assert record.ended - record.accepted >= 2


@pytest.mark.parametrize("heartbeat_s", [15, 0.5])
async def test_a_client_that_reads_slowly_is_the_client(heartbeat_s: float, clock: trio.testing.MockClock) -> None:
    async with open_house(streams(head_s=2), lockstep=True, stream__heartbeat_s=heartbeat_s) as house:
        client = house.connect()
        await client.post()
        data, pauses = await client.read_some(), 0
        while not data.endswith(LAST_CHUNK):
            await trio.sleep(3)
            pauses += 1
            data += await client.read_some()
        client.leave()
    assert pauses >= 9
    assert waited(house.log.records[0]) == (2, 3 * pauses, 0)


async def test_both_are_told_apart(clock: trio.testing.MockClock) -> None:
    """The origin's gaps that a client spends reading are the client's: what is here could have gone on."""
    async with open_house(streams(head_s=1, gap_s=2), lockstep=True) as house:
        client = house.connect()
        await client.post()
        data = b""
        while not data.endswith(LAST_CHUNK):
            await trio.sleep(5 if data.count(b"word") == 4 else 0)
            data += await client.read_some()
        client.leave()
    upstream_s, client_s, proxy_s = waited(house.log.records[0])
    assert proxy_s == 0
    assert isclose(client_s, 3, rel_tol=0.05)  # 5 s, of which the first 2 the origin was silent
    assert isclose(upstream_s, 1 + 10 * 2 - 2, rel_tol=0.15)


async def test_a_request_that_comes_slowly_is_the_client(clock: trio.testing.MockClock) -> None:
    async with open_house(streams(head_s=1)) as house:
        client = house.connect()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\ncontent-length: {len(CHAT)}\r\n\r\n"
        await client.send(head.encode())
        for at in range(0, len(CHAT), 10):
            await trio.sleep(1)
            await client.send(CHAT[at : at + 10])
        assert (await client.answer()).is_complete
        client.leave()
    record = house.log.records[0]
    pieces = -(-len(CHAT) // 10)
    assert waited(record) == (1, pieces, 0)
    assert record.read_at is not None and isclose(record.read_at - record.accepted, pieces)
    assert record.permitted_at == record.read_at


async def test_an_upload_that_comes_slowly_is_the_client(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(OK)) as house:
        client = house.connect()
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ncontent-length: 4\r\n\r\n")
        for _ in range(4):
            await trio.sleep(2)
            await client.send(b"x")
        assert (await client.answer()).status == 200
        client.leave()
    assert waited(house.log.records[0]) == (0, 8, 0)


async def test_the_pause_before_another_try_is_ours(ways: Ways, clock: trio.testing.MockClock) -> None:
    late = status(503, fields="retry-after-ms: 1500\r\n")
    async with opened(ways(), Plays(late, OK), late) as house:
        assert (await ask(house)).status == 200
    record = house.log.records[0]
    assert [one.result for one in record.tries] == ["503", "503", "200"]
    assert waited(record) == (0, 0, 1.5)
    assert [one.started - record.accepted for one in record.tries] == [0, 0, 1.5]
    assert [one.ended - record.accepted for one in record.tries] == [0, 0, 1.5]


async def test_the_wait_for_a_free_place_is_ours(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def late(visit: Visit) -> None:
        await trio.sleep(4)
        await visit.send(OK)

    file = ways(a="max_concurrent = 1\nmax_waiting = 5")
    async with opened(file, Plays(late)) as house, trio.open_nursery() as nursery:
        nursery.start_soon(ask, house)
        await trio.sleep(1)
        nursery.start_soon(ask, house)
    assert [waited(record) for record in house.log.records] == [(4, 0, 0), (4, 0, 3)]


async def test_of_two_tries_side_by_side_the_origins_are_waited_for(ways: Ways, clock: trio.testing.MockClock) -> None:
    """The first one fails while the second one runs: that is no pause of ours."""

    async def fails(visit: Visit) -> None:
        await trio.sleep(5)
        visit.cut()

    file = ways(route('targets = [{upstream = "a"}, {upstream = "b"}]', "hedge = {after_s = 2, budget = 1}"))
    async with opened(file, Plays(fails), streams(head_s=8)) as house:
        assert (await ask_stream(house)).is_complete
    record = house.log.records[0]
    assert waited(record) == (10, 0, 0)
    assert [(one.upstream, one.started - record.accepted, one.result) for one in record.tries] == [
        ("a", 0, "upstream_disconnected"),
        ("b", 2, "200"),
    ]


async def test_who_reads_a_shared_stream_waits_for_its_origin(clock: trio.testing.MockClock) -> None:
    shares = "authorization: Bearer x\r\nx-trioproxy-share: auto\r\n"
    async with open_house(streams(head_s=1, gap_s=1)) as house, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask_stream, house, shares)
    produced = house.house.service.recent
    assert [waited(record) for record in house.log.records] == [(11, 0, 0)] * 2
    assert all(record.permitted_at == record.accepted for record in house.log.records)
    (one,) = [one for one in produced.since(trio.current_time() - 20) if one.produced is not None]
    assert waited(one.record) == (11, 0, 0)


async def test_a_client_that_is_silent_on_its_socket_is_the_client(clock: trio.testing.MockClock) -> None:
    async with open_house(streams(head_s=2)) as house:
        guest = Guest(house.connect().stream)
        assert await guest.enter("/v1/stream/ws")
        await trio.sleep(3)
        await guest.send('{"model":"m","messages":[]}')
        await guest.hear_all()
    assert waited(house.log.records[0]) == (2, 3, 0)


async def test_in_a_session_its_origin_is_waited_for(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = Guest(house.connect().stream)
        assert await guest.enter()
        await trio.sleep(5)
        await guest.close()
        await guest.hear()
    assert waited(house.log.records[0]) == (5, 0, 0)


async def test_each_moment_of_a_try_is_noted(clock: trio.testing.MockClock) -> None:
    async with open_house(streams(head_s=3, gap_s=2)) as house:
        await ask_stream(house)
    record = house.log.records[0]
    (one,) = record.tries
    moments = (one.started, one.connected, one.head, one.first_content, one.ended)
    assert [None if at is None else at - record.accepted for at in moments] == [0, 0, 3, 5, 23]
    assert record.last_event_at is not None and record.last_event_at - record.accepted == 23
    assert (record.longest_gap_s, sum(record.gaps or ())) == (2, 9)
