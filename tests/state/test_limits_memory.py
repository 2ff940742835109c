"""The limits of one worker keep what `limits` promises, in virtual time; and their budgets what the book says."""

import time
from collections.abc import Collection
from functools import partial

import pytest
import trio
from hypothesis import given
from trio.testing import MockClock

from tests.harness.limit_stores import (
    DAY_S,
    HISTORIES,
    NOON,
    PAST_ALL,
    LimitCases,
    MinuteCases,
    Step,
    WallClock,
    World,
    cancel_at_random,
    check_history,
    granted,
    key,
    refused,
)
from trioproxy.policy.account import Entry
from trioproxy.policy.limits import EVERYTHING, Demand, Kind, Limits
from trioproxy.state.budget_book import MemoryBook, Sums
from trioproxy.state.limits import LimitsUnavailable
from trioproxy.state.limits_memory import WRITE_S, MemoryLimits

DAILY = key(Limits(tokens_per_day=100))
TODAY: Entry = ("alice", "tokens", "2026-11-21")


def memory_world() -> World:
    """One store that is both replicas: there is no other."""
    wall = WallClock()
    store = MemoryLimits(wall_clock=wall)
    return World(store, store, wall)


CASES = [(group, name) for group in (LimitCases, MinuteCases) for name in dir(group) if name.startswith("test_")]


@pytest.mark.parametrize(("group", "case"), CASES, ids=[case for _, case in CASES])
def test_it_keeps_what_limits_promises(group: type, case: str) -> None:
    async def run_case() -> None:
        async with trio.open_nursery() as nursery:

            async def open_memory() -> World:
                world = memory_world()
                nursery.start_soon(world.here.run)
                return world

            await getattr(group(), case)(open_memory)
            nursery.cancel_scope.cancel()

    trio.run(run_case, clock=MockClock(autojump_threshold=0))


@given(HISTORIES)
def test_no_limit_is_passed_and_nothing_is_refused_that_has_room(steps: list[Step]) -> None:
    async def check() -> None:
        await check_history(steps, memory_world())

    trio.run(check, clock=MockClock(autojump_threshold=0))


