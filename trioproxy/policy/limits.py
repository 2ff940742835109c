"""What a key, or everything together, may use, and what a request wants of that. PURE: words only, no state.

Money is counted in picodollars (10^-12 USD), as whole numbers: a price with six decimals per million tokens is a whole
number of them per token, and sums are exact. Used by `gate`, `state` and `policy/account`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PICO: Final = 10**12
"""How many picodollars a dollar has."""

EVERYTHING: Final = "*"
"""The scope of all requests together; no key can have this name."""


class Kind(StrEnum):
    """The kinds of limits, as `on_state_loss` and metrics name them."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    STREAMS = "streams"
    BUDGETS = "budgets"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one scope may use; None: as much as it likes. `rpm` and `tpm` count in any 60 s, `streams` are requests
    under way at once, days and months are UTC's, money is in picodollars."""

    rpm: int | None = None
    tpm: int | None = None
    streams: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    money_per_day: int | None = None
    money_per_month: int | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of limits that there are."""
        found = {
            Kind.REQUESTS: self.rpm is not None,
            Kind.TOKENS: self.tpm is not None,
            Kind.STREAMS: self.streams is not None,
            Kind.BUDGETS: self.has_budget,
        }
        return frozenset(kind for kind, is_set in found.items() if is_set)

    @property
    def has_budget(self) -> bool:
        """Whether something is counted by the day or month."""
        counted = (self.tokens_per_day, self.tokens_per_month, self.money_per_day, self.money_per_month)
        return any(one is not None for one in counted)

    @property
    def has_money(self) -> bool:
        """Whether money is counted, so that a model without a price cannot be let in."""
        return self.money_per_day is not None or self.money_per_month is not None

    @property
    def needs_usage(self) -> bool:
        """Whether it has to be known how many tokens an answer took."""
        return self.tpm is not None or self.has_budget

    def without(self, kinds: frozenset[Kind]) -> "Limits":
        """These limits, less those of some kinds."""
        no_budget = Kind.BUDGETS in kinds
        return Limits(
            rpm=None if Kind.REQUESTS in kinds else self.rpm,
            tpm=None if Kind.TOKENS in kinds else self.tpm,
            streams=None if Kind.STREAMS in kinds else self.streams,
            tokens_per_day=None if no_budget else self.tokens_per_day,
            tokens_per_month=None if no_budget else self.tokens_per_month,
            money_per_day=None if no_budget else self.money_per_day,
            money_per_month=None if no_budget else self.money_per_month,
        )


Scope = tuple[str, Limits]
"""A key's name, or `EVERYTHING`, and its limits."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request wants: `tokens` and `money` are an estimate of what it will come to."""

    requests: int = 0
    streams: int = 0
    tokens: int = 0
    money: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit of the minute stands: how much there is in all, how much is left, and after how many seconds all of
    it is there again if nobody takes any."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand is not met: which limit of which scope. `wait_s`: after so many seconds there is room, if nobody
    else takes it (for `streams` a guess); None: waiting does not help, the budget is empty or the demand never fits."""

    scope: str
    kind: Kind
    limit: str
    wait_s: float | None
