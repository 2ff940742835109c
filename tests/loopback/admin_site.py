"""An admin address that only plays: it serves the page's own files and tells of streams that do not exist, as many as
a test wants, in the words of the real one. What the page orders is kept.

The real one is in `test_dashboard`; this is for what takes thousands of streams, or an address that misbehaves.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any, Final

from tests.loopback.raw_http import Head, Wire, chunk, event_stream_head

PAGE: Final = Path(__file__).resolve().parents[2] / "trioproxy" / "web" / "admin" / "page"
PERIOD_S: Final = 0.25
KEY: Final = "the-admin-key"
TOKEN: Final = "the-token-of-this-session"
_TYPES: Final = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_METRICS: Final = """# TYPE trioproxy_requests_total counter
trioproxy_requests_total{endpoint="chat",outcome="finished",upstream="north"} %(n)d
trioproxy_tokens_total{kind="output",upstream="north"} %(n)d0
trioproxy_time_to_first_content_seconds_bucket{le="0.1"} %(n)d
trioproxy_time_to_first_content_seconds_bucket{le="0.3"} %(n)d9
trioproxy_time_to_first_content_seconds_bucket{le="+Inf"} %(n)d9
trioproxy_event_gap_seconds_bucket{le="0.03"} %(n)d
trioproxy_event_gap_seconds_bucket{le="0.1"} %(n)d5
trioproxy_event_gap_seconds_bucket{le="+Inf"} %(n)d5
trioproxy_overhead_seconds_bucket{le="0.001"} %(n)d
trioproxy_overhead_seconds_bucket{le="+Inf"} %(n)d
"""


def row(number: int, now: float, **more: object) -> dict[str, Any]:
    """A stream that began `now` seconds ago, as the live table tells it."""
    first = 0.2
    told = {
        "id": f"req_{number:06d}",
        "stream": None,
        "worker": 0,
        "key": f"team-{number % 7}",
        "model": f"model-{number % 11}",
        "upstream": ("north", "south")[number % 2],
        "endpoint": "chat",
        "client": f"10.0.{number // 250 % 250}.{number % 250}",
        "phase": "flowing" if now > first else "waiting",
        "age_s": round(now, 3),
        "first_content_s": first if now > first else None,
        "events": max(int((now - first) * 20), 0),
        "bytes": max(int((now - first) * 20), 0) * 180,
        "rate": 20.0 if now > first else 0.0,
        "blocked_on": "upstream",
        "blocked_s": 0.02,
        "upstream_s": now * 0.98,
        "client_s": now * 0.015,
        "proxy_s": now * 0.005,
        "subscribers": 0,
        "attempts": 1,
        "streaming": True,
    }
    return {**told, **more}


def over(given: dict[str, Any], **more: object) -> dict[str, Any]:
    """The last word of a stream."""
    last = {"phase": "ended", "blocked_on": "", "blocked_s": 0.0, "rate": 0.0, "outcome": "finished", "code": None}
    tokens = {"reason": None, "status": 200, "input_tokens": 12, "output_tokens": given["events"], "cost_usd": "0.0012"}
    return {**given, **last, **tokens, **more}


class AdminSite:
    """Serves the page, and `number` streams that all go on, beside `extra` rows that stand still. With `churn` so many
    more begin and end with each change, of which there is one every `period_s`.

    Attributes:
        key: what it demands, or None. `stopped`: which streams were stopped, and why.
        told: how many changes were sent. `hang_up`: set, it ends what is open; whoever comes back clears it.
        came_back: the ids with which the page came back.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        key: str | None = None,
        extra: tuple[dict[str, Any], ...] = (),
        churn: int = 0,
        period_s: float = PERIOD_S,
    ) -> None:
        self.key = key
        self.stopped: list[tuple[str, str]] = []
        self.told = 0
        self.came_back: list[str | None] = []
        self.orders: list[tuple[str, str | None]] = []
        self.hang_up = threading.Event()
        self._number = number
        self._churn = churn
        self._period_s = period_s
        self._extra = {one["id"]: one for one in extra}
        self._began = time.monotonic()
        self._gone: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._readings = 0

    def __call__(self, wire: Wire) -> None:
        head, body = wire.read_request()
        method, target = head.line.split(" ")[:2]
        path, _, query = target.partition("?")
        if path == "/":
            self._send_file(wire, "index.html")
        elif path.startswith("/static/"):
            self._send_file(wire, path.removeprefix("/static/"))
        elif path == "/admin/session":
            self._session(wire, head, method, body)
        elif self.key is not None and "session=yes" not in head.headers.get("cookie", ""):
            _answer(wire, 401, _error("This address needs its key."))
        elif method in ("POST", "DELETE"):
            self._order(wire, head, method, path, query)
        elif path == "/admin/streams":
            self._tell(wire, head.headers.get("last-event-id"))
        else:
            self._answer_get(wire, path)

    def rows(self) -> list[dict[str, Any]]:
        """All streams as they are now; they began at a hundredth of a second's distance from each other."""
        now = time.monotonic() - self._began
        with self._lock:
            stopped = {one for one, _ in self.stopped}
            extra = list(self._extra.values())
        made = [row(number, now + 5 + number * 0.01) for number in range(self._number)]
        return [one for one in (*made, *extra) if one["id"] not in stopped]

    def _send_file(self, wire: Wire, name: str) -> None:
        file = PAGE / name
        if not file.is_file():
            _answer(wire, 404, _error("no such file"))
            return
        _answer(wire, 200, file.read_bytes(), _TYPES[file.suffix], f"content-security-policy: {_POLICY}")

    def _session(self, wire: Wire, head: Head, method: str, body: bytes) -> None:
        is_open = self.key is not None and "session=yes" in head.headers.get("cookie", "")
        if method == "GET":
            told = {"needs_key": self.key is not None, "is_open": is_open, "csrf": TOKEN if is_open else None}
            _answer(wire, 200, json.dumps(told).encode())
        elif method == "DELETE":
            _answer(wire, 204, b"", "application/json", "set-cookie: session=; Path=/; Max-Age=0")
        elif json.loads(body)["key"] == self.key:
            cookie = "set-cookie: session=yes; HttpOnly; SameSite=Strict; Path=/"
            _answer(wire, 200, json.dumps({"csrf": TOKEN}).encode(), "application/json", cookie)
        else:
            _answer(wire, 401, _error("wrong"))

    def _order(self, wire: Wire, head: Head, method: str, path: str, query: str) -> None:
        self.orders.append((f"{method} {path}", head.headers.get("x-csrf-token")))
        if path.startswith("/admin/streams/"):
            stream = path.rpartition("/")[2]
            (given,) = [one for one in self.rows() if one["id"] == stream]
            with self._lock:
                self.stopped.append((stream, query.removeprefix("reason=").replace("+", " ")))
                self._gone.append(over(given, outcome="cancelled", reason="stopped_by_admin"))
            _answer(wire, 204)
        else:
            _answer(
                wire, 409, json.dumps({"pid": 1, "problems": ["trioproxy.toml:server.bind: is no address"]}).encode()
            )

    def _tell(self, wire: Wire, last: str | None) -> None:
        self.came_back.append(last)
        self.hang_up.clear()
        wire.send(event_stream_head("cache-control: no-store") + chunk(b"retry: 300\n\n"))
        wire.send(chunk(_event("snapshot", 0, {"streams": self.rows()})))
        number = 0
        began = time.monotonic()
        while not self.hang_up.wait(max(began + (number + 1) * self._period_s - time.monotonic(), 0)):
            with self._lock:
                gone, self._gone = self._gone, []
            number += 1
            fresh = [row(10_000 + number * self._churn + index, 0.5) for index in range(self._churn)]
            gone += [over({**one, "id": one["id"].replace("req", "old")}) for one in fresh]
            gone += [over(row(10_000 + (number - 1) * self._churn + index, 1.0)) for index in range(self._churn)]
            moving = [one for one in self.rows() if one["id"] not in self._extra]
            wire.send(chunk(_event("change", number, {"set": [*moving, *fresh], "gone": gone})))
            self.told = number
        wire.close()

    def _answer_get(self, wire: Wire, path: str) -> None:
        told: dict[str, dict[str, Any]] = {
            "/admin/config": CONFIG,
            "/admin/keys": KEYS,
            "/admin/upstreams": UPSTREAMS,
            "/admin/backpressure": BACKPRESSURE,
        }
        told |= {f"/admin/streams/{one['id']}": _with_timeline(one) for one in self.rows()}
        if path == "/metrics":
            self._readings += 1
            _answer(wire, 200, (_METRICS % {"n": 100 * self._readings}).encode(), "text/plain")
        elif path in told:
            _answer(wire, 200, json.dumps(told[path]).encode())
        else:
            _answer(wire, 404, _error("There is nothing here."))


