"""`trioproxy keys`: what it writes the service takes, what it cannot write it explains, and nothing is changed then."""

import json
import re
import stat
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trioproxy.cli import keys as keys_module
from trioproxy.cli.main import app
from trioproxy.config import hash_of, load, read_keys_file

OWN, OLD = hash_of("own"), hash_of("old")
CONFIG = f"""
[[upstream]]
name = "a"
base_url = "http://127.0.0.1:1/v1"
[[key]]
name = "own"
hash = "{OWN}"
"""
FILE = f"""# ours
[[key]]   # the first
name = "bob"
hash = "{OLD}"   # since May
models = ["gpt-*"]
"""


@dataclass
class Folder:
    """A configuration, and the keys file beside it."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / "keys.toml"

    @property
    def keys(self) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = tomllib.loads(self.file.read_text())["key"]
        return keys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        done = CliRunner().invoke(app, ["keys", *arguments, "--config", str(self.path / "trioproxy.toml")])
        return done.exit_code, done.stdout, done.stderr

    def fails(self, *arguments: str) -> str:
        """What is said; the exit code is 2, and no file is other than before."""
        before = self.file.read_bytes() if self.file.exists() else None
        code, out, err = self.run(*arguments)
        assert (code, out) == (2, "")
        assert (self.file.read_bytes() if self.file.exists() else None) == before
        return err.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "trioproxy.toml").write_text(CONFIG)
    return Folder(tmp_path)


@pytest.fixture
def filled(folder: Folder) -> Folder:
    """The same, with a key in the file."""
    folder.file.write_text(FILE)
    return folder


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A time that stands still."""
    fixed = datetime(2026, 11, 21, 10, 30, 15, 123456, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls.fromtimestamp(fixed.timestamp(), tz)

    monkeypatch.setattr(keys_module, "datetime", Clock)
    return fixed


def test_a_new_keys_secret_is_alone_on_a_line_and_only_its_hash_is_kept(folder: Folder) -> None:
    code, out, err = folder.run("create", "bob")
    assert code == 0
    assert re.fullmatch(r"tpk_[A-Za-z0-9_-]{43}\n", out)
    assert "bob" in err and out.strip() not in err
    assert folder.keys == [{"name": "bob", "hash": hash_of(out.strip())}]
    assert stat.S_IMODE(folder.file.stat().st_mode) == 0o600
    assert folder.run("create", "eve")[1] != out


def test_all_that_may_be_said_of_a_key_is_written_as_it_is_meant(folder: Folder, now: datetime) -> None:
    flags = "--models gpt-*,o1 --upstreams a --expires 2027-01-31 --rpm 5 --tpm 6000 --streams 7 --tokens-per-day 8"
    flags += " --usd-per-day 0.10 --usd-per-month 12"
    assert folder.run("create", "bob", *flags.split())[0] == 0
    (key,) = read_keys_file(load(folder.path / "trioproxy.toml", environ={})) or ()
    assert (key.models, key.upstreams, key.expires) == (("gpt-*", "o1"), ("a",), datetime(2027, 1, 31, tzinfo=UTC))
    limits = {name: str(value) for name, value in key.limits if value is not None}
    assert limits == {
        "rpm": "5",
        "tpm": "6000",
        "streams": "7",
        "tokens_per_day": "8",
        "usd_per_day": "0.1",
        "usd_per_month": "12",
    }


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("30d", datetime(2026, 12, 21, 10, 30, 15, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 21, 22, 30, 15, tzinfo=UTC)),
        ("2027-01-31T18:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_a_key_expires_when_it_is_meant_to(folder: Folder, now: datetime, typed: str, means: datetime) -> None:
    assert folder.run("create", "bob", "--expires", typed)[0] == 0
    assert folder.keys[0]["expires"] == means


@pytest.mark.parametrize("typed", ["soon", "30", "-3d", "999999999d", "2027-02-30", "9999-12-31T23:59:59-23:00", ""])
def test_what_is_no_time_to_come_is_told(folder: Folder, now: datetime, typed: str) -> None:
    assert folder.fails("create", "bob", "--expires", typed).startswith("--expires: is not a time, expected 2027-01-31")


@pytest.mark.parametrize("typed", ["0d", "2026-11-21", "2026-11-21T10:30:15", "1999-01-01"])
def test_a_time_that_is_over_is_told(folder: Folder, now: datetime, typed: str) -> None:
    assert folder.fails("create", "bob", "--expires", typed).startswith("--expires: is over")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bob",), 'NAME: is taken, expected a name of its own (key[0] has this one), got "bob"'),
        (("own",), 'NAME: is taken, expected a name of its own (key[0] of the configuration has this one), got "own"'),
        (("b b",), "NAME: is not a key's name"),
        (("",), "NAME: is not a key's name"),
        (("eve", "--models", ","), "--models: is empty"),
        (("eve", "--upstreams", "b"), "--upstreams: is not a known upstream"),
        (("eve", "--rpm", "0"), "--rpm: is out of range"),
        (("eve", "--tokens-per-month", "-1"), "--tokens-per-month: is out of range"),
        (("eve", "--usd-per-day", "x"), "--usd-per-day: is not a number"),
        (("eve", "--usd-per-day", "0.0000001"), "--usd-per-day: has too many decimals"),
        (("eve", "--usd-per-day", '1 }\n[[key]]\nname = "x"'), "--usd-per-day: is not a number"),
    ],
)
def test_what_the_service_would_refuse_is_not_written(filled: Folder, arguments: tuple[str, ...], says: str) -> None:
    assert filled.fails("create", *arguments).startswith(says)


