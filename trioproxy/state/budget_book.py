"""Where the sums of budgets are kept: the contract. `budget_file` keeps them in a file; `MemoryBook` while the process
lives.

A book may be shared: of two processes with one book each adds to what the other has added.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from trioproxy.policy.account import Entry

Sums = Mapping[Entry, int]
"""What is summed, and how much: tokens, or picodollars."""


class BudgetBook(Protocol):
    """Sums of days and months. All calls may raise LimitsUnavailable of budgets: then nothing was changed.

    If cancelled, a call has changed nothing.
    """

    async def open(self) -> None:
        """Make it ready, unless it is. The other calls do so themselves."""
        ...

    async def add(self, amounts: Sums) -> dict[Entry, int]:
        """Add to sums, to all or to none; returns how these stand then."""
        ...

    async def read(self, entries: Collection[Entry]) -> dict[Entry, int]:
        """How sums stand; 0 where nothing was added yet."""
        ...

    async def has_news(self) -> bool:
        """Whether another process has changed sums since this was last asked."""
        ...

    def close_nowait(self) -> None:
        """Let go of what is held; a call that is under way is not disturbed. None may follow."""
        ...


class MemoryBook:
    """The book of one process for as long as it lives."""

    def __init__(self) -> None:
        self._sums: dict[Entry, int] = {}

    async def open(self) -> None:
        """Nothing is needed."""

    async def add(self, amounts: Sums) -> dict[Entry, int]:
        for entry, amount in amounts.items():
            self._sums[entry] = self._sums.get(entry, 0) + amount
        return await self.read(amounts)

    async def read(self, entries: Collection[Entry]) -> dict[Entry, int]:
        return {entry: self._sums.get(entry, 0) for entry in entries}

    async def has_news(self) -> bool:
        """There is no other process."""
        return False

    def close_nowait(self) -> None:
        """Nothing is held."""
