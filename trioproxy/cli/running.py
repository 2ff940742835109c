"""What the commands that serve have in common: loading the configuration, binding, and running until a signal."""

import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NoReturn

import trio
import typer

from trioproxy.config import Config, load, split_bind
from trioproxy.errors import ConfigError
from trioproxy.server.build import House
from trioproxy.server.listener import bind
from trioproxy.server.run import prepare_process
from trioproxy.telemetry.access_log import AccessLog

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Say what is wrong on standard error and end."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def load_or_fail(file: Path | None, flags: Mapping[str, object]) -> Config:
    """The configuration, or every problem with it, a line each."""
    try:
        return load(file, flags=flags)
    except ConfigError as error:
        fail(str(error))


def bind_or_fail(address: str) -> socket.socket:
    """A listening socket for "HOST:PORT"."""
    try:
        return bind(*split_bind(address))
    except OSError as error:
        fail(f"cannot listen on {address}: {error.strerror or error}; choose another address with --bind")


def build_or_fail(config: Config) -> House:
    """The house, not started."""
    try:
        return House(config, AccessLog(config.telemetry.access_log))
    except OSError as error:
        fail(f"cannot start: {error}")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run the event loop to its end."""
    prepare_process()
    try:
        trio.run(main)
    except* KeyboardInterrupt:  # before the signals were ours to handle
        raise typer.Exit(EXIT_INTERRUPTED) from None


def url_of(listening: socket.socket) -> str:
    """The URL under which a listening socket is reached from this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
