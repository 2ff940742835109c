"""The store of limits that replicas share keeps what `state/limits` promises on a real redis-server, and what was taken
comes back whatever happens to the server, the connection or the process."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest
import trio
from hypothesis import given, settings

from tests.harness.counting import TaskCounter
from tests.harness.limit_stores import (
    HISTORIES,
    PAST_ALL,
    PATIENCE_S,
    LimitCases,
    MinuteCases,
    OpenWorld,
    Step,
    WallClock,
    World,
    cancel_at_random,
    check_history,
    granted,
    key,
    refused,
)
from tests.loopback.processes import until
from tests.loopback.redis_server import RedisServer, redis_server
from trioproxy.policy.limits import EVERYTHING, Demand, Kind, Limits, Refusal, Scope
from trioproxy.state.limits import LimitsUnavailable
from trioproxy.state.limits_redis import _KINDS, RedisLimits
from trioproxy.state.redis_calls import run_all
from trioproxy.state.redis_link import address_of
from trioproxy.state.streams import StateUnavailable

TIMEOUT_S: Final = 1.0
LEASE_S: Final = 1.2
SLOT_S: Final = 0.25

MOVE_WINDOWS: Final = """
local by = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '[rt]pm:*')) do
    local found, moved = redis.call('HGETALL', key), {}
    for index = 1, #found, 2 do
        local name, value = found[index], tonumber(found[index + 1])
        if name == 'oldest' or name == 'newest' then value = value + by end
        if tonumber(name) then name = tonumber(name) + by end
        moved[#moved + 1], moved[#moved + 2] = name, value
    end
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(moved))
end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. 'grant:*')) do
    if redis.call('GET', key) ~= 'void' then redis.call('INCRBY', key, by) end
end
"""
"""Lets everything that was taken be taken earlier, or later, by so many slots: the server's clock cannot be set."""


@dataclass
class Place:
    """Where some replicas count together."""

    server: RedisServer
    prefix: str = field(default_factory=lambda: f"{secrets.token_hex(4)}:")
    wall: WallClock = field(default_factory=WallClock)
    passed_s: float = 0.0

    def store(self, lease_s: float = LEASE_S) -> RedisLimits:
        address = address_of(f"redis://127.0.0.1:{self.server.port}")
        return RedisLimits(address, lease_s=lease_s, prefix=self.prefix, timeout_s=TIMEOUT_S, wall_clock=self.wall)

    def clock(self) -> float:
        return trio.current_time() + self.passed_s

    async def advance(self, seconds: float) -> None:
        slots, rest_s = divmod(seconds, SLOT_S)
        await self.move_windows(-round(slots))
        self.passed_s += slots * SLOT_S
        await trio.sleep(rest_s)

    async def move_windows(self, by: int) -> None:
        await trio.to_thread.run_sync(self.server.ask, "EVAL", MOVE_WINDOWS, "0", f"{self.prefix}limits:", str(by))

    def kept(self) -> list[str]:
        return self.server.ask("KEYS", f"{self.prefix}*").splitlines()


async def until_up(*stores: RedisLimits) -> None:
    """Wait until each has its connection."""
    with trio.fail_after(PATIENCE_S):
        for store in stores:
            while True:
                try:
                    await store._link.call(b"PING")
                    break
                except StateUnavailable:
                    await trio.sleep(0.02)


async def until_spent(store: RedisLimits, scopes: list[Scope], spent: dict[str, int]) -> None:
    """Wait until the first of these scopes has used so much."""
    found: object = None
    with trio.move_on_after(PATIENCE_S):
        while True:
            found = (await store.spent(scopes))[scopes[0][0]]
            if found == spent:
                return
            await trio.sleep(0.02)
    pytest.fail(f"still {found}")


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """For tests that let it live."""
    with redis_server() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """For tests that do not."""
    with redis_server() as server:
        yield server


async def world_at(place: Place, nursery: trio.Nursery) -> World:
    here, there = place.store(), place.store()
    nursery.start_soon(here.run)
    nursery.start_soon(there.run)
    await until_up(here, there)
    return World(here, there, place.wall, place.advance, place.clock, LEASE_S)


