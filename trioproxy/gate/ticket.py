"""What one request wants of the limits: taken before it goes on, settled when it is over.

A `Ticket` is written out once the request is read. Entering it takes what the request may come to, of its key's limits
and of those of everything, and pushes the settling onto the request's exit stack: behind the origin's connection in the
order of leaving, so the origin is let go first, and then it is accounted what it came to. For a stream that several
read, the ticket is entered by who produces it, and each reader counts as one request.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from math import inf
from typing import Final, Protocol

import trio

from trioproxy.errors import ProxyError, QuotaExceeded, RateLimited, StateUnavailable
from trioproxy.policy.limits import EVERYTHING, Demand, Kind, Refusal, Scope, Standing
from trioproxy.policy.price import Price, Prices
from trioproxy.state.limits import Grant, LimitStore, LimitsUnavailable
from trioproxy.telemetry.exchange import HEDGE_LOST, Exchange
from trioproxy.wire.headers import Headers
from trioproxy.wire.measures import BYTES_PER_TOKEN, Estimate
from trioproxy.wire.rate_limit import fields

SETTLE_S: Final = 1.0
"""How long the end of a request may wait for its accounts. What is not settled by then stays as it was estimated."""

MOST_MONEY: Final = 10**18
"""No request is settled with more, a million dollars: sums are counted in 64 bits."""

_NEVER_SENT: Final = frozenset(
    {"upstream_connect_failed", "upstream_connect_timeout", "no_healthy_upstream", "overloaded", "model_not_allowed"}
)
"""Failures behind which no origin has seen the request."""


class GateCounts(Protocol):
    """Where it is counted what the gate did."""

    def limited(self, kind: str) -> None:
        """A request was refused by a limit of this kind."""
        ...

    def uncounted(self, kind: str) -> None:
        """A limit of this kind was not kept for a request, as the state was gone."""
        ...

    def unsettled(self) -> None:
        """A request could not be settled."""
        ...


class Books:
    """What tickets work with: the store of limits, prices, and what becomes of requests while the store is gone
    (`open_kinds`: kinds of limits that are left out then; the others refuse)."""

    def __init__(
        self,
        store: LimitStore,
        prices: Prices,
        open_kinds: frozenset[Kind],
        counts: GateCounts,
        *,
        has_prices: bool = False,
    ) -> None:
        self.store = store
        self.prices = prices
        self.has_prices = has_prices
        self.open_kinds = open_kinds
        self.counts = counts


class Ticket:
    """One request's. `estimate` None: of its tokens nothing can be known.

    Attributes:
        asks_usage: whether it has to be known how many tokens the answer took.
    """

    __slots__ = ("_books", "_demand", "_estimate", "_scopes", "asks_usage")

    def __init__(self, books: Books, scopes: list[Scope], estimate: Estimate | None, price: Price | None) -> None:
        self._books = books
        self._scopes = scopes
        self._estimate = estimate
        tokens = 0 if estimate is None else estimate.input + estimate.output
        money = 0 if estimate is None or price is None else price.of(estimate.input, estimate.output)
        self._demand = Demand(requests=1, streams=1, tokens=tokens, money=min(money, MOST_MONEY))
        self.asks_usage = any(limits.needs_usage for _, limits in scopes)

    async def count(self) -> Headers:
        """Count a request that reads what another one has to pay for: entering takes the rest. Returns the fields that
        tell the client how its limits stand. Raises as `enter` does."""
        self._demand = replace(self._demand, requests=0)
        return await self._told(Demand(requests=1), None)

    async def enter(self, exchange: Exchange, stack: AsyncExitStack) -> Headers:
        """Take what the request may come to, until `stack` is left. Returns the fields that tell the client how its
        limits stand. Raises RateLimited, QuotaExceeded or StateUnavailable; then nothing is taken."""
        taken: list[Grant] = []
        if self._scopes or self._books.has_prices:
            # Pushed first: what is taken under way to a cancellation is settled too.
            stack.push_async_callback(self._settle, taken, exchange)
        told = await self._told(self._demand, taken)
        exchange.permitted_at = trio.current_time()
        return told

    async def _told(self, demand: Demand, taken: list[Grant] | None) -> Headers:
        if not self._scopes:
            return []
        outcome = await self._take(self._scopes, demand)
        if isinstance(outcome, Refusal):
            self._books.counts.limited(outcome.kind)
            raise refused(outcome, self._scopes)
        if outcome is None:
            return []
        if taken is not None:
            taken.append(outcome)
        return [*_fields(b"requests", outcome.requests), *_fields(b"tokens", outcome.tokens)]

    async def _take(self, scopes: list[Scope], demand: Demand) -> Grant | Refusal | None:
        """What the store says; None if nothing was left to be counted by it."""
        books = self._books
        try:
            return await books.store.take(scopes, demand)
        except LimitsUnavailable as lost:
            kinds = frozenset[Kind]().union(*(limits.kinds for _, limits in scopes)) & lost.kinds
            if not kinds or kinds - books.open_kinds:
                raise StateUnavailable("The limits of this key cannot be counted now; send it again later.") from None
        for kind in kinds:
            books.counts.uncounted(kind)
        rest = [(name, reduced) for name, limits in scopes if (reduced := limits.without(kinds)).kinds]
        return await self._take(rest, demand) if rest else None

    async def _settle(self, taken: list[Grant], exchange: Exchange) -> None:
        """Say what the request came to: by the origin's figures, else by what went by."""
        tokens, money = self._came_to(exchange)
        for grant in taken:
            with trio.move_on_after(SETTLE_S, shield=True) as scope:
                try:
                    await self._books.store.settle(grant, tokens, money)
                except LimitsUnavailable:
                    self._books.counts.unsettled()
            if scope.cancelled_caught:
                self._books.counts.unsettled()

    def _came_to(self, exchange: Exchange) -> tuple[int, int]:
        """Tokens and money; the cost goes into the record."""
        usage = exchange.usage
        price = self._books.prices.find(exchange.served_model) or self._books.prices.find(exchange.model)
        if usage is not None:
            input_tokens, output_tokens, cached_tokens = usage.input, usage.output, usage.cached
        elif self._estimate is None or not _was_worked_at(exchange):
            return 0, 0
        else:
            input_tokens, output_tokens, cached_tokens = self._estimate.input, self._seen(exchange), 0
            exchange.is_estimated = True
        beside = _tries_beside(exchange)
        if beside and self._estimate is not None:
            input_tokens += self._estimate.input * beside
            output_tokens = max(output_tokens, exchange.events)  # of all tries; figures are the last one's
            exchange.is_estimated = True
        if price is not None:
            exchange.cost = price.of(input_tokens, output_tokens, cached_tokens)
        return input_tokens + output_tokens, min(exchange.cost or 0, MOST_MONEY)

    def _seen(self, exchange: Exchange) -> int:
        """The tokens of an answer, by what went by: a stream's events, else bytes. A whole answer that did not come to
        its end is as long as it was reserved to be: nothing shows how much of it was made."""
        if exchange.stream:
            return exchange.events
        if exchange.outcome == "finished":
            return -(-exchange.bytes_out // BYTES_PER_TOKEN)
        return 0 if self._estimate is None else self._estimate.output


def _was_worked_at(exchange: Exchange) -> bool:
    """Whether an origin may have worked at a request of which it gave no figures. An error that it answers with costs
    nothing."""
    if not exchange.attempts or exchange.code in _NEVER_SENT:
        return False
    if not exchange.events and _was_refused(exchange):
        return False  # also where a head that went out early has spent the status
    return exchange.status < 400 or exchange.outcome != "finished"


def _was_refused(exchange: Exchange) -> bool:
    """Whether the last word of the upstreams was a status that is an error."""
    # The try that ended last; of those that ended at once, as of one that has not, the last one that began.
    last = max(reversed(exchange.tries), key=lambda one: inf if one.ended is None else one.ended, default=None)
    result = "" if last is None else last.result
    return result.isdigit() and int(result) >= 400


def _tries_beside(exchange: Exchange) -> int:
    """How many other tries read the prompt too: those that were beaten by another one, or gone on with elsewhere."""
    beaten = sum(one.result == HEDGE_LOST for one in exchange.tries)
    continued = exchange.notes.get("continued", 0)
    return beaten + (continued if isinstance(continued, int) else 0)


_WORDS: Final = {
    "rpm": "{limit} requests in a minute",
    "tpm": "{limit} tokens in a minute",
    "streams": "{limit} requests at once",
    "tokens_per_day": "the day's budget of {limit} tokens",
    "tokens_per_month": "the month's budget of {limit} tokens",
    "money_per_day": "the day's budget",
    "money_per_month": "the month's budget",
}


def refused(refusal: Refusal, scopes: list[Scope]) -> ProxyError:
    """What a client is told of a refusal."""
    limit = getattr(dict(scopes)[refusal.scope], refusal.limit)  # of money it is not told
    words = _WORDS[refusal.limit].format(limit=limit)
    whose = "All requests together have" if refusal.scope == EVERYTHING else "This key has"
    if refusal.kind is Kind.BUDGETS:
        return QuotaExceeded(f"{whose} used up {words}.")
    kind = b"tokens" if refusal.kind is Kind.TOKENS else b"requests"
    if refusal.wait_s is None:
        error = RateLimited(f"This request is larger than {words}, the limit here.", kind=kind.decode("ascii"))
    else:
        error = RateLimited(
            f"{whose} reached {words}; send the request again in {refusal.wait_s:.1f} s.",
            kind=kind.decode("ascii"),
            retry_after_s=refusal.wait_s,
        )
    if refusal.kind is not Kind.STREAMS:
        error.told = fields(kind, limit, 0, refusal.wait_s or 60.0)
    return error


def _fields(kind: bytes, standing: Standing | None) -> Headers:
    return [] if standing is None else fields(kind, standing.limit, standing.remaining, standing.reset_s)
