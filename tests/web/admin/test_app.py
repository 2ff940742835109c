"""The admin address's routes, behind the real server, on memory streams."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, Client, FakeSocket, ListLog
from trioproxy.config import load
from trioproxy.server.build import limits_of
from trioproxy.server.listener import Listener
from trioproxy.telemetry.access_log import send_structlog_to
from trioproxy.web.admin.app import AdminApp, AdminDesk
from trioproxy.web.admin.guard import Guard
from trioproxy.web.connection import render_crash

_KEY = "k" * 40


class FakeStaff:
    """Answers what it is told to."""

    def __init__(self) -> None:
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

    async def reload(self, proven: str | None = None) -> list[str]:
        self.reloads += 1
        self.proven = proven
        return self.problems


async def ask(
    staff: FakeStaff, method: str, target: str, *, key: str | None = None, version: str = "1.1", **headers: str
) -> Answer:
    """One request on a connection of its own."""
    desk = AdminDesk(staff, Guard(is_loopback=True, key=key))
    limits = limits_of(load(flags={"upstream.base_url": "http://origin/v1"}, environ={}))
    listener = Listener(AdminApp(desk), limits, render_crash=render_crash)
    ours, theirs = trio.testing.memory_stream_pair()
    theirs.socket = FakeSocket()  # type: ignore[attr-defined]
    fields = {"host": "localhost:9901", "connection": "close", **headers}
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, theirs)
        client = Client(ours)
        await client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = await client.answer(method if method in ("GET", "HEAD", "POST") else "GET")
        client.leave()
    assert listener.barrier.crashes == int(staff.is_broken)
    assert desk.requests.open == 0
    return answer


def code(answer: Answer) -> str:
    found: str = json.loads(answer.body)["error"]["code"]
    return found


@pytest.fixture
def staff(autojump_clock: trio.testing.MockClock) -> FakeStaff:
    return FakeStaff()


async def test_metrics_are_text_for_prometheus(staff: FakeStaff) -> None:
    answer = await ask(staff, "GET", "/metrics?x=1")
    assert (answer.status, answer.body) == (200, b"trioproxy_workers 1.0\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_index_lists_what_there_is(staff: FakeStaff) -> None:
    answer = await ask(staff, "GET", "/")
    assert answer.status == 200
    for name in ("metrics", "admin/resources", "admin/upstreams", "admin/backpressure", "admin/reload", "healthz"):
        path = f"/{name}"
        assert path.encode() in answer.body


async def test_resources_are_json(staff: FakeStaff) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/resources")).body) == {"tasks": 5, "workers": []}


async def test_upstreams_are_json(staff: FakeStaff) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/upstreams")).body) == {"upstreams": [{"name": "paid"}]}


async def test_backpressure_is_json(staff: FakeStaff) -> None:
    assert json.loads((await ask(staff, "GET", "/admin/backpressure")).body) == {"readers": 3}


async def test_a_reload_is_told_which_key_was_proven(staff: FakeStaff) -> None:
    assert (await ask(staff, "POST", "/admin/reload", **{"Trioproxy-Proven": "paid 1 2"})).status == 200
    assert staff.proven == "paid 1 2"
    assert (await ask(staff, "POST", "/admin/reload")).status == 200
    assert staff.proven is None


async def test_a_reload_tells_its_problems(staff: FakeStaff) -> None:
    answer = await ask(staff, "POST", "/admin/reload")
    assert answer.status == 200 and json.loads(answer.body)["problems"] == []
    staff.problems = ["file:key: is wrong"]
    answer = await ask(staff, "POST", "/admin/reload")
    assert answer.status == 409 and json.loads(answer.body)["problems"] == staff.problems
    assert staff.reloads == 2


@pytest.mark.parametrize("target", ["/", "/metrics", "/admin/resources", "/admin/upstreams", "/admin/backpressure"])
async def test_a_head_has_the_length_and_no_body(staff: FakeStaff, target: str) -> None:
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
    ],
)
async def test_other_methods_are_refused_and_change_nothing(
    staff: FakeStaff, method: str, target: str, allow: str
) -> None:
    answer = await ask(staff, method, target)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert staff.reloads == 0


@pytest.mark.parametrize("target", ["/nothing", "/admin", "/admin/reload/x", "/v1/models", "/metrics/x"])
async def test_unknown_paths_are_404(staff: FakeStaff, target: str) -> None:
    answer = await ask(staff, "GET", target)
    assert (answer.status, code(answer)) == (404, "unknown_path")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/metrics",
        "/admin/resources",
        "/admin/upstreams",
        "/admin/backpressure",
        "/admin/reload",
        "/nothing",
    ],
)
async def test_the_guard_stands_before_every_route_but_healthz(staff: FakeStaff, target: str) -> None:
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


async def test_a_bug_is_a_500_without_details(staff: FakeStaff) -> None:
    log = ListLog()
    send_structlog_to(log)
    staff.is_broken = True
    answer = await ask(staff, "GET", "/metrics")
    assert (answer.status, code(answer)) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert [line["event"] for line in log.lines] == ["request crashed"]
