"""The live table of several workers: asked while somebody watches, told as it changes, and bounded."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.rows import over, row
from trioproxy.server.live_table import (
    HEARTBEAT_S,
    LINGER_S,
    LOOK_EVERY_S,
    MAX_CHANGES,
    MAX_CHANGES_BYTES,
    LiveTable,
    Watch,
)
from trioproxy.wire.live_table import HEARTBEAT, EndedRow, Row, Told, told_as_text

WALL_S = 1_000.0
FIRST = 1_000_000


class FakeWorker:
    """Tells what it is given; silent: does not answer in time."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.rows: dict[str, dict[str, Any]] = {}
        self.ended: list[dict[str, Any]] = []
        self.asked: list[int | None] = []
        self.is_silent = False

    async def ask(self, what: str, **said: Any) -> Any:
        assert what == "streams"
        self.asked.append(said["after"])
        if self.is_silent:
            await trio.sleep(1)
            return None
        ended = [] if said["after"] is None else self.ended[said["after"] :]
        rows = [Row(**one) for one in self.rows.values()]
        return told_as_text(Told(rows, [EndedRow(**one) for one in ended], len(self.ended)))

    def end(self, row_id: str) -> None:
        self.rows.pop(row_id, None)
        self.ended.append(over(row_id))


class Workers:
    def __init__(self, count: int) -> None:
        self.all = [FakeWorker(slot) for slot in range(count)]
        self.table = LiveTable(lambda: self.all, wall_clock=lambda: WALL_S)


@asynccontextmanager
async def working(count: int = 1) -> AsyncIterator[Workers]:
    workers = Workers(count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.table.run)
        yield workers
        nursery.cancel_scope.cancel()


def events(said: bytes) -> list[tuple[int, str, Any]]:
    found = []
    for event in said.split(b"\n\n")[:-1]:
        number, name, data = event.split(b"\n")
        found.append((int(number[4:]), name[7:].decode(), json.loads(data[6:])))
    return found


async def next_event(watch: Watch) -> tuple[int, str, Any]:
    [event] = events(await watch.next())
    return event


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in rows]


async def test_a_watcher_gets_the_table_and_then_what_changes(autojump_clock: trio.testing.MockClock) -> None:
    async with working(2) as workers:
        one, other = workers.all
        one.rows["a"] = row("a")
        other.rows["b"] = row("b")
        with workers.table.watched(None) as watch:
            number, name, data = await next_event(watch)
            assert (number, name, sorted(ids(data["streams"]))) == (FIRST + 1, "snapshot", ["a", "b"])
            assert {found["id"]: found["worker"] for found in data["streams"]} == {"a": 0, "b": 1}
            one.rows["a"] = row("a", events=41)
            other.rows["c"] = row("c")
            number, name, data = await next_event(watch)
            assert (number, name, sorted(ids(data["set"])), data["gone"]) == (FIRST + 2, "change", ["a", "c"], [])
            one.end("a")
            number, name, data = await next_event(watch)
            assert (number, name, data["set"]) == (FIRST + 3, "change", [])
            assert data["gone"] == [over("a")]


async def test_it_is_told_at_most_four_times_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        count = 0
        with workers.table.watched(None) as watch, trio.move_on_after(10):
            while True:
                workers.all[0].rows["a"] = row("a", events=count)
                await watch.next()
                count += 1
        assert 38 <= count <= 41


