"""What does not fit together about keys and limits, though each value is right: names, hashes, upstreams, workers; and
a proxy that lends its upstreams' keys to everybody.

Works on plain trees, as `fit` does, so that it serves the configuration's own keys and those of the keys file alike.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trioproxy.config.gate import KEYS_FILE, is_default_file
from trioproxy.config.hub import MEMORY
from trioproxy.config.secrets import Wrong, got, names_credential, shortened, suggested
from trioproxy.config.section import is_loopback, split_bind

Place = tuple[str | int, ...]
NEEDS_ALL_WORKERS: Final = "needs what all workers know"


def misfits_of_keys(
    keys: Sequence[object],
    names: Sequence[str | None],
    apart: tuple[str, str] | None,
    own: Sequence[object] = (),
) -> Iterator[tuple[Place, Wrong]]:
    """What is wrong with a list of keys, with its place in it. `names` are the upstreams', None for one that cannot be
    told; `apart`: `apart_workers`; `own` are the configuration's keys, if these are from another file."""
    yield from _taken(keys, "name", own)
    yield from _taken(keys, "hash", own)
    known = [name for name in names if name is not None]
    for index, key in enumerate(_tables(keys)):
        for number, name in enumerate(_list(key.get("upstreams"))):
            # While an upstream's name is wrong, it may be the one that is meant.
            if len(known) == len(names) and isinstance(name, str) and name not in known:
                expected = suggested(name, known, f"one of {', '.join(known)}")
                yield (index, "upstreams", number), Wrong("is not a known upstream", expected, shortened(name))
        if apart is not None and has_limits(key.get("limits")):
            yield (index, "limits"), Wrong(NEEDS_ALL_WORKERS, *apart)


def _taken(keys: Sequence[object], field: str, own: Sequence[object]) -> Iterator[tuple[Place, Wrong]]:
    """Names, or hashes, that an earlier key has."""
    seen: dict[str, str] = {}
    for index, key in enumerate(_tables(own)):
        if isinstance(value := key.get(field), str):
            seen.setdefault(value, f"key[{index}] of the configuration")
    for index, key in enumerate(_tables(keys)):
        if not isinstance(value := key.get(field), str):
            continue
        if value in seen:
            found = "the same (not shown)" if field == "hash" else shortened(value)
            yield (index, field), Wrong("is taken", f"a {field} of its own ({seen[value]} has this one)", found)
        seen.setdefault(value, f"key[{index}]")


def has_limits(limits: object) -> bool:
    """Whether a table of limits sets any."""
    return isinstance(limits, Mapping) and any(value is not None for value in limits.values())


def apart_workers(workers: object, state_url: str) -> tuple[str, str] | None:
    """If there are several workers, which do not know of each other: what is expected, and what was found.

    "auto" stands for several: what is right must not depend on the machine.
    """
    is_alone = not (workers == "auto" or (isinstance(workers, int) and workers > 1))
    if is_alone or state_url != MEMORY:
        return None
    return 'state.url = "redis://HOST:PORT", or server.workers = 1', f'"{MEMORY}" and server.workers = {got(workers)}'


def open_to_everybody(tree: Mapping[str, Any], directory: Path) -> Iterator[tuple[Place, Wrong]]:
    """A bind that others can reach, an upstream whose key is ours, and nobody who asks clients for theirs."""
    gate, server = _table(tree.get("gate")), _table(tree.get("server"))
    is_named = "keys_file" in gate and not is_default_file(gate["keys_file"], directory)
    if _list(tree.get("key")) or is_named or os.path.lexists(directory / KEYS_FILE) or gate.get("allow_open") is True:
        return
    bind = next((one for one in _list(server.get("bind")) if _is_reachable(one)), None)
    lent = next((index for index, one in enumerate(_list(tree.get("upstream"))) if _lends(one)), None)
    if bind is not None and lent is not None:
        expected = (
            'keys for clients ("trioproxy keys create NAME", or [[key]]), or allow_open = true if everybody who '
            f"reaches {shortened(bind)} may use the key of upstream[{lent}]"
        )
        yield ("gate", "allow_open"), Wrong("is not set", expected, "false and no keys")


def _is_reachable(bind: object) -> bool:
    try:
        return isinstance(bind, str) and not is_loopback(split_bind(bind)[0])
    except Wrong:
        return False  # told elsewhere


def _lends(upstream: object) -> bool:
    """Whether requests to an upstream carry a key of ours."""
    one = _table(upstream)
    return bool(one.get("api_key")) or any(names_credential(str(name)) for name in _table(one.get("headers")))


def _tables(value: Sequence[object]) -> list[Mapping[str, Any]]:
    return [_table(one) for one in value]


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
