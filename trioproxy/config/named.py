"""Which models a configuration's routes name in full for an upstream, and what is wrong with one that it has not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trioproxy.config.route import Route
from trioproxy.config.schema import Config
from trioproxy.config.secrets import Wrong, shortened, suggested

MAX_SHOWN_MODELS: Final = 8


@dataclass(frozen=True)
class NamedModel:
    """A model that an upstream is asked for, and the key that says so ("route[0].targets[1].model")."""

    key: str
    upstream: str
    model: str


def named_models(config: Config) -> list[NamedModel]:
    """Each once. A route without targets names no upstream, and a glob no model."""
    named = [one for number, route in enumerate(config.route) for one in _named_by(f"route[{number}]", route)]
    return list(dict.fromkeys(named))


def _named_by(key: str, route: Route) -> Iterator[NamedModel]:
    tables = [(f"{key}.targets[{index}]", target.upstream, target.model) for index, target in enumerate(route.targets)]
    if route.canary is not None:
        tables.append((f"{key}.canary", route.canary.upstream, route.canary.model))
    if route.shadow is not None:
        tables.append((f"{key}.shadow", route.shadow.upstream, route.shadow.model))
    for place, upstream, model in tables:
        if model is not None:
            yield NamedModel(f"{place}.model", upstream, model)
            continue
        for index, glob in enumerate(route.models):
            if not set("*?") & set(glob):
                yield NamedModel(f"{key}.models[{index}]", upstream, glob)


def not_listed(named: NamedModel, listed: Sequence[str]) -> Wrong:
    """What is said of a model that its upstream has not; `listed` are those that it has."""
    some = ", ".join(shortened(model) for model in listed[:MAX_SHOWN_MODELS])
    kind = "one of" if len(listed) <= MAX_SHOWN_MODELS else f"one of its {len(listed)}, such as"
    expected = suggested(named.model, listed, f"{kind} {some}" if listed else "a model that it lists (there is none)")
    return Wrong(f"is not a model that {shortened(named.upstream)} lists", expected, shortened(named.model))
