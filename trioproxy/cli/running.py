"""What the commands that serve have in common: loading the configuration, binding, and running until a signal."""

import socket
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio
import typer

from trioproxy.config import Config, split_bind
from trioproxy.errors import ConfigError
from trioproxy.server.crew import WorkerFailed
from trioproxy.server.sockets import bind
from trioproxy.server.supervisor import Supervisor
from trioproxy.telemetry.access_log import AccessLog

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Say what is wrong on standard error and end."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def loaded_or_fail(load: Callable[[], Config]) -> Config:
    """The configuration, or every problem with it, a line each."""
    try:
        return load()
    except ConfigError as error:
        fail(str(error))


def bind_or_fail(address: str, flag: str = "--bind") -> socket.socket:
    """A listening socket for "HOST:PORT"."""
    try:
        return bind(*split_bind(address))
    except OSError as error:
        fail(f"cannot listen on {address}: {error.strerror or error}; choose another address with {flag}")


def admin_or_fail(config: Config) -> socket.socket | None:
    """The admin address's listening socket. Nobody chose the default: if its port is taken, any free one will do."""
    if config.admin.bind == "off":
        return None
    try:
        return bind(*split_bind(config.admin.bind))
    except OSError as error:
        if "bind" not in config.admin.model_fields_set:
            return bind_or_fail("127.0.0.1:0", "--admin-bind")
        reason = error.strerror or error
        fail(f"cannot listen on {config.admin.bind}: {reason}; choose another address with --admin-bind")


def supervisor_or_fail(config: Config, reload: Callable[[], Config]) -> Supervisor:
    """The service, not started. `reload` loads its configuration anew."""
    admin = admin_or_fail(config)
    try:
        access_log = AccessLog(config.telemetry.access_log)
    except OSError as error:
        fail(f"cannot start: {error}")
    try:
        return Supervisor(config, access_log, load=reload, admin=admin)
    except ConfigError as error:
        fail(str(error))
    except OSError as error:
        addresses = ", ".join(config.server.bind)
        fail(f"cannot listen on {addresses}: {error.strerror or error}; choose another address with --bind")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run the event loop to its end."""
    try:
        trio.run(main)
    except* KeyboardInterrupt:  # before the signals were ours to handle
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except* WorkerFailed as failures:
        reasons = "; ".join(dict.fromkeys(_messages(failures)))
        fail(f"cannot serve: {reasons}", EXIT_FAILED)


def _messages(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [message for one in error.exceptions for message in _messages(one)]
    return [str(error)]


def url_of(listening: socket.socket) -> str:
    """The URL under which a listening socket is reached from this machine."""
    host, port = listening.getsockname()[:2]
    return url(host, port)


def url(host: str, port: int) -> str:
    """The URL of an address that is listened on, as it is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
