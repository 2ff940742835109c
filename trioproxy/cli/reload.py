"""`trioproxy reload`: put a changed configuration into force without losing a stream."""

from functools import partial

import typer

from trioproxy.cli.admin import AdminKey, AdminUrl, NotReached, NotSaid, Refused, address_or_fail, settings_or_fail
from trioproxy.cli.running import EXIT_FAILED, fail
from trioproxy.cli.serve import ConfigFile


def reload(admin: AdminUrl = None, admin_key: AdminKey = None, config: ConfigFile = None) -> None:
    """Check the running service's configuration and put it into force; a broken one changes nothing."""
    address = address_or_fail(admin, admin_key, partial(settings_or_fail, config))
    try:
        pid = address.reload()
    except (NotReached, NotSaid) as error:
        fail(str(error), EXIT_FAILED)
    except Refused as refused:
        fail("\n".join(["nothing was changed:", *refused.problems]), EXIT_FAILED)
    typer.echo(f"reloaded: the service at {address.url}, process {pid}")
