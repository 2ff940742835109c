"""`trioproxy reload`: put a changed configuration into force without losing a stream."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from trioproxy.cli.running import EXIT_FAILED, fail, loaded_or_fail, url
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import Config, load, split_bind
from trioproxy.errors import ConfigError

_PATIENCE_S = 90.0  # new workers are started first, and a busy machine takes its time

AdminUrl = Annotated[
    str | None, typer.Option("--admin", help="URL of the admin address; without it the configuration's admin.bind.")
]
AdminKey = Annotated[str | None, typer.Option(help="Its key; without it the configuration's admin.key.")]


def reload(admin: AdminUrl = None, admin_key: AdminKey = None, config: ConfigFile = None) -> None:
    """Check the running service's configuration and put it into force; a broken one changes nothing."""
    if admin is None or admin_key is None:
        settings = _settings(config)
        if settings.admin.bind == "off" and admin is None:
            fail("the admin address is off; send the supervisor SIGHUP instead")
        admin = admin or url(*split_bind(settings.admin.bind))
        admin_key = admin_key or (settings.admin.key.get_secret_value() if settings.admin.key else None)
    headers = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
    try:
        answer = httpx.post(f"{admin.rstrip('/')}/admin/reload", headers=headers, timeout=_PATIENCE_S, trust_env=False)
    except (httpx.RequestError, httpx.InvalidURL) as error:
        fail(f"cannot reach the admin address at {admin}: {error}; is it running, and is --admin right?", EXIT_FAILED)
    match _said(answer):
        case {"pid": int(pid), "problems": []}:
            typer.echo(f"reloaded: the service at {admin}, process {pid}")
            return
        case {"problems": list(problems)}:
            pass
        case {"error": {"message": str(message)}}:
            problems = [message]
        case _:
            problems = [f"the answer was {answer.status_code}, and not this service's"]
    fail("\n".join(["nothing was changed:", *map(str, problems)]), EXIT_FAILED)


def _settings(config: Path | None) -> Config:
    """The configuration as far as it is in a file: the service may have been started with --upstream."""
    try:
        return load(config)
    except ConfigError as error:
        is_missing = any(problem.key == "upstream" for problem in error.problems)
    flags = {"upstream.base_url": "http://127.0.0.1/v1"} if is_missing else {}
    return loaded_or_fail(partial(load, config, flags=flags))


def _said(answer: httpx.Response) -> Any:
    """An answer's JSON; None if that is not what it is."""
    try:
        return answer.json()
    except ValueError:
        return None
