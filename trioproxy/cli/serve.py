"""`trioproxy serve`: the main job."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trioproxy.cli.running import bind_or_fail, build_or_fail, fail, load_or_fail, run
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
    if upstream is not None and settings.upstream[0].holds_secrets:
        fail("--upstream would send this configuration's api_key or headers to another host; name one or the other")
    house = build_or_fail(settings)
    sockets = [bind_or_fail(address) for address in settings.server.bind]
    run(partial(serve_until_signal, house, sockets))
