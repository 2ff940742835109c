"""The admin address of a running proxy: what it tells of the requests in all workers, how it stops one, and who may
ask."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.loopback.processes import START_S, Server, demo_upstream, running, serving, until
from tests.loopback.raw_http import Answer, Wire, ask, chat, request_bytes
from tests.loopback.streams import CHAT

SLOW: Final = "demo-n200-i50-t0"  # ten seconds
KEY: Final = "an-admin-key-of-this-test"


def admin_port(server: Server) -> int:
    port = urlsplit(server.admin_url).port
    assert port is not None
    return port


def admin(
    server: Server, method: str, path: str, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None
) -> Answer:
    return ask(admin_port(server), method, path, body, headers)


def rows(server: Server) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in admin(server, "GET", "/admin/streams").json["streams"]}


@contextmanager
def streaming(server: Server, count: int, model: str = SLOW) -> Iterator[list[Wire]]:
    """Clients whose streams have begun."""
    wires = [Wire.to(server.port) for _ in range(count)]
    try:
        for wire in wires:
            wire.send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode()))
        for wire in wires:
            wire.read_until(b"data: ")
        yield wires
    finally:
        for wire in wires:
            wire.close()


class Watching:
    """A page's stream of the live table."""

    def __init__(self, server: Server, last: int | None = None) -> None:
        self._wire = Wire.to(admin_port(server))
        headers = {"accept": "text/event-stream"} | ({} if last is None else {"last-event-id": str(last)})
        self._wire.send(request_bytes("GET", "/admin/streams", b"", headers))
        assert self._wire.read_head().status == 200
        self.rows: dict[str, dict[str, Any]] = {}
        self.gone: dict[str, dict[str, Any]] = {}
        self.kinds: list[str] = []
        self.number = 0

    def read(self) -> None:
        """Take up the next event."""
        for event in self._wire.read_chunk().decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
            if "event" not in fields:
                continue
            self.number = int(fields["id"])
            self.kinds.append(fields["event"])
            data = json.loads(fields["data"])
            if fields["event"] == "snapshot":
                self.rows = {row["id"]: row for row in data["streams"]}
            else:
                self.rows |= {row["id"]: row for row in data["set"]}
                for row in data["gone"]:
                    self.rows.pop(row["id"], None)
                    self.gone[row["id"]] = row

    def close(self) -> None:
        self._wire.close()


@pytest.fixture(scope="module")
def origin_of_these() -> Iterator[Server]:
    with demo_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def pair(origin_of_these: Server) -> Iterator[Server]:
    """A proxy with two workers."""
    with serving(origin_of_these.base_url, "--workers", "2") as server:
        yield server


def test_the_streams_of_all_workers_are_one_table(pair: Server) -> None:
    with streaming(pair, 8):
        until(lambda: all(row["events"] > 3 for row in rows(pair).values()), "events")
        found = rows(pair)
        assert len(found) == 8
        assert {row["worker"] for row in found.values()} == {0, 1}
        assert {(row["phase"], row["upstream"], row["blocked_on"]) for row in found.values()} == {
            ("flowing", "127.0.0.1", "upstream")
        }
        for row_id in found:
            shown = admin(pair, "GET", f"/admin/streams/{row_id}").json
            assert (shown["stream"]["id"], shown["stream"]["worker"]) == (row_id, found[row_id]["worker"])
            assert len(shown["tries"]) == 1 and shown["timeline"]
    until(lambda: not rows(pair), "an empty table")
    assert admin(pair, "GET", f"/admin/streams/{row_id}").json["stream"]["reason"] == "client_gone"
    assert admin(pair, "GET", "/admin/streams/req_none").status == 404


def test_a_stream_is_stopped_in_whichever_worker_it_is(pair: Server, origin_of_these: Server) -> None:
    with streaming(pair, 6) as wires:
        for row_id in rows(pair):
            assert admin(pair, "DELETE", f"/admin/streams/{row_id}?reason=a%20test").status == 204
        for wire in wires:
            assert b'"code":"stream_stopped"' in wire.read_all()

    def lines() -> list[dict[str, Any]]:
        return [line for line in pair.exchanges if line.get("stopped_because") == "a test"]

    until(lambda: len(lines()) == 6, "six lines in the log")
    assert {line["reason"] for line in lines()} == {"stopped_by_admin"}
    until(lambda: ask(origin_of_these.port, "GET", "/stats").json["streams"] == 0, "no stream at the origin")


