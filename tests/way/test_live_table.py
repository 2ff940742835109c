"""Stories of requests that are seen while they run, and of those that an operator stops."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Plays
from trioproxy.telemetry.recent import KEPT_S
from trioproxy.wire.live_table import EndedRow, Row

CHAT = b'{"model":"m","messages":[],"stream":true}'
PATH = "/v1/chat/completions"
ME = "authorization: Bearer me\r\n"


async def slowly(visit: Visit) -> None:
    """The head after two seconds, content a second later, and an event in a second ten times."""
    await trio.sleep(2)
    await visit.send(OK_STREAM)
    await trio.sleep(1)
    for number in range(10):
        await visit.send(chunk(content(f"word{number}")))
        await trio.sleep(1)
    await visit.send(chunk(DONE) + LAST_CHUNK)


async def rows(house: HouseUnderTest) -> list[Row]:
    return (await house.house.board.told(None)).rows


async def row(house: HouseUnderTest) -> Row:
    [found] = await rows(house)
    return found


async def ended(house: HouseUnderTest) -> list[EndedRow]:
    await trio.testing.wait_all_tasks_blocked()
    return (await house.house.board.told(0)).ended


async def ask(house: HouseUnderTest, headers: str = "", body: bytes = CHAT) -> Answer:
    client = house.connect()
    await client.post(body, PATH, headers)
    answer = await client.answer()
    client.leave()
    return answer


class Asking:
    """A request that is answered beside the story."""

    def __init__(self, nursery: trio.Nursery, house: HouseUnderTest, headers: str = "") -> None:
        self.answer = Answer()
        nursery.start_soon(self._ask, house, headers)

    async def _ask(self, house: HouseUnderTest, headers: str) -> None:
        self.answer = await ask(house, headers)


async def test_a_request_is_seen_in_each_of_its_phases(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        client = house.connect()
        head = f"POST {PATH} HTTP/1.1\r\nhost: proxy\r\ncontent-length: {len(CHAT)}\r\n\r\n"
        await client.send(head.encode() + CHAT[:5])
        await trio.sleep(0.5)
        found = await row(house)
        assert (found.phase, found.blocked_on, found.blocked_s, found.model) == ("reading", "client", 0.5, None)
        await client.send(CHAT[5:])
        await trio.sleep(1)
        found = await row(house)
        assert (found.phase, found.blocked_on, found.model, found.streaming) == ("waiting", "upstream", "m", True)
        assert (found.client_s, found.upstream_s, found.upstream, found.attempts) == (0.5, 1.0, "origin", 1)
        await trio.sleep(1.5)
        assert (await row(house)).phase == "thinking"
        nursery.start_soon(client.answer)
        await trio.sleep(4)
        found = await row(house)
        assert (found.phase, found.first_content_s, found.events, found.endpoint) == ("flowing", 3.5, 4, "chat")
        assert found.bytes > 200 and found.client == "192.0.2.7"
        await trio.sleep(2)
        assert (await row(house)).rate == 1.0
        await trio.sleep(10)
        assert await rows(house) == []
        [last] = await ended(house)
        assert (last.id, last.phase, last.outcome, last.status, last.events) == (found.id, "ended", "finished", 200, 11)
        assert last.upstream_s + last.client_s + last.proxy_s == pytest.approx(last.age_s, abs=0.002)
        client.leave()


async def test_who_is_waited_for_is_shown_while_a_client_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async def flood(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        for _ in range(1000):
            await visit.send(chunk(content("x" * 1000)))

    async with open_house(Plays(flood), lockstep=True) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(12)
        found = await row(house)
        assert (found.phase, found.blocked_on) == ("flowing", "client")
        assert found.blocked_s == pytest.approx(12, abs=0.1)
        client.leave()


async def test_an_operator_stops_a_stream_and_its_client_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        asking = Asking(nursery, house)
        await trio.sleep(5)
        board = house.house.board
        assert board.stop("req_none", "") == 0
        assert board.stop((await row(house)).id, "x" * 1000) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert asking.answer.body.endswith(b'"code":"stream_stopped"}}\n\n')
        assert b"[DONE]" not in asking.answer.body and not asking.answer.is_complete
        [line] = house.log.exchanges
        assert (line["outcome"], line["code"], line["reason"]) == ("failed", "stream_stopped", "stopped_by_admin")
        assert line["stopped_because"] == "x" * 200


async def test_one_that_waits_for_its_upstream_is_stopped_with_a_status(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        asking = Asking(nursery, house)
        await trio.sleep(1)
        assert house.house.board.stop((await row(house)).id, "") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert (asking.answer.status, asking.answer.is_complete) == (503, True)
        assert b"stream_stopped" in asking.answer.body
        [line] = house.log.exchanges
        assert line["reason"] == "stopped_by_admin" and "stopped_because" not in line


async def test_one_whose_body_is_still_coming_is_stopped_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house:
        client = house.connect()
        head = f"POST {PATH} HTTP/1.1\r\nhost: proxy\r\ncontent-length: {len(CHAT)}\r\n\r\n"
        await client.send(head.encode() + CHAT[:5])
        await trio.sleep(1)
        assert house.house.board.stop((await row(house)).id, "") == 1
        began = trio.current_time()
        answer = await client.answer()
        assert (answer.status, trio.current_time()) == (503, began)
        assert b"stream_stopped" in answer.body
        client.leave()
        await trio.testing.wait_all_tasks_blocked()
        [line] = house.log.exchanges
        assert (line["code"], line["reason"]) == ("stream_stopped", "stopped_by_admin")


async def test_one_that_does_not_read_is_stopped_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    async def flood(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        for _ in range(1000):
            await visit.send(chunk(content("x" * 1000)))

    async with open_house(Plays(flood), lockstep=True) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(2)
        assert house.house.board.stop((await row(house)).id, "") == 1
        await trio.sleep(1)
        [line] = house.log.exchanges
        assert line["reason"] == "stopped_by_admin"
        client.leave()


async def test_a_shared_stream_is_a_row_beside_those_of_its_readers(autojump_clock: trio.testing.MockClock) -> None:
    shared = ME + "x-trioproxy-share: auto\r\nx-request-id: mine\r\n"
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        readers = []
        for _ in range(3):
            readers.append(Asking(nursery, house, shared))
            await trio.sleep(0.1)
        await trio.sleep(5.2)
        found = await rows(house)
        assert len({one.id for one in found}) == 4
        [produced] = [one for one in found if one.subscribers]
        assert (produced.subscribers, produced.events) == (3, 3)
        assert {one.stream for one in found} == {produced.stream}
        assert [one.events for one in found if one is not produced] == [3, 3, 3]
        assert house.house.board.stop(produced.id, "") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert all(b"stream_stopped" in one.answer.body for one in readers)
        last = {one.id: one for one in await ended(house)}
        assert last.keys() == {one.id for one in found}
        assert last[produced.id].reason == "stopped_by_admin"


async def test_a_reader_is_stopped_and_the_others_read_on(autojump_clock: trio.testing.MockClock) -> None:
    shared = ME + "x-trioproxy-share: auto\r\n"
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        readers = [Asking(nursery, house, shared) for _ in range(2)]
        await trio.sleep(5.5)
        one = next(found for found in await rows(house) if not found.subscribers)
        assert house.house.board.stop(one.id, "") == 1
        await trio.sleep(20)
        assert sorted(reader.answer.is_complete for reader in readers) == [False, True]


@pytest.mark.parametrize("request_id", ["req_1", "../admin/keys?x=%00&y", '"><script>', "a~b", "x" * 128])
async def test_a_client_s_own_id_is_shown_in_a_form_that_may_stand_in_a_url(
    autojump_clock: trio.testing.MockClock, request_id: str
) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        for _ in range(2):
            Asking(nursery, house, f"x-request-id: {request_id}\r\n")
            await trio.sleep(0.5)
        found = await rows(house)
        assert len({one.id for one in found}) == 2  # the same id twice, as a client sends it that tries again
        for one in found:
            assert set(one.id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-~")
            assert house.house.board.shown(one.id)["stream"]["id"] == one.id
        assert house.house.board.stop(request_id, "") == 2
    assert {line["reason"] for line in house.log.exchanges} == {"stopped_by_admin"}


@pytest.mark.parametrize("model", ['\\"><script>alert(1)</script>', "m" * 10_000])
async def test_a_model_s_name_is_shown_cut_and_as_it_came(autojump_clock: trio.testing.MockClock, model: str) -> None:
    body = b'{"model":"%b","messages":[],"stream":true}' % model.encode()
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        nursery.start_soon(ask, house, "", body)
        await trio.sleep(1)
        assert (await row(house)).model == model.replace("\\", "")[:200]
        await trio.sleep(20)
        [last] = await ended(house)
        assert last.model == model.replace("\\", "")[:200]


async def test_one_request_is_shown_with_its_tries_and_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        Asking(nursery, house)
        await trio.sleep(5.5)
        row_id = (await row(house)).id
        live = house.house.board.shown(row_id)
        [tried] = live["tries"]
        assert (tried["upstream"], tried["started"], tried["head"], tried["first_content"]) == ("origin", 0, 2, 3)
        assert (tried["ended"], tried["result"]) == (None, None)
        assert sum(lasted for _, _, lasted in live["timeline"]) == pytest.approx(5.5)
        assert {on for _, on, _ in live["timeline"]} == {"upstream"}
        await trio.sleep(10)
        over = house.house.board.shown(row_id)
        assert over["stream"]["outcome"] == "finished"
        assert (over["tries"][0]["ended"], over["tries"][0]["result"]) == (13, "200")
        assert [tuple(turn) for turn in over["timeline"]][:1] == [(0, "upstream", 2)]
        await trio.sleep(KEPT_S)
        assert house.house.board.shown(row_id) == {}


async def test_what_has_ended_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house:
        first = await house.house.board.told(None)
        assert (first.rows, first.ended, first.last) == ([], [], 0)
        await ask(house)
        await trio.testing.wait_all_tasks_blocked()
        second = await house.house.board.told(first.last)
        assert (len(second.ended), second.last) == (1, 1)
        assert (await house.house.board.told(second.last)).ended == []


async def test_many_rows_are_made_in_several_steps(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly)) as house, trio.open_nursery() as nursery:
        for _ in range(600):
            Asking(nursery, house)
        await trio.sleep(1)
        turns = await _turns_of_another_task(lambda: rows(house))
        assert turns


async def _turns_of_another_task(work: Callable[[], Awaitable[Any]]) -> int:
    """How often another task gets its turn while this is done."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        turns = 0
        await work()
        nursery.cancel_scope.cancel()
    return turns
