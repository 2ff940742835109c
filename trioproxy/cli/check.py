"""`trioproxy check`: every problem of a configuration at once, before anything is started."""

from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.running import load_or_fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import show as show_config


def check(
    file: Annotated[Path | None, typer.Argument(help="The file to check; the same as --config.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the effective configuration, secrets masked.")] = False,
    config: ConfigFile = None,
) -> None:
    """Check a configuration: nothing but exit code 0 and one word if it is good, else every problem and exit code 2."""
    settings = load_or_fail(file or config, {})
    typer.echo(show_config(settings) if show else "ok")
