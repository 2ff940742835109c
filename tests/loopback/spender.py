"""A process that spends of a budget as fast as it can, and says how much: something to kill.

Run as a program: `python -m tests.loopback.spender FILE LIMIT`. It begins at once, with eight requests under way, and
writes a line a few times a second: the time (monotonic, of the machine), tokens settled, and tokens reserved.
"""

import sys
import time
from pathlib import Path

import trio

from trioproxy.policy.limits import EVERYTHING, Demand, Limits, Refusal, Scope
from trioproxy.state.budget_file import BudgetFile
from trioproxy.state.limits_memory import MemoryLimits

RESERVED = 50
SPENT = 7
UNDER_WAY = 8


class Spender:
    """Its count of what it used."""

    def __init__(self, path: Path, limit: int) -> None:
        self.store = MemoryLimits(BudgetFile(path))
        self.scopes: list[Scope] = [
            ("alice", Limits(tokens_per_month=limit)),
            (EVERYTHING, Limits(money_per_day=10**18)),
        ]
        self.settled = self.reserved = 0

    async def spend(self) -> None:
        """Request after request, until the budget is empty."""
        while True:
            grant = await self.store.take(self.scopes, Demand(1, 1, RESERVED, RESERVED))
            if isinstance(grant, Refusal):
                return
            self.reserved += RESERVED
            await trio.sleep(0.002)
            await self.store.settle(grant, SPENT, SPENT)
            self.settled, self.reserved = self.settled + SPENT, self.reserved - RESERVED

    async def tell(self) -> None:
        while True:
            print(time.monotonic(), self.settled, self.reserved, flush=True)
            await trio.sleep(0.05)


async def spend(path: Path, limit: int) -> None:
    spender = Spender(path, limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spender.store.run)
        nursery.start_soon(spender.tell)
        async with trio.open_nursery() as spending:
            for _ in range(UNDER_WAY):
                spending.start_soon(spender.spend)
        nursery.cancel_scope.cancel()
    print("empty", spender.settled, 0, flush=True)


if __name__ == "__main__":
    trio.run(spend, Path(sys.argv[1]), int(sys.argv[2]))
