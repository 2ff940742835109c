"""Which route a model takes: the first whose globs match its name. PURE.

In a glob `*` stands for any characters, or none, and `?` for exactly one; upper and lower case differ, and nothing else
is special. Names come from clients: a look at one costs time in proportion to its length, and what was found is kept
for a bounded number of names.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Generic, TypeVar

MAX_MODEL_CHARACTERS = 1000
"""A longer name takes no route: no origin knows such a model."""
MAX_KEPT_MODELS = 1024

_T = TypeVar("_T")
_WORD = re.compile(r"\*+|\?|[^*?]+")


class Routes(Generic[_T]):
    """What holds for which models: (globs, value) in order, and the value for all others."""

    def __init__(self, routes: Iterable[tuple[Sequence[str], _T]], general: _T) -> None:
        self.general = general
        self._routes = [(re.compile("|".join(map(_pattern, globs)), re.DOTALL), value) for globs, value in routes]
        self._look_up = lru_cache(MAX_KEPT_MODELS)(self._first)

    def find(self, model: str | None) -> _T:
        """The value for a model; None is a request that names none."""
        if model is None or not self._routes or len(model) > MAX_MODEL_CHARACTERS:
            return self.general
        return self._look_up(model)

    def _first(self, model: str) -> _T:
        return next((value for pattern, value in self._routes if pattern.fullmatch(model)), self.general)


def _pattern(glob: str) -> str:
    """A glob as a regular expression. What stands behind a star is taken where it first fits, and never elsewhere
    (atomic): if the rest does not fit behind that, it does not fit behind a later place, so nothing is tried twice."""
    words = [re.sub(r"\*+", "*", word) for word in _WORD.findall(glob)]
    stars = [at for at, word in enumerate(words) if word == "*"]
    if not stars:
        return "".join(map(_literal, words))
    pieces = ["".join(map(_literal, words[: stars[0]]))]
    for start, end in pairwise(stars):
        pieces.append(f"(?>.*?{''.join(map(_literal, words[start + 1 : end]))})")
    last = "".join(map(_literal, words[stars[-1] + 1 :]))
    return "".join([*pieces, ".*", last])


def _literal(word: str) -> str:
    return "." if word == "?" else re.escape(word)
