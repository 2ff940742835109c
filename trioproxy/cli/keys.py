"""`trioproxy keys`: virtual keys are made, listed, taken back, and given other secrets.

All of this is done in the keys file, which a running service reads again by itself, so that none need run. A change is
judged as the service will judge it before it is written; whatever goes wrong, the file is as it was.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, Final

import typer

from trioproxy.cli.admin import settings_or_fail
from trioproxy.cli.keys_text import NotChanged, inline, listed, with_hash, with_key, with_more
from trioproxy.cli.running import EXIT_FAILED, fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.cli.table import print_table
from trioproxy.cli.whole_file import only_one_changes, write_whole
from trioproxy.config import Config, Key, Wrong, hash_of, keys_in, keys_of, read_keys_file
from trioproxy.config.gate import PREFIX_OF_SECRETS
from trioproxy.config.keys_file import MAX_FILE_BYTES
from trioproxy.config.secrets import quoted, shortened, suggested, unsaid
from trioproxy.errors import ConfigError, Problem

app = typer.Typer(help="Make, list, revoke and rotate virtual keys.", no_args_is_help=True)

_COLUMNS: Final = ("name", "models", "expires", "limits", "state", "where")
_SECRET_BYTES: Final = 32
_BOM: Final = "\ufeff"
_SPAN = re.compile(r"([0-9]{1,6})([dh])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_PLACE = re.compile(r"line [0-9]+: key\[[0-9]+\]\.(?:limits\.)?([a-z_]+)")
_SHOWN_ONCE: Final = "its secret is shown this once, on standard output; a running service knows it in two seconds"

Name = Annotated[str, typer.Argument(help="The key's name.", show_default=False)]


def create(
    name: Annotated[str, typer.Argument(help="A name for logs, metrics and these commands.", show_default=False)],
    models: Annotated[str | None, typer.Option(help="Models that it may use: names or globs, with commas.")] = None,
    upstreams: Annotated[str | None, typer.Option(help="Upstreams that it may use, with commas.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 2027-01-31, a time in UTC, 30d or 12h.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests in any 60 seconds.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens in any 60 seconds.")] = None,
    streams: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens in a day.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option(help="Tokens in a month.")] = None,
    usd_per_day: Annotated[str | None, typer.Option(help="Dollars in a day; needs prices.")] = None,
    usd_per_month: Annotated[str | None, typer.Option(help="Dollars in a month; needs prices.")] = None,
    config: ConfigFile = None,
) -> None:
    """Make a virtual key, and print its secret. Only a hash of that is kept: nobody can show it again."""
    secret = _new_secret()
    limits = {
        "rpm": _whole(rpm),
        "tpm": _whole(tpm),
        "streams": _whole(streams),
        "tokens_per_day": _whole(tokens_per_day),
        "tokens_per_month": _whole(tokens_per_month),
        "usd_per_day": _decimal(usd_per_day),
        "usd_per_month": _decimal(usd_per_month),
    }
    set_limits = {limit: value for limit, value in limits.items() if value is not None}
    table = {
        "name": quoted(name),
        "hash": quoted(hash_of(secret)),
        "models": None if models is None else listed(_parts(models)),
        "upstreams": None if upstreams is None else listed(_parts(upstreams)),
        "expires": None if expires is None else _moment_or_fail(expires),
        "limits": inline(set_limits) if set_limits else None,
    }
    with _changing(config) as file:
        file.write_or_fail(with_key(file.text, {key: value for key, value in table.items() if value is not None}))
    typer.echo(secret)
    typer.echo(f"key {name} is in {file.path}; {_SHOWN_ONCE}", err=True)
    if file.is_open:
        typer.echo("it is the first: from now on every client needs a key of ours", err=True)


def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all that is known of each.")] = False,
    config: ConfigFile = None,
) -> None:
    """The virtual keys of the configuration and of the keys file."""
    file = _read_or_fail(_settings_or_fail(config))
    now = datetime.now(UTC)
    keys = [("config", key) for key in file.settings.key] + [("file", key) for key in file.keys or ()]
    if as_json:
        typer.echo(json.dumps([_told(where, key, now) for where, key in keys], indent=2))
    else:
        print_table(_COLUMNS, [_row(where, key, now) for where, key in keys])
        if file.is_open:
            typer.echo("no keys are asked for: clients' own credentials go through", err=True)


def revoke(name: Name, config: ConfigFile = None) -> None:
    """Take a virtual key back, for good. It stays in the file, so that its name is not given to somebody else."""
    now = datetime.now(UTC)
    with _changing(config) as file:
        key = file.key_or_fail(name)
        if key.revoked is not None and key.revoked <= now:
            typer.echo(f"key {name} was revoked before: nothing was changed", err=True)
            return
        if key.revoked is not None:
            fail(f"{file.path}: key {name} is revoked from {_toml_time(key.revoked)} on; change that by hand")
        file.write_or_fail(with_more(file.text, key.hash, {"revoked": _toml_time(now)}))
    typer.echo(f"key {name} is revoked in {file.path}; a running service refuses it in two seconds", err=True)


def rotate(name: Name, config: ConfigFile = None) -> None:
    """Give a virtual key another secret, and print that. The old one is of no use from then on; all else stays."""
    secret = _new_secret()
    with _changing(config) as file:
        key = file.key_or_fail(name)
        if (state := _state(key, datetime.now(UTC))) != "active":
            fail(f"{file.path}: key {name} is {state}: another secret would be of no use either")
        file.write_or_fail(with_hash(file.text, key.hash, hash_of(secret)))
    typer.echo(secret)
    typer.echo(f"key {name} has another secret in {file.path}; {_SHOWN_ONCE}", err=True)


app.command("create")(create)
app.command("list")(list_keys)
app.command("revoke")(revoke)
app.command("rotate")(rotate)


@dataclass(frozen=True)
class _KeysFile:
    """The keys file of a configuration, as it was read: its content, and the keys in that. None: there is no file."""

    settings: Config
    content: bytes | None
    keys: tuple[Key, ...] | None

    @property
    def path(self) -> Path:
        return self.settings.gate.keys_file

    @property
    def text(self) -> str:
        return (self.content or b"").decode("utf-8-sig")

    @property
    def is_open(self) -> bool:
        """Whether clients need no key of ours."""
        return keys_of(self.settings, self.keys) is None

    def key_or_fail(self, name: str) -> Key:
        """The key of this name; one that is in the configuration cannot be changed here."""
        if name in [key.name for key in self.settings.key]:
            fail(f"key {name} is in the configuration itself: change it there, and reload")
        by_name = {key.name: key for key in self.keys or ()}
        if name not in by_name:
            expected = suggested(name, list(by_name), "one of those that 'trioproxy keys list' shows")
            fail(f"{self.path}: has no key {unsaid(shortened(name))}, expected {expected}")
        return by_name[name]

    def write_or_fail(self, text: str) -> None:
        """Put another text in the file's place, if the service will take it. Raises OSError."""
        bom = _BOM if (self.content or b"").startswith(_BOM.encode()) else ""
        content = (bom + text).encode()
        if len(content) > MAX_FILE_BYTES:
            fail(f"{self.path}: would be larger than {MAX_FILE_BYTES} bytes")
        try:
            keys_in(content, self.settings)
        except ConfigError as error:  # what is wrong was typed just now: the file was good
            fail("\n".join(map(_as_typed, error.problems)))
        if _content(self.path) != self.content:
            fail(f"{self.path}: somebody else has changed it meanwhile; nothing was changed here")
        write_whole(self.path.resolve(), content)  # a link stays one: what it leads to is what is changed


