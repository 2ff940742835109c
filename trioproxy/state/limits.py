"""Where limits are counted: the contract. `limits_memory` keeps it for one worker, `limits_redis` for all of them; one
suite tests both.

What holds:

* **All or nothing.** A demand is met by all its scopes, or takes nothing of any.
* **The minute.** In no window of 60 s more than `rpm` requests and `tpm` tokens are taken of a scope.
* **Streams.** Of a scope never more than `streams` are taken and not yet settled. A process that dies gives its own
  back within `lease_s`.
* **Budgets.** What was taken and settled of a day or month (UTC) is never more than its limit when something is taken,
  and is exact to the token and the picodollar: settling a grant puts what it came to in the place of what was taken, in
  the day and month in which that was.
* **Settling** never fails for want of room: what it came to was used. Tokens of the minute that were taken too many
  come back, those that were too few count from now on.
* **If cancelled**, `take` has taken nothing, or what was taken comes back by itself within `lease_s` (streams) and 60 s
  (the minute); `settle` is called in a shielded scope with a deadline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trioproxy.policy.limits import Demand, Kind, Refusal, Scope, Standing


class LimitsUnavailable(Exception):
    """Some kinds of limits cannot be counted now. What it says holds no password."""

    def __init__(self, message: str, kinds: frozenset[Kind] = frozenset(Kind)) -> None:
        super().__init__(message)
        self.kinds = kinds


@dataclass(slots=True)
class Grant:
    """What was taken, until it is settled. `requests` and `tokens` tell how the limits of the minute stand behind it:
    of several scopes the one with the least left; None where there is no such limit. `memo` is the store's own."""

    requests: Standing | None
    tokens: Standing | None
    memo: Any = None


Spent = Mapping[str, Mapping[str, int]]
"""For each scope what was used: `streams` at this moment, `tokens_per_day`, `tokens_per_month`, `money_per_day`,
`money_per_month` of the present day and month, reservations included; only those with a limit."""


class LimitStore(Protocol):
    """Counts what scopes use."""

    async def take(self, scopes: Sequence[Scope], demand: Demand) -> Grant | Refusal:
        """Meet a demand, of all scopes or of none. Raises LimitsUnavailable; then nothing was taken."""
        ...

    async def settle(self, grant: Grant, tokens: int, money: int) -> None:
        """Say what it came to, once. Raises LimitsUnavailable: then the stream comes back with its lease, and what was
        taken stays counted as it was estimated."""
        ...

    async def spent(self, scopes: Sequence[Scope]) -> Spent:
        """What was used so far. Raises LimitsUnavailable."""
        ...

    async def run(self) -> None:
        """Keep what has to be kept up (leases, connections, the file), until cancelled; belongs in the process's
        nursery."""
        ...
