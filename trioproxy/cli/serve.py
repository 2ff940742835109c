"""`trioproxy serve`: the main job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.running import loaded_or_fail, run, supervisor_or_fail
from trioproxy.config import Config, load
from trioproxy.errors import ConfigError, Problem

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; without it $TRIOPROXY_CONFIG, ./trioproxy.toml.")
]


def serve(
    upstream: Annotated[
        str | None, typer.Option(help="Base URL of the origin, for example https://api.openai.com/v1.")
    ] = None,
    bind: Annotated[str | None, typer.Option(help="HOST:PORT to listen on.")] = None,
    admin_bind: Annotated[str | None, typer.Option(help="HOST:PORT for metrics and resources, or off.")] = None,
    workers: Annotated[str | None, typer.Option(help="How many processes serve, or auto: one per core.")] = None,
    config: ConfigFile = None,
) -> None:
    """Relay requests to an upstream. Clients' own Authorization goes through unless the config names a key."""
    flags: dict[str, object] = {
        "upstream.base_url": upstream,
        "server.bind": None if bind is None else [bind],
        "admin.bind": admin_bind,
        "server.workers": int(workers) if workers is not None and workers.isdecimal() else workers,
    }
    load_again = partial(_load, config, flags)
    run(supervisor_or_fail(loaded_or_fail(load_again), load_again).run)


def _load(file: Path | None, flags: dict[str, object]) -> Config:
    """The configuration. Raises ConfigError, also if a flag would send a configured secret to another host."""
    settings = load(file, flags=flags)
    if flags["upstream.base_url"] is not None and _is_another(file, settings):
        what = "would send the configured upstream's api_key or headers to another host; change the file"
        raise ConfigError([Problem("command line", "--upstream", what)])
    return settings


def _is_another(file: Path | None, settings: Config) -> bool:
    """Whether an upstream was configured already, with secrets that are not meant for the one on the command line."""
    try:
        configured = load(file).upstream[0]
    except ConfigError:
        return False
    return configured.holds_secrets and configured.base_url != settings.upstream[0].base_url
