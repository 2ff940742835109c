"""`trioproxy streams list`, `show` and `cancel`, in front of a running service."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness.rows import row
from tests.loopback.processes import START_S, Server, running, until
from tests.loopback.raw_http import Wire, ask, chat, request_bytes
from tests.loopback.scripted_admin import scripted_admin
from tests.loopback.streams import CHAT
from tests.loopback.terminal import on_terminal
from trioproxy.cli.streams_text import COLUMNS

STREAM = {"live": "demo-n6000-i10-t0", "mute": "demo-mute"}


def command(code: int, *arguments: str) -> str:
    """Run `trioproxy streams`, which ends with this code; what it says."""
    with running("streams", *arguments) as process:
        assert process.wait(START_S) == code, process.err
    assert bool(process.err) is bool(code)
    return "\n".join(process.out + process.err)


def flags(proxy: Server) -> tuple[str, ...]:
    return ("--admin", proxy.admin_url, "--admin-key", "any")


@contextmanager
def live(proxy: Server, model: str) -> Iterator[tuple[Wire, str]]:
    """A client that waits for an answer or reads one, and its row's id."""
    with Wire.to(proxy.port) as client:
        client.send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode()))
        found: list[str] = []

        def is_there() -> bool:
            rows = ask(int(proxy.admin_url.rpartition(":")[2]), "GET", "/admin/streams").json["streams"]
            found[:] = [each["id"] for each in rows if each["model"] == model]
            return bool(found)

        until(is_there, f"a stream of {model}")
        yield client, found[0]


def rows_of(proxy: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(command(0, "list", "--json", *flags(proxy)))
    return rows


def test_what_is_under_way_is_listed(proxy: Server) -> None:
    with live(proxy, STREAM["live"]) as (client, stream_id), live(proxy, STREAM["mute"]) as (_, mute_id):
        client.read_head()
        client.read_chunk()
        head, *lines = command(0, "list", *flags(proxy)).splitlines()
        assert head.split()[:3] == list(COLUMNS)[:3]
        of_id = {line.split()[0]: line for line in lines}
        assert of_id[stream_id].split()[1] == "flowing"
        assert of_id[stream_id].endswith(STREAM["live"])
        assert of_id[mute_id].split()[1] == "waiting"
        assert " upstream " in of_id[mute_id]
        told = {each["id"]: each for each in rows_of(proxy)}
        assert told[stream_id]["events"] > 0 and told[mute_id]["events"] == 0
        filtered = command(0, "list", "--filter", "MUTE", *flags(proxy)).splitlines()
        assert [line.split()[0] for line in filtered] == ["id", mute_id]


def test_all_that_is_known_of_one_is_shown(proxy: Server) -> None:
    with live(proxy, STREAM["live"]) as (client, stream_id):
        client.read_head()
        client.read_chunk()
        text = command(0, "show", stream_id, *flags(proxy))
        facts = dict(line.split("  ", 1) for line in text.split("\n\n")[0].splitlines())
        assert facts["id"].strip() == stream_id
        assert facts["phase"].strip() == "flowing"
        assert facts["endpoint"].strip() == "chat, streaming"
        upstream_s = float(facts["waited for"].split()[1])
        assert 0 < upstream_s < 60
        _, tries, timeline = text.split("\n\n")
        assert tries.splitlines()[0].startswith("try  upstream")
        assert tries.splitlines()[1].split()[0] == "1"
        assert timeline.splitlines()[0].split() == ["after", "waited", "for", "how", "long"]
        assert " upstream " in timeline
        told = json.loads(command(0, "show", stream_id, "--json", *flags(proxy)))
        assert (told["stream"]["id"], len(told["tries"])) == (stream_id, 1)


def test_one_that_is_stopped_is_told_and_the_log_says_why(proxy: Server) -> None:
    with live(proxy, STREAM["live"]) as (client, stream_id):
        head = client.read_head()
        request_id = head.headers.get("x-trioproxy-request-id", head.headers["x-request-id"])
        assert command(0, "cancel", stream_id, "--reason", "too dear & long", *flags(proxy)) == f"stopped: {stream_id}"
        assert b'"code":"stream_stopped"' in client.read_all().replace(b'": "', b'":"')
        line = proxy.exchange(request_id)
        assert (line["outcome"], line["reason"]) == ("failed", "stopped_by_admin")
        assert "too dear & long" in line.values()
        text = command(0, "show", stream_id, *flags(proxy))
        assert "ended: failed, stream_stopped, stopped_by_admin" in text
        assert command(1, "cancel", stream_id, *flags(proxy))


def test_a_stream_that_top_stops_ends_at_its_client(proxy: Server) -> None:
    with live(proxy, STREAM["live"]) as (client, stream_id):
        client.read_head()
        with on_terminal("streams", "top", "--filter", stream_id, *flags(proxy)) as terminal:
            terminal.wait_for_start("flowing")
            terminal.type("x")
            terminal.wait_for(f"Stop {stream_id}")
            terminal.type("y")
            assert b"stream_stopped" in client.read_all()
            terminal.wait_for(f"stopped: {stream_id}")
            terminal.wait_for("failed, stream_stopped, stopped_by_admin")
            terminal.type("q")
            assert terminal.wait() == 0
            assert terminal.is_as_before() and terminal.screen.unknown == []


@pytest.mark.parametrize("ordered", [("show",), ("cancel",), ("cancel", "--reason", "x")])
def test_one_that_is_not_there_is_told(proxy: Server, ordered: tuple[str, ...]) -> None:
    name, *more = ordered
    said = command(1, name, "req_no/such?a=1#one", *more, *flags(proxy))
    assert len(said.splitlines()) == 1 and "Traceback" not in said


def test_names_that_clients_gave_tell_the_terminal_nothing() -> None:
    with scripted_admin() as admin:
        admin.put(row("req_a", model="\x1b[2Jm", client="\x1b]0;c\x07"))
        with on_terminal("streams", "list", *admin.flags) as terminal:
            assert terminal.wait() == 0
            assert "\ufffd[2Jm" in terminal.line_with("req_a")
            assert terminal.screen.unknown == []
        with on_terminal("streams", "show", "req_a", *admin.flags) as terminal:
            assert terminal.wait() == 0
            assert terminal.line_with("\ufffd]0;c\ufffd")
            assert terminal.screen.unknown == []
        printed = command(0, "list", "--json", *admin.flags)
        assert "\x1b" not in printed and json.loads(printed) == list(admin.rows.values())


def test_the_wrong_key_is_told_by_every_command() -> None:
    with scripted_admin() as admin:
        for arguments in (("list",), ("show", "a"), ("cancel", "a"), ("top",)):
            said = command(1, *arguments, "--admin", admin.url, "--admin-key", "wrong")
            assert said == "This address needs its key."
