"""What holds for every store of limits, as cases: `LimitCases` and, where a test can let time pass, `MinuteCases` for
one example each; `check_history` for any order.

A case is given `open_world`: two replicas that count together, and have not counted anything yet. A store of one worker
alone is both of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import trio
from hypothesis import strategies as st

from trioproxy.policy.limits import EVERYTHING, PICO, Demand, Kind, Limits, Refusal, Scope
from trioproxy.state.limits import Grant, LimitStore

MINUTE_S = 60.0
SLOT_S = 1.0
"""A slot of the minute is at most so long: what was taken comes back that much late."""
NOON = 1_795_262_400.0
"""2026-11-21T12:00:00Z."""
DAY_S = 86_400.0
PATIENCE_S = 20.0
PAST_ALL = Limits(1000, 10**6, 1000, 10**9, 10**9, 10**18, 10**18)
"""Every limit there is, and none that a test comes to."""


@dataclass
class WallClock:
    """The date, as a test sets it. A store is given this in place of `time.time`."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class World:
    """Two replicas and their date. `advance` lets so many seconds pass for the limits of the minute, `clock` tells how
    many did; neither has to do with the date. `lease_s`: within what time the streams come back of a `take` that was
    cancelled."""

    here: LimitStore
    there: LimitStore
    wall: WallClock
    advance: Callable[[float], Awaitable[None]] = trio.sleep
    clock: Callable[[], float] = trio.current_time
    lease_s: float = 0.0


OpenWorld = Callable[[], Awaitable[World]]


async def granted(store: LimitStore, scopes: Sequence[Scope], demand: Demand) -> Grant:
    got = await store.take(scopes, demand)
    assert isinstance(got, Grant), got
    return got


async def refused(store: LimitStore, scopes: Sequence[Scope], demand: Demand) -> Refusal:
    got = await store.take(scopes, demand)
    assert isinstance(got, Refusal), got
    return got


def key(limits: Limits, name: str = "alice") -> list[Scope]:
    """The scopes of a request with a key, where there is no limit for everything."""
    return [(name, limits)]


BUDGETS = [
    (Limits(tokens_per_day=100), "tokens_per_day", Demand(tokens=40), Demand(tokens=20)),
    (Limits(tokens_per_month=100), "tokens_per_month", Demand(tokens=40), Demand(tokens=20)),
    (Limits(money_per_day=100 * PICO), "money_per_day", Demand(money=40 * PICO), Demand(money=20 * PICO)),
    (Limits(money_per_month=100 * PICO), "money_per_month", Demand(money=40 * PICO), Demand(money=20 * PICO)),
]
"""Each budget with its name; two and a half of the first demand fit into it, five of the second."""

FULL = [
    (Limits(rpm=1), Demand(requests=1), Kind.REQUESTS),
    (Limits(tpm=10), Demand(tokens=10), Kind.TOKENS),
    (Limits(streams=1), Demand(streams=1), Kind.STREAMS),
    *((limits, Demand(tokens=100, money=100 * PICO), Kind.BUDGETS) for limits, *_ in BUDGETS),
]
"""Each kind of limit, and a demand that takes all of it."""


