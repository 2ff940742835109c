"""An account meets a demand as long as there is room of everything, and says what it waits for where there is not."""

import pytest

from trioproxy.policy.account import STREAM_WAIT_S, Account, Entry, Hold, budgets_at, longest
from trioproxy.policy.limits import Demand, Kind, Limits, Refusal

NOON = 1_795_262_400.0
"""2026-11-21T12:00:00Z."""
DAY_S = 86_400.0
TODAY: Entry = ("alice", "tokens", "2026-11-21")
TOMORROW: Entry = ("alice", "tokens", "2026-11-22")
MONTH: Entry = ("alice", "money", "2026-11")


def taken(account: Account, demand: Demand, now: float = 0.0, wall_s: float = NOON) -> Hold:
    account.know(dict.fromkeys(account.unknown(wall_s), 0))
    assert account.refusal(demand, now, wall_s) is None
    return account.take(demand, now, wall_s)


def refused(account: Account, demand: Demand, now: float = 0.0, wall_s: float = NOON) -> Refusal:
    account.know(dict.fromkeys(account.unknown(wall_s), 0))
    refusal = account.refusal(demand, now, wall_s)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    ("limits", "demand", "expected"),
    [
        (Limits(), Demand(10**9, 10**9, 10**9, 10**18), None),
        (Limits(rpm=5), Demand(requests=5), None),
        (Limits(rpm=5), Demand(requests=6), (Kind.REQUESTS, "rpm", None)),
        (Limits(tpm=5), Demand(tokens=6), (Kind.TOKENS, "tpm", None)),
        (Limits(streams=5), Demand(streams=5), None),
        (Limits(streams=5), Demand(streams=6), (Kind.STREAMS, "streams", None)),
        (Limits(tokens_per_day=5), Demand(tokens=6), (Kind.BUDGETS, "tokens_per_day", None)),
        (Limits(tokens_per_month=5), Demand(tokens=6), (Kind.BUDGETS, "tokens_per_month", None)),
        (Limits(money_per_day=5), Demand(money=6), (Kind.BUDGETS, "money_per_day", None)),
        (Limits(money_per_month=5), Demand(money=6), (Kind.BUDGETS, "money_per_month", None)),
        (Limits(tokens_per_day=5, money_per_day=5), Demand(tokens=5, money=5), None),
        (Limits(rpm=0, tpm=0, streams=0, tokens_per_day=0), Demand(), None),
    ],
)
def test_a_demand_is_met_or_refused(
    limits: Limits, demand: Demand, expected: tuple[Kind, str, float | None] | None
) -> None:
    account = Account("alice", limits)
    account.know(dict.fromkeys(account.unknown(NOON), 0))
    refusal = account.refusal(demand, 0.0, NOON)
    assert refusal == (None if expected is None else Refusal("alice", *expected))


def test_of_several_reasons_the_one_to_wait_longest_for_is_told() -> None:
    limits = Limits(rpm=1, tpm=10, streams=1, tokens_per_day=30)
    account = Account("alice", limits)
    taken(account, Demand(tokens=10), now=0.0)
    taken(account, Demand(streams=1, requests=1), now=20.0)
    for demand, name in (
        (Demand(streams=1), "streams"),
        (Demand(streams=1, tokens=1), "tpm"),
        (Demand(1, 1, 1), "rpm"),
        (Demand(1, 1, 25), "tokens_per_day"),
    ):
        assert refused(account, demand, now=30.0).limit == name
    assert refused(account, Demand(streams=1), now=30.0).wait_s == STREAM_WAIT_S


def test_a_refusal_without_an_end_is_the_longest() -> None:
    short, long, endless = (Refusal("alice", Kind.REQUESTS, "rpm", wait_s) for wait_s in (1.0, 2.0, None))
    for one, other, expected in (
        (None, None, None),
        (None, short, short),
        (short, None, short),
        (short, long, long),
        (long, short, long),
        (endless, long, endless),
        (long, endless, endless),
    ):
        assert longest(one, other) is expected


