"""What one scope uses of its limits: requests and tokens of the minute, streams under way, budgets. PURE: the times are
arguments, `now` in seconds of a clock that does not go back, `wall_s` in seconds since 1970.

A budget is the sum of an entry: so many tokens, or so much money, of a day or a month. Sums come from outside (`know`):
an account counts what is added to them, and keeps apart what was not written down yet. A request that runs over
midnight is settled in the day in which it began.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trioproxy.policy.bucket import Bucket
from trioproxy.policy.limits import Demand, Kind, Limits, Refusal, Scope, Standing
from trioproxy.policy.period import day_of, month_of

Entry = tuple[str, str, str]
"""What is summed: a scope's name, "tokens" or "money", and a day or month as `period` names them."""

STREAM_WAIT_S: Final = 1.0
"""What is told where all streams are taken: nobody knows when one ends."""

_BUDGETS: Final = (
    ("tokens_per_day", "tokens", day_of),
    ("tokens_per_month", "tokens", month_of),
    ("money_per_day", "money", day_of),
    ("money_per_month", "money", month_of),
)


@dataclass(slots=True)
class Hold:
    """What was taken of an account, until it is settled."""

    account: "Account"
    at: float
    streams: int
    tokens: int
    money: int
    bucket: Bucket | None  # of which the tokens were taken
    entries: tuple[Entry, ...]  # to which tokens or money were added


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of a day or month, at some date."""

    name: str
    entry: Entry
    is_money: bool
    limit: int


class Account:
    """One scope's. Of `refusal` and `take` the demand and the times must be the same."""

    __slots__ = ("_budgets", "_day", "_limits", "_requests", "_tokens", "scope", "streams", "unwritten", "used")

    def __init__(self, scope: str, limits: Limits) -> None:
        self.scope = scope
        self.streams = 0
        self.used: dict[Entry, int] = {}
        """The sums that are known, with what is not written yet."""
        self.unwritten: dict[Entry, int] = {}
        """What was added, or taken away again, since the sums were last written."""
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._budgets: tuple[Budget, ...] = ()
        self._day = ""
        self._limits = Limits()
        self.limits = limits

    @property
    def limits(self) -> Limits:
        """May be replaced at any time: what was taken stays taken, where there is still a limit of that kind."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = _bucket(self._requests, limits.rpm)
        self._tokens = _bucket(self._tokens, limits.tpm)
        self._day = ""

    def unknown(self, wall_s: float) -> list[Entry]:
        """The sums that have to be known (`know`) before something can be taken at this date."""
        return [budget.entry for budget in self._budgets_at(wall_s) if budget.entry not in self.used]

    def know(self, sums: Mapping[Entry, int]) -> None:
        """Take up how sums stand where they are kept; what is not written yet comes on top."""
        for entry, total in sums.items():
            self.used[entry] = total + self.unwritten.get(entry, 0)

    def forget(self, wall_s: float) -> None:
        """Drop the sums of other days and months than those of this date, except what is not written yet."""
        needed = {budget.entry for budget in self._budgets_at(wall_s)} | self.unwritten.keys()
        self.used = {entry: total for entry, total in self.used.items() if entry in needed}

    def refusal(self, demand: Demand, now: float, wall_s: float) -> Refusal | None:
        """Why a demand is not met: of several reasons the one to wait longest for. None: there is room. All sums of
        this date are known."""
        found: Refusal | None = None
        for budget in self._budgets_at(wall_s):
            amount = demand.money if budget.is_money else demand.tokens
            if amount > 0 and self.used[budget.entry] + amount > budget.limit:
                return Refusal(self.scope, Kind.BUDGETS, budget.name, None)
        if self._requests is not None:
            wait_s = self._requests.wait_s(demand.requests, now)
            if wait_s != 0.0:
                found = Refusal(self.scope, Kind.REQUESTS, "rpm", wait_s)
        if self._tokens is not None:
            wait_s = self._tokens.wait_s(demand.tokens, now)
            if wait_s != 0.0:
                found = longest(found, Refusal(self.scope, Kind.TOKENS, "tpm", wait_s))
        streams = self._limits.streams
        if streams is not None and 0 < demand.streams > streams - self.streams:
            wait_s = STREAM_WAIT_S if demand.streams <= streams else None
            found = longest(found, Refusal(self.scope, Kind.STREAMS, "streams", wait_s))
        return found

    def take(self, demand: Demand, now: float, wall_s: float) -> Hold:
        """Take what `refusal` found room for."""
        if self._requests is not None:
            self._requests.take(demand.requests, now)
        if self._tokens is not None:
            self._tokens.take(demand.tokens, now)
        self.streams += demand.streams
        budgets = self._budgets_at(wall_s)
        for budget in budgets:
            self._add(budget.entry, demand.money if budget.is_money else demand.tokens)
        entries = tuple([budget.entry for budget in budgets])
        return Hold(self, now, demand.streams, demand.tokens, demand.money, self._tokens, entries)

    def settle(self, hold: Hold, tokens: int, money: int, now: float) -> None:
        """Put what it came to in the place of what was taken; once for each hold."""
        self.streams -= hold.streams
        if hold.bucket is not None and tokens < hold.tokens:
            hold.bucket.give_back(hold.tokens - tokens, hold.at, now)
        elif hold.bucket is not None and tokens > hold.tokens:
            hold.bucket.charge(tokens - hold.tokens, now)
        for entry in hold.entries:
            self._add(entry, money - hold.money if entry[1] == "money" else tokens - hold.tokens)

    def requests(self, now: float) -> Standing | None:
        """How the requests of the minute stand; None: there is no such limit."""
        return None if self._requests is None else self._requests.standing(now)

    def tokens(self, now: float) -> Standing | None:
        """How the tokens of the minute stand; None: there is no such limit."""
        return None if self._tokens is None else self._tokens.standing(now)

    def _add(self, entry: Entry, amount: int) -> None:
        if amount:
            self.unwritten[entry] = self.unwritten.get(entry, 0) + amount
            if entry in self.used:
                self.used[entry] += amount

    def _budgets_at(self, wall_s: float) -> tuple[Budget, ...]:
        """The budgets of this date; made anew once a day."""
        if not self._limits.has_budget:
            return ()
        day = day_of(wall_s)
        if day != self._day:
            self._budgets, self._day = budgets_at((self.scope, self._limits), wall_s), day
        return self._budgets


def budgets_at(scope: Scope, wall_s: float) -> tuple[Budget, ...]:
    """A scope's budgets at this date."""
    name, limits = scope
    limit_of = {budget: getattr(limits, budget) for budget, _, _ in _BUDGETS}
    return tuple(
        Budget(budget, (name, unit, period_of(wall_s)), unit == "money", limit_of[budget])
        for budget, unit, period_of in _BUDGETS
        if limit_of[budget] is not None
    )


def longest(one: Refusal | None, other: Refusal | None) -> Refusal | None:
    """Of two refusals the one to wait longer for; None is none."""
    if one is None or other is None:
        return one or other
    if one.wait_s is None or (other.wait_s is not None and other.wait_s <= one.wait_s):
        return one
    return other


def _bucket(bucket: Bucket | None, rate: int | None) -> Bucket | None:
    """The bucket for a rate: the same with another rate, a new one, or none."""
    if bucket is None or rate is None:
        return None if rate is None else Bucket(rate)
    bucket.rate = rate
    return bucket
