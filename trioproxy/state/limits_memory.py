"""The limits of one worker: what `limits` promises, in memory; the sums of budgets are written into a book.

Nothing waits here except for the book: when a scope's budgets of a day are first needed they are read from it, and
twice a second what was added is written. So what is lost of a process that is killed is what it used in the last half
second, and while that was written; what it had reserved stays counted as if it had been used. Several processes may
share a book, as an old worker and a new one do for a while: each sees what the other used half a second late.

A book that fails makes budgets unavailable until it works again, and what was used meanwhile is kept and written then.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Never

import trio

from trioproxy.policy.account import Account, Entry, Hold, budgets_at, longest
from trioproxy.policy.limits import Demand, Kind, Limits, Refusal, Scope, Standing
from trioproxy.state.budget_book import BudgetBook, MemoryBook
from trioproxy.state.limits import Grant, LimitsUnavailable, Spent

WRITE_S: Final = 0.5
"""How often what was used is written."""
_LAST_WRITE_S: Final = 2.0
"""How long the end may take."""


class MemoryLimits:
    """The limits of one process. The clock of minutes is trio's.

    `run` belongs in the process's nursery; without it nothing is written, and it has to outlive all requests.

    Args:
        book: where sums are kept; None: they last as long as this does. It is opened when a budget is first needed.
        wall_clock: the date, in seconds since 1970.
    """

    def __init__(self, book: BudgetBook | None = None, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._book: BudgetBook = MemoryBook() if book is None else book
        self._wall_clock = wall_clock
        self._accounts: dict[str, Account] = {}
        self._changed: dict[str, Account] = {}  # those that have something to be written
        self._lock = trio.Lock()  # one at a time reads or writes the book
        self._is_needed = trio.Event()  # somebody has a budget
        self._fault: str | None = None  # why the book does not work

    async def take(self, scopes: Sequence[Scope], demand: Demand) -> Grant | Refusal:
        accounts = [self._account(name, limits) for name, limits in scopes]
        wall_s = self._wall_clock()
        while unknown := [entry for account in accounts for entry in account.unknown(wall_s)]:
            await self._read(unknown, wall_s)
            # A moment later others may have changed the limits, or it is another day.
            accounts = [self._account(name, limits) for name, limits in scopes]
            wall_s = self._wall_clock()
        if self._fault is not None and any(account.limits.has_budget for account in accounts):
            raise _unavailable(self._fault)
        now = trio.current_time()
        refusal: Refusal | None = None
        for account in accounts:
            refusal = longest(refusal, account.refusal(demand, now, wall_s))
        if refusal is not None:
            return refusal
        holds = [account.take(demand, now, wall_s) for account in accounts]
        self._note_changed(accounts)
        requests = _least(account.requests(now) for account in accounts)
        tokens = _least(account.tokens(now) for account in accounts)
        return Grant(requests, tokens, holds)

    async def settle(self, grant: Grant, tokens: int, money: int) -> None:
        holds: list[Hold] = grant.memo
        grant.memo = []
        now = trio.current_time()
        for hold in holds:
            hold.account.settle(hold, tokens, money, now)
        self._note_changed(hold.account for hold in holds)

    async def spent(self, scopes: Sequence[Scope]) -> Spent:
        wall_s = self._wall_clock()
        budgets = {name: budgets_at((name, limits), wall_s) for name, limits in scopes}
        sums = await self._sums([budget.entry for found in budgets.values() for budget in found])
        spent = {name: {budget.name: sums[budget.entry] for budget in found} for name, found in budgets.items()}
        for name, limits in scopes:
            if limits.streams is not None:
                account = self._accounts.get(name)
                spent[name]["streams"] = 0 if account is None else account.streams
        return spent

    async def run(self) -> Never:
        """Write what was used and take up what others wrote, until cancelled; then write the last."""
        try:
            await self._is_needed.wait()
            while True:
                await trio.sleep(WRITE_S)
                await self._keep_up()
        finally:
            with trio.move_on_after(_LAST_WRITE_S, shield=True):
                if self._changed:
                    await self._keep_up()
            self._book.close_nowait()

    @property
    def streams(self) -> int:
        """How many are taken at this moment, of all scopes together."""
        return sum(account.streams for account in self._accounts.values())

    def _account(self, name: str, limits: Limits) -> Account:
        """A scope's account, with the limits that it has now."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name, limits)
        elif account.limits is not limits and account.limits != limits:
            account.limits = limits
        return account

    def _note_changed(self, accounts: Iterable[Account]) -> None:
        for account in accounts:
            if account.unwritten:
                self._changed[account.scope] = account

    async def _read(self, entries: Collection[Entry], wall_s: float) -> None:
        """Let the accounts know these sums, and forget those of other dates. Raises LimitsUnavailable."""
        async with self._lock:
            # Of many that waited for the same sums the first has read them.
            unknown = [entry for entry in entries if entry not in self._accounts[entry[0]].used]
            for entry, total in (await self._ask(unknown)).items() if unknown else ():
                account = self._accounts[entry[0]]
                account.know({entry: total})
                account.forget(wall_s)

    async def _sums(self, entries: Collection[Entry]) -> dict[Entry, int]:
        """How sums stand, with what is not written yet. Raises LimitsUnavailable."""
        if not entries:
            return {}
        async with self._lock:
            sums = await self._ask(entries)
            self._know(sums)
        unwritten = {scope: self._accounts[scope].unwritten for scope, _, _ in entries if scope in self._accounts}
        return {entry: total + unwritten.get(entry[0], {}).get(entry, 0) for entry, total in sums.items()}

    async def _ask(self, entries: Collection[Entry]) -> dict[Entry, int]:
        """What the book says; the lock is held, so that nothing is on its way there. Raises LimitsUnavailable."""
        self._is_needed.set()
        if self._fault is not None:
            raise _unavailable(self._fault)
        try:
            return await self._book.read(entries)
        except LimitsUnavailable as error:
            self._fault = str(error)
            raise

    async def _keep_up(self) -> None:
        """Write what was used, and take up what others wrote; or find that the book does not work."""
        async with self._lock:
            try:
                await self._write()
                if await self._book.has_news():
                    known = [entry for account in self._accounts.values() for entry in account.used]
                    self._know(await self._book.read(known))
            except LimitsUnavailable as error:
                self._fault = str(error)
            else:
                self._fault = None

    async def _write(self) -> None:
        """Write what is not written. What could not be is kept. Raises LimitsUnavailable."""
        changed, self._changed = self._changed, {}
        amounts = {entry: n for account in changed.values() for entry, n in account.unwritten.items()}
        for account in changed.values():
            account.unwritten = {}
        is_written = False
        try:
            sums = await self._book.add(amounts) if any(amounts.values()) else {}
            is_written = True
        finally:
            if not is_written:
                for entry, n in amounts.items():
                    account = self._changed[entry[0]] = changed[entry[0]]
                    account.unwritten[entry] = account.unwritten.get(entry, 0) + n
        self._know(sums)

    def _know(self, sums: Mapping[Entry, int]) -> None:
        """Let the accounts know how sums stand, if they know them at all."""
        for entry, total in sums.items():
            account = self._accounts.get(entry[0])
            if account is not None and entry in account.used:
                account.know({entry: total})


def _unavailable(fault: str) -> LimitsUnavailable:
    return LimitsUnavailable(fault, frozenset({Kind.BUDGETS}))


def _least(standings: Iterable[Standing | None]) -> Standing | None:
    """The one with the least left."""
    return min((one for one in standings if one is not None), key=lambda one: one.remaining, default=None)