def test_a_secret_in_the_place_of_a_name_is_not_shown(filled: Folder) -> None:
    secret = filled.run("create", "eve")[1].strip()
    for command in ("create", "revoke", "rotate"):
        assert secret not in filled.fails(command, secret)


def test_only_the_first_key_of_all_closes_the_proxy(folder: Folder) -> None:
    (folder.path / "trioproxy.toml").write_text('[[upstream]]\nbase_url = "http://127.0.0.1:1/v1"\n')
    assert "no keys are asked for" in folder.run("list")[2]
    assert "from now on every client needs a key" in folder.run("create", "bob")[2]
    assert "from now on" not in folder.run("create", "eve")[2]
    assert folder.run("list")[2] == ""


def test_a_proxy_that_may_not_start_without_keys_can_be_given_one(folder: Folder) -> None:
    text = """
        [server]
        bind = ["0.0.0.0:8080"]
        [[upstream]]
        base_url = "http://127.0.0.1:1/v1"
        headers = { authorization = "Bearer x" }
    """
    (folder.path / "trioproxy.toml").write_text(text)
    assert CliRunner().invoke(app, ["check", "--offline", str(folder.path / "trioproxy.toml")]).exit_code == 2
    assert folder.run("create", "bob")[0] == 0
    assert CliRunner().invoke(app, ["check", "--offline", str(folder.path / "trioproxy.toml")]).exit_code == 0


def test_a_revoked_key_says_since_when_and_all_else_stays(filled: Folder, now: datetime) -> None:
    line = f'hash = "{OLD}"   # since May\n'
    assert filled.run("revoke", "bob")[:2] == (0, "")
    assert filled.file.read_text() == FILE.replace(line, f"{line}revoked = 2026-11-21T10:30:15Z\n")
    said = filled.file.read_bytes()
    code, out, err = filled.run("revoke", "bob")
    assert (code, out, "nothing was changed" in err) == (0, "", True)
    assert filled.file.read_bytes() == said
    assert "key bob is revoked" in filled.fails("rotate", "bob")


def test_a_rotated_key_has_another_secret_and_all_else_stays(filled: Folder) -> None:
    code, out, _ = filled.run("rotate", "bob")
    assert code == 0
    assert filled.file.read_text() == FILE.replace(OLD, hash_of(out.strip()))


def test_a_key_that_has_expired_is_not_given_another_secret(filled: Folder) -> None:
    filled.file.write_text(FILE + "expires = 2026-01-01\n")
    assert "key bob is expired" in filled.fails("rotate", "bob")


