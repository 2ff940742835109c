"""Limits that many workers and replicas share, counted by a Redis server. `limits_scripts` says what is kept there.

A demand is one script, and so is settling it: the server takes one at a time, so nobody sees a half. Windows and leases
go by the server's clock; which day and month it is, by this machine's.

What was sent and not answered may have been done, now or when the server gets to it. So that nothing stays taken, each
grant has a record at the server: `run` says what such a grant came to, as often as it takes, and once it counts. That
is what happens to a demand that was cancelled, or given up, and to a settling that failed.

Budgets last as long as the server's data; they are kept through its restart where it writes to a disk (`appendonly`).
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Never

import trio

from trioproxy.policy.limits import Demand, Kind, Refusal, Scope, Standing
from trioproxy.policy.period import day_of, month_of
from trioproxy.state.limits import Grant, LimitsUnavailable, Spent
from trioproxy.state.limits_scripts import RENEW, SETTLE, SPENT, TAKE
from trioproxy.state.redis_calls import Call, run_all, send_all, with_text
from trioproxy.state.redis_link import Address, Command, NotSent, RedisLink, Value
from trioproxy.state.streams import StateUnavailable

_DAY_MS: Final = 86_400_000
_BUDGET_MS: Final = {"day": 3 * _DAY_MS, "month": 40 * _DAY_MS}
"""How long a sum is kept after its last change: longer than its day or month."""
_RECORD_MS: Final = _DAY_MS
"""How long a grant may be open while its process cannot reach the server."""
_VOID_MS: Final = 60_000
"""How long a command may be under way that was given up."""
_OVER_MS: Final = 60_000
"""How much longer than a lease a set of leases is kept."""

_STREAM_WAIT_S: Final = 1.0
"""Nobody knows when a stream ends."""
_AGAIN_S: Final = 0.2
_TOGETHER: Final = 100
"""How many calls are sent before their answers are waited for."""
_MOST_OWED: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Counter:
    """A limit of a scope, where it is counted, and what a demand wants of it. `name` is the field of `Limits`."""

    scope: str
    name: str
    kind: Kind
    key: bytes
    limit: int
    amount: int
    lasts_ms: int = 0

    @property
    def word(self) -> bytes:
        """The kind of counter, as scripts call it."""
        if self.kind is Kind.STREAMS:
            return b"streams"
        return b"budget" if self.kind is Kind.BUDGETS else b"window"


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a grant holds."""

    id: bytes
    record: bytes
    demand: Demand
    counters: tuple[_Counter, ...]

    @property
    def leases(self) -> Iterator[tuple[bytes, bytes]]:
        """For each lease the key of its set, and what it is called there."""
        for counter in self.counters:
            if counter.kind is Kind.STREAMS:
                for number in range(1, counter.amount + 1):
                    yield counter.key, b"%b:%d" % (self.id, number)

    def settling(self, used: Demand) -> Call:
        """The call that says what it came to."""
        arguments: list[Value] = [self.id, _VOID_MS]
        for counter in self.counters:
            amount = counter.amount
            if counter.kind is not Kind.STREAMS:
                amount = _wanted(counter.name, used) - amount
            arguments += [counter.word, amount, counter.lasts_ms]
        return SETTLE, [self.record, *(counter.key for counter in self.counters)], arguments


