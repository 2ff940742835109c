"""What does not fit together in a configuration, though each value is right: names, targets, canaries, fallbacks.

Works on the plain tree, tables and lists as TOML gives them, so that these problems are told together with all others;
what is wrong in itself is passed over here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from trioproxy.config.fit_keys import (
    NEEDS_ALL_WORKERS,
    Place,
    apart_workers,
    has_limits,
    misfits_of_keys,
    open_to_everybody,
)
from trioproxy.config.globs import covers
from trioproxy.config.hub import MEMORY, Hub
from trioproxy.config.route import Fallback
from trioproxy.config.secrets import Wrong, got, shortened, suggested

_PLAIN_URL = re.compile(r"(?i:https?)://[^@?#]+")


def misfits(tree: Mapping[str, Any], directory: Path = Path()) -> list[tuple[Place, Wrong]]:
    """Every problem, with its place. `directory` is the configuration's folder, where a keys file may be."""
    names = [_name(upstream) for upstream in _list(tree.get("upstream"))]
    routes = [route if isinstance(route, Mapping) else {} for route in _list(tree.get("route"))]
    return [
        *_same_names(names),
        *_targets(routes, names),
        *_canaries(routes, names),
        *_loops(routes),
        *_known_to_one_worker(tree, routes),
        *_too_long(tree, routes),
        *_keys_and_limits(tree, names),
        *open_to_everybody(tree, directory),
    ]


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _name(upstream: object) -> str | None:
    """An upstream's name, also the one it has by default; None if that cannot be said."""
    if not isinstance(upstream, Mapping):
        return None
    name, url = upstream.get("name"), upstream.get("base_url")
    if "name" in upstream or not isinstance(url, str):
        return name if isinstance(name, str) else None
    if _PLAIN_URL.fullmatch(url) is None:
        return None  # it is refused, and never shown: a key may be anywhere in it
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _same_names(names: list[str | None]) -> Iterator[tuple[Place, Wrong]]:
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            expected = f"a name of its own (upstream[{names.index(name)}] has this one)"
            yield ("upstream", index, "name"), Wrong("is taken", expected, shortened(name))


def _targets(routes: list[Mapping[str, Any]], names: list[str | None]) -> Iterator[tuple[Place, Wrong]]:
    known = [name for name in names if name is not None]
    for number, route in enumerate(routes):
        targets = [target for target in _list(route.get("targets")) if isinstance(target, Mapping)]
        weights = [target.get("weight", 1.0) for target in targets]
        if weights and all(isinstance(weight, (int, float)) and weight == 0 for weight in weights):
            yield ("route", number, "targets"), Wrong("weigh nothing", "at least one weight above 0", "only 0")
        if len(known) < len(names):
            continue  # an upstream's name is wrong, perhaps the one that is meant
        for place, named in _naming_upstreams(route):
            name = named.get("upstream")
            if isinstance(name, str) and name not in known:
                expected = suggested(name, known, f"one of {', '.join(known)}")
                yield ("route", number, *place, "upstream"), Wrong("is not a known upstream", expected, shortened(name))


