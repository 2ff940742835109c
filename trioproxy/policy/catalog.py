"""Which models are listed to clients: those that can be asked for. PURE.

A model that a route names in full is one. A glob names none: it is filled with what the upstreams behind it list
themselves, as far as a request for that name would take this very route (`routing`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trioproxy.policy.routing import Routes

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the targets of one route say about its models, by the names of their upstreams, in their order.

    Attributes:
        owner: the first one, to whom a model is ascribed that nobody lists.
        sources: those that are asked for a model by the client's own name for it. A target with a name of its own for
            the model is none: its upstream's list does not say what clients may ask for.
    """

    owner: str
    sources: Sequence[str]


class Catalog:
    """The list of models, made from routes (globs, shelf) in order and the shelf of all other models.

    Attributes:
        sources: the upstreams whose lists it takes.
    """

    def __init__(self, routes: Sequence[tuple[Sequence[str], Shelf]], general: Shelf) -> None:
        self._routes = Routes([(globs, place) for place, (globs, _) in enumerate(routes)], len(routes))
        self._shelves = [*(shelf for _, shelf in routes), general]
        globs = [glob for globs, _ in routes for glob in globs]
        self._named = [glob for glob in dict.fromkeys(globs) if "*" not in glob and "?" not in glob]
        # Where a route takes every model, nothing is left for the others' shelf.
        used = self._shelves[:-1] if any(set(glob) == {"*"} for glob in globs) else self._shelves
        self.sources = list(dict.fromkeys(source for shelf in used for source in shelf.sources))

    def fill(self, lists: Mapping[str, Mapping[str, _T]]) -> list[tuple[str, str, _T | None]]:
        """Each model once, the named ones first: its name, the upstream that it is of, and what that lists it as (None:
        it is named, and nobody does). `lists` are those of the upstreams that have one."""
        found: dict[str, tuple[str, str, _T | None]] = {}
        for model in self._named:
            shelf = self._shelves[self._routes.find(model)]
            source = next((one for one in shelf.sources if model in lists.get(one, {})), None)
            found[model] = (model, shelf.owner, None) if source is None else (model, source, lists[source][model])
        on_shelf: dict[tuple[int, str], list[str]] = {}
        for source, listed in lists.items():
            for model in listed:
                on_shelf.setdefault((self._routes.find(model), source), []).append(model)
        for place, shelf in enumerate(self._shelves):
            for source in shelf.sources:
                for model in on_shelf.get((place, source), ()):
                    found.setdefault(model, (model, source, lists[source][model]))
        return list(found.values())