class LimitCases:
    """One promise each, for which no time has to pass."""

    async def test_what_has_no_limit_is_let_in(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = [*key(Limits()), (EVERYTHING, Limits())]
        for store in (world.here, world.there) * 20:
            grant = await granted(store, scopes, Demand(requests=10**6, streams=10**6, tokens=10**9, money=10**18))
            assert (grant.requests, grant.tokens) == (None, None)
            await store.settle(grant, 10**9, 10**18)
        assert (await world.there.spent(scopes)) == {"alice": {}, EVERYTHING: {}}
        assert isinstance(await world.here.take([], Demand(requests=1)), Grant)

    async def test_so_many_requests_a_minute_and_no_more(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=5))
        for number in range(5):
            store = (world.here, world.there)[number % 2]
            grant = await granted(store, scopes, Demand(requests=1))
            assert grant.requests is not None and grant.tokens is None
            assert (grant.requests.limit, grant.requests.remaining) == (5, 4 - number)
            assert MINUTE_S - SLOT_S < grant.requests.reset_s < MINUTE_S + SLOT_S + 0.1
            await store.settle(grant, 0, 0)
        for store in (world.here, world.there):
            refusal = await refused(store, scopes, Demand(requests=1))
            assert (refusal.scope, refusal.kind, refusal.limit) == ("alice", Kind.REQUESTS, "rpm")
            assert refusal.wait_s is not None and MINUTE_S - PATIENCE_S < refusal.wait_s < MINUTE_S + SLOT_S + 0.1

    async def test_so_many_tokens_a_minute_and_no_more(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tpm=100))
        grant = await granted(world.here, scopes, Demand(tokens=60))
        assert grant.tokens is not None and grant.requests is None
        assert (grant.tokens.limit, grant.tokens.remaining) == (100, 40)
        refusal = await refused(world.there, scopes, Demand(tokens=41))
        assert (refusal.scope, refusal.kind, refusal.limit) == ("alice", Kind.TOKENS, "tpm")
        assert refusal.wait_s is not None and MINUTE_S - PATIENCE_S < refusal.wait_s < MINUTE_S + SLOT_S + 0.1
        await granted(world.there, scopes, Demand(tokens=40))

    async def test_what_never_fits_is_told_that_waiting_does_not_help(self, open_world: OpenWorld) -> None:
        world = await open_world()
        for limits, demand in (
            (Limits(rpm=5), Demand(requests=6)),
            (Limits(tpm=100), Demand(tokens=101)),
            (Limits(streams=2), Demand(streams=3)),
        ):
            assert (await refused(world.here, key(limits), demand)).wait_s is None

    async def test_never_more_streams_than_allowed_and_settled_ones_make_room(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(streams=3))
        stores = (world.here, world.there, world.here)
        grants = [await granted(store, scopes, Demand(streams=1)) for store in stores]
        assert (await world.there.spent(scopes)) == {"alice": {"streams": 3}}
        for store, grant in zip(stores, grants, strict=True):
            refusal = await refused(world.there, scopes, Demand(streams=1))
            assert (refusal.kind, refusal.limit) == (Kind.STREAMS, "streams")
            assert refusal.wait_s is not None and 0 < refusal.wait_s <= MINUTE_S
            await store.settle(grant, 0, 0)
            await granted(world.here, scopes, Demand(streams=1))

    async def test_streams_of_many_at_once_are_never_too_many(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = [*key(Limits(streams=7)), (EVERYTHING, Limits(streams=100))]
        most = running = done = 0

        async def stream(store: LimitStore, pause_s: float) -> None:
            nonlocal most, running, done
            while isinstance(grant := await store.take(scopes, Demand(streams=1)), Refusal):  # noqa: ASYNC110  (as clients do)
                await trio.sleep(0.01)
            running += 1
            most = max(most, running)
            await trio.sleep(pause_s)
            running -= 1
            await store.settle(grant, 0, 0)
            done += 1

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(stream, (world.here, world.there)[number % 2], 0.003 * (number % 5))
        assert (most, done) == (7, 50)
        assert (await world.here.spent(scopes)) == {"alice": {"streams": 0}, EVERYTHING: {"streams": 0}}

    async def test_of_many_at_the_same_moment_as_many_are_let_in_as_there_is_room(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=37, tpm=370, tokens_per_day=370))
        got: list[Grant | Refusal] = []

        async def take(store: LimitStore) -> None:
            got.append(await store.take(scopes, Demand(requests=1, tokens=10)))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(take, (world.here, world.there)[number % 2])
        assert len([one for one in got if isinstance(one, Grant)]) == 37

    async def test_a_budget_is_used_to_its_last_and_then_empty(self, open_world: OpenWorld) -> None:
        for limits, name, large, small in BUDGETS:
            world, scopes = await open_world(), key(limits)
            for store in (world.here, world.there):
                await granted(store, scopes, large)
            for demand in (large, Demand(tokens=small.tokens + 1, money=small.money + 10**6)):
                refusal = await refused(world.here, scopes, demand)
                assert (refusal.scope, refusal.kind, refusal.limit) == ("alice", Kind.BUDGETS, name)
                assert refusal.wait_s is None
            grant = await granted(world.there, scopes, small)
            await refused(world.here, scopes, small)
            await world.there.settle(grant, 0, 0)
            await granted(world.here, scopes, small)
            assert (await world.there.spent(scopes)) == {"alice": {name: 100 * (PICO if "money" in name else 1)}}

    async def test_what_one_scope_refuses_takes_nothing_of_any(self, open_world: OpenWorld) -> None:
        for limits, demand, kind in FULL:
            world = await open_world()
            full, other = (EVERYTHING, limits), ("alice", PAST_ALL)
            await granted(world.here, [full], demand)
            for scopes in ([full, other], [other, full]):
                refusal = await refused(world.there, scopes, demand)
                assert (refusal.scope, refusal.kind) == (EVERYTHING, kind)
            assert set((await world.here.spent([other]))["alice"].values()) == {0}
            grant = await granted(world.here, [other], Demand(requests=1, tokens=1))
            assert grant.requests is not None and grant.requests.remaining == 999
            assert grant.tokens is not None and grant.tokens.remaining == 10**6 - 1

    async def test_a_full_scope_does_not_refuse_others(self, open_world: OpenWorld) -> None:
        for limits, demand, kind in FULL:
            world = await open_world()
            for name in ("alice", "alice.", "a", "lice", EVERYTHING):
                await granted(world.here, key(limits, name), demand)
                assert (await refused(world.there, key(limits, name), demand)).kind is kind

    async def test_of_several_refusals_the_one_to_wait_longest_for_is_told(self, open_world: OpenWorld) -> None:
        world = await open_world()
        alice, everything = ("alice", Limits(rpm=1, streams=1)), (EVERYTHING, Limits(tokens_per_day=10))
        await granted(world.here, [alice, everything], Demand(requests=1, streams=1, tokens=10))
        told = await refused(world.here, [alice], Demand(requests=1, streams=1))
        assert told.kind is Kind.REQUESTS and told.wait_s is not None and told.wait_s > MINUTE_S - PATIENCE_S
        for scopes in ([alice, everything], [everything, alice]):
            told = await refused(world.there, scopes, Demand(requests=1, streams=1, tokens=1))
            assert (told.scope, told.kind, told.wait_s) == (EVERYTHING, Kind.BUDGETS, None)

    async def test_what_is_not_asked_for_is_not_refused(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=1, tpm=10, streams=1, tokens_per_day=10, money_per_day=10))
        grant = await granted(world.here, scopes, Demand(1, 1, 10, 10))
        await world.here.settle(grant, 1000, 1000)
        for demand in (Demand(), Demand(streams=1)):
            await granted(world.there, scopes, demand)
        for demand, kind in (
            (Demand(requests=1), Kind.REQUESTS),
            (Demand(streams=1), Kind.STREAMS),
            (Demand(money=1), Kind.BUDGETS),
            (Demand(tokens=1), Kind.BUDGETS),
        ):
            assert (await refused(world.there, scopes, demand)).kind is kind

    async def test_tokens_that_were_too_many_come_back(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tpm=100, tokens_per_day=100, tokens_per_month=100))
        grant = await granted(world.here, scopes, Demand(tokens=100))
        await refused(world.there, scopes, Demand(tokens=1))
        await world.here.settle(grant, 30, 0)
        assert (await world.there.spent(scopes)) == {"alice": {"tokens_per_day": 30, "tokens_per_month": 30}}
        grant = await granted(world.there, scopes, Demand(tokens=70))
        assert grant.tokens is not None and grant.tokens.remaining == 0

    async def test_what_it_came_to_is_counted_though_there_is_no_room(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tpm=100, tokens_per_month=1000, money_per_day=10))
        grant = await granted(world.here, scopes, Demand(tokens=60, money=1))
        await world.here.settle(grant, 1500, 15)
        assert (await world.there.spent(scopes)) == {"alice": {"tokens_per_month": 1500, "money_per_day": 15}}
        assert (await refused(world.there, key(Limits(tpm=100)), Demand(tokens=1))).kind is Kind.TOKENS
        grant = await granted(world.there, key(Limits(tpm=2000)), Demand(tokens=1))
        assert grant.tokens is not None and grant.tokens.remaining == 499

    async def test_a_grant_tells_how_the_scope_with_the_least_left_stands(self, open_world: OpenWorld) -> None:
        world = await open_world()
        small, large = Limits(rpm=10, tpm=5000), Limits(rpm=100, tpm=1000)
        left = []
        for scopes in ([("alice", small), (EVERYTHING, large)], [(EVERYTHING, large), ("alice", small)]):
            grant = await granted(world.here, scopes, Demand(requests=1, tokens=100))
            assert grant.requests is not None and grant.requests.limit == 10
            assert grant.tokens is not None and grant.tokens.limit == 1000
            left.append((grant.requests.remaining, grant.tokens.remaining))
        assert left == [(9, 900), (8, 800)]

    async def test_limits_may_change_while_requests_are_under_way(self, open_world: OpenWorld) -> None:
        world = await open_world()
        first = await granted(world.here, key(Limits(rpm=2, streams=2, tokens_per_day=50)), Demand(1, 1, 50))
        second = await granted(world.here, key(Limits(rpm=3, streams=2, tokens_per_day=60)), Demand(1, 1, 10))
        less = key(Limits(rpm=3, streams=1, tokens_per_day=40))
        assert (await refused(world.there, less, Demand(streams=1))).kind is Kind.STREAMS
        assert (await refused(world.there, less, Demand(tokens=1))).kind is Kind.BUDGETS
        await granted(world.there, less, Demand())
        await world.here.settle(first, 20, 0)
        await world.here.settle(second, 10, 0)
        grant = await granted(world.there, less, Demand(1, 1, 10))
        assert grant.requests is not None and grant.requests.remaining == 0
        assert (await world.here.spent(less)) == {"alice": {"streams": 1, "tokens_per_day": 40}}
        await world.there.settle(grant, 10, 0)

    async def test_a_request_under_way_settles_what_its_limits_were(self, open_world: OpenWorld) -> None:
        world = await open_world()
        before, after = key(Limits(tokens_per_day=100)), key(Limits(tpm=100))
        grant = await granted(world.here, before, Demand(tokens=80))
        await granted(world.here, after, Demand(tokens=100))
        await world.here.settle(grant, 10, 0)
        await refused(world.there, after, Demand(tokens=1))
        assert (await world.there.spent(before)) == {"alice": {"tokens_per_day": 10}}

    async def test_what_was_used_is_told_of_limits_only(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = [*key(PAST_ALL), ("bob", Limits(rpm=5, money_per_month=10**18)), ("carol", Limits())]
        grant = await granted(world.here, scopes, Demand(1, 1, 20, 30))
        spent = {"streams": 1, "tokens_per_day": 20, "tokens_per_month": 20, "money_per_day": 30, "money_per_month": 30}
        assert (await world.there.spent(scopes)) == {"alice": spent, "bob": {"money_per_month": 30}, "carol": {}}
        await world.here.settle(grant, 2, 3)
        spent = {"streams": 0, "tokens_per_day": 2, "tokens_per_month": 2, "money_per_day": 3, "money_per_month": 3}
        assert (await world.there.spent(scopes)) == {"alice": spent, "bob": {"money_per_month": 3}, "carol": {}}

    async def test_days_and_months_are_those_of_utc(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tokens_per_day=100, tokens_per_month=150))
        await granted(world.here, scopes, Demand(tokens=100))
        assert (await refused(world.here, scopes, Demand(tokens=1))).limit == "tokens_per_day"
        world.wall.now = NOON + DAY_S / 2 - 0.001
        assert (await refused(world.there, scopes, Demand(tokens=1))).limit == "tokens_per_day"
        world.wall.now = NOON + DAY_S / 2
        await granted(world.there, scopes, Demand(tokens=50))
        assert (await refused(world.here, scopes, Demand(tokens=1))).limit == "tokens_per_month"
        assert (await world.here.spent(scopes)) == {"alice": {"tokens_per_day": 50, "tokens_per_month": 150}}
        world.wall.now = NOON + 10 * DAY_S  # 1 December
        await granted(world.here, scopes, Demand(tokens=100))
        assert (await world.there.spent(scopes)) == {"alice": {"tokens_per_day": 100, "tokens_per_month": 100}}

    async def test_what_runs_over_midnight_is_settled_in_the_day_in_which_it_was_taken(
        self, open_world: OpenWorld
    ) -> None:
        world = await open_world()
        scopes = key(Limits(tokens_per_day=100, tokens_per_month=100, money_per_day=100))
        world.wall.now = NOON + 9.5 * DAY_S - 1  # the last second of November
        grant = await granted(world.here, scopes, Demand(tokens=100, money=7))
        world.wall.now += 2
        await granted(world.there, scopes, Demand(tokens=5, money=5))
        await world.here.settle(grant, 60, 8)
        today = {"tokens_per_day": 5, "tokens_per_month": 5, "money_per_day": 5}
        assert (await world.there.spent(scopes)) == {"alice": today}
        world.wall.now -= 2
        yesterday = {"tokens_per_day": 60, "tokens_per_month": 60, "money_per_day": 8}
        assert (await world.there.spent(scopes)) == {"alice": yesterday}

    async def test_a_date_that_goes_back_and_forth_forgets_nothing(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tokens_per_day=100, money_per_month=100))
        days = [NOON, NOON - 40 * DAY_S, NOON + 1000 * DAY_S, 0.0, NOON - DAY_S]
        for number, day in enumerate(days):
            world.wall.now = day
            await granted(world.here, scopes, Demand(tokens=number + 1))
        for number, day in enumerate(days):
            world.wall.now = day
            assert (await world.there.spent(scopes))["alice"]["tokens_per_day"] == number + 1
            await refused(world.there, scopes, Demand(tokens=100 - number))

    async def test_large_sums_are_exact(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(money_per_month=10**18, tokens_per_month=10**15))
        sums = {"tokens_per_month": 0, "money_per_month": 0}
        for number in range(40):
            tokens, money = 10**13 + 3**number % 10**6, 10**16 + 7**number % 10**9
            grant = await granted(world.here, scopes, Demand(tokens=tokens - number, money=money + number))
            await world.here.settle(grant, tokens, money)
            sums["tokens_per_month"] += tokens
            sums["money_per_month"] += money
            assert (await world.there.spent(scopes)) == {"alice": sums}

    async def test_requests_that_are_cancelled_at_random_leave_nothing_behind(self, open_world: OpenWorld) -> None:
        await cancel_at_random(await open_world(), 1000)


