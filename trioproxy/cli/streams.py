"""`trioproxy streams`: what is running now, of one stream all that is known, and an end to it."""

import json
from typing import Annotated, Any, Final

import typer

from trioproxy.cli.admin import (
    AdminAddress,
    AdminKey,
    AdminUrl,
    NotReached,
    NotSaid,
    Refused,
    address_or_fail,
    settings_or_fail,
)
from trioproxy.cli.running import EXIT_FAILED, fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.cli.streams_text import COLUMNS, ORDERS, cells, ended, is_meant, ordered, shown, span
from trioproxy.cli.table import print_table
from trioproxy.cli.top import Filter, Sort, order_or_fail, top

app = typer.Typer(help="See the live streams, and end one.", no_args_is_help=True)

_TRY_COLUMNS: Final = ("try", "upstream", "model", "started", "connected", "head", "first content", "ended", "result")
_TURN_COLUMNS: Final = ("after", "waited for", "how long")

StreamId = Annotated[
    str, typer.Argument(metavar="ID", help="The stream's id, as the list and the log have it.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, with all that is known.")]


def list_streams(
    as_json: AsJson = False,
    words: Filter = "",
    sort: Sort = ORDERS[0].name,
    admin: AdminUrl = None,
    admin_key: AdminKey = None,
    config: ConfigFile = None,
) -> None:
    """The requests that are under way at the running service, over all its workers, the oldest first."""
    order = order_or_fail(sort)
    address = address_or_fail(admin, admin_key, lambda: settings_or_fail(config))
    try:
        rows = ordered([row for row in address.streams() if is_meant(row, words)], order)
    except (NotReached, NotSaid, Refused) as error:
        fail(str(error), EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(COLUMNS, [cells(row) for row in rows])


def show(
    stream_id: StreamId,
    as_json: AsJson = False,
    admin: AdminUrl = None,
    admin_key: AdminKey = None,
    config: ConfigFile = None,
) -> None:
    """All that is known of one stream that is live, or ended within the last minute: its tries, who waited for whom."""
    address = address_or_fail(admin, admin_key, lambda: settings_or_fail(config))
    try:
        told = address.stream(stream_id)
    except (NotReached, NotSaid, Refused) as error:
        fail(str(error), EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    facts = _facts(told["stream"])
    width = max(map(len, facts))
    typer.echo("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))
    if told["tries"]:
        typer.echo()
        print_table(_TRY_COLUMNS, [_try(number, each) for number, each in enumerate(told["tries"], 1)])
    if told["timeline"]:
        typer.echo()
        print_table(_TURN_COLUMNS, [(_time(start), side, _time(took)) for start, side, took in told["timeline"]])


def cancel(
    stream_id: StreamId,
    reason: Annotated[str | None, typer.Option(help="Why, for the log.")] = None,
    admin: AdminUrl = None,
    admin_key: AdminKey = None,
    config: ConfigFile = None,
) -> None:
    """End a stream, for everyone who reads it. Its client is told, and the origin stops."""
    address: AdminAddress = address_or_fail(admin, admin_key, lambda: settings_or_fail(config))
    try:
        address.stop_stream(stream_id, reason)
    except (NotReached, NotSaid, Refused) as error:
        fail(str(error), EXIT_FAILED)
    typer.echo(f"stopped: {shown(stream_id)}")


app.command("list")(list_streams)
app.command("show")(show)
app.command("cancel")(cancel)
app.command("top")(top)


def _facts(row: dict[str, Any]) -> dict[str, str]:
    """What is known of a stream, a line each."""
    is_over = row["phase"] == "ended"
    facts = {
        "id": shown(row["id"]),
        "phase": f"ended: {ended(row)}" if is_over else row["phase"],
        "age": span(row["age_s"]),
        "endpoint": f"{row['endpoint']}, {'streaming' if row['streaming'] else 'not streaming'}",
        "model": shown(row["model"]),
        "upstream": f"{shown(row['upstream'])}, tries: {row['attempts']}",
        "key": shown(row["key"]),
        "client": f"{shown(row['client'])}, worker {row['worker']}",
        "first content": _time(row["first_content_s"]),
        "events": f"{row['events']}, {row['bytes']} bytes, {row['rate']:.1f}/s",
        "waited for": ", ".join(f"{side} {_time(row[f'{side}_s'])}" for side in ("upstream", "client", "proxy")),
    }
    if row["stream"] is not None:
        facts["shared as"] = f"{shown(row['stream'])}, subscribers: {row['subscribers']}"
    if is_over:
        facts["status"] = str(row["status"])
        facts["tokens"] = f"{_known(row['input_tokens'])} in, {_known(row['output_tokens'])} out"
        facts["cost"] = "-" if row["cost_usd"] is None else f"{row['cost_usd']} USD"
    else:
        facts["waits for"] = f"{row['blocked_on']} {span(row['blocked_s'])}"
    return facts


def _try(number: int, one: dict[str, Any]) -> tuple[str, ...]:
    """One try, in the order of `_TRY_COLUMNS`; its times are since the request came."""
    moments = (_time(one.get(name)) for name in ("started", "connected", "head", "first_content", "ended"))
    return (str(number), shown(one.get("upstream")), shown(one.get("model")), *moments, shown(one.get("result")))


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"


def _known(number: int | None) -> str:
    return "-" if number is None else str(number)
