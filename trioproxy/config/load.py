"""Loads the configuration: flag over environment over file over default, with every problem at once.

`load` gathers what was given where, merges it, lets `schema` judge it, and names for each problem the place where the
operator typed it. `show` is the way back: the effective configuration as TOML, without secrets. The rules themselves
are in `schema`; nothing is printed here. Called by `cli` and, on reload, by `server/run`.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from trioproxy.config.fit import misfits
from trioproxy.config.gate import Key
from trioproxy.config.problems import LISTED, Step, annotations, bare, dotted_path, place_in, told, unknown
from trioproxy.config.schema import Config
from trioproxy.config.secrets import LITERAL, Secret, Surroundings, Wrong, names_credential, quoted, shortened, unsaid
from trioproxy.config.toml_file import content_of, table_of
from trioproxy.errors import ConfigError, Problem

DEFAULT_FILE: Final = "trioproxy.toml"
PREFIX: Final = "TRIOPROXY_"
FILE_VARIABLE: Final = "TRIOPROXY_CONFIG"
MAX_FILE_BYTES: Final = 1024 * 1024
SHOWN_OF_HASH: Final = len("sha256:12345678")

_FROM_ENVIRONMENT_OF_UPSTREAM: Final = ("base_url", "api_key")
_ONLY_IN_FILE: Final = LISTED - {"upstream"}  # lists of tables, of which no flag or variable could name one
# What Kubernetes sets by itself in every pod beside a Service called "trioproxy"; nobody typed it.
_SERVICE_LINK = re.compile(r"TRIOPROXY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


@dataclass(frozen=True)
class _Given:
    """A value given outside the file: for which key (`path`), and where (`file` and `key` of its problems)."""

    path: tuple[Step, ...]
    value: object
    file: str
    key: str


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path("."),
    reads_file: bool = True,
) -> Config:
    """The effective configuration.

    `file` is the configuration file; without it `$TRIOPROXY_CONFIG`, then `trioproxy.toml` in `directory` if it exists,
    and none at all if not `reads_file`.
    `flags` are dotted keys ("server.bind", "upstream.base_url"); None as a value means not given. Relative paths start
    at the file's folder, or at `directory` when there is no file. Raises ConfigError with every problem.
    """
    problems: list[Problem] = []
    given = [*_from_environment(environ, problems), *_from_flags(flags or {}, problems)]
    path = chosen_file(file, environ, directory) if reads_file else None
    table = {} if path is None else _read(path)
    if isinstance(table, Problem):
        # Without the file, judging the rest would only blame keys that may well be in it.
        raise ConfigError([table, *problems])
    given = [one for one in given if not _is_ambiguous(one, table, problems)]
    tree = _merged(table, given)
    surroundings = Surroundings(environ, directory if path is None else path.parent)
    config, found = _judged(tree, surroundings, given, "command line" if path is None else str(path))
    if config is None or problems:
        raise ConfigError([*problems, *found])
    return config


def environment_with(**changes: str) -> dict[str, str]:
    """This process's environment with changes, for a process of ours."""
    return {**os.environ, **changes}


def chosen_file(file: Path | None, environ: Mapping[str, str] = os.environ, directory: Path = Path(".")) -> Path | None:
    """The configuration file that `load` reads, None if there is none."""
    if file is not None:
        return file
    if environ.get(FILE_VARIABLE):
        return directory / environ[FILE_VARIABLE]
    default = directory / DEFAULT_FILE
    return default if os.path.lexists(default) else None


def _read(path: Path) -> dict[str, Any] | Problem:
    content = content_of(path, MAX_FILE_BYTES)
    return content if isinstance(content, Problem) else table_of(path, content)


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> list[_Given]:
    known = {
        PREFIX + dotted.upper().replace(".", "__"): (path, annotation)
        for dotted, path, annotation in annotations()
        if path[0] not in _ONLY_IN_FILE and (path[0] != "upstream" or path[-1] in _FROM_ENVIRONMENT_OF_UPSTREAM)
    }
    given = []
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if name in known:
            path, annotation = known[name]
            given.append(_Given(path, _parsed(annotation, environ[name]), "environment", name))
        elif name != FILE_VARIABLE and _SERVICE_LINK.fullmatch(name) is None:
            problems.append(Problem("environment", bare(name), unknown(name, known, "variable")))
    return given


def _from_flags(flags: Mapping[str, object], problems: list[Problem]) -> list[_Given]:
    known = {dotted: path for dotted, path, _ in annotations() if path[0] not in _ONLY_IN_FILE}
    given = []
    for dotted, value in flags.items():
        if dotted not in known:
            problems.append(Problem("command line", shortened(dotted), unknown(dotted, known, "key")))
        elif value is not None:
            given.append(_Given(known[dotted], value, "command line", dotted))
    return given


def _parsed(annotation: Any, text: str) -> object:
    """A variable's text as the type its key wants. What cannot be parsed stays text, which the schema then refuses."""
    if _kinds(annotation) == {bool}:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        number = next((kind for kind in (int, float) if kind in _kinds(annotation)), None)
        if number is not None:
            return number(text)
        if get_origin(annotation) is tuple:
            listed = text.lstrip().startswith("[")
            return json.loads(text) if listed else [part.strip() for part in text.split(",") if part.strip()]
    except (ValueError, RecursionError):
        return [text] if get_origin(annotation) is tuple else text
    return text


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that a key may have, without what is said about them."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (UnionType, Union):
        return {kind for one in get_args(annotation) for kind in _kinds(one)}
    return {annotation}