@contextmanager
def _changing(config: Path | None) -> Iterator[_KeysFile]:
    """The keys file, which no other command changes meanwhile."""
    settings = _settings_or_fail(config)
    path = settings.gate.keys_file
    try:
        with only_one_changes(path.resolve()):
            yield _read_or_fail(settings)
    except NotChanged as error:
        fail(f"{path}: {error}")
    except OSError as error:
        fail(f"{path}: cannot be written: {error.strerror or error}", EXIT_FAILED)


def _settings_or_fail(config: Path | None) -> Config:
    # A proxy that is refused because it has no keys yet needs nothing more than this.
    return settings_or_fail(config, {"gate.allow_open": True})


def _read_or_fail(settings: Config) -> _KeysFile:
    try:
        keys = read_keys_file(settings)
    except ConfigError as error:
        fail(str(error))
    return _KeysFile(settings, None if keys is None else _content(settings.gate.keys_file), keys)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _new_secret() -> str:
    return PREFIX_OF_SECRETS + token_urlsafe(_SECRET_BYTES)


def _as_typed(problem: Problem) -> str:
    """A problem of a new key, at the flag that it comes from."""
    found = _PLACE.match(problem.key)
    if found is None:
        return str(problem)
    return f"{'NAME' if found[1] == 'name' else '--' + found[1].replace('_', '-')}: {problem.what}"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _whole(number: int | None) -> str | None:
    return None if number is None else str(number)


def _decimal(text: str | None) -> str | None:
    """As TOML; what is no number stays text, which is refused as such."""
    return text if text is None or _NUMBER.fullmatch(text) else quoted(text)


def _moment_or_fail(text: str) -> str:
    """A time to come, as TOML."""
    now = datetime.now(UTC)
    try:
        span = _SPAN.fullmatch(text)
        if span is not None:
            hours = int(span[1]) * (24 if span[2] == "d" else 1)
            moment = now + timedelta(hours=hours)
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        fail(f"--expires: {Wrong('is not a time', '2027-01-31, 2027-01-31T18:00:00Z, 30d or 12h', shortened(text))}")
    if moment <= now:
        fail(f"--expires: {Wrong('is over', 'a time to come', shortened(text))}")
    return date.fromisoformat(text).isoformat() if _DAY.fullmatch(text) else _toml_time(moment)


def _toml_time(moment: datetime) -> str:
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _state(key: Key, now: datetime) -> str:
    if key.revoked is not None and key.revoked <= now:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now else "active"


def _row(where: str, key: Key, now: datetime) -> tuple[str, ...]:
    """One key as text, in the order of `_COLUMNS`; "-" for what it has none of."""
    told = _told(where, key, now)
    return (
        key.name,
        ", ".join(key.models) or "all",
        (told["expires"] or "-").removesuffix("T00:00:00Z"),
        ", ".join(f"{limit} {value}" for limit, value in told["limits"].items()) or "-",
        told["state"],
        where,
    )


def _told(where: str, key: Key, now: datetime) -> dict[str, Any]:
    """One key as JSON. Not its hash: nobody needs that but the service."""
    return {
        "name": key.name,
        "state": _state(key, now),
        "where": where,
        "models": key.models,
        "upstreams": key.upstreams,
        "expires": None if key.expires is None else _toml_time(key.expires),
        "revoked": None if key.revoked is None else _toml_time(key.revoked),
        "limits": {
            limit: format(value, "f") if isinstance(value, Decimal) else value
            for limit, value in key.limits
            if value is not None
        },
    }