def _with_timeline(given: dict[str, Any]) -> dict[str, Any]:
    age = given["age_s"]
    turns = [[0.0, "proxy", 0.002], [0.002, "upstream", 0.2]]
    turns += [
        [0.2 + at * 0.31, ("upstream", "upstream", "client")[at % 3], 0.3] for at in range(int((age - 0.3) / 0.31))
    ]
    one = {"upstream": "south", "model": "a", "started": 0.002, "connected": 0.004, "head": None, "first_content": None}
    other = {
        **one,
        "upstream": given["upstream"],
        "started": 0.05,
        "connected": 0.06,
        "head": 0.15,
        "first_content": 0.2,
    }
    tries = [{**one, "ended": 0.05, "result": "upstream_connect_failed"}, {**other, "ended": None, "result": None}]
    return {"stream": given, "tries": tries, "timeline": turns}


def _event(name: str, number: int, data: object) -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}}).encode()


def _answer(wire: Wire, status: int, body: bytes = b"", kind: str = "application/json", *more: str) -> None:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", *more]
    if status != 204:
        lines.append(f"content-length: {len(body)}")
    wire.send("\r\n".join([*lines, "", ""]).encode() + body)


CONFIG: Final = {
    "toml": '[server]\nbind = ["127.0.0.1:8080"]\n',
    "data_urls": ["http://127.0.0.1:8080"],
    "version": "0",
}
KEYS: Final = {
    "keys": [
        {
            "name": "team-blue",
            "state": "active",
            "expires": "2027-01-31T00:00:00Z",
            "models": ["gpt-*"],
            "upstreams": None,
            "limits": {"rpm": 600, "streams": 20, "tokens_per_day": 2000000, "usd_per_month": "250.00"},
            "spent": {"streams": 3, "tokens_per_day": 1710332, "usd_per_month": "61.204418"},
        },
        {
            "name": "old",
            "state": "revoked",
            "expires": None,
            "models": None,
            "upstreams": None,
            "limits": {},
            "spent": {},
        },
    ],
    "everything": {"limits": {"usd_per_month": "1000"}, "spent": {"usd_per_month": "1000.2"}},
}
_UPSTREAM: Final = {
    "dialect": "openai",
    "in_flight": 812,
    "waiting": 0,
    "first_content_s": 0.214,
    "workers": [],
}
UPSTREAMS: Final = {
    "upstreams": [
        {
            "name": "north",
            "base_url": "https://north.example/v1",
            "breaker": "closed",
            "ejected_s": 0.0,
            "healthy": True,
            "keys": {"total": 2, "usable": 2},
            "canaries": [],
            **_UPSTREAM,
        },
        {
            "name": "south",
            "base_url": "https://south.example/v1",
            "breaker": "open",
            "ejected_s": 12.3,
            "healthy": False,
            "keys": {"total": 0, "usable": 0},
            "canaries": [{"route": 0, "target": "south", "share": 0.08}, {"route": 1, "target": "south", "share": 0}],
            **_UPSTREAM,
        },
    ]
}
BACKPRESSURE: Final = {
    "live": 2,
    "kept": 1,
    "readers": 5,
    "held_bytes": 81223,
    "policies": {"error": {"readers": 5, "dropped": 0, "waited_s": 0.0}},
    "workers": [],
}
