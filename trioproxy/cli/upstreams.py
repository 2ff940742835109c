"""`trioproxy upstreams`: see how they are, and change their keys."""

from typing import Any, Final

import typer

from trioproxy.cli.admin import (
    AdminKey,
    AdminUrl,
    NotReached,
    NotSaid,
    Refused,
    address_or_fail,
    settings_or_fail,
)
from trioproxy.cli.rotate_key import rotate_key
from trioproxy.cli.running import EXIT_FAILED, fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.cli.table import print_table

app = typer.Typer(help="See how the upstreams are, and change their keys.", no_args_is_help=True)

_COLUMNS: Final = ("upstream", "breaker", "healthy", "in flight", "waiting", "first content", "keys", "base url")


def list_upstreams(admin: AdminUrl = None, admin_key: AdminKey = None, config: ConfigFile = None) -> None:
    """How each upstream of the running service is, over all its workers: of what they differ in, the worst."""
    address = address_or_fail(admin, admin_key, lambda: settings_or_fail(config))
    try:
        rows = [_row(upstream) for upstream in address.upstreams()]
    except (NotReached, NotSaid, Refused) as error:
        fail(str(error), EXIT_FAILED)
    print_table(_COLUMNS, rows)


app.command("list")(list_upstreams)
app.command("rotate-key")(rotate_key)


def _row(upstream: dict[str, Any]) -> tuple[str, ...]:
    """One upstream as text, in the order of `_COLUMNS`; "-" for what is not known or does not apply."""
    keys, healthy, first_content_s = upstream["keys"], upstream["healthy"], upstream["first_content_s"]
    breaker = (upstream["breaker"] or "-").replace("_", " ")
    return (
        upstream["name"],
        f"{breaker}, {upstream['ejected_s']:g} s left" if upstream["ejected_s"] else breaker,
        {True: "yes", False: "no"}.get(healthy, "-"),
        str(upstream["in_flight"]),
        str(upstream["waiting"]),
        "-" if first_content_s is None else f"{first_content_s:.3f} s",
        "-" if not keys["total"] else f"{'?' if keys['usable'] is None else keys['usable']} of {keys['total']}",
        upstream["base_url"],
    )