def test_a_watcher_sees_streams_come_flow_and_go_and_comes_back(pair: Server) -> None:
    watching = Watching(pair)
    watching.read()
    while not watching.kinds:
        watching.read()
    assert watching.kinds == ["snapshot"]
    with streaming(pair, 3):
        while len(watching.rows) < 3 or any(row["events"] < 5 for row in watching.rows.values()):
            watching.read()
        seen = set(watching.rows)
        watching.close()
    again = Watching(pair, watching.number)
    while not seen <= again.gone.keys():
        again.read()
    assert set(again.kinds) == {"change"}  # what was missed, and not all anew
    assert {again.gone[row_id]["outcome"] for row_id in seen} == {"cancelled"}
    again.close()


def test_the_streams_of_a_worker_that_dies_are_told_as_lost(origin_of_these: Server) -> None:
    with serving(origin_of_these.base_url) as server, streaming(server, 2):
        watching = Watching(server)
        while len(watching.rows) < 2:
            watching.read()
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        while len(watching.gone) < 2:
            watching.read()
        assert {row["reason"] for row in watching.gone.values()} == {"worker_lost"}
        watching.close()
        server.wait_for_text('"worker replaced"', START_S)
        server.log[:] = [line for line in server.log if "crash" not in line["event"]]


def test_the_page_and_what_it_needs_are_there(pair: Server) -> None:
    page = admin(pair, "GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"connect-src 'self' {pair.url};" in page.headers["content-security-policy"]
    assert admin(pair, "GET", "/static/../guard.py").status in (400, 404)
    config = admin(pair, "GET", "/admin/config").json
    assert config["data_urls"] == [pair.url] and config["version"]
    assert "[server]" in config["toml"]


def test_the_page_s_own_origin_may_use_the_data_address_whatever_its_port_is(pair: Server) -> None:
    for origin, status in ((pair.admin_url, 200), ("http://127.0.0.1:9", 403)):
        answer = ask(pair.port, "POST", CHAT, chat("demo-n1-i0-t0", stream=False), {"origin": origin})
        assert answer.status == status
    assert (
        ask(pair.port, "POST", CHAT, chat("demo-n1-i0-t0", stream=False), {"origin": pair.admin_url}).headers[
            "access-control-allow-origin"
        ]
        == pair.admin_url
    )


def test_keys_are_told_with_what_they_have_used(origin_of_these: Server, tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(
        f'[[upstream]]\nname = "demo"\nbase_url = "{origin_of_these.base_url}"\napi_key = "env:DEMO"\nusage = "ask"\n'
        '[[price]]\nmodel = "*"\ninput = 1\noutput = 2\n[gate.limits]\nstreams = 100\n'
    )
    with running(
        "keys", "create", "team-a", "--streams", "5", "--usd-per-month", "10", directory=tmp_path, env={"DEMO": "sk-x"}
    ) as made:
        assert made.wait(START_S) == 0, made.err
    [secret] = [line for line in made.out if line.startswith("tpk_")]
    with serving(None, directory=tmp_path, env={"DEMO": "sk-x"}) as server:
        headers = {"authorization": f"Bearer {secret}"}
        assert ask(server.port, "POST", CHAT, chat("demo-n5-i0-t0"), headers).status == 200
        told = admin(server, "GET", "/admin/keys")
        [key] = told.json["keys"]
        assert (key["name"], key["state"], key["limits"]) == ("team-a", "active", {"streams": 5, "usd_per_month": "10"})
        assert key["spent"]["streams"] == 0 and float(key["spent"]["usd_per_month"]) > 0
        assert told.json["everything"]["limits"] == {"streams": 100}
        for path in ("/admin/keys", "/admin/config", "/admin/upstreams", "/admin/resources", "/metrics"):
            body = admin(server, "GET", path).body
            for hidden in (secret, "sk-x", file.with_name("keys.toml").read_text().split("sha256:")[1][:64]):
                assert hidden.encode() not in body, path


def test_with_a_key_a_page_logs_in_and_a_reload_does_not_log_it_out(origin_of_these: Server) -> None:
    env = {"TRIOPROXY_ADMIN__KEY": "env:ADMIN_KEY", "ADMIN_KEY": KEY}
    with serving(origin_of_these.base_url, env=env) as server:
        assert admin(server, "GET", "/").status == 200
        assert admin(server, "GET", "/admin/streams").status == 401
        assert admin(server, "GET", "/admin/session").json == {"needs_key": True, "is_open": False, "csrf": None}
        assert admin(server, "POST", "/admin/session", {"key": "wrong"}).status == 401
        answer = admin(server, "POST", "/admin/session", {"key": KEY})
        cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        token = {"x-csrf-token": answer.json["csrf"]}
        assert admin(server, "GET", "/admin/streams", b"", cookie).status == 200
        assert admin(server, "POST", "/admin/reload", b"", cookie).status == 403
        assert admin(server, "POST", "/admin/reload", b"", cookie | token).status == 200
        assert admin(server, "GET", "/admin/streams", b"", cookie).status == 200
        assert KEY not in "".join(server.out)
