"""`trioproxy check`: every problem of a configuration at once, before anything is started."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.running import loaded_or_fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import load, warnings
from trioproxy.config import show as show_config


def check(
    file: Annotated[Path | None, typer.Argument(help="The file to check; the same as --config.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the effective configuration, secrets masked.")] = False,
    config: ConfigFile = None,
) -> None:
    """Check a configuration: exit code 0 and one word if it is good, else every problem and exit code 2.

    What is hardly meant so is told on standard error, and changes neither.
    """
    settings = loaded_or_fail(partial(load, file or config))
    for warning in warnings(settings):
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(show_config(settings) if show else "ok")