async def cancel_at_random(world: World, count: int) -> None:
    """So many requests, each cancelled at some moment or not at all: every stream and reservation comes back, and what
    was used is exact."""
    random = Random(count)
    scopes = [*key(Limits(streams=50, tokens_per_day=10**12, money_per_month=10**18)), (EVERYTHING, PAST_ALL)]
    used_tokens = used_money = settled = refusals = 0

    async def request(store: LimitStore, leaves_after_s: float, takes_s: float) -> None:
        nonlocal used_tokens, used_money, settled, refusals
        tokens, money = random.randrange(1000), random.randrange(10**9)
        with trio.move_on_after(leaves_after_s):
            await trio.lowlevel.checkpoint()
            grant = await store.take(scopes, Demand(streams=1, tokens=500, money=10**8))
            if isinstance(grant, Refusal):
                refusals += 1
                return
            try:
                await trio.sleep(takes_s)
            finally:
                with trio.move_on_after(PATIENCE_S, shield=True):
                    await store.settle(grant, tokens, money)
                    used_tokens, used_money, settled = used_tokens + tokens, used_money + money, settled + 1

    for first in range(0, count, 100):
        async with trio.open_nursery() as nursery:
            for number in range(first, min(first + 100, count)):
                store = (world.here, world.there)[number % 2]
                leaves_after_s = random.choice([0.0, 0.001, 0.01, 0.02, 1.0]) * random.random()
                nursery.start_soon(request, store, leaves_after_s, 0.02 * random.random())
    assert 0 < settled < count and refusals
    used = {"streams": 0, "tokens_per_day": used_tokens, "money_per_month": used_money}
    used_in_all = used | {"tokens_per_month": used_tokens, "money_per_day": used_money}
    with trio.move_on_after(world.lease_s + PATIENCE_S):
        while (await world.there.spent(scopes)) != {"alice": used, EVERYTHING: used_in_all}:  # noqa: ASYNC110
            await trio.sleep(0.05)
    assert (await world.there.spent(scopes)) == {"alice": used, EVERYTHING: used_in_all}