def _naming_upstreams(route: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every table of a route that names an upstream, with its place in the route."""
    for index, target in enumerate(_list(route.get("targets"))):
        if isinstance(target, Mapping):
            yield ("targets", index), target
    for key in ("canary", "shadow"):
        if isinstance(table := route.get(key), Mapping):
            yield (key,), table


def _canaries(routes: list[Mapping[str, Any]], names: list[str | None]) -> Iterator[tuple[Place, Wrong]]:
    """Canaries that are a target of their route, so that there is nothing to compare them with."""
    for number, route in enumerate(routes):
        canary = route.get("canary")
        if not isinstance(canary, Mapping) or not isinstance(name := canary.get("upstream"), str):
            continue
        everywhere = [{"upstream": other} for other in names]
        targets = [one for one in _list(route.get("targets")) or everywhere if isinstance(one, Mapping)]
        if (name, _asked(canary, route)) in [(one.get("upstream"), _asked(one, route)) for one in targets]:
            wrong = Wrong("is a target of this route", "another upstream, or another model there", shortened(name))
            yield ("route", number, "canary", "upstream"), wrong


def _asked(named: Mapping[str, Any], route: Mapping[str, Any]) -> object:
    """The model that an upstream of a route is asked for; None if that depends on the request."""
    models = _list(route.get("models"))
    is_one = len(models) == 1 and isinstance(models[0], str) and not set("*?") & set(models[0])
    model = named.get("model")
    return models[0] if model is None and is_one else model


def _loops(routes: list[Mapping[str, Any]]) -> Iterator[tuple[Place, Wrong]]:
    """Fallbacks that lead back to a model they came from: each loop once, at its place that stands last.

    Only models that their routes name in full: a glob's fallback is meant for the other models that fit it, and no
    request asks a model twice.
    """
    said = [list(_fallbacks(number, route)) for number, route in enumerate(routes)]
    steps: dict[str, dict[str, list[Place]]] = {}  # from a model to those asked instead of it, and where that is said
    for model in dict.fromkeys(model for fallbacks in said for _, model in fallbacks):
        number = _route_named_by(model, routes)
        steps[model] = {}
        for place, other in [] if number is None else said[number]:
            steps[model].setdefault(other, []).append(place)
    while (loop := _first_loop(steps)) is not None:
        places = [steps[model][other] for model, other in zip(loop, loop[1:] + loop[:1], strict=True)]
        last = places.index(max(places))
        walked = loop[last:] + loop[: last + 1]
        shown = " → ".join(map(shortened, walked))
        for place in steps[walked[0]].pop(walked[1]):
            yield place, Wrong("is part of a loop", "fallbacks that come to an end", shown)


def _fallbacks(number: int, route: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    fallback = route.get("fallback")
    if not isinstance(fallback, Mapping):
        return
    for kind in Fallback.model_fields:
        for index, model in enumerate(_list(fallback.get(kind))):
            if isinstance(model, str):
                yield ("route", number, "fallback", kind, index), model


def _route_named_by(model: str, routes: list[Mapping[str, Any]]) -> int | None:
    """The route that this model takes, if it stands there in full."""
    globs = ([glob for glob in _list(route.get("models")) if isinstance(glob, str)] for route in routes)
    first = next(
        ((number, some) for number, some in enumerate(globs) if any(covers(glob, model) for glob in some)), None
    )
    return first[0] if first is not None and model in first[1] else None


def _first_loop(steps: Mapping[str, Iterable[str]]) -> list[str] | None:
    try:
        TopologicalSorter(steps).prepare()
    except CycleError as error:
        loop: list[str] = error.args[1]
        return loop[:0:-1]  # the way it is walked; its first and last are the same
    return None


def _known_to_one_worker(tree: Mapping[str, Any], routes: list[Mapping[str, Any]]) -> Iterator[tuple[Place, Wrong]]:
    """Streams to be shared or resumed, where the next request may come to a worker that has never heard of them."""
    apart = _apart(tree)
    if apart is None:
        return
    for number, route in enumerate(routes):
        for key in ("share", "resume_s"):
            if _is_number(value := route.get(key)) and value > 0:
                yield ("route", number, key), Wrong(NEEDS_ALL_WORKERS, *apart)


def _apart(tree: Mapping[str, Any]) -> tuple[str, str] | None:
    workers = _table(tree.get("server")).get("workers", 1)
    return apart_workers(workers, str(_table(tree.get("state")).get("url", MEMORY)))


def _keys_and_limits(tree: Mapping[str, Any], names: list[str | None]) -> Iterator[tuple[Place, Wrong]]:
    apart = _apart(tree)
    for place, wrong in misfits_of_keys(_list(tree.get("key")), names, apart):
        yield ("key", *place), wrong
    if apart is not None and has_limits(_table(tree.get("gate")).get("limits")):
        yield ("gate", "limits"), Wrong(NEEDS_ALL_WORKERS, *apart)


def _too_long(tree: Mapping[str, Any], routes: list[Mapping[str, Any]]) -> Iterator[tuple[Place, Wrong]]:
    """Times without a reader beyond what any stream gets."""
    most = _table(tree.get("hub")).get("resume_max_s", Hub.model_fields["resume_max_s"].default)
    for number, route in enumerate(routes):
        for key in ("resume_s", "linger_s"):
            if _is_number(value := route.get(key)) and _is_number(most) and value > most:
                expected = f"at most hub.resume_max_s = {got(most)}"
                yield ("route", number, key), Wrong("is longer than any stream goes on", expected, got(value))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float))