def _is_ambiguous(one: _Given, table: Mapping[str, Any], problems: list[Problem]) -> bool:
    """Whether a value is for the upstream, of which the file has several."""
    entries = table.get("upstream")
    if one.path[0] != "upstream" or not isinstance(entries, list) or len(entries) < 2:
        return False
    wrong = Wrong("does not say which upstream it is for", "one [[upstream]] in the file", str(len(entries)))
    problems.append(Problem(one.file, one.key, str(wrong)))
    return True


def _merged(table: Mapping[str, Any], given: Iterable[_Given]) -> dict[str, Any]:
    tree = {section: dict(keys) if isinstance(keys, dict) else keys for section, keys in table.items()}
    if isinstance(tree.get("upstream"), list):
        tree["upstream"] = [dict(entry) if isinstance(entry, dict) else entry for entry in tree["upstream"]]
    for one in given:
        section = one.path[0]
        assert isinstance(section, str)
        if section == "upstream":
            entries = tree.setdefault(section, [])
            if entries == []:
                entries.append({})
            target = entries[0] if isinstance(entries, list) else None
        else:
            target = tree.setdefault(section, {})
        for step in one.path[1:-1]:
            if isinstance(target, dict) and isinstance(step, str):
                inner = target.get(step, {})
                target[step] = target = dict(inner) if isinstance(inner, dict) else inner
        if isinstance(target, dict):  # Otherwise the file holds nonsense there, which is the problem to report.
            target[one.path[-1]] = one.value
    return tree


def _judged(
    tree: Mapping[str, Any], surroundings: Surroundings, given: list[_Given], label: str
) -> tuple[Config | None, list[Problem]]:
    """The configuration, or everything the schema has against it."""
    config, details = None, []
    try:
        config = Config.model_validate(tree, context=surroundings)
    except ValidationError as error:
        details = error.errors(include_url=False)
    places = {one.path: (one.file, one.key) for one in given}  # The last one given is the one in force.
    # The factory of a default only says that it was not called: the error it waits for is in the list too. And what
    # does not fit together is at no place, but comes with its place below.
    said = [one for one in details if one["loc"] and one["type"] != "default_factory_not_called"]
    problems = [Problem(*_place(place_in(one), places, label), told(one, place_in(one))) for one in said]
    found = misfits(tree, surroundings.directory)
    problems += [Problem(*_place(path, places, label), unsaid(str(wrong))) for path, wrong in found]
    return config, list(dict.fromkeys(problems))


def _place(path: tuple[Step, ...], places: Mapping[tuple[Step, ...], tuple[str, str]], label: str) -> tuple[str, str]:
    """The file and key of a problem: where the operator typed it."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((places[prefix] for prefix in prefixes if prefix in places), (label, dotted_path(path)))


def show(config: Config) -> str:
    """The effective configuration as TOML. Of a secret only its reference is shown, with "(set)" behind it."""
    parts = []
    for section in Config.model_fields:
        value = getattr(config, section)
        for model in value if isinstance(value, tuple) else (value,):
            is_listed = isinstance(value, tuple)
            head = f"[[{section}]]" if is_listed else f"[{section}]"
            given = {key: inner for key, inner in model if inner is not None and not (is_listed and inner == ())}
            if isinstance(model, Key):
                given["hash"] = model.hash[:SHOWN_OF_HASH] + "…"
            tables = {key: inner for key, inner in given.items() if isinstance(inner, BaseModel)}
            parts.append(_section(head, {key: inner for key, inner in given.items() if key not in tables}))
            for key, table in tables.items():
                if said := _said(table):
                    parts.append(_section(f"[{section}.{key}]", said))
    return "\n".join(parts)


def _said(table: BaseModel) -> dict[str, object]:
    """The keys of a table that say anything: not those that are off, nor a list or table that is empty by default."""
    fields = type(table).model_fields
    return {
        key: value
        for key, value in table
        if value is not None and not (value in ((), {}) and value == fields[key].get_default(call_default_factory=True))
    }


def _section(head: str, keys: Mapping[str, object]) -> str:
    return "\n".join([head, *(f"{key} = {_toml(value)}" for key, value in keys.items())]) + "\n"


def _toml(value: object, name: str = "") -> str:
    if isinstance(value, Secret):
        return quoted(_masked(value, name))
    if isinstance(value, BaseModel):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in _said(value).items()) + " }"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], Secret):
        return _toml(value[0], name)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        items = [f"{quoted(key)} = {_toml(item, key)}" for key, item in value.items()]
        return "{ " + ", ".join(items) + " }" if items else "{}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value, "f")
    return quoted(str(value)) if isinstance(value, (str, Path)) else str(value)


def _masked(secret: Secret, header: str) -> str:
    if str(secret) == LITERAL:
        # Someone wrote it into the file, but a name like this says that they should not have.
        return "***" if names_credential(header) else secret.get_secret_value()
    return f"{secret} (set)" if str(secret).startswith(("env:", "file:")) else str(secret)