class MinuteCases:
    """One promise each, for which minutes pass."""

    async def test_room_is_there_when_it_was_promised_and_not_before(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=3, tpm=100))
        for tokens in (20, 30, 50):
            await granted(world.here, scopes, Demand(1, 0, tokens))
            await world.advance(10)
        for demand, about_s in (
            (Demand(requests=1), 30),
            (Demand(tokens=20), 30),
            (Demand(tokens=21), 40),
            (Demand(requests=1, tokens=51), 50),
        ):
            refusal = await refused(world.there, scopes, demand)
            assert refusal.wait_s is not None
            assert about_s - 0.1 < refusal.wait_s < about_s + SLOT_S + 0.1
        for wait_s, tokens in ((30, 20), (10, 30), (10, 50)):
            await world.advance(wait_s - 2 * SLOT_S)
            told = await refused(world.there, scopes, Demand(1, 0, tokens))
            assert told.wait_s is not None
            await world.advance(told.wait_s)
            await granted(world.here, scopes, Demand(1, 0, tokens))

    async def test_all_is_there_again_when_the_standing_says(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(rpm=3))
        await granted(world.here, scopes, Demand(requests=2))
        await world.advance(20)
        grant = await granted(world.there, scopes, Demand(requests=1))
        assert grant.requests is not None
        assert MINUTE_S - 0.1 < grant.requests.reset_s < MINUTE_S + SLOT_S + 0.1
        await world.advance(grant.requests.reset_s)
        await granted(world.there, scopes, Demand(requests=3))

    async def test_tokens_come_back_only_where_they_were_taken(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tpm=100))
        first = await granted(world.here, scopes, Demand(tokens=100))
        await world.advance(MINUTE_S + 2 * SLOT_S)
        await granted(world.there, scopes, Demand(tokens=100))
        await world.here.settle(first, 0, 0)
        await refused(world.there, scopes, Demand(tokens=1))

    async def test_tokens_that_were_too_few_count_from_when_it_is_known(self, open_world: OpenWorld) -> None:
        world = await open_world()
        scopes = key(Limits(tpm=100))
        grant = await granted(world.here, scopes, Demand(tokens=10))
        await world.advance(MINUTE_S - 2 * SLOT_S)
        await world.here.settle(grant, 90, 0)
        await world.advance(4 * SLOT_S)
        assert (await refused(world.there, scopes, Demand(tokens=21))).wait_s is not None
        await granted(world.there, scopes, Demand(tokens=20))


