"""`trioproxy serve`: the main job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.running import bind_or_fail, build_or_fail, fail, load_or_fail, run
from trioproxy.config import Config, load
from trioproxy.errors import ConfigError
from trioproxy.server.run import serve as serve_until_signal

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; without it $TRIOPROXY_CONFIG, ./trioproxy.toml.")
]


def serve(
    upstream: Annotated[
        str | None, typer.Option(help="Base URL of the origin, for example https://api.openai.com/v1.")
    ] = None,
    bind: Annotated[str | None, typer.Option(help="HOST:PORT to listen on.")] = None,
    config: ConfigFile = None,
) -> None:
    """Relay requests to an upstream. Clients' own Authorization goes through unless the config names a key."""
    flags: dict[str, object] = {}
    if upstream is not None:
        flags["upstream.base_url"] = upstream
    if bind is not None:
        flags["server.bind"] = [bind]
    settings = load_or_fail(config, flags)
    if upstream is not None and _is_another(config, settings):
        fail("--upstream would send the configured upstream's api_key or headers to another host; change the file")
    house = build_or_fail(settings)
    sockets = [bind_or_fail(address) for address in settings.server.bind]
    run(partial(serve_until_signal, house, sockets))


def _is_another(config: Path | None, settings: Config) -> bool:
    """Whether an upstream was configured already, with secrets that are not meant for the one on the command line."""
    try:
        configured = load(config).upstream[0]
    except ConfigError:
        return False
    return configured.holds_secrets and configured.base_url != settings.upstream[0].base_url