class RedisLimits:
    """Limits on a Redis server of version 6.2 or later.

    `run` belongs in the process nursery: without it every call says that there is no connection.

    Args:
        lease_s: after what time the streams of a process that died are free again. One that does not reach the server
            for so long loses its streams there too, though they go on; they count again when it is back.
        prefix: what every key begins with. Replicas of one service share it.
        timeout_s: after what time a call gives up.
        wall_clock: says the time in seconds since 1970, for the day and month.
    """

    def __init__(
        self,
        address: Address,
        *,
        lease_s: float,
        prefix: str = "trioproxy:",
        timeout_s: float = 1.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix.encode() + b"limits:"
        self._lease_s = lease_s
        self._lease_ms = round(lease_s * 1000)
        self._wall_clock = wall_clock
        self._link = RedisLink(address, timeout_s, greeting=self._greeting)
        self._open: dict[bytes, _Taken] = {}
        self._owed: dict[bytes, Call] = {}  # settlings of which nobody knows that they were done
        self._has_owed = trio.Event()

    async def run(self) -> Never:
        """Keep the connection and the leases, and settle what is owed, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.keep)
            nursery.start_soon(self._renew)
            nursery.start_soon(self._settle_owed)
        raise AssertionError("its tasks never end by themselves")

    async def take(self, scopes: Sequence[Scope], demand: Demand) -> Grant | Refusal:
        counters = self._counters(scopes, demand)
        for counter in counters:
            if counter.amount > counter.limit:
                await trio.lowlevel.checkpoint()
                return Refusal(counter.scope, counter.kind, counter.name, None)
        if not counters:
            await trio.lowlevel.checkpoint()
            return Grant(None, None)
        grant_id = secrets.token_hex(8).encode()
        taken = _Taken(grant_id, self._prefix + b"grant:" + grant_id, demand, counters)
        is_met, told = await self._take(taken)
        if not is_met:
            return _worst(counters, told)
        self._open[grant_id] = taken
        return _grant(taken, told)

    async def _take(self, taken: _Taken) -> tuple[bool, list[Any]]:
        """Ask for it. Whatever comes instead of an answer, it comes back if it was taken."""
        arguments: list[Value] = [taken.id, self._lease_ms, _RECORD_MS]
        for counter in taken.counters:
            bound = counter.limit if counter.word == b"window" else counter.limit - counter.amount
            arguments += [counter.word, counter.amount, bound, counter.lasts_ms]
        keys = [taken.record, *(counter.key for counter in taken.counters)]
        is_known = False  # whether it was taken
        try:
            [answer] = await run_all(self._link, [(TAKE, keys, arguments)])
            is_known = True
        except NotSent as error:
            is_known = True
            raise LimitsUnavailable(str(error)) from error
        except StateUnavailable as error:
            raise LimitsUnavailable(str(error)) from error
        finally:
            if not is_known:
                self._owe(taken.id, taken.settling(Demand()))
        assert isinstance(answer, list)
        return answer[0] == 1, answer[1]

    async def settle(self, grant: Grant, tokens: int, money: int) -> None:
        taken = grant.memo
        if taken is None:
            await trio.lowlevel.checkpoint()
            return
        del self._open[taken.id]
        call = taken.settling(Demand(taken.demand.requests, taken.demand.streams, tokens, money))
        is_done = False
        try:
            await run_all(self._link, [call])
            is_done = True
        except StateUnavailable as error:
            raise LimitsUnavailable(str(error)) from error
        finally:
            if not is_done:
                self._owe(taken.id, call)

    async def spent(self, scopes: Sequence[Scope]) -> Spent:
        counters = [one for one in self._counters(scopes, Demand(), is_all=True) if one.word != b"window"]
        found: dict[str, dict[str, int]] = {name: {} for name, _ in scopes}
        if not counters:
            await trio.lowlevel.checkpoint()
            return found
        call: Call = (SPENT, [one.key for one in counters], [one.word for one in counters])
        try:
            [answer] = await run_all(self._link, [call])
        except StateUnavailable as error:
            raise LimitsUnavailable(str(error)) from error
        assert isinstance(answer, list)
        for counter, used in zip(counters, answer, strict=True):
            found[counter.scope][counter.name] = int(used)
        return found

    # --- what is kept up

    async def _renew(self) -> Never:
        """Renew the leases of what is open. That also tries a connection that is quiet for long."""
        while True:
            await trio.sleep(self._lease_s / 3)
            calls = self._renewals()
            try:
                await run_all(self._link, calls) if calls else await send_all(self._link, [(b"PING",)])
            except StateUnavailable:
                pass  # a connection that comes up begins with this

    def _greeting(self) -> list[Command]:
        """What a new connection begins with: the leases are there before anything else is taken."""
        return [with_text(call) for call in self._renewals()]

    def _renewals(self) -> list[Call]:
        taken = list(self._open.values())
        calls: list[Call] = []
        for first in range(0, len(taken), _TOGETHER):
            some = taken[first : first + _TOGETHER]
            pairs = [(one.record, b"") for one in some] + [lease for one in some for lease in one.leases]
            times = [self._lease_ms, self._lease_ms + _OVER_MS, _RECORD_MS]
            calls.append((RENEW, [key for key, _ in pairs], [*times, *(lease for _, lease in pairs)]))
        return calls

    def _owe(self, grant_id: bytes, call: Call) -> None:
        self._owed[grant_id] = call
        if len(self._owed) > _MOST_OWED:
            del self._owed[next(iter(self._owed))]
        self._has_owed.set()

    async def _settle_owed(self) -> Never:
        while True:
            if not self._owed:
                self._has_owed = trio.Event()
                await self._has_owed.wait()
            some = dict(islice(self._owed.items(), _TOGETHER))
            try:
                await run_all(self._link, list(some.values()))
            except StateUnavailable:
                await trio.sleep(_AGAIN_S)
            else:
                for grant_id in some:
                    self._owed.pop(grant_id, None)

    # --- where it is counted

    def _counters(self, scopes: Sequence[Scope], demand: Demand, *, is_all: bool = False) -> tuple[_Counter, ...]:
        """The limits that a demand may meet; all: also those of which it wants nothing, now or later."""
        if not scopes:
            return ()
        wall_s = self._wall_clock()
        periods = {"day": day_of(wall_s), "month": month_of(wall_s)}
        return tuple(counter for scope in scopes for counter in self._counters_of(scope, demand, periods, is_all))

    def _counters_of(
        self, scope: Scope, demand: Demand, periods: Mapping[str, str], is_all: bool
    ) -> Iterator[_Counter]:
        name, limits = scope
        for limit_name, kind in _KINDS.items():
            limit: int | None = getattr(limits, limit_name)
            amount = _wanted(limit_name, demand)
            if limit is None or (kind is Kind.STREAMS and not amount and not is_all):
                continue
            unit, _, period = limit_name.partition("_per_")
            place = f"{unit}:{periods[period]}" if period else unit
            lasts_ms = _BUDGET_MS[period] if period else self._lease_ms + _OVER_MS
            key = self._prefix + f"{place}:{name}".encode()
            yield _Counter(name, limit_name, kind, key, limit, amount, lasts_ms)


_KINDS: Final = {
    "rpm": Kind.REQUESTS,
    "tpm": Kind.TOKENS,
    "streams": Kind.STREAMS,
    "tokens_per_day": Kind.BUDGETS,
    "tokens_per_month": Kind.BUDGETS,
    "money_per_day": Kind.BUDGETS,
    "money_per_month": Kind.BUDGETS,
}
"""The fields of `Limits`."""


def _wanted(limit_name: str, demand: Demand) -> int:
    """How much of a limit a demand wants."""
    if limit_name == "rpm":
        return demand.requests
    if limit_name == "streams":
        return demand.streams
    return demand.money if limit_name.startswith("money") else demand.tokens


def _grant(taken: _Taken, told: Sequence[Sequence[int]]) -> Grant:
    """What the server says of the windows, in the order of their counters."""
    standings: dict[Kind, list[Standing]] = {Kind.REQUESTS: [], Kind.TOKENS: []}
    windows = [counter for counter in taken.counters if counter.word == b"window"]
    for counter, (left, reset_ms) in zip(windows, told, strict=True):
        standings[counter.kind].append(Standing(counter.limit, max(left, 0), reset_ms / 1000))
    requests, tokens = (
        min(standings[kind], key=lambda one: one.remaining, default=None) for kind in (Kind.REQUESTS, Kind.TOKENS)
    )
    return Grant(requests, tokens, taken)


def _worst(counters: Sequence[_Counter], waits: Sequence[int]) -> Refusal:
    """The limit in whose way a demand is for the longest."""
    refusals = []
    for counter, wait_ms in zip(counters, waits, strict=True):
        if wait_ms:
            known_s = _STREAM_WAIT_S if counter.kind is Kind.STREAMS else None
            wait_s = wait_ms / 1000 if wait_ms > 0 else known_s
            refusals.append(Refusal(counter.scope, counter.kind, counter.name, wait_s))
    return max(refusals, key=lambda one: float("inf") if one.wait_s is None else one.wait_s)
