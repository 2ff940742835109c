"""`trioproxy upstreams rotate-key`: another key for an upstream, with no request failed.

The new key is proven by a real call, then the file is changed, then the service reloads: it takes the change only if
the key that it finds is the one that was proven. Whatever goes wrong on the way, the file is put back as it was.
"""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from trioproxy.cli.admin import (
    AdminAddress,
    AdminKey,
    AdminUrl,
    NotReached,
    NotSaid,
    Refused,
    address_or_fail,
)
from trioproxy.cli.edit import Edit, KeysInFile, NotEdited
from trioproxy.cli.proof import NotProven, prove
from trioproxy.cli.running import EXIT_FAILED, fail, loaded_or_fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import Config, Secret, Upstream, Wrong, chosen_file, environment_with, load, proven, resolve
from trioproxy.config.secrets import quoted, suggested

_NOTHING = "nothing was changed:"


def rotate_key(
    upstream: Annotated[str, typer.Argument(help="The upstream's name.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="Where the new key is: env:NAME or file:PATH.", show_default=False)],
    from_: Annotated[
        str | None, typer.Option("--from", help="Which reference it stands for, where there are several.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Asked for one token, where GET /models proves nothing; else health_model.")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Put it into force, or only write it into the file.")
    ] = True,
    admin: AdminUrl = None,
    admin_key: AdminKey = None,
    config: ConfigFile = None,
) -> None:
    """Put another key in an upstream's place for one: proven by a real call, then written, then put into force.

    The service must find the same key: env:NAME has to be in its environment since its start. The old key can be
    revoked once the old workers are gone, which takes drain.timeout_s at most.
    """
    settings = loaded_or_fail(lambda: load(config))
    path = chosen_file(config)
    if path is None:
        fail("there is no configuration file to change; name it with --config")
    address = address_or_fail(admin, admin_key, lambda: settings) if reload else None
    place, chosen = _upstream_or_fail(settings, upstream, path)
    edit, old = _edit_or_fail(path, place, chosen, from_, to)
    key = _key_or_fail(to, path, chosen)
    try:
        prove(chosen, key, model or chosen.health_model)
    except NotProven as error:
        fail(f"{_NOTHING} the key of {to} is not proven: {error}", EXIT_FAILED)
    said = f"upstream {chosen.name}, from {quoted(old)} to {quoted(to)}"
    if address is None:
        _write_or_fail(edit)
        typer.echo(f"written: {said}; in force after a reload")
    else:
        pid = _put_into_force(edit, address, proven(chosen.name, key))
        typer.echo(f"rotated: {said}; the service at {address.url}, process {pid}")


def _upstream_or_fail(settings: Config, name: str, path: Path) -> tuple[int, Upstream]:
    """The upstream of this name, and its place in the file."""
    names = [upstream.name for upstream in settings.upstream]
    if name not in names:
        expected = suggested(name, names, f"one of {', '.join(names)}")
        fail(f"{path}: has no upstream {quoted(name)}, expected {expected}")
    place = names.index(name)
    return place, settings.upstream[place]


def _edit_or_fail(path: Path, place: int, upstream: Upstream, old: str | None, new: str) -> tuple[Edit, str]:
    """The change of the file, and which reference goes. References that are not known are not echoed: somebody may have
    typed the key itself."""
    try:
        file = KeysInFile(path)
        references = file.of(place)
        if not references:
            fail(f"{path}: upstream {upstream.name} has no api_key there that could be replaced")
        if references != [str(key) for key in upstream.api_key]:
            fail(f"the api_key of upstream {upstream.name} comes from the environment here; {path} is not in force")
        listed = ", ".join(map(quoted, references))
        if old is None and len(references) > 1:
            fail(f"upstream {upstream.name} has several keys; say with --from which one goes: {listed}")
        if old is not None and old not in references:
            fail(f"--from: is no reference of upstream {upstream.name}, which has {listed}")
        if new in references:
            fail(f"--to: is in use already; after a change of what is behind {quoted(new)} a reload is enough")
        gone = old or references[0]
        return file.with_other(place, gone, new), gone
    except NotEdited as error:
        fail(f"{_NOTHING} {path}: {error}", EXIT_FAILED)


def _key_or_fail(reference: str, path: Path, upstream: Upstream) -> Secret:
    """The new key, as this command finds it; the service looks for itself."""
    try:
        key = resolve(reference, environment_with(), path.parent)
    except Wrong as wrong:
        fail(f"--to: {wrong}")
    if key.get_secret_value() in [one.get_secret_value() for one in upstream.api_key]:
        fail(f"--to: leads to a key that upstream {upstream.name} has already")
    return key


def _write_or_fail(edit: Edit) -> None:
    try:
        edit.write()
    except NotEdited as error:
        fail(f"{_NOTHING} the file cannot be written: {error}", EXIT_FAILED)


def _put_into_force(edit: Edit, address: AdminAddress, key: str) -> int:
    """Write the change and have it put into force; undo it if that fails. Returns the service's process id."""
    _write_or_fail(edit)
    try:
        return address.reload(key)
    except Refused as refused:
        problems = [_NOTHING, *refused.problems]
        hint = "the service has to find the same key: in the environment that it was started with, or in a file"
        _undo_and_fail(edit, [*problems, hint])
    except NotReached as error:
        _undo_and_fail(edit, [f"{_NOTHING} {error}", "without a service, use --no-reload"])
    except NotSaid as error:
        what = (
            "the file is as it was; whether the service took the new key is not known: look, and rotate or reload again"
        )
        _undo_and_fail(edit, [str(error), what])
    except BaseException:  # Ctrl-C
        edit.undo()
        raise


def _undo_and_fail(edit: Edit, said: list[str]) -> NoReturn:
    try:
        edit.undo()
    except NotEdited as error:
        said = [*said, f"but the file cannot be put back: {error}"]
    fail("\n".join(said), EXIT_FAILED)
