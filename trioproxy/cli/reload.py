"""`trioproxy reload`: put a changed configuration into force without losing a stream."""

from typing import Annotated

import httpx
import typer

from trioproxy.cli.running import EXIT_FAILED, fail, load_or_fail, url
from trioproxy.cli.serve import ConfigFile
from trioproxy.config import split_bind

_PATIENCE_S = 90.0  # new workers are started first, and a busy machine takes its time

AdminUrl = Annotated[
    str | None, typer.Option("--admin", help="URL of the admin address; without it the configuration's admin.bind.")
]
AdminKey = Annotated[str | None, typer.Option(help="Its key; without it the configuration's admin.key.")]


def reload(admin: AdminUrl = None, admin_key: AdminKey = None, config: ConfigFile = None) -> None:
    """Check the running service's configuration and put it into force; a broken one changes nothing."""
    if admin is None or admin_key is None:
        settings = load_or_fail(config, {"upstream.base_url": "http://127.0.0.1/v1"} if config is None else {})
        if settings.admin.bind == "off" and admin is None:
            fail("the admin address is off; send the supervisor SIGHUP instead")
        admin = admin or url(*split_bind(settings.admin.bind))
        admin_key = admin_key or (settings.admin.key.get_secret_value() if settings.admin.key else None)
    headers = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
    try:
        answer = httpx.post(f"{admin.rstrip('/')}/admin/reload", headers=headers, timeout=_PATIENCE_S, trust_env=False)
    except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        fail(f"cannot reach the admin address at {admin}: {error}; is it running, and is --admin right?", EXIT_FAILED)
    if answer.status_code == httpx.codes.OK:
        typer.echo(f"reloaded: the service at {admin}, process {answer.json()['pid']}")
        return
    problems = _problems(answer)
    fail("\n".join(["nothing was changed:", *problems]), EXIT_FAILED)


def _problems(answer: httpx.Response) -> list[str]:
    """What the service has against it."""
    try:
        said = answer.json()
    except ValueError:
        return [f"the answer was {answer.status_code}, and not this service's"]
    if "problems" in said:
        return [str(problem) for problem in said["problems"]]
    return [said.get("error", {}).get("message", f"the answer was {answer.status_code}")]