@pytest.fixture
async def open_world(shared_server: RedisServer, nursery: trio.Nursery) -> OpenWorld:
    async def open_redis() -> World:
        return await world_at(Place(shared_server), nursery)

    return open_redis


@dataclass
class Pair:
    """Two replicas on a server of their own, with their connections up."""

    place: Place
    here: RedisLimits
    there: RedisLimits

    @property
    def server(self) -> RedisServer:
        return self.place.server


@pytest.fixture
async def pair(server: RedisServer, nursery: trio.Nursery) -> Pair:
    place = Place(server)
    pair = Pair(place, place.store(), place.store())
    nursery.start_soon(pair.here.run)
    nursery.start_soon(pair.there.run)
    await until_up(pair.here, pair.there)
    return pair


class TestContract(LimitCases, MinuteCases):
    """See there."""


@settings(max_examples=15)
@given(steps=HISTORIES)
def test_no_limit_is_passed_in_any_order_and_sums_are_exact(shared_server: RedisServer, steps: list[Step]) -> None:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            await check_history(steps, await world_at(Place(shared_server), nursery))
            nursery.cancel_scope.cancel()

    trio.run(check)


async def test_ten_thousand_requests_cancelled_at_random_leave_nothing_behind(open_world: OpenWorld) -> None:
    world = await open_world()
    await cancel_at_random(world, 10_000)
    for store in (world.here, world.there):
        assert isinstance(store, RedisLimits)
        assert not store._open
        await until_settled(store)


def test_every_limit_there_is_is_counted() -> None:
    assert _KINDS.keys() == set(Limits.__slots__)
    assert all(Limits(**{name: 1}).kinds == {kind} for name, kind in _KINDS.items())


EVERY: Final = Limits(100, 1000, 5, 1000, 1000, 1000, 1000)
"""Of every kind."""
SOME: Final = Demand(1, 1, 10, 20)
NONE_USED: Final = {
    "streams": 0,
    "tokens_per_day": 0,
    "tokens_per_month": 0,
    "money_per_day": 0,
    "money_per_month": 0,
}


class TestLeases:
    async def test_the_streams_of_a_process_that_died_are_free_within_the_lease_and_not_before(
        self, shared_server: RedisServer, nursery: trio.Nursery
    ) -> None:
        place = Place(shared_server)
        here, there = place.store(), place.store()
        nursery.start_soon(there.run)
        scopes = key(Limits(streams=3))
        async with trio.open_nursery() as process:
            process.start_soon(here.run)
            for _ in range(3):
                await granted(here, scopes, Demand(streams=1))
            process.cancel_scope.cancel()
        died = trio.current_time()
        with trio.fail_after(PATIENCE_S):
            while True:
                if not isinstance(await there.take(scopes, Demand(streams=1)), Refusal):
                    break
                await trio.sleep(0.02)
        assert LEASE_S / 2 < trio.current_time() - died < LEASE_S + 0.2
        await granted(there, scopes, Demand(streams=2))

    async def test_the_streams_of_a_process_that_lives_are_its_own_for_as_long_as_they_take(
        self, open_world: OpenWorld
    ) -> None:
        world = await open_world()
        scopes = key(Limits(streams=250))
        grants = [await granted(world.here, scopes, Demand(streams=1)) for _ in range(250)]
        until_s = trio.current_time() + 2.5 * LEASE_S
        while trio.current_time() < until_s:
            await refused(world.there, scopes, Demand(streams=1))
            await trio.sleep(0.1)
        for grant in grants:
            await world.here.settle(grant, 0, 0)
        await granted(world.there, scopes, Demand(streams=250))

    async def test_leases_that_the_server_has_lost_are_there_before_anything_else_is_taken(self, pair: Pair) -> None:
        scopes = key(Limits(streams=2))
        grants = [await granted(pair.here, scopes, Demand(streams=1)) for _ in range(2)]
        await trio.to_thread.run_sync(pair.server.kill)
        await trio.to_thread.run_sync(pair.server.start)
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    await refused(pair.here, scopes, Demand(streams=1))
                    break
                except LimitsUnavailable:
                    await trio.sleep(0.001)
        for grant in grants:
            await pair.here.settle(grant, 0, 0)
        await until_spent(pair.there, scopes, {"streams": 0})

    async def test_a_request_may_take_several_streams(self, pair: Pair) -> None:
        scopes = key(Limits(streams=5))
        grant = await granted(pair.here, scopes, Demand(streams=4))
        await refused(pair.there, scopes, Demand(streams=2))
        await trio.sleep(1.5 * LEASE_S)
        await refused(pair.there, scopes, Demand(streams=2))
        await pair.here.settle(grant, 0, 0)
        await granted(pair.there, scopes, Demand(streams=5))


