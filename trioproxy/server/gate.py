"""The gate, put together from a configuration: keys, limits, prices, rules, the plugin."""

import json
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from math import inf

from trioproxy.config import Config, Key, KeyLimits, Route, picodollars
from trioproxy.gate.gate import Gate
from trioproxy.gate.keys import VirtualKey
from trioproxy.gate.plugin import load_plugin
from trioproxy.gate.rules import RequestRules
from trioproxy.gate.ticket import Books, GateCounts
from trioproxy.policy.limits import EVERYTHING, Kind, Limits, Scope
from trioproxy.policy.price import Price, Prices, dearest, dollars
from trioproxy.policy.routing import Routes
from trioproxy.state.limits import LimitStore, LimitsUnavailable
from trioproxy.upstream.way import Way
from trioproxy.wire.measures import Bounds

MAX_SPENT = 1000
"""Of so many keys it is told what they have used."""
_MILLION = 10**6

Spent = dict[str, dict[str, int | str]]
"""By a key's name, or `EVERYTHING`, what was used of each of its limits that counts more than a minute; money as text,
in dollars. A scope that is not there is not limited, or not known."""


def gate_of(
    config: Config, store: LimitStore, counts: GateCounts, ways: Routes[Way], wall_clock: Callable[[], float]
) -> Gate:
    """The gate, without keys. Raises OSError for a plugin that cannot be loaded."""
    prices: Prices = Routes([((one.model,), _price(one.input, one.cached, one.output)) for one in config.price], None)
    section = config.gate
    return Gate(
        books=Books(store, prices, _kinds(section.open_kinds), counts, has_prices=bool(config.price)),
        limits=_limits(section.limits),
        dearest=_dearest(prices, ways) if config.price else _no_price,
        rules=Routes([(route.models, _rules(route)) for route in config.route], RequestRules()),
        plugin=None if section.plugin is None else load_plugin(section.plugin, section.plugin_s),
        output_tokens=section.output_tokens,
        wall_clock=wall_clock,
    )


def _kinds(words: Iterable[str]) -> frozenset[Kind]:
    return frozenset(Kind(word) for word in words)


def virtual_keys(keys: Sequence[Key] | None) -> list[VirtualKey] | None:
    """Keys as the gate takes them; None: there are none, and clients' own credentials go through."""
    return None if keys is None else [_virtual_key(key) for key in keys]


def _virtual_key(key: Key) -> VirtualKey:
    return VirtualKey(
        name=key.name,
        digest=bytes.fromhex(key.hash.partition(":")[2]),
        models=Routes([(key.models, True)], False) if key.models else None,
        upstreams=frozenset(key.upstreams) if key.upstreams else None,
        limits=_limits(key.limits),
        expires=inf if key.expires is None else key.expires.timestamp(),
        revoked=inf if key.revoked is None else key.revoked.timestamp(),
    )


async def spent(gate: Gate) -> Spent:
    """What was used of the limits of the first keys and of everything; of kinds that cannot be counted now nothing is
    told."""
    keys = [] if gate.keys is None else gate.keys.by_name.values()
    limited = [(key.name, key.limits) for key in keys if key.limits.kinds]
    scopes: list[Scope] = [(EVERYTHING, gate.limits), *limited[:MAX_SPENT]]
    try:
        found = await gate.books.store.spent(scopes)
    except LimitsUnavailable as lost:
        rest = [(name, limits.without(lost.kinds)) for name, limits in scopes]
        try:
            found = await gate.books.store.spent(rest)
        except LimitsUnavailable:
            return {}
    return {name: dict(_told(limit, used) for limit, used in of_scope.items()) for name, of_scope in found.items()}


def _told(limit: str, used: int) -> tuple[str, int | str]:
    is_money = limit.startswith("money_")
    return (limit.replace("money_", "usd_"), dollars(used)) if is_money else (limit, used)


def _limits(limits: KeyLimits) -> Limits:
    return Limits(
        rpm=limits.rpm,
        tpm=limits.tpm,
        streams=limits.streams,
        tokens_per_day=limits.tokens_per_day,
        tokens_per_month=limits.tokens_per_month,
        money_per_day=_money(limits.usd_per_day),
        money_per_month=_money(limits.usd_per_month),
    )


def _money(dollars: Decimal | None) -> int | None:
    return None if dollars is None else picodollars(dollars)


def _price(per_million: Decimal, cached: Decimal | None, output: Decimal) -> Price:
    """Dollars for a million tokens, with six decimals at most, are a whole number of picodollars for one."""
    of_input = picodollars(per_million) // _MILLION
    of_cached = of_input if cached is None else picodollars(cached) // _MILLION
    return Price(of_input, of_cached, picodollars(output) // _MILLION)


def _dearest(prices: Prices, ways: Routes[Way]) -> Callable[[str | None], Price | None]:
    """What a request may cost that asks for a model: it may come to any target of its route, to its canary, and to
    those of the models that are asked instead."""

    def find(model: str | None) -> Price | None:
        own = prices.find(model)
        found: list[Price | None] = []
        asked: list[str | None] = [model]
        for name in asked:  # it grows meanwhile
            way = ways.find(name)
            known = prices.find(name) or own
            canary = () if way.canary is None else (way.canary.target,)
            found += [prices.find(one.model) or known if one.model else known for one in (*way.targets, *canary)]
            asked += [other for others in way.fallback.values() for other in others if other not in asked]
        return dearest(found)

    return find


def _no_price(model: str | None) -> Price | None:
    return None


def _rules(route: Route) -> RequestRules:
    bounds, params = route.bounds, route.params
    return RequestRules(
        bounds=Bounds(
            max_tokens=bounds.max_tokens,
            n=bounds.n,
            messages=bounds.messages,
            message_bytes=bounds.message_bytes,
            depth=bounds.depth,
        )
        if bounds
        else Bounds(),
        force={name: json.dumps(value).encode() for name, value in params.force.items()} if params else {},
        default={name: json.dumps(value).encode() for name, value in params.default.items()} if params else {},
        drop=frozenset(params.drop) if params else frozenset(),
    )