class TestSums:
    def test_they_have_to_be_known_first_and_anew_on_another_day(self) -> None:
        account = Account("alice", Limits(tokens_per_day=100, money_per_month=100, rpm=1))
        assert account.unknown(NOON) == [TODAY, MONTH]
        account.know({TODAY: 90})
        assert account.unknown(NOON) == [MONTH]
        account.know({MONTH: 0})
        assert account.unknown(NOON) == []
        assert account.unknown(NOON + DAY_S) == [TOMORROW]
        assert refused(account, Demand(tokens=11)).limit == "tokens_per_day"
        taken(account, Demand(tokens=10))

    def test_what_is_not_written_comes_on_top_of_what_is(self) -> None:
        account = Account("alice", Limits(tokens_per_day=100))
        hold = taken(account, Demand(tokens=30))
        account.settle(hold, 20, 0, 0.0)
        assert (account.used, account.unwritten) == ({TODAY: 20}, {TODAY: 20})
        account.know({TODAY: 50})
        assert account.used == {TODAY: 70}
        account.unwritten = {}
        account.know({TODAY: 70})
        assert account.used == {TODAY: 70}

    def test_those_of_other_days_are_dropped_unless_something_is_to_be_written(self) -> None:
        account = Account("alice", Limits(tokens_per_day=100))
        hold = taken(account, Demand(tokens=30))
        taken(account, Demand(tokens=1), wall_s=NOON + DAY_S)
        account.forget(NOON + DAY_S)
        assert account.used.keys() == {TODAY, TOMORROW}
        account.unwritten = {}
        account.forget(NOON + DAY_S)
        assert account.used == {TOMORROW: 1}
        account.settle(hold, 35, 0, 0.0)
        assert (account.used, account.unwritten) == ({TOMORROW: 1}, {TODAY: 5})

    def test_budgets_have_the_names_of_their_limits(self) -> None:
        limits = Limits(tokens_per_month=1, money_per_day=2, rpm=5)
        found = [(budget.name, budget.entry, budget.limit) for budget in budgets_at(("alice", limits), NOON)]
        assert found == [
            ("tokens_per_month", ("alice", "tokens", "2026-11"), 1),
            ("money_per_day", ("alice", "money", "2026-11-21"), 2),
        ]
        assert budgets_at(("alice", Limits(rpm=5, tpm=5, streams=5)), NOON) == ()


class TestReplacedLimits:
    def test_what_was_taken_stays_taken(self) -> None:
        account = Account("alice", Limits(rpm=10, tpm=100, streams=5, tokens_per_day=100))
        hold = taken(account, Demand(4, 2, 40))
        account.limits = Limits(rpm=5, tpm=50, streams=2, tokens_per_day=50)
        assert refused(account, Demand(requests=2)).kind is Kind.REQUESTS
        assert refused(account, Demand(streams=1)).kind is Kind.STREAMS
        assert refused(account, Demand(tokens=11)).kind is Kind.BUDGETS
        account.settle(hold, 0, 0, 0.0)
        taken(account, Demand(1, 2, 50))

    def test_tokens_come_back_to_the_bucket_of_which_they_were_taken(self) -> None:
        account = Account("alice", Limits(tpm=100))
        first = taken(account, Demand(tokens=100))
        account.limits = Limits()
        second = taken(account, Demand(tokens=100))
        account.limits = Limits(tpm=100)
        taken(account, Demand(tokens=100))
        for hold in (first, second):
            account.settle(hold, 0, 0, 0.0)
        assert refused(account, Demand(tokens=1)).kind is Kind.TOKENS

    def test_streams_are_counted_also_while_there_is_no_limit(self) -> None:
        account = Account("alice", Limits())
        hold = taken(account, Demand(streams=3))
        account.limits = Limits(streams=2)
        assert refused(account, Demand(streams=1)).kind is Kind.STREAMS
        taken(account, Demand(requests=1))
        account.limits = Limits(streams=3)
        account.settle(hold, 0, 0, 0.0)
        taken(account, Demand(streams=3))


def test_standings_are_those_of_the_minute() -> None:
    account = Account("alice", Limits(rpm=10, tpm=100))
    taken(account, Demand(1, 0, 30))
    requests, tokens = account.requests(0.0), account.tokens(0.0)
    assert requests is not None and (requests.limit, requests.remaining) == (10, 9)
    assert tokens is not None and (tokens.limit, tokens.remaining) == (100, 70)
    assert Account("bob", Limits(streams=5)).requests(0.0) is None
