"""What is allowed in a configuration, but is hardly meant. Printed by `trioproxy check`; nothing fails by it."""

from collections.abc import Iterator

from trioproxy.config.globs import covers
from trioproxy.config.schema import Config
from trioproxy.config.secrets import shortened


def warnings(config: Config) -> list[str]:
    """A line for each, as "key: what"."""
    return [*_idle_keys(config), *_shadowed_globs(config)]


def _idle_keys(config: Config) -> Iterator[str]:
    for number, upstream in enumerate(config.upstream):
        if "max_waiting" in upstream.model_fields_set and upstream.max_concurrent is None:
            yield f"upstream[{number}].max_waiting: means nothing without max_concurrent, nobody ever waits"
    for number, route in enumerate(config.route):
        if route.strategy != "weighted" and any("weight" in target.model_fields_set for target in route.targets):
            yield f'route[{number}].targets: their weight counts only with strategy = "weighted"'


def _shadowed_globs(config: Config) -> Iterator[str]:
    earlier: list[tuple[str, str]] = []
    for number, route in enumerate(config.route):
        for index, glob in enumerate(route.models):
            by = next(((place, other) for place, other in earlier if covers(other, glob)), None)
            if by is not None:
                found = f"{by[0]} = {shortened(by[1])} comes before it"
                yield f"route[{number}].models[{index}]: {shortened(glob)} is never reached, {found}"
        earlier += [(f"route[{number}].models[{index}]", glob) for index, glob in enumerate(route.models)]
