"""What a worker tells of what its keys have used."""

from collections.abc import Sequence

import trio
import trio.testing

from trioproxy.gate.gate import Gate
from trioproxy.gate.keys import VirtualKey
from trioproxy.gate.ticket import Books
from trioproxy.policy.limits import EVERYTHING, Demand, Kind, Limits, Scope
from trioproxy.policy.routing import Routes
from trioproxy.server.gate import MAX_SPENT, spent
from trioproxy.state.limits import LimitStore, LimitsUnavailable, Spent
from trioproxy.state.limits_memory import MemoryLimits
from trioproxy.telemetry.metrics import Metrics

LIMITED = Limits(streams=5, rpm=10)


def gate_of(store: LimitStore, *keys: VirtualKey) -> Gate:
    gate = Gate(books=Books(store, Routes([], None), frozenset(), Metrics()), limits=Limits(streams=100))
    gate.take_keys(keys)
    return gate


def key(name: str, limits: Limits) -> VirtualKey:
    return VirtualKey(name, name.encode(), limits=limits)


async def test_what_is_counted_for_longer_than_a_minute_is_told(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryLimits(None)
    await store.take([("team-a", LIMITED), (EVERYTHING, Limits(streams=100))], Demand(requests=1, streams=2))
    told = await spent(gate_of(store, key("team-a", LIMITED), key("free", Limits())))
    assert told == {"team-a": {"streams": 2}, EVERYTHING: {"streams": 2}}


class WithoutBudgets(MemoryLimits):
    """Its book is gone: of money and tokens of a day nothing is known. `kinds` are those that cannot be counted."""

    kinds = frozenset({Kind.BUDGETS})

    async def spent(self, scopes: Sequence[Scope]) -> Spent:
        await trio.lowlevel.checkpoint()
        if any(limits.kinds & self.kinds for _, limits in scopes):
            raise LimitsUnavailable("gone", self.kinds)
        if any(limits.has_money for _, limits in scopes):
            return {name: {"money_per_month": 12_340_000_000} for name, _ in scopes}
        return await super().spent(scopes)


async def test_money_is_told_in_dollars_and_not_at_all_while_it_is_not_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    paid = key("paid", Limits(streams=5, money_per_month=10**13))
    store = WithoutBudgets(None)
    told = await spent(gate_of(store, paid))
    assert told == {"paid": {"streams": 0}, EVERYTHING: {"streams": 0}}
    store.kinds = frozenset()
    assert (await spent(gate_of(store, paid)))["paid"] == {"usd_per_month": "0.01234"}


async def test_of_very_many_keys_only_the_first_are_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    keys = [key(f"key-{number}", LIMITED) for number in range(MAX_SPENT + 10)]
    assert len(await spent(gate_of(MemoryLimits(None), *keys))) == MAX_SPENT + 1