async def test_ten_thousand_requests_that_are_cancelled_at_random_leave_nothing_behind(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = memory_world()
    nursery.start_soon(world.here.run)
    await cancel_at_random(world, 10_000)


class SlowBook(MemoryBook):
    """A book that takes its time, may be out of order, and may be changed by others."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_s = 0.0
        self.fault = ""
        self.is_changed = False
        self.calls: list[str] = []
        self.is_closed = False

    async def add(self, amounts: Sums) -> dict[Entry, int]:
        await self._do("add")
        return await super().add(amounts)

    async def read(self, entries: Collection[Entry]) -> dict[Entry, int]:
        if self.calls[-1:] != ["add"]:
            await self._do("read")
        return await super().read(entries)

    async def has_news(self) -> bool:
        await self._do("news")
        is_changed, self.is_changed = self.is_changed, False
        return is_changed

    def close_nowait(self) -> None:
        self.is_closed = True

    def change(self, entry: Entry, amount: int) -> None:
        """As another process does."""
        self._sums[entry] = self._sums.get(entry, 0) + amount
        self.is_changed = True

    @property
    def sums(self) -> dict[Entry, int]:
        return self._sums

    async def _do(self, what: str) -> None:
        self.calls.append(what)
        if self.takes_s:
            await trio.sleep(self.takes_s)
        else:
            await trio.lowlevel.checkpoint()
        if self.fault:
            raise LimitsUnavailable(self.fault, frozenset({Kind.BUDGETS}))


@pytest.fixture
def book() -> SlowBook:
    return SlowBook()


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


@pytest.fixture
def store(book: SlowBook, wall: WallClock) -> MemoryLimits:
    return MemoryLimits(book, wall_clock=wall)


class TestBook:
    async def test_it_is_left_alone_while_nobody_has_a_budget(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        grant = await granted(store, key(Limits(rpm=5, tpm=5, streams=5)), Demand(1, 1, 1, 1))
        await trio.sleep(10 * WRITE_S)
        await store.settle(grant, 5, 5)
        await trio.sleep(10 * WRITE_S)
        assert book.calls == []
        nursery.cancel_scope.cancel()

    async def test_what_it_says_was_used_already(
        self, store: MemoryLimits, book: SlowBook, autojump_clock: MockClock
    ) -> None:
        book.change(TODAY, 70)
        assert await store.spent(DAILY) == {"alice": {"tokens_per_day": 70}}
        await refused(store, DAILY, Demand(tokens=31))
        await granted(store, DAILY, Demand(tokens=30))
        assert await store.spent(DAILY) == {"alice": {"tokens_per_day": 100}}

    async def test_it_is_asked_once_a_day_and_by_many_only_once(
        self, store: MemoryLimits, book: SlowBook, wall: WallClock, autojump_clock: MockClock
    ) -> None:
        book.takes_s = 0.1
        for day in range(3):
            wall.now = NOON + day * DAY_S
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(granted, store, DAILY, Demand(tokens=1))
            assert book.calls == ["read"] * (day + 1)
        await store._keep_up()
        wall.now += DAY_S
        await granted(store, DAILY, Demand(tokens=1))
        assert len(store._accounts["alice"].used) == 1
        assert list(book.sums.values()) == [20, 20, 20]

    async def test_what_is_used_is_written_twice_a_second(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        grant = await granted(store, DAILY, Demand(tokens=50))
        await trio.sleep(WRITE_S + 0.01)
        assert book.sums == {TODAY: 50}
        await store.settle(grant, 20, 0)
        await trio.sleep(WRITE_S)
        assert book.sums == {TODAY: 20}
        await trio.sleep(10 * WRITE_S)
        assert book.calls.count("add") == 2
        nursery.cancel_scope.cancel()

    async def test_the_last_is_written_at_the_end(
        self, store: MemoryLimits, book: SlowBook, autojump_clock: MockClock
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await granted(store, DAILY, Demand(tokens=50))
            await trio.sleep(WRITE_S / 2)
            nursery.cancel_scope.cancel()
        assert book.sums == {TODAY: 50} and book.is_closed

    async def test_an_end_does_not_wait_for_a_book_that_hangs(
        self, store: MemoryLimits, book: SlowBook, autojump_clock: MockClock
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await granted(store, DAILY, Demand(tokens=50))
            book.takes_s = 1000.0
            start = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - start < 3
        assert book.is_closed

    async def test_what_comes_while_it_is_written_is_written_next(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        await granted(store, DAILY, Demand(tokens=10))
        book.takes_s = 0.2
        await trio.sleep(WRITE_S + 0.1)
        assert book.calls[-1] == "add" and book.sums == {}
        grant = await granted(store, DAILY, Demand(tokens=20))
        await trio.sleep(0.2)
        assert book.sums == {TODAY: 10}
        await refused(store, DAILY, Demand(tokens=71))
        await store.settle(grant, 90, 0)
        await refused(store, DAILY, Demand(tokens=1))
        await trio.sleep(3 * WRITE_S)
        assert book.sums == {TODAY: 100}
        nursery.cancel_scope.cancel()

    async def test_what_another_process_used_is_taken_up(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        await granted(store, DAILY, Demand(tokens=10))
        book.change(TODAY, 60)
        await trio.sleep(2 * WRITE_S)
        assert book.sums == {TODAY: 70}
        await refused(store, DAILY, Demand(tokens=31))
        book.change(TODAY, 20)
        await trio.sleep(2 * WRITE_S)
        await refused(store, DAILY, Demand(tokens=11))
        await granted(store, DAILY, Demand(tokens=10))
        nursery.cancel_scope.cancel()

    async def test_two_that_share_it_never_lose_a_token(self, book: SlowBook, autojump_clock: MockClock) -> None:
        wall = WallClock()
        old, new = MemoryLimits(book, wall_clock=wall), MemoryLimits(book, wall_clock=wall)
        scopes = [*key(Limits(tokens_per_day=10**9, money_per_month=10**18)), (EVERYTHING, PAST_ALL)]
        book.takes_s = 0.03
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.run)
            nursery.start_soon(new.run)
            for number in range(200):
                store = (old, new)[number % 2]
                book.is_changed = True
                grant = await granted(store, scopes, Demand(0, 1, 100, 100))
                await trio.sleep(0.01 * (number % 7))
                await store.settle(grant, number, 2 * number)
            nursery.cancel_scope.cancel()
        tokens = sum(range(200))
        assert set(book.sums.values()) == {tokens, 2 * tokens}
        assert book.sums[TODAY] == tokens


class TestBookOutOfOrder:
    async def test_budgets_are_unavailable_and_nothing_is_taken(
        self, store: MemoryLimits, book: SlowBook, autojump_clock: MockClock
    ) -> None:
        book.fault = "The disk is gone."
        limits = Limits(rpm=5, streams=1, tokens_per_day=100)
        for call in (partial(store.take, key(limits), Demand(1, 1, 1)), partial(store.spent, key(limits))):
            with pytest.raises(LimitsUnavailable, match=r"^The disk is gone\.$") as caught:
                await call()
            assert caught.value.kinds == {Kind.BUDGETS}
        assert len(book.calls) == 1, "it is not asked by every request"
        grant = await granted(store, key(limits.without(caught.value.kinds)), Demand(1, 1, 1))
        assert grant.requests is not None and grant.requests.remaining == 4

    async def test_it_is_tried_again_and_nothing_that_was_used_is_lost(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        grant = await granted(store, DAILY, Demand(tokens=10))
        book.fault = "The disk is full."
        await trio.sleep(3 * WRITE_S)
        with pytest.raises(LimitsUnavailable, match="full"):
            await store.take(DAILY, Demand(tokens=10))
        await store.settle(grant, 40, 0)
        await trio.sleep(3 * WRITE_S)
        assert book.sums == {}
        book.fault = ""
        await trio.sleep(2 * WRITE_S)
        assert book.sums == {TODAY: 40}
        await refused(store, DAILY, Demand(tokens=61))
        await granted(store, DAILY, Demand(tokens=60))
        nursery.cancel_scope.cancel()

    async def test_a_store_can_begin_before_its_book_works(
        self, store: MemoryLimits, book: SlowBook, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        nursery.start_soon(store.run)
        book.fault = "There is no such folder."
        with pytest.raises(LimitsUnavailable):
            await store.take(DAILY, Demand(tokens=10))
        book.fault = ""
        await trio.sleep(2 * WRITE_S)
        await granted(store, DAILY, Demand(tokens=100))
        nursery.cancel_scope.cancel()

    async def test_a_take_that_is_cancelled_while_it_reads_has_taken_nothing(
        self, store: MemoryLimits, book: SlowBook, autojump_clock: MockClock
    ) -> None:
        book.takes_s = 1.0
        limits = Limits(rpm=5, streams=1, tokens_per_day=100)
        with trio.move_on_after(0.5) as scope:
            await store.take(key(limits), Demand(1, 1, 1))
        assert scope.cancelled_caught
        assert await store.spent(key(limits)) == {"alice": {"streams": 0, "tokens_per_day": 0}}
        grant = await granted(store, key(limits), Demand(1, 1, 1))
        assert grant.requests is not None and grant.requests.remaining == 4


async def test_settling_twice_counts_once(store: MemoryLimits) -> None:
    scopes = key(Limits(streams=5, tokens_per_day=100))
    grant = await granted(store, scopes, Demand(streams=1, tokens=50))
    for _ in range(2):
        await store.settle(grant, 20, 0)
    assert await store.spent(scopes) == {"alice": {"streams": 0, "tokens_per_day": 20}}


async def test_it_costs_next_to_nothing() -> None:
    """Three limits of a key; the best of several rounds, since others use this machine too."""
    store = MemoryLimits()
    scopes = key(Limits(rpm=10**9, tpm=10**12, streams=10**6))
    rounds = []
    for _ in range(20):
        start = time.process_time()
        for _ in range(200):
            await store.settle(await granted(store, scopes, Demand(1, 1, 1000, 0)), 700, 0)
        rounds.append((time.process_time() - start) / 200)
    assert min(rounds) < 40e-6, f"{min(rounds) * 1e6:.1f} µs"