async def test_nobody_is_asked_when_nobody_watches(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        asked = workers.all[0].asked
        await trio.sleep(100)
        assert asked == []
        with workers.table.watched(None):
            await trio.sleep(10)
        assert 40 <= len(asked) <= 41
        await trio.sleep(1000)
        assert len(asked) <= 42 + LINGER_S / LOOK_EVERY_S
        del asked[:]
        await trio.sleep(1000)
        assert asked == []
        with workers.table.watched(None) as watch:  # it is anew: what was is not known
            assert (await next_event(watch))[1] == "snapshot"
            assert asked[0] is None


async def test_who_comes_back_when_nothing_was_kept_gets_the_whole_table(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with working() as workers:
        workers.all[0].rows["a"] = row("a")
        with workers.table.watched(None) as watch:
            await watch.next()
            workers.all[0].rows["b"] = row("b")
            number, _, _ = await next_event(watch)
        await trio.sleep(LINGER_S + 1)
        workers.all[0].end("b")
        workers.all[0].end("a")
        with workers.table.watched(number) as watch:
            _, name, data = await next_event(watch)
            assert (name, data) == ("snapshot", {"streams": []})


async def test_two_who_watch_cost_no_more_than_one(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        with workers.table.watched(None) as one, workers.table.watched(None) as other:
            first = await one.next()
            assert await other.next() is first
            workers.all[0].rows["a"] = row("a")
            assert await one.next() == await other.next()
            await trio.sleep(10)
        assert len(workers.all[0].asked) <= 46


async def test_who_comes_back_gets_what_was_missed(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        worker = workers.all[0]
        with workers.table.watched(None) as watch:
            number, _, _ = await next_event(watch)
        for name in ("a", "b"):
            worker.rows[name] = row(name)
            await trio.sleep(1.2 * LOOK_EVERY_S)
        with workers.table.watched(number) as watch:
            missed = events(await watch.next())
            assert [(at, ids(data["set"])) for at, _, data in missed] == [(number + 1, ["a"]), (number + 2, ["b"])]
            worker.rows["c"] = row("c")
            assert ids((await next_event(watch))[2]["set"]) == ["c"]


@pytest.mark.parametrize("after", [0, 57, FIRST, 2 * FIRST])
async def test_who_comes_back_too_late_or_from_elsewhere_gets_the_whole_table(
    autojump_clock: trio.testing.MockClock, after: int
) -> None:
    async with working() as workers:
        with workers.table.watched(None) as watch:
            for count in range(MAX_CHANGES + 2):
                workers.all[0].rows["a"] = row("a", events=count)
                await watch.next()
            with workers.table.watched(after) as late:
                assert (await next_event(late))[1] == "snapshot"


async def test_a_watcher_that_is_slow_goes_on_with_the_whole_table(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        with workers.table.watched(None) as quick, workers.table.watched(None) as slow:
            await slow.next()
            with trio.move_on_after(60):
                while True:
                    workers.all[0].rows["a"] = row("a", events=workers.table.number)
                    await quick.next()
            number, name, _ = await next_event(slow)
            assert (number, name) == (workers.table.number, "snapshot")


async def test_what_is_kept_is_bounded_also_with_large_tables(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        with workers.table.watched(None) as watch:
            for count in range(20):
                workers.all[0].rows = {str(n): row(str(n), events=count) for n in range(2_000)}
                await watch.next()
            kept = list(workers.table._changes)
            assert sum(map(len, kept)) <= MAX_CHANGES_BYTES
            assert len(kept) < 20
            with workers.table.watched(workers.table.number - len(kept)) as late:
                assert len(events(await late.next())) == len(kept)


async def test_quiet_is_told_by_a_comment(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        with workers.table.watched(None) as watch:
            await watch.next()
            began = trio.current_time()
            assert await watch.next() == HEARTBEAT
            assert trio.current_time() - began == HEARTBEAT_S


async def test_a_worker_that_does_not_answer_keeps_its_rows(autojump_clock: trio.testing.MockClock) -> None:
    async with working(2) as workers:
        one, other = workers.all
        one.rows["a"], other.rows["b"] = row("a"), row("b")
        with workers.table.watched(None) as watch:
            await watch.next()
            one.is_silent = True
            other.rows["b"] = row("b", events=99)
            _, _, data = await next_event(watch)
            assert (ids(data["set"]), data["gone"]) == (["b"], [])
            one.is_silent = False
            one.end("a")
            assert (await next_event(watch))[2]["gone"] == [over("a")]


async def test_of_a_worker_that_is_gone_the_requests_are_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with working(2) as workers:
        workers.all[0].rows["a"] = row("a")
        with workers.table.watched(None) as watch:
            await watch.next()
            del workers.all[0]
            [lost] = (await next_event(watch))[2]["gone"]
            assert (lost["id"], lost["outcome"], lost["reason"]) == ("a", "failed", "worker_lost")


async def test_one_that_begins_and_ends_between_two_looks_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with working() as workers:
        workers.all[0].end("before")
        with workers.table.watched(None) as watch:
            assert (await next_event(watch))[2] == {"streams": []}
            workers.all[0].end("short")
            assert (await next_event(watch))[2] == {"set": [], "gone": [over("short")]}
            assert await watch.next() == HEARTBEAT


async def test_who_asks_once_gets_the_rows_of_now(autojump_clock: trio.testing.MockClock) -> None:
    async with working(2) as workers:
        workers.all[1].rows["a"] = row("a")
        told = json.loads(await workers.table.rows())
        assert told == {"streams": [row("a", worker=1)], "at": FIRST}
        with workers.table.watched(None) as watch:
            await watch.next()
            asked = len(workers.all[1].asked)
            assert json.loads(await workers.table.rows())["at"] == FIRST + 1
            assert len(workers.all[1].asked) == asked
