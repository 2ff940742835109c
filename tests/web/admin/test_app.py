"""The admin address's routes, behind the real server, on memory streams."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, Client, FakeSocket, ListLog
from trioproxy.config import load
from trioproxy.server.build import limits_of
from trioproxy.server.listener import Listener
from trioproxy.telemetry.access_log import send_structlog_to
from trioproxy.web.admin.app import AdminApp
from trioproxy.web.admin.desk import AdminDesk, Watch
from trioproxy.web.admin.guard import Guard
from trioproxy.web.admin.pages import File
from trioproxy.web.admin.sessions import Sessions
from trioproxy.web.admin.streams import CUT_S, RETRY
from trioproxy.web.connection import render_crash

_KEY = "k" * 40


FILES = {
    "index.html": File(b"text/html; charset=utf-8", b"<!doctype html>", b'"one"'),
    "vendor/chart.js": File(b"text/javascript; charset=utf-8", b"export {}", b'"two"'),
}


class FakeTable:
    """A live table whose watchers are told what the test says; None: nothing for as long as they stay."""

    def __init__(self) -> None:
        self.says: list[bytes | None] = []
        self.after: list[int | None] = []
        self.watchers = 0
        self.pause_s = 1.0

    async def rows(self) -> bytes:
        return b'{"streams":[],"at":7}'

    @contextmanager
    def watched(self, after: int | None) -> Iterator[Watch]:
        self.after.append(after)
        self.watchers += 1
        try:
            yield self
        finally:
            self.watchers -= 1

    async def next(self) -> bytes:
        await trio.sleep(self.pause_s)
        said = self.says.pop(0) if self.says else None
        if said is None:
            await trio.sleep_forever()
        return said


class FakeStaff:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.live_table = FakeTable()
        self.stopped: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self.reloads = 0
        self.proven: str | None = None
        self.is_broken = False

    async def metrics(self) -> bytes:
        if self.is_broken:
            raise ValueError("a secret detail")
        return b"trioproxy_workers 1.0\n"

    async def resources(self) -> dict[str, Any]:
        return {"tasks": 5, "workers": []}

    async def upstreams(self) -> dict[str, Any]:
        return {"upstreams": [{"name": "paid"}]}

    async def backpressure(self) -> dict[str, Any]:
        return {"readers": 3}

    async def keys(self) -> dict[str, Any]:
        return {"keys": [{"name": "team-a"}]}

    async def stream(self, row_id: str) -> dict[str, Any]:
        return {"stream": {"id": row_id}} if row_id == "req_1~a" else {}

    async def stop_stream(self, row_id: str, reason: str) -> int:
        self.stopped.append((row_id, reason))
        return int(row_id == "req_1~a")

    def config(self) -> dict[str, str]:
        return {"toml": "[server]\n", "version": "1.2"}

    def data_urls(self, host: str) -> list[str]:
        return [f"http://{host}:8080", "http://127.0.0.1:8081"]

    async def reload(self, proven: str | None = None) -> list[str]:
        self.reloads += 1
        self.proven = proven
        return self.problems


class Address:
    """The admin address, for one test."""

    def __init__(self, staff: FakeStaff, key: str | None, nursery: trio.Nursery) -> None:
        self.desk = AdminDesk(staff, Guard(is_loopback=True, key=key))
        limits = limits_of(load(flags={"upstream.base_url": "http://origin/v1"}, environ={}))
        self.listener = Listener(AdminApp(self.desk, FILES), limits, render_crash=render_crash)
        self._nursery = nursery

    async def send(self, method: str, target: str, body: str = "", *, lockstep: bool = False, **headers: Any) -> Client:
        """A request on a connection of its own; `_` in a field's name stands for `-`. `lockstep`: what is not read by
        the client is not written."""
        make: Any = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        ours, theirs = make()
        theirs.socket = FakeSocket()
        fields = {"host": "localhost:9901", "connection": "close", **headers}
        if body:
            fields["content_length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self._nursery.start_soon(self.listener.serve, theirs)
        client = Client(ours)
        await client.send("\r\n".join([*lines, "", body]).encode("latin-1"))
        return client

    async def ask(self, method: str, target: str, body: str = "", **headers: Any) -> Answer:
        """The whole answer to a request."""
        client = await self.send(method, target, body, **headers)
        answer = await client.answer(method if method in ("GET", "HEAD", "POST") else "GET")
        client.leave()
        return answer


@asynccontextmanager
async def open_address(staff: FakeStaff, key: str | None = None) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        address = Address(staff, key, nursery)
        yield address
    assert address.listener.barrier.crashes == int(staff.is_broken)
    assert address.desk.requests.open == 0
    assert staff.live_table.watchers == 0


async def ask(staff: FakeStaff, method: str, target: str, *, key: str | None = None, **headers: str) -> Answer:
    """One request to an address of its own."""
    async with open_address(staff, key) as address:
        return await address.ask(method, target, **headers)


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["error"]["code"]
    return found


@pytest.fixture
def staff() -> FakeStaff:
    return FakeStaff()


async def test_metrics_are_text_for_prometheus(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    answer = await ask(staff, "GET", "/metrics?x=1")
    assert (answer.status, answer.body) == (200, b"trioproxy_workers 1.0\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_index_lists_what_there_is(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    answer = await ask(staff, "GET", "/admin")
    assert answer.status == 200
    app = AdminApp(AdminDesk(staff, Guard(is_loopback=True, key=None)), FILES)
    paths = {rule.rule for rule in app.url_map.iter_rules()} - {"/admin", "/<path:rest>", "/static/vendor/chart.js"}
    for path in paths:
        assert f" {path.replace('<id>', 'ID')} ".encode() in answer.body, path


async def test_resources_are_json(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/resources")).body) == {"tasks": 5, "workers": []}


async def test_upstreams_are_json(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/upstreams")).body) == {"upstreams": [{"name": "paid"}]}


async def test_backpressure_is_json(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/backpressure")).body) == {"readers": 3}


async def test_a_reload_is_told_which_key_was_proven(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    assert (await ask(staff, "POST", "/admin/reload", **{"Trioproxy-Proven": "paid 1 2"})).status == 200
    assert staff.proven == "paid 1 2"
    assert (await ask(staff, "POST", "/admin/reload")).status == 200
    assert staff.proven is None


async def test_a_reload_tells_its_problems(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    answer = await ask(staff, "POST", "/admin/reload")
    assert answer.status == 200 and json.loads(answer.body)["problems"] == []
    staff.problems = ["file:key: is wrong"]
    answer = await ask(staff, "POST", "/admin/reload")
    assert answer.status == 409 and json.loads(answer.body)["problems"] == staff.problems
    assert staff.reloads == 2


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/admin/streams", {"streams": [], "at": 7}),
        ("/admin/streams/req_1~a", {"stream": {"id": "req_1~a"}}),
        ("/admin/streams/req_1%7Ea?x=1", {"stream": {"id": "req_1~a"}}),
        ("/admin/keys", {"keys": [{"name": "team-a"}]}),
        (
            "/admin/config",
            {
                "toml": "[server]\n",
                "version": "1.2",
                "data_urls": ["http://localhost:8080", "http://127.0.0.1:8081"],
            },
        ),
        ("/admin/session", {"needs_key": False, "is_open": True, "csrf": None}),
    ],
)
async def test_what_is_told_as_json(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, target: str, says: dict[str, Any]
) -> None:
    answer = await ask(staff, "GET", target)
    assert (answer.status, json.loads(answer.body)) == (200, says)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "target", ["/", "/metrics", "/admin", "/admin/resources", "/admin/upstreams", "/admin/backpressure"]
)
async def test_a_head_has_the_length_and_no_body(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, target: str
) -> None:
    whole, head = await ask(staff, "GET", target), await ask(staff, "HEAD", target)
    assert (head.status, head.body, head.is_complete) == (200, b"", True)
    assert head.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/admin/reload", "POST"),
        ("HEAD", "/admin/reload", "POST"),
        ("OPTIONS", "/admin/reload", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("POST", "/admin/upstreams", "GET, HEAD"),
        ("POST", "/admin/backpressure", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("DELETE", "/admin/streams", "GET, HEAD"),
        ("POST", "/admin/streams/req_1~a", "GET, HEAD, DELETE"),
        ("PUT", "/admin/session", "GET, HEAD, POST, DELETE"),
    ],
)
async def test_other_methods_are_refused_and_change_nothing(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, method: str, target: str, allow: str
) -> None:
    answer = await ask(staff, method, target)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert staff.reloads == 0


@pytest.mark.parametrize(
    "target",
    ["/nothing", "/admin/", "/admin/reload/x", "/v1/models", "/metrics/x", "/static/app.py", "/static/index.html"],
)
async def test_unknown_paths_are_404(staff: FakeStaff, autojump_clock: trio.testing.MockClock, target: str) -> None:
    answer = await ask(staff, "GET", target)
    assert (answer.status, code(answer)) == (404, "unknown_path")


@pytest.mark.parametrize(
    "target",
    [
        "/metrics",
        "/admin",
        "/admin/streams",
        "/admin/streams/req_1~a",
        "/admin/keys",
        "/admin/config",
        "/admin/resources",
        "/admin/upstreams",
        "/admin/backpressure",
        "/admin/reload",
        "/nothing",
    ],
)
async def test_the_guard_stands_before_every_route_but_the_page_s_and_healthz(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, target: str
) -> None:
    method = "POST" if target == "/admin/reload" else "GET"
    assert (await ask(staff, method, target, host="evil.example:9901")).status == 421
    assert (await ask(staff, method, target, host="l\xf6calhost")).status in (400, 421)
    assert (await ask(staff, method, target, origin="http://evil.example")).status == 403
    assert (await ask(staff, method, target, key=_KEY)).status == 401
    allowed = await ask(staff, method, target, key=_KEY, authorization=f"Bearer {_KEY}")
    assert allowed.status == (404 if target == "/nothing" else 200)
    assert staff.reloads == (target == "/admin/reload")
    healthy = await ask(staff, "GET", "/healthz", key=_KEY, host="anything")
    assert (healthy.status, json.loads(healthy.body)) == (200, {"status": "ok"})


async def test_a_bug_is_a_500_without_details(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    log = ListLog()
    send_structlog_to(log)
    staff.is_broken = True
    answer = await ask(staff, "GET", "/metrics")
    assert (answer.status, code(answer)) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert [line["event"] for line in log.lines] == ["request crashed"]


# --- the live table


async def test_an_operator_stops_a_stream_and_says_why(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    answer = await ask(staff, "DELETE", "/admin/streams/req_1%7Ea?reason=too+dear%0A%C3%BC&x=1")
    assert (answer.status, answer.body) == (204, b"")
    assert staff.stopped == [("req_1~a", "too dear\n\xfc")]
    for method in ("DELETE", "GET"):
        answer = await ask(staff, method, "/admin/streams/req_2")
        assert (answer.status, code(answer)) == (404, "stream_not_found")


async def test_a_watcher_gets_what_happens_as_events(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    staff.live_table.says = [b"id: 8\n\n", b"id: 9\n\n", None]
    async with open_address(staff) as address:
        client = await address.send("GET", "/admin/streams", accept="text/event-stream", last_event_id="7")
        raw = b""
        while not raw.endswith(b"id: 9\n\n\r\n"):
            raw += await client.read_some()
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b"content-type: text/event-stream" in head and b"cache-control: no-store" in head
        assert body.startswith(b"d\r\nretry: 1000\n\n\r\n")
        assert staff.live_table.after == [7]
        assert staff.live_table.watchers == 1
        client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert staff.live_table.watchers == 0


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "9" * 17])
async def test_a_watcher_whose_place_cannot_be_read_begins_anew(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, last: str
) -> None:
    async with open_address(staff) as address:
        client = await address.send("GET", "/admin/streams", accept="text/event-stream", last_event_id=last)
        await client.read_some()
        assert staff.live_table.after == [None]
        client.leave()


async def test_a_watcher_stays_for_a_day_and_one_that_does_not_read_is_cut(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff) as address:
        staff.live_table.pause_s = 600.0
        staff.live_table.says = [b": keep-alive\n\n"] * 144
        client = await address.send("GET", "/admin/streams", accept="text/event-stream")
        with trio.move_on_after(86_500):
            while True:
                assert await client.read_some()
        assert staff.live_table.watchers == 1
        staff.live_table.pause_s = 1.0
        staff.live_table.says = [b"x" * 1_000_000]
        stalled = await address.send("GET", "/admin/streams", accept="text/event-stream", lockstep=True)
        await trio.sleep(CUT_S + 2)
        assert staff.live_table.watchers == 1
        stalled.leave()
        client.leave()


async def test_a_watcher_that_takes_its_time_is_not_cut_when_a_request_s_whole_time_is_over(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff) as address:
        staff.live_table.pause_s = address.desk.timing.total_s - 0.5
        staff.live_table.says = [b"x" * 100_000]
        client = await address.send("GET", "/admin/streams", accept="text/event-stream", lockstep=True)
        got = b""
        while not got.endswith(b"\n\n\r\n"):
            got += await client.read_some()
        await trio.sleep(staff.live_table.pause_s + 1)
        while got.count(b"x") < 100_000:
            piece = await client.read_some()
            assert piece
            got += piece
        client.leave()


# --- the page


async def test_the_page_s_files_need_no_key_and_may_load_nothing_else(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    for target, name in (("/", "index.html"), ("/static/vendor/chart.js?v=1", "vendor/chart.js")):
        answer = await ask(staff, "GET", target, key=_KEY)
        assert (answer.status, answer.body) == (200, FILES[name].body)
        assert answer.headers["content-type"] == FILES[name].content_type.decode()
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            "connect-src 'self' http://localhost:8080 http://127.0.0.1:8081; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_a_browser_has_is_not_sent_again(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    answer = await ask(staff, "GET", "/")
    again = await ask(staff, "GET", "/", if_none_match=f'"x", {answer.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert (await ask(staff, "GET", "/", if_none_match='"two"')).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost:9901; script-src *"])
async def test_nobody_puts_words_into_the_page_s_policy(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, host: str
) -> None:
    answer = await ask(staff, "GET", "/", host=host)
    assert answer.status in (400, 421)
    assert "content-security-policy" not in answer.headers


# --- sessions


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def log_in(address: Address, key: str = _KEY, **headers: str) -> Answer:
    return await address.ask("POST", "/admin/session", json.dumps({"key": key}), **headers)


async def test_a_page_shows_the_key_once_and_then_its_cookie(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address:
        before = await address.ask("GET", "/admin/session")
        assert json.loads(before.body) == {"needs_key": True, "is_open": False, "csrf": None}
        answer = await log_in(address)
        assert answer.status == 200
        name, _, attributes = answer.headers["set-cookie"].partition("; ")
        assert attributes == "Max-Age=43200; Path=/; HttpOnly; SameSite=Strict"
        assert _KEY not in name
        told = json.loads((await address.ask("GET", "/admin/session", cookie=f"a=b; {name}; c")).body)
        assert told == {"needs_key": True, "is_open": True, "csrf": json.loads(answer.body)["csrf"]}
        assert (await address.ask("GET", "/admin/keys", cookie=name)).status == 200


async def test_with_a_cookie_a_change_needs_the_token(staff: FakeStaff, autojump_clock: trio.testing.MockClock) -> None:
    async with open_address(staff, _KEY) as address:
        answer = await log_in(address)
        cookie, token = cookie_of(answer), json.loads(answer.body)["csrf"]
        for method, target in (("POST", "/admin/reload"), ("DELETE", "/admin/streams/req_1~a")):
            for wrong in ({}, {"x_csrf_token": ""}, {"x_csrf_token": token[:-1]}, {"x_csrf_token": "\xff"}):
                answer = await address.ask(method, target, cookie=cookie, **wrong)
                assert (answer.status, code(answer)) == (403, "foreign_origin")
            assert not staff.reloads and not staff.stopped
        assert (await address.ask("POST", "/admin/reload", cookie=cookie, x_csrf_token=token)).status == 200
        assert (await address.ask("POST", "/admin/reload", authorization=f"Bearer {_KEY}")).status == 200
        answer = await address.ask(
            "POST", "/admin/reload", cookie=cookie, x_csrf_token=token, origin="http://localhost:3000"
        )
        assert answer.status == 403
        assert staff.reloads == 2


async def test_who_logs_out_is_out_whoever_has_the_cookie(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address:
        answer, other = await log_in(address), await log_in(address)
        cookie, token = cookie_of(answer), json.loads(answer.body)["csrf"]
        assert (await address.ask("DELETE", "/admin/session", cookie=cookie)).status == 403
        staff.live_table.says = [b"id: 1\n\n"] * 5
        watcher = await address.send("GET", "/admin/streams", accept="text/event-stream", cookie=cookie)
        await trio.sleep(1.5)
        gone = await address.ask("DELETE", "/admin/session", cookie=cookie, x_csrf_token=token)
        assert gone.status == 204
        assert gone.headers["set-cookie"] == "trioproxy_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"
        assert (await address.ask("GET", "/admin/keys", cookie=cookie)).status == 401
        assert (await address.ask("GET", "/admin/keys", cookie=cookie_of(other))).status == 200
        watched = await watcher.answer("GET")
        assert watched.is_complete and watched.body == RETRY + b"id: 1\n\n"
        watcher.leave()


async def test_a_session_is_of_one_key_and_one_process(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address, open_address(staff, _KEY) as restarted:
        cookie = cookie_of(await log_in(address))
        assert (await restarted.ask("GET", "/admin/keys", cookie=cookie)).status == 401
        sessions = Sessions()
        address.desk.guard = Guard(is_loopback=True, key=_KEY, sessions=sessions)
        cookie = cookie_of(await log_in(address))
        address.desk.guard = Guard(is_loopback=True, key=_KEY, sessions=sessions)
        assert (await address.ask("GET", "/admin/keys", cookie=cookie)).status == 200
        address.desk.guard = Guard(is_loopback=True, key="n" * 40, sessions=sessions)
        assert (await address.ask("GET", "/admin/keys", cookie=cookie)).status == 401


async def test_a_key_that_is_shown_counts_before_a_cookie(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address:
        cookie = cookie_of(await log_in(address))
        answer = await address.ask("GET", "/admin/keys", cookie=cookie, authorization="Bearer wrong")
        assert answer.status == 401


async def test_wrong_keys_are_slowed_down_in_whatever_way_they_come(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address:
        began = trio.current_time()
        for _ in range(5):
            assert (await log_in(address, "wrong")).status == 401
            assert (await address.ask("GET", "/metrics", authorization="Bearer wrong")).status == 401
            assert (await address.ask("GET", "/admin/session", authorization="Bearer wrong")).status == 200
        assert trio.current_time() - began > 40
        assert (await address.ask("GET", "/metrics")).status == 401  # shows none, and waits for nothing
        began = trio.current_time()
        assert (await log_in(address)).status == 200
        assert trio.current_time() - began > 3
        assert (await address.ask("GET", "/metrics", authorization=f"Bearer {_KEY}")).status == 200
        assert trio.current_time() - began < 5


async def test_wrong_keys_of_programs_are_slowed_down_too(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff, _KEY) as address:
        began = trio.current_time()
        for _ in range(5):
            assert (await address.ask("GET", "/metrics", authorization="Bearer wrong")).status == 401
        assert trio.current_time() - began == pytest.approx(3.75, abs=0.1)


async def test_a_crowd_of_wrong_keys_gets_no_more_guesses_than_one(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    statuses: list[int] = []

    async def guess(address: Address) -> None:
        statuses.append((await log_in(address, "wrong")).status)

    async with open_address(staff, _KEY) as address, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(guess, address)
    assert statuses.count(401) < 20
    assert set(statuses) == {401, 429}


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"key": 5}', "x" * 5000, '{"key": "a", "key": "b"}'])
async def test_a_login_that_cannot_be_read_is_refused(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, body: str
) -> None:
    async with open_address(staff, _KEY) as address:
        answer = await address.ask("POST", "/admin/session", body, **({} if body else {"content_length": "0"}))
        assert answer.status in (400, 413)
        assert "set-cookie" not in answer.headers


async def test_where_no_key_is_needed_there_is_no_session(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_address(staff) as address:
        answer = await log_in(address, "anything")
        assert (answer.status, json.loads(answer.body)) == (200, {"csrf": None})
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("cookie", ["trioproxy_session", "trioproxy_session=", "trioproxy_session=\xff\xfe", "=", ";;"])
async def test_no_other_cookie_is_a_session(
    staff: FakeStaff, autojump_clock: trio.testing.MockClock, cookie: str
) -> None:
    assert (await ask(staff, "GET", "/admin/keys", key=_KEY, cookie=cookie)).status == 401
