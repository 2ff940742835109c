"""Clients that are slow, many, or half gone: each is bounded in time and number, and told so where it can be."""

import json

import pytest
import trio

from tests.harness.house import Answer, Client, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from trioproxy.server.overload import MAX_TOLD

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
UPLOAD = b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ncontent-length: 10\r\n\r\n"
HELD = b"POST /v1/embeddings HTTP/1.1\r\nhost: proxy\r\ncontent-length: 13\r\n\r\n"
BODY = b'{"model":"m"}'


async def answers(visit: Visit) -> None:
    """Answers every request."""
    while True:
        await visit.read_request()
        await visit.send(WHOLE)


async def mute(visit: Visit) -> None:
    """Reads, and never answers."""
    await visit.wait_left()


def refusal(answer: Answer) -> tuple[int, str]:
    """An error's status and code."""
    return answer.status, json.loads(answer.body)["error"]["code"]


async def drip(client: Client, data: bytes, pause_s: float) -> None:
    """Send byte by byte, until the proxy has enough of it."""
    try:
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(pause_s)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


# header_s


async def test_a_head_that_comes_byte_by_byte_is_given_up_when_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(answers) as house, trio.open_nursery() as nursery:
        client = house.connect()
        nursery.start_soon(drip, client, b"GET /v1/models HTTP/1.1\r\nx: " + b"y" * 1000, 1.0)
        answer = await client.answer()
        assert trio.current_time() == pytest.approx(10)
        assert refusal(answer) == (408, "request_timeout") and answer.headers["connection"] == "close"
        assert await client.read_raw() == b""
        client.leave()
        nursery.cancel_scope.cancel()
    assert [line["code"] for line in house.log.lines if line["event"] == "request refused"] == ["request_timeout"]


async def test_a_connection_that_says_nothing_is_closed_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers, server__header_s=3) as house:
        client = house.connect()
        assert await client.read_raw() == b""
        assert trio.current_time() == pytest.approx(3)
        assert house.log.lines == []


async def test_the_time_of_a_first_head_runs_from_the_connection_s_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(answers) as house:
        client = house.connect()
        await trio.sleep(9)
        await client.send(HELD[:10])
        assert (await client.answer()).status == 408
        assert trio.current_time() == pytest.approx(10)
        client.leave()


async def test_the_time_of_a_later_head_runs_from_its_first_byte(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers, server__keep_alive_s=75) as house:
        client = house.connect()
        await client.send(HELD + BODY)
        assert (await client.answer()).status == 200
        await trio.sleep(74)  # idle is another clock
        start = trio.current_time()
        await client.send(HELD[:10])
        await trio.sleep(9)
        await client.send(HELD[10:] + BODY)
        assert (await client.answer()).status == 200
        await client.send(HELD[:10])
        assert refusal(await client.answer()) == (408, "request_timeout")
        assert trio.current_time() - start == pytest.approx(9 + 10)
        client.leave()


async def test_a_line_end_behind_a_request_is_not_the_begin_of_a_head(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers, server__keep_alive_s=75) as house:
        client = house.connect()
        await client.send(HELD + BODY)
        assert (await client.answer()).status == 200
        await client.send(b"\r\n")  # as old clients do
        await trio.sleep(70)
        await client.send(HELD + BODY)
        assert (await client.answer()).status == 200
        client.leave()


async def test_a_head_that_began_behind_a_request_has_its_time_from_that_one_s_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(60)
        await visit.send(WHOLE)

    async with open_house(slow) as house:
        client = house.connect()
        await client.send(HELD + BODY + HELD[:10])
        data = b""
        while b"\r\n\r\n{}" not in data:
            data += await client.read_some()
        assert trio.current_time() == pytest.approx(60)
        data = await client.read_raw()
        assert data.startswith(b"HTTP/1.1 408") and trio.current_time() == pytest.approx(70)
        client.leave()


# body_idle_s


