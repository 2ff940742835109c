"""Stories of streams that are produced on one replica and read on another. The store is the one for one process, which
keeps the same contract as Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import DONE, OK_STREAM, Visit, chunk
from tests.harness.plays import Plays, code
from tests.way.test_sharing import CHAT, EVENTS, ME, PATH, RESUMED, SHARED, WHOLE, ask, get, slowly, together
from trioproxy.state.memory import MemoryStore
from trioproxy.state.streams import Limits, StateUnavailable

LIMITS = Limits(lease_s=4, retain_s=60)


class Store(MemoryStore):
    """A store that can be away: then nobody gets an answer."""

    is_away = False

    async def _answer(self) -> None:
        if self.is_away:
            await trio.sleep(1)
            raise StateUnavailable("away")

    async def claim(self, record, share_key):  # type: ignore[no-untyped-def]
        await self._answer()
        return await super().claim(record, share_key)

    async def append(self, stream_id, first, events):  # type: ignore[no-untyped-def]
        await self._answer()
        await super().append(stream_id, first, events)

    async def look(self, stream_id):  # type: ignore[no-untyped-def]
        await self._answer()
        return await super().look(stream_id)

    async def read(self, positions):  # type: ignore[no-untyped-def]
        await self._answer()
        return await super().read(positions)

    async def renew(self, stream_ids):  # type: ignore[no-untyped-def]
        await self._answer()
        return await super().renew(stream_ids)


class Two:
    """Two replicas of one service, with one origin each; `plays` counts what both are asked."""

    def __init__(self, a: HouseUnderTest, b: HouseUnderTest, store: Store, plays: Plays) -> None:
        self.a, self.b, self.store, self.plays = a, b, store, plays


@asynccontextmanager
async def two(script: object = slowly) -> AsyncIterator[Two]:
    store, plays = Store(LIMITS), Plays(script)  # type: ignore[arg-type]
    async with open_house(plays, store=store) as a:
        await trio.testing.wait_all_tasks_blocked()  # each counts what begins in it
        async with open_house(plays, store=store) as b:
            yield Two(a, b, store, plays)
            await trio.sleep(10)  # also the other's are counted
            a.house.pool.close_expired()


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def first(house: HouseUnderTest, headers: str, leave_s: float) -> str:
    """Begin a stream, leave, and return its id."""
    client = house.connect()
    await client.post(CHAT, PATH, headers)
    head = await client.read_some()
    await trio.sleep(leave_s)
    client.leave()
    return head.partition(b"x-trioproxy-stream: ")[2].partition(b"\r\n")[0].decode()


async def test_a_stream_is_shared_by_readers_of_all_replicas(clock: trio.testing.MockClock) -> None:
    async with two() as both:
        answers = await together(
            lambda: ask(both.a), lambda: ask(both.b, wait_s=1.5), lambda: ask(both.b, wait_s=3.5), lambda: ask(both.a)
        )
        assert [answer.body for answer in answers] == [WHOLE] * 4
        assert all(answer.is_complete for answer in answers)
        assert len({answer.headers["x-trioproxy-stream"] for answer in answers}) == 1
    assert len(both.plays.got) == 1


async def test_it_comes_over_as_it_is_made(clock: trio.testing.MockClock) -> None:
    async with two() as both:
        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=0.5))
        late = [there - here for here, there in zip(answers[0].times[1:], answers[1].times[1:], strict=False)]
        assert max(map(abs, late)) < 0.5


async def test_a_stream_is_resumed_on_another_replica(clock: trio.testing.MockClock) -> None:
    async with two() as both:
        stream = await first(both.a, RESUMED, 2.5)
        answer = await get(both.b, stream + "?after=2")
        assert (answer.status, answer.is_complete, answer.body) == (200, True, b"".join(EVENTS[2:]) + DONE)
        await trio.sleep(20)
        assert (await get(both.b, stream + "?after=5")).body == EVENTS[5] + DONE
        assert (await get(both.b, stream + "?after=7")).status == 204
        strange = await get(both.b, stream, "authorization: Bearer other\r\n")
        assert (strange.status, code(strange)) == (404, "stream_not_found")
    assert len(both.plays.got) == 1


async def test_an_answer_that_is_no_stream_is_everybodys(clock: trio.testing.MockClock) -> None:
    async def fails(visit: Visit) -> None:
        await trio.sleep(2)
        await visit.send(b"HTTP/1.1 429 No\r\ncontent-length: 9\r\nretry-after: 7\r\n\r\nslow down")

    async with two(fails) as both:
        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=1))
        assert [(answer.status, answer.body) for answer in answers] == [(429, b"slow down")] * 2
    assert len(both.plays.got) == 1


async def test_a_cut_is_everybodys(clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(2)
        visit.cut()

    async with two(dies) as both:
        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=1))
        for answer in answers:
            assert (answer.is_complete, b"upstream_truncated" in answer.body) == (False, True)


async def test_it_is_stopped_from_any_replica(clock: trio.testing.MockClock) -> None:
    async with two() as both:

        async def stop():  # type: ignore[no-untyped-def]
            await trio.sleep(2.5)
            return await get(both.b, next(iter(both.a.house.hub.streams)).id, method="DELETE")

        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=0.5), stop)
        assert answers[2].status == 204
        for answer in answers[:2]:
            assert (answer.is_complete, b"stream_stopped" in answer.body) == (False, True)


async def test_the_readers_of_a_replica_that_dies_are_told_within_the_lease(clock: trio.testing.MockClock) -> None:
    async with two() as both:

        async def dies():  # type: ignore[no-untyped-def]
            await trio.sleep(2.5)
            both.a.keeping.cancel()
            both.a.cancel_server()
            return await ask(both.b, wait_s=20)

        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=0.5), dies)
        assert (answers[1].is_complete, b"state_unavailable" in answers[1].body) == (False, True)
        assert answers[1].times[-1] < 2.5 + LIMITS.lease_s + 1
        assert answers[2].body == WHOLE  # a new one


async def test_a_store_that_is_away_is_noticed_by_nobody_who_needs_none(clock: trio.testing.MockClock) -> None:
    async with two() as both:
        both.store.is_away = True
        began = trio.current_time()
        assert (await ask(both.a, ME)).body == WHOLE
        assert trio.current_time() - began == pytest.approx(6, abs=0.1)
        assert (await ask(both.a, SHARED)).body == WHOLE  # relayed alone
        await trio.sleep(0.1)
        assert both.a.log.exchanges[-1]["shared"] is False
        assert "streams cannot be shared now" in str(both.a.log.lines + both.b.log.lines)
        refused = await ask(both.a, RESUMED)
        assert (refused.status, code(refused)) == (503, "state_unavailable")
        gone = await get(both.a, "someid")
        assert (gone.status, code(gone)) == (503, "state_unavailable")
        both.store.is_away = False
        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=0.5))
        assert [answer.body for answer in answers] == [WHOLE] * 2
        assert len({answer.headers["x-trioproxy-stream"] for answer in answers}) == 1


async def test_a_store_that_goes_away_in_the_middle(clock: trio.testing.MockClock) -> None:
    """The producer's own readers notice nothing; those elsewhere are told, within the lease."""
    async with two() as both:

        async def goes():  # type: ignore[no-untyped-def]
            await trio.sleep(1.5)
            both.store.is_away = True
            await trio.sleep(30)
            both.store.is_away = False
            return await ask(both.b)

        answers = await together(lambda: ask(both.a), lambda: ask(both.b, wait_s=0.5), goes)
        assert (answers[0].is_complete, answers[0].body) == (True, WHOLE)
        assert (answers[1].is_complete, b"state_unavailable" in answers[1].body) == (False, True)
        assert answers[1].times[-1] < 1.5 + LIMITS.lease_s + 2
        assert answers[2].body == WHOLE


async def test_several_workers_without_a_store_share_nothing_and_say_so(clock: trio.testing.MockClock) -> None:
    """Another worker would not know the stream: a 404 there would be no true answer."""
    async with open_house(slowly, server__workers=2) as house:
        assert (await ask(house, SHARED)).body == WHOLE
        for answer in (await ask(house, RESUMED), await get(house, "someid")):
            assert (answer.status, code(answer)) == (503, "state_unavailable")
