"""`trioproxy check`: every problem of a configuration at once, before anything is started."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.model_lists import Findings, look_at_models
from trioproxy.cli.running import fail, loaded_or_fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import chosen_file, load, read_keys_file, warnings
from trioproxy.config import show as show_config
from trioproxy.errors import ConfigError, Problem


def check(
    file: Annotated[Path | None, typer.Argument(help="The file to check; the same as --config.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the effective configuration, secrets masked.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask upstreams which models they have.")] = False,
    config: ConfigFile = None,
) -> None:
    """Check a configuration: exit code 0 and one word if it is good, else every problem and exit code 2.

    An upstream for which a route names a model in full is asked whether it has that. What is hardly meant so, and who
    could not be asked, is told on standard error, and changes neither.
    """
    path = chosen_file(file or config)
    settings = loaded_or_fail(partial(load, path))
    try:
        file_keys = read_keys_file(settings)
    except ConfigError as error:
        fail(str(error))
    found = Findings() if offline else look_at_models(settings)
    for warning in [*warnings(settings, file_keys), *found.warnings]:
        typer.echo(f"warning: {warning}", err=True)
    if found.wrong:
        fail(str(ConfigError([Problem(str(path), key, str(wrong)) for key, wrong in found.wrong])))
    typer.echo(show_config(settings) if show else "ok")