class TestNobodyKnowsWhetherItWasDone:
    """The server hears of what was given up when it goes on, before or after it is told so."""

    @pytest.fixture
    async def pair(self, pair: Pair) -> Pair:
        """On a server that knows the scripts: it does not answer that it has to be sent their text."""
        for _ in range(2):
            await pair.here.settle(await granted(pair.here, key(Limits(streams=1), "bob"), Demand(streams=1)), 0, 0)
        return pair

    async def test_a_demand_that_was_not_answered_comes_back(self, pair: Pair) -> None:
        scopes = [*key(EVERY), (EVERYTHING, PAST_ALL)]
        pair.server.pause()
        try:
            with pytest.raises(LimitsUnavailable) as raised:
                await pair.here.take(scopes, SOME)
            assert raised.value.kinds == frozenset(Kind)
        finally:
            pair.server.go_on()
        await self._is_as_before(pair, scopes)

    async def test_a_demand_that_was_cancelled_comes_back(self, pair: Pair) -> None:
        scopes = [*key(EVERY), (EVERYTHING, PAST_ALL)]
        pair.server.pause()
        try:
            with trio.move_on_after(0.2) as cancelled:
                await pair.here.take(scopes, SOME)
            assert cancelled.cancelled_caught
        finally:
            pair.server.go_on()
        await self._is_as_before(pair, scopes)

    async def _is_as_before(self, pair: Pair, scopes: list[Scope]) -> None:
        await until_up(pair.here, pair.there)
        await until_settled(pair.here)
        await until_spent(pair.there, scopes, NONE_USED)
        grant = await granted(pair.there, scopes, Demand(requests=1, tokens=1))
        assert grant.requests is not None and grant.requests.remaining == 99
        assert grant.tokens is not None and grant.tokens.remaining == 999

    async def test_what_the_server_hears_of_after_it_was_given_up_is_not_taken(self, pair: Pair) -> None:
        scopes = key(EVERY)
        taken = (await granted(pair.here, scopes, SOME)).memo
        for _ in range(2):  # the second time it is not open any more, as if it had never been
            await run_all(pair.here._link, [taken.settling(Demand())])
        with pytest.raises(LimitsUnavailable, match="given up"):
            await pair.here._take(taken)
        await until_spent(pair.there, scopes, NONE_USED)

    async def test_a_settling_that_failed_is_made_up_for_and_counts_once(self, pair: Pair) -> None:
        scopes = key(EVERY)
        late, cancelled, never_sent = [await granted(pair.here, scopes, SOME) for _ in range(3)]
        pair.server.pause()
        try:
            with trio.move_on_after(0.2):
                await pair.here.settle(cancelled, 3, 3)
            with pytest.raises(LimitsUnavailable):
                await pair.here.settle(late, 50, 50)
            assert pair.here._link._usable is None
            with pytest.raises(LimitsUnavailable):
                await pair.here.settle(never_sent, 100, 100)
        finally:
            pair.server.go_on()
        await until_up(pair.here, pair.there)
        await until_settled(pair.here)
        budgets = dict.fromkeys(NONE_USED, 153) | {"streams": 0}
        assert (await pair.there.spent(scopes)) == {"alice": budgets}
        grant = await granted(pair.there, scopes, Demand(tokens=1))
        assert grant.tokens is not None and grant.tokens.remaining == 1000 - 153 - 1

    async def test_what_the_server_refuses_is_said_and_keeps_nothing_else_from_being_settled(self, pair: Pair) -> None:
        scopes, broken = key(EVERY), key(Limits(streams=1), "broken")
        first, second = await granted(pair.here, broken, Demand(streams=1)), await granted(pair.here, scopes, SOME)
        [streams] = [one for one in pair.place.kept() if one.endswith("streams:broken")]
        pair.server.ask("SET", streams, "no set")
        with pytest.raises(LimitsUnavailable, match="Redis refuses"):
            await pair.here.settle(first, 0, 0)
        pair.here._owe(second.memo.id, second.memo.settling(Demand(1, 1, 7, 8)))
        await until_settled(pair.here)
        await until_spent(pair.there, key(Limits(tokens_per_day=1000)), {"tokens_per_day": 7})