def test_a_key_that_is_to_be_revoked_is_active_until_then(filled: Folder) -> None:
    then = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    filled.file.write_text(FILE + f"revoked = {then.isoformat()}\n")
    assert json.loads(filled.run("list", "--json")[1])[1]["state"] == "active"
    assert "change that by hand" in filled.fails("revoke", "bob")
    assert filled.run("rotate", "bob")[0] == 0


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_or_elsewhere_is_told(filled: Folder, command: str) -> None:
    assert filled.fails(command, "bop").endswith('keys.toml: has no key "bop", expected "bob"')
    assert filled.fails(command, "own") == "key own is in the configuration itself: change it there, and reload"
    filled.file.unlink()
    assert "has no key" in filled.fails(command, "bob")


@pytest.mark.parametrize("command", ["create eve", "list", "revoke bob", "rotate bob"])
@pytest.mark.parametrize("text", ["[[key]\n", FILE + 'limits = { rpm = "x" }\n', FILE + FILE])
def test_a_broken_file_is_told_with_the_line_and_left_alone(filled: Folder, command: str, text: str) -> None:
    filled.file.write_text(text)
    assert re.match(r".*keys\.toml:line \d+", filled.fails(*command.split()))


@pytest.mark.parametrize("command", ["create eve", "revoke bob", "rotate bob"])
def test_a_form_that_cannot_be_kept_is_told_and_left_alone(filled: Folder, command: str) -> None:
    filled.file.write_text(f'key = [{{ name = "bob", hash = "{OLD}" }}]\n')
    assert "by hand" in filled.fails(*command.split())


def test_what_is_not_text_at_the_beginning_and_a_link_stay(filled: Folder) -> None:
    real = filled.path / "real.toml"
    real.write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    filled.file.unlink()
    filled.file.symlink_to("real.toml")
    secret = filled.run("rotate", "bob")[1].strip()
    assert filled.file.is_symlink()
    assert real.read_bytes() == b"\xef\xbb\xbf" + FILE.replace(OLD, hash_of(secret)).encode()


def test_the_list_shows_who_may_use_what_and_no_hash(filled: Folder, now: datetime) -> None:
    filled.file.write_text(FILE + 'expires = 2027-01-31\nlimits = { rpm = 5, usd_per_day = "2.50" }\n')
    assert filled.run("revoke", "bob")[0] == 0
    code, out, err = filled.run("list")
    assert (code, err) == (0, "")
    assert [re.split(" {2,}", line) for line in out.splitlines()] == [
        ["name", "models", "expires", "limits", "state", "where"],
        ["own", "all", "-", "-", "active", "config"],
        ["bob", "gpt-*", "2027-01-31", "rpm 5, usd_per_day 2.50", "revoked", "file"],
    ]
    code, out, err = filled.run("list", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)[1] == {
        "name": "bob",
        "state": "revoked",
        "where": "file",
        "models": ["gpt-*"],
        "upstreams": [],
        "expires": "2027-01-31T00:00:00Z",
        "revoked": "2026-11-21T10:30:15Z",
        "limits": {"rpm": 5, "usd_per_day": "2.50"},
    }
    assert "sha256" not in out


def test_what_somebody_wrote_meanwhile_is_not_overwritten(filled: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(text: str, *arguments: str) -> str:
        filled.file.write_text("# theirs\n")
        return text

    monkeypatch.setattr(keys_module, "with_hash", meanwhile)
    code, out, err = filled.run("rotate", "bob")
    assert (code, out, "somebody else has changed it" in err) == (2, "", True)
    assert filled.file.read_text() == "# theirs\n"


def test_a_file_that_cannot_be_written_is_told(folder: Folder) -> None:
    text = CONFIG.replace("[[upstream]]", "[gate]\nkeys_file = 'nowhere/keys.toml'\n[[upstream]]", 1)
    (folder.path / "trioproxy.toml").write_text(text)
    code, out, err = folder.run("create", "bob")
    assert (code, out) == (1, "")
    assert "cannot be written: No such file or directory" in err
