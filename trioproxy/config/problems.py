"""What is wrong with a tree, told as an operator reads it: the key as it is typed, and "what, expected X, got Y".

Most rules raise `Wrong`, which says all that; here pydantic's own errors get such words too. Nothing that may be a
secret is shown. Used by `load` and `keys_file`, which know where a value was given.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from trioproxy.config.schema import Config
from trioproxy.config.secrets import Wrong, got, kind_of, shortened, suggested, unsaid

MAX_NAME_CHARACTERS: Final = 80
LISTED: Final = frozenset(name for name, field in Config.model_fields.items() if field.default == ())
"""The sections that are lists of tables: `[[upstream]]` and others."""

Step = str | int

_SHOWABLE_OF_UPSTREAM: Final = ("name", "dialect", "ca_file")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KINDS: Final = {
    "model_type": ("is not a table", "a table of keys"),
    "dict_type": ("is not a table", "a table of names and values"),
    "tuple_type": ("is not a list", "a list"),
    "string_type": ("is not text", "text"),
    "bool_type": ("is not true or false", "true or false"),
    "missing": ("is missing", "a value"),
}
"""What pydantic's own errors mean here; every other error is a `Wrong` with its own words."""


def annotations() -> Iterator[tuple[str, tuple[Step, ...], Any]]:
    """Every key: dotted as in a flag, as a path into the tree, and its annotation. A list's keys are its first's."""
    for section, field in Config.model_fields.items():
        model = table_in(field.annotation)
        assert model is not None
        for key, inner in model.model_fields.items():
            path: tuple[Step, ...] = (section, 0, key) if section in LISTED else (section, key)
            nested = table_in(inner.annotation)
            if nested is None:
                yield f"{section}.{key}", path, inner.annotation
            else:
                yield from (
                    (f"{section}.{key}.{name}", (*path, name), one.annotation)
                    for name, one in nested.model_fields.items()
                )


def table_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a key that holds a table, or a list of them; None for any other key."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def place_in(detail: ErrorDetails) -> tuple[Step, ...]:
    """Where in the tree one of pydantic's errors is."""
    return detail["loc"][:-1] if detail["loc"][-1] == "[key]" else detail["loc"]


def told(detail: ErrorDetails, path: tuple[Step, ...]) -> str:
    """One of pydantic's errors in our words; `path` is its place in the tree of a Config."""
    return unsaid(_told(detail, path))


def _told(detail: ErrorDetails, path: tuple[Step, ...]) -> str:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Wrong):
        return str(cause)
    if detail["type"] == "extra_forbidden":
        table = ".".join(step for step in path[:-1] if isinstance(step, str))
        keys = [dotted.removeprefix(f"{table}.") for dotted, _, _ in annotations() if dotted.startswith(f"{table}.")]
        known = dict.fromkeys(key.partition(".")[0] for key in keys)
        return unknown(str(path[-1]), known or list(Config.model_fields), "key")
    hidden = path[0] == "upstream" and path[-1] not in _SHOWABLE_OF_UPSTREAM
    found = "nothing" if detail["type"] == "missing" else (kind_of if hidden else got)(detail["input"])
    if detail["type"] == "literal_error":
        return str(Wrong("is not a known word", detail["ctx"]["expected"].replace("'", '"'), found))
    what, expected = _KINDS.get(detail["type"], ("cannot be used", detail["msg"]))
    return str(Wrong(what, expected, found))


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """What is said of a key (or "variable") that there is not."""
    names = list(known)
    form = "of the form TRIOPROXY_SECTION__KEY" if kind == "variable" else f"one of {', '.join(names)}"
    return str(Wrong(f"is not a known {kind}", suggested(name, names, form), unsaid(shortened(name))))


def dotted_path(path: Iterable[Step]) -> str:
    """A place as operators write it: `route[0].targets[1].model`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{bare(step)}" for step in path).removeprefix(".")


def bare(key: str) -> str:
    """A key as it is typed, if it is short and plain; else quoted and cut."""
    return unsaid(key if _BARE_KEY.fullmatch(key) and len(key) <= MAX_NAME_CHARACTERS else shortened(key))