class TestServerGone:
    async def test_every_call_says_so_at_once_and_all_goes_on_when_it_is_back(self, pair: Pair) -> None:
        scopes = key(EVERY)
        grant = await granted(pair.here, scopes, SOME)
        await trio.to_thread.run_sync(pair.server.kill)
        with pytest.raises(LimitsUnavailable):
            await pair.here.spent(scopes)
        start = trio.current_time()
        for _ in range(50):
            with pytest.raises(LimitsUnavailable, match="no connection") as raised:
                await pair.here.take(scopes, SOME)
            assert raised.value.kinds == frozenset(Kind)
        with pytest.raises(LimitsUnavailable):
            await pair.here.settle(grant, 1, 1)
        assert trio.current_time() - start < TIMEOUT_S / 2
        assert len(pair.here._owed) == 1
        await trio.to_thread.run_sync(pair.server.start)
        await until_up(pair.here, pair.there)
        await until_settled(pair.here)
        # It is back, and knows nothing.
        assert (await pair.there.spent(scopes)) == {"alice": NONE_USED}
        for store in (pair.here, pair.there):
            await granted(store, scopes, SOME)

    async def test_a_server_that_does_not_answer_costs_its_time_once(self, pair: Pair) -> None:
        scopes = key(EVERY)
        pair.server.pause()
        try:
            start = trio.current_time()
            with pytest.raises(LimitsUnavailable):
                await pair.here.take(scopes, SOME)
            assert trio.current_time() - start < TIMEOUT_S + 0.3
            with pytest.raises(LimitsUnavailable):
                await pair.here.take(scopes, SOME)
            start = trio.current_time()
            for _ in range(50):
                with pytest.raises(LimitsUnavailable):
                    await pair.here.take(scopes, SOME)
            assert trio.current_time() - start < TIMEOUT_S / 2
        finally:
            pair.server.go_on()

    async def test_scripts_that_the_server_has_forgotten_are_sent_again(self, pair: Pair) -> None:
        scopes = key(EVERY)
        for _ in range(2):
            pair.server.ask("SCRIPT", "FLUSH")
            grant = await granted(pair.here, scopes, SOME)
            pair.server.ask("SCRIPT", "FLUSH")
            await pair.here.settle(grant, 30, 40)
        used = {"tokens_per_day": 60, "tokens_per_month": 60, "money_per_day": 80, "money_per_month": 80}
        assert (await pair.there.spent(scopes)) == {"alice": {"streams": 0} | used}

    async def test_what_has_no_limit_needs_no_server(self, pair: Pair) -> None:
        await trio.to_thread.run_sync(pair.server.kill)
        scopes = key(Limits())
        await pair.here.settle(await granted(pair.here, scopes, SOME), 1, 1)
        assert (await pair.here.spent(scopes)) == {"alice": {}}


async def until_settled(store: RedisLimits) -> None:
    """Wait until nothing is owed."""
    with trio.fail_after(PATIENCE_S):
        while True:
            if not store._owed:
                return
            await trio.sleep(0.02)


