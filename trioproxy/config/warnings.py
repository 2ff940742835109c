"""What is allowed in a configuration, but is hardly meant. Printed by `trioproxy check`; nothing fails by it."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from trioproxy.config.gate import Key
from trioproxy.config.globs import covers
from trioproxy.config.schema import Config
from trioproxy.config.secrets import shortened
from trioproxy.config.section import is_loopback, split_bind


def warnings(config: Config, file_keys: Sequence[Key] | None = None, *, now: datetime | None = None) -> list[str]:
    """A line for each, as "key: what". `file_keys` are those of the keys file."""
    idle = (*_idle_keys_of_upstreams(config), *_idle_keys_of_routes(config), *_idle_without_streams(config))
    keys = [(f"key[{number}]", key) for number, key in enumerate(config.key)]
    keys += [(f"{config.gate.keys_file}: key[{number}]", key) for number, key in enumerate(file_keys or ())]
    gate = (*_keys_of_no_use(keys, now or datetime.now(UTC)), *_without_prices(config, keys), *_idle_in_gate(config))
    return [*idle, *_shadowed_globs(config), *_idle_keys_of_streams(config), *gate, *_idle_in_telemetry(config)]


def _idle_keys_of_upstreams(config: Config) -> Iterator[str]:
    for number, upstream in enumerate(config.upstream):
        said = upstream.model_fields_set
        if "max_waiting" in said and upstream.max_concurrent is None:
            yield f"upstream[{number}].max_waiting: means nothing without max_concurrent, nobody ever waits"
        if upstream.health_model is not None and upstream.health != "chat":
            yield f'upstream[{number}].health_model: means nothing without health = "chat", no model is ever asked'
        is_remote = upstream.base_url.startswith("https:")  # a server of one's own often wants no key
        if upstream.health == "chat" and is_remote and not upstream.holds_secrets:
            yield f"upstream[{number}].health: a chat without a key, the upstream may refuse every check"
        if upstream.usage == "ask" and upstream.dialect != "openai":
            yield f"upstream[{number}].usage: means nothing with this dialect, whose streams always tell their usage"
        if "health_interval_s" in said and upstream.health is None:
            yield f"upstream[{number}].health_interval_s: means nothing without health, nothing is ever checked"


def _idle_keys_of_routes(config: Config) -> Iterator[str]:
    for number, route in enumerate(config.route):
        if route.strategy != "weighted" and any("weight" in target.model_fields_set for target in route.targets):
            yield f'route[{number}].targets: their weight counts only with strategy = "weighted"'
        if route.hedge is not None and len(route.targets or config.upstream) == 1:
            yield f"route[{number}].hedge: means nothing with a single target, there is no other for a second try"
        if route.hedge is not None and route.hedge.budget == 0:
            yield f"route[{number}].hedge: is off with budget = 0"
        if route.shadow is not None and route.shadow.share == 0:
            yield f"route[{number}].shadow: is off with share = 0"


def _idle_without_streams(config: Config) -> Iterator[str]:
    can_stream = {upstream.name: upstream.streams for upstream in config.upstream}
    for number, route in enumerate(config.route):
        names = [target.upstream for target in route.targets] or list(can_stream)
        if any(can_stream[name] for name in names):
            continue
        for key in ("aggregate", "batch_fallback", "continue_after_cut"):
            if getattr(route, key):
                yield f"route[{number}].{key}: means nothing, none of its targets can stream"


def _shadowed_globs(config: Config) -> Iterator[str]:
    earlier: list[tuple[str, str]] = []
    for number, route in enumerate(config.route):
        for index, glob in enumerate(route.models):
            by = next(((place, other) for place, other in earlier if covers(other, glob)), None)
            if by is not None:
                found = f"{by[0]} = {shortened(by[1])} comes before it"
                yield f"route[{number}].models[{index}]: {shortened(glob)} is never reached, {found}"
        earlier += [(f"route[{number}].models[{index}]", glob) for index, glob in enumerate(route.models)]


def _idle_keys_of_streams(config: Config) -> Iterator[str]:
    stream, hub = config.stream, config.hub
    if "coalesce_events" in stream.model_fields_set and stream.coalesce_ms is None:
        yield "stream.coalesce_events: means nothing without coalesce_ms, no event ever waits"
    if "lease_s" in config.state.model_fields_set and not config.state.is_shared:
        yield "state.lease_s: means nothing without Redis, there is no other replica that could notice"
    if hub.max_bytes > hub.max_total_bytes:
        yield "hub.max_bytes: one stream may hold more than max_total_bytes, which then allows no other beside it"
    if hub.max_per_caller > hub.max_streams and "max_per_caller" in hub.model_fields_set:
        yield "hub.max_per_caller: means nothing above max_streams"
    for number, route in enumerate(config.route):
        if 0 < route.linger_s <= route.resume_s:
            yield f"route[{number}].linger_s: means nothing beside resume_s, which is no shorter"


def _keys_of_no_use(keys: Iterable[tuple[str, Key]], now: datetime) -> Iterator[str]:
    for place, key in keys:
        if key.expires is not None and key.expires <= now and key.revoked is None:
            yield f"{place}.expires: key {shortened(key.name)} has expired, nobody is let in by it"


def _without_prices(config: Config, keys: Iterable[tuple[str, Key]]) -> Iterator[str]:
    """Money cannot be counted without a price, so that a model which has none cannot be used."""
    if config.price:
        return
    for place, key in keys:
        if key.limits.has_money and key.revoked is None:
            found = f"key {shortened(key.name)} can use no model"
            yield f"{place}.limits: money is limited and there is no [[price]], {found}"
    if config.gate.limits.has_money:
        yield "gate.limits: money is limited and there is no [[price]], nobody can use any model"


def _idle_in_gate(config: Config) -> Iterator[str]:
    gate = config.gate
    if "plugin_s" in gate.model_fields_set and gate.plugin is None:
        yield "gate.plugin_s: means nothing without plugin"
    if config.server.hosts and not any(is_loopback(split_bind(bind)[0]) for bind in config.server.bind):
        yield "server.hosts: means nothing without an address of loopback, the others answer to any name"
    earlier: list[tuple[int, str]] = []
    for number, price in enumerate(config.price):
        by = next(((index, other) for index, other in earlier if covers(other, price.model)), None)
        if by is not None:
            found = f"price[{by[0]}].model = {shortened(by[1])} comes before it"
            yield f"price[{number}].model: {shortened(price.model)} is never reached, {found}"
        earlier.append((number, price.model))


def _idle_in_telemetry(config: Config) -> Iterator[str]:
    if config.telemetry.otlp_headers and config.telemetry.otlp_endpoint is None:
        yield "telemetry.otlp_headers: means nothing without otlp_endpoint, nobody is sent anything"