Step = tuple[str, int, int]
"""What happens, to whom (counted round), and a number that says how."""

HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "settle", "settle", "wait", "day"]),
        st.integers(0, 5),
        st.integers(0, 9),
    ),
    max_size=40,
)
"""For `check_history`."""

WHO: list[list[Scope]] = [
    [("alice", Limits(rpm=6, tpm=40, streams=3, tokens_per_day=90))],
    [("bob", Limits(tpm=30, tokens_per_month=100, money_per_day=60))],
    [("carol", Limits(rpm=3))],
]
ALL: Scope = (EVERYTHING, Limits(rpm=10, tpm=70, streams=5, tokens_per_month=250, money_per_month=150))


@dataclass
class Taken:
    """A grant of which the model knows, and who gave it."""

    store: LimitStore
    scopes: Sequence[Scope]
    demand: Demand
    number: int
    day: int
    grant: Grant


@dataclass
class Model:
    """What was taken, as plain lists."""

    now: float = 0.0
    day: int = 0
    under_way: list[Taken] = field(default_factory=list)
    requests: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    tokens: dict[str, list[list[float]]] = field(default_factory=dict)  # when, how many, by which take
    takes: int = 0
    used: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def in_last(self, taken: Sequence[Sequence[float]], seconds: float) -> float:
        return sum(one[1] for one in taken if self.now - one[0] <= seconds)

    def streams(self, name: str) -> int:
        return sum(one.demand.streams for one in self.under_way if name in dict(one.scopes))

    def is_over(self, scope: Scope, demand: Demand, window_s: float) -> set[str]:
        """Which limits of a scope have no room, if what was taken counts for so long."""
        name, limits = scope
        found = {
            "rpm": (limits.rpm, demand.requests, self.in_last(self.requests.get(name, []), window_s)),
            "tpm": (limits.tpm, demand.tokens, self.in_last(self.tokens.get(name, []), window_s)),
            "streams": (limits.streams, demand.streams, self.streams(name)),
        }
        for budget, amount in budgets_of(limits, demand.tokens, demand.money).items():
            used = self.used.get((name, budget, self.period(budget, self.day)), 0)
            found[budget] = (getattr(limits, budget), amount, used)
        return {
            budget
            for budget, (limit, amount, used) in found.items()
            if limit is not None and amount > 0 and used + amount > limit
        }

    @staticmethod
    def period(budget: str, day: int) -> int:
        return day if budget.endswith("day") else day // 5

    def wall(self) -> float:
        """Five days of a month, then five of the next, and so on."""
        year, month = divmod(self.day // 5 + 10, 12)
        return datetime(2026 + year, month + 1, 24 + self.day % 5, tzinfo=UTC).timestamp()


def budgets_of(limits: Limits, tokens: int, money: int) -> dict[str, int]:
    """For each budget that there is, so much of it."""
    amounts = {"tokens_per_day": tokens, "tokens_per_month": tokens, "money_per_day": money, "money_per_month": money}
    return {name: amount for name, amount in amounts.items() if getattr(limits, name) is not None}


async def check_history(steps: Sequence[Step], world: World) -> None:
    """Whatever happens in whatever order: no window and no budget has more than its limit, what has room is let in,
    what is refused was over the limit that is named, and sums are exact."""
    model = Model()
    world.wall.now = model.wall()
    for what, which, how in steps:
        store = (world.here, world.there)[how % 2]
        model.now = world.clock()
        if what == "take":
            await _take(store, model, which, how)
        elif what == "settle" and model.under_way:
            await _settle(model, which, how)
        elif what == "wait":
            await world.advance((0.2, 1.0, 7.0, 20.0, 59.5)[how % 5])
        elif what == "day":
            model.day = max(0, model.day + (-1, 1, 1, 4)[how % 4])
            world.wall.now = model.wall()
    for scope in (ALL, *(scopes[0] for scopes in WHO)):
        name, limits = scope
        expected = {
            budget: model.used.get((name, budget, model.period(budget, model.day)), 0)
            for budget in budgets_of(limits, 0, 0)
        }
        if limits.streams is not None:
            expected["streams"] = model.streams(name)
        assert (await world.there.spent([scope])) == {name: expected}


async def _take(store: LimitStore, model: Model, which: int, how: int) -> None:
    scopes = [*WHO[which % 3], ALL] if which < 5 else [ALL]
    demand = Demand(how < 8, how % 3 == 0, (0, 1, 5, 10, 25, 41)[how % 6], 4 * how)
    got = await store.take(scopes, demand)
    # What takes a little time of its own may make the model's minute a little too long.
    surely, perhaps = (
        {(scope[0], limit) for scope in scopes for limit in model.is_over(scope, demand, seconds)}
        for seconds in (MINUTE_S - 0.1, MINUTE_S + SLOT_S + 0.1)
    )
    if isinstance(got, Refusal):
        assert (got.scope, got.limit) in perhaps
        return
    assert not surely
    model.takes += 1
    for name, limits in scopes:
        model.requests.setdefault(name, []).append((model.now, demand.requests))
        model.tokens.setdefault(name, []).append([model.now, demand.tokens, model.takes])
        for budget, amount in budgets_of(limits, demand.tokens, demand.money).items():
            place = (name, budget, model.period(budget, model.day))
            model.used[place] = model.used.get(place, 0) + amount
    model.under_way.append(Taken(store, scopes, demand, model.takes, model.day, got))


async def _settle(model: Model, which: int, how: int) -> None:
    taken = model.under_way.pop(which % len(model.under_way))
    tokens, money = 6 * how, 5 * how
    await taken.store.settle(taken.grant, tokens, money)
    for name, limits in taken.scopes:
        tally = model.tokens[name]
        if tokens > taken.demand.tokens:
            tally.append([model.now, tokens - taken.demand.tokens, 0])
        else:
            [own] = [one for one in tally if one[2] == taken.number]
            own[1] = tokens
        before = budgets_of(limits, taken.demand.tokens, taken.demand.money)
        for budget, amount in budgets_of(limits, tokens, money).items():
            model.used[name, budget, model.period(budget, taken.day)] += amount - before[budget]