class TestTheServersClock:
    @pytest.mark.parametrize("by_s", [1, 3600])
    async def test_set_back_it_lets_nobody_pass_and_locks_nobody_out(self, open_world: OpenWorld, by_s: float) -> None:
        """Set back, all that was taken is in the future; it counts as if it were taken now."""
        world = await open_world()
        scopes = key(Limits(rpm=5, tpm=100))
        first = await granted(world.here, scopes, Demand(requests=3, tokens=60))
        await world.advance(30)
        await granted(world.here, scopes, Demand(requests=1, tokens=30))
        await world.advance(-30 - by_s)
        grant = await granted(world.there, scopes, Demand(requests=1, tokens=10))
        assert grant.requests is not None and grant.requests.remaining == 0
        assert 59.5 < grant.requests.reset_s < 60.5
        refusal = await refused(world.here, scopes, Demand(requests=1, tokens=1))
        assert refusal.wait_s is not None and 59 < refusal.wait_s < 60.5
        await world.here.settle(first, 0, 0)  # of what is not where it was taken nothing comes back
        await refused(world.here, scopes, Demand(tokens=1))
        await world.advance(60.25)
        await granted(world.there, scopes, Demand(requests=5, tokens=100))

    async def test_set_forth_it_forgets_what_was_taken(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=5))
        await granted(world.here, scopes, Demand(requests=5))
        await world.advance(10**6)
        grant = await granted(world.there, scopes, Demand(requests=5))
        assert grant.requests is not None and 59.5 < grant.requests.reset_s < 60.5


class TestWhatIsKept:
    async def test_every_key_has_its_end(self, pair: Pair) -> None:
        scopes = [*key(EVERY), (EVERYTHING, PAST_ALL)]
        settled, _ = [await granted(pair.here, scopes, SOME) for _ in range(2)]
        await pair.here.settle(settled, 50, 50)
        await run_all(pair.here._link, [settled.memo.settling(Demand())])
        await trio.sleep(0.5 * LEASE_S)  # some were renewed
        keys = pair.place.kept()
        assert len(keys) == 2 * 7 + 2
        ends_s = {one: int(pair.server.ask("PTTL", one)) / 1000 for one in keys}
        for one, end_s in ends_s.items():
            longest_s = {"rpm": 61, "tpm": 61, "streams": 62, "tokens": 40 * 86_400, "money": 40 * 86_400}
            assert 0 < end_s <= longest_s.get(one.split(":")[2], 86_400)

    async def test_a_full_window_stays_small(self, open_world: OpenWorld, shared_server: RedisServer) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=10**6))
        for _ in range(300):
            await granted(world.here, scopes, Demand(requests=1))
            await world.advance(SLOT_S)
        here = world.here
        assert isinstance(here, RedisLimits)
        size = await here._link.call(b"HLEN", here._prefix + b"rpm:alice")
        assert isinstance(size, int) and size <= 241 + 3

    async def test_the_last_picodollar_of_the_largest_budget_counts(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(money_per_month=10**18))
        await granted(world.here, scopes, Demand(money=10**18 - 1))
        await refused(world.there, scopes, Demand(money=2))
        await granted(world.there, scopes, Demand(money=1))
        await refused(world.there, scopes, Demand(money=1))
        assert (await world.here.spent(scopes)) == {"alice": {"money_per_month": 10**18}}

    async def test_a_budget_that_somebody_removed_owes_nothing(self, pair: Pair) -> None:
        scopes = key(Limits(tokens_per_day=1000))
        grant = await granted(pair.here, scopes, Demand(tokens=1000))
        pair.server.ask("DEL", f"{pair.place.prefix}limits:tokens:2026-11-21:alice")
        await pair.here.settle(grant, 10, 0)
        assert (await pair.there.spent(scopes)) == {"alice": {"tokens_per_day": 0}}
        await refused(pair.there, scopes, Demand(tokens=1001))
        await granted(pair.there, scopes, Demand(tokens=1000))

    async def test_one_connection_and_none_when_it_is_over(self, server: RedisServer) -> None:
        counter = TaskCounter()
        trio.lowlevel.add_instrument(counter)
        before = server.clients()
        async with trio.open_nursery() as nursery:
            store = Place(server).store()
            nursery.start_soon(store.run)
            await until_up(store)
            for number in range(100):
                with trio.move_on_after(0.0005 * (number % 5)):
                    await store.take(key(EVERY), SOME)
            await until_settled(store)
            assert server.clients() == before + 1
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(until, lambda: server.clients() == before, "no connection")
        trio.lowlevel.remove_instrument(counter)
        assert not list(counter.alive.values())