@pytest.mark.parametrize("head", [HELD, UPLOAD], ids=["held", "streamed"])
async def test_a_body_that_stops_coming_is_given_up(head: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.send(head + b"{")
        await trio.sleep(20)
        await client.send(b'"')
        answer = await client.answer()
        assert trio.current_time() == pytest.approx(20 + 30)
        assert refusal(answer) == (408, "request_timeout") and answer.headers["connection"] == "close"
        assert house.origin.still_open == 0
        client.leave()
    assert [line["code"] for line in house.log.exchanges] == ["request_timeout"]


async def test_the_rest_of_a_chunked_body_is_waited_for_in_the_same_way(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        assert refusal(await client.answer()) == (408, "request_timeout")
        assert trio.current_time() == pytest.approx(30)
        client.leave()


async def test_a_body_of_one_byte_at_a_time_is_bounded_by_the_whole_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(mute, deadlines__total_s=100) as house, trio.open_nursery() as nursery:
        client = house.connect()
        await client.send(HELD)
        nursery.start_soon(drip, client, BODY, 29.0)
        assert refusal(await client.answer()) == (408, "request_timeout")
        assert trio.current_time() == pytest.approx(100)
        client.leave()
        nursery.cancel_scope.cancel()


async def test_an_origin_that_is_slow_to_take_an_upload_is_not_the_client_s_doing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit.received:
            visit.received += await visit.stream.receive_some(1)
        for _ in range(10):
            await trio.sleep(25)
            await visit.stream.receive_some(1)
        await visit.send(WHOLE)

    async with open_house(slow, lockstep=True) as house:
        client = house.connect()
        await client.send(UPLOAD)
        for _ in range(10):
            await client.send(b"x")
        assert (await client.answer()).status == 200
        assert trio.current_time() == pytest.approx(250)
        client.leave()


async def test_a_client_that_waits_to_be_asked_has_its_time_from_then(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.send(HELD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
        answer = await client.answer()
        assert refusal(answer) == (408, "request_timeout") and trio.current_time() == pytest.approx(30)
        client.leave()


async def test_an_upload_that_stops_under_an_answer_cuts_it(autojump_clock: trio.testing.MockClock) -> None:
    async def early(visit: Visit) -> None:
        await visit._read()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        await visit.send(chunk(b"so far"))

    async with open_house(early) as house:
        client = house.connect()
        await client.send(UPLOAD + b"12")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.is_complete) == (200, b"so far", False)
        assert trio.current_time() == pytest.approx(30) and house.origin.still_open == 0
        client.leave()


async def test_a_request_whose_body_is_whole_waits_for_its_answer_as_long_as_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(visit: Visit) -> None:
        while True:
            await visit.read_request()
            await trio.sleep(300)
            await visit.send(WHOLE)

    async with open_house(slow) as house:
        for head in (HELD + BODY, UPLOAD + b"0123456789"):
            client = house.connect()
            await client.send(head)
            assert (await client.answer()).status == 200
            client.leave()


# max_connections


async def test_a_connection_too_many_is_answered_at_once_and_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers, server__max_connections=2) as house:
        first, second = house.connect(), house.connect()
        await trio.testing.wait_all_tasks_blocked()
        third = house.connect()
        answer = await third.answer()
        assert refusal(answer) == (503, "overloaded") and answer.is_complete
        assert answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"].startswith("req_")
        assert await third.read_raw() == b"" and trio.current_time() == 0
        await second.send(HELD + BODY)
        assert (await second.answer()).status == 200
        first.leave()
        await trio.testing.wait_all_tasks_blocked()
        fourth = house.connect()
        await fourth.send(HELD + BODY)
        assert (await fourth.answer()).status == 200
        for client in (second, third, fourth):
            client.leave()
    assert house.house.listener.overflow.turned_away == 1


async def test_those_that_are_told_are_let_go_soon_and_only_so_many_are_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(answers, server__max_connections=1) as house:
        kept = house.connect()
        await trio.testing.wait_all_tasks_blocked()
        clients = [house.connect() for _ in range(MAX_TOLD + 50)]
        await trio.testing.wait_all_tasks_blocked()
        told = [data for data in [await client.read_some() for client in clients] if data]
        assert len(told) == MAX_TOLD and all(data.startswith(b"HTTP/1.1 503 ") for data in told)
        for client in clients:  # they stay, and go on sending
            try:
                await client.send(HELD + BODY)
            except trio.BrokenResourceError:
                pass
        await trio.sleep(2.5)
        assert {await ended(client) for client in clients} == {True}
        kept.leave()
    lines = [line for line in house.log.lines if line["event"] == "too many connections"]
    assert [line["limit"] for line in lines] == [1]


async def ended(client: Client) -> bool:
    """Whether the proxy has closed its end: a send fails."""
    try:
        await client.send(b"x")
    except trio.BrokenResourceError:
        return True
    return False


# half_close


async def streams(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    for piece in (content("a"), content("b"), DONE):
        await trio.sleep(5)
        await visit.send(chunk(piece))
    await visit.send(LAST_CHUNK)


async def end_of_file(client: Client) -> None:
    """Send a FIN, and go on reading."""
    assert isinstance(client.stream, trio.abc.HalfCloseableStream)
    await client.stream.send_eof()


async def test_an_end_of_file_is_a_departure(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams) as house:
        client = house.connect()
        await client.post()
        await trio.sleep(7)
        await end_of_file(client)
        answer = await client.answer()
        assert not answer.is_complete and trio.current_time() == pytest.approx(7)
    assert house.log.exchanges[0]["reason"] == "client_gone"


async def test_with_keep_the_answer_is_delivered_and_the_connection_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(streams, server__half_close="keep") as house:
        client = house.connect()
        await client.post()
        await end_of_file(client)
        answer = await client.answer()
        assert answer.is_complete and answer.body.endswith(DONE)
        assert await client.read_raw() == b"" and trio.current_time() == pytest.approx(15)
    assert house.log.exchanges[0]["outcome"] == "finished"


async def test_with_keep_every_request_that_came_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers, server__half_close="keep") as house:
        client = house.connect()
        await client.send(3 * (HELD + BODY) + HELD[:20])
        await end_of_file(client)
        assert (await client.read_raw()).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("sent", [HELD, HELD + BODY[:5], UPLOAD + b"12345", HELD[:10]])
async def test_with_keep_a_request_without_its_end_is_gone(sent: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, server__half_close="keep") as house:
        client = house.connect()
        await client.send(sent)
        await end_of_file(client)
        assert await client.read_raw() == b"" and trio.current_time() == 0


async def test_with_keep_a_client_that_takes_nothing_any_more_is_noticed_by_the_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(streams, server__half_close="keep") as house:
        client = house.connect()
        await client.post()
        await trio.sleep(1)
        client.leave()
        await trio.sleep(5)
        [line] = house.log.exchanges
        assert line["reason"] == "client_gone" and line["total_ms"] == pytest.approx(5000, abs=1)


# trusted_proxies


async def logged_client(house: HouseUnderTest, fields: bytes) -> str:
    client = house.connect()
    await client.send(HELD.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n\r\n") + BODY)
    assert (await client.answer()).status == 200
    client.leave()
    await trio.testing.wait_all_tasks_blocked()
    return str(house.log.exchanges[-1]["client"])


async def test_the_log_takes_a_client_s_address_from_a_trusted_peer_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = b"x-forwarded-for: 203.0.113.9, 198.51.100.4"
    received = []

    async def origin(visit: Visit) -> None:
        while True:
            received.append(await visit.read_request())
            await visit.send(WHOLE)

    async with open_house(origin) as house:
        assert await logged_client(house, told) == "192.0.2.7"
    async with open_house(origin, server__trusted_proxies=["192.0.2.0/24"]) as house:
        assert await logged_client(house, told) == "198.51.100.4"
        assert await logged_client(house, b"forwarded: for=198.51.100.5") == "198.51.100.5"
        assert await logged_client(house, b"x-forwarded-for: nonsense") == "192.0.2.7"
    assert len(received) == 4 and not any(b"forwarded" in request for request in received)
