"""An admin address that tells what a test wants: live tables of any size, changes, and nothing for a while."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback.raw_http import Wire, chunk, event_stream_head, open_origin

KEY = "key of the admin address"


class ScriptedAdmin:
    """An admin address.

    Attributes:
        rows: the live table, by id.
        stopped: whom somebody wanted ended, and why.
        positions: what each watcher sent as `Last-Event-ID`.
        is_silent: requests get no answer.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.stopped: list[tuple[str, str | None]] = []
        self.positions: list[str | None] = []
        self.is_silent = False
        self.port = 0
        self._number = 0
        self._watchers: list[Queue[bytes | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def flags(self) -> tuple[str, ...]:
        """With these, a command talks to it."""
        return ("--admin", self.url, "--admin-key", KEY)

    def put(self, *rows: dict[str, Any]) -> None:
        """Have these in the live table."""
        self.rows |= {each["id"]: each for each in rows}

    def change(self, *changed: dict[str, Any], gone: tuple[dict[str, Any], ...] = ()) -> None:
        """Change the live table, and tell who watches it."""
        self.put(*changed)
        for each in gone:
            self.rows.pop(each["id"], None)
        self._tell(self._event("change", {"set": changed, "gone": gone}))

    def cut(self) -> None:
        """End every watcher's connection, in the middle."""
        self._tell(None)

    def _tell(self, data: bytes | None) -> None:
        for watcher in list(self._watchers):
            watcher.put(data)

    def _event(self, name: str, data: object) -> bytes:
        self._number += 1
        return f"id: {self._number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()

    def handle(self, wire: Wire) -> None:
        """Answer one request."""
        head, _ = wire.read_request()
        if self.is_silent:
            wire.read_all()
            return
        target = urlsplit(head.target)
        stream_id = unquote(target.path.removeprefix("/admin/streams").removeprefix("/"))
        if head.headers.get("authorization") != f"Bearer {KEY}":
            _reply(wire, 401, {"error": {"message": "This address needs its key."}})
        elif not stream_id and "event-stream" in head.headers.get("accept", ""):
            self._tell_changes(wire, head.headers.get("last-event-id"))
        elif not stream_id:
            _reply(wire, 200, {"streams": list(self.rows.values()), "at": self._number})
        elif stream_id not in self.rows:
            _reply(wire, 404, {"error": {"message": "There is no such stream."}})
        elif head.line.startswith("DELETE"):
            self.stopped.append((stream_id, parse_qs(target.query).get("reason", [None])[0]))
            _reply(wire, 204, None)
        else:
            _reply(wire, 200, {"stream": self.rows[stream_id], "tries": [], "timeline": []})

    def _tell_changes(self, wire: Wire, position: str | None) -> None:
        self.positions.append(position)
        watcher: Queue[bytes | None] = Queue()
        wire.send(event_stream_head())
        wire.send(chunk(b": here\n\n" + self._event("snapshot", {"streams": list(self.rows.values())})))
        self._watchers.append(watcher)
        try:
            while (data := watcher.get(timeout=30)) is not None:
                wire.send(chunk(data))
        finally:
            self._watchers.remove(watcher)
        wire.close()


def _reply(wire: Wire, status: int, said: object) -> None:
    body = b"" if said is None else json.dumps(said).encode()
    wire.send(f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n".encode())
    wire.send((f"content-length: {len(body)}\r\n" if status != 204 else "").encode() + b"\r\n" + body)


@contextmanager
def scripted_admin() -> Iterator[ScriptedAdmin]:
    """An admin address that answers."""
    admin = ScriptedAdmin()
    with open_origin(admin.handle) as listening:
        admin.port = listening.port
        try:
            yield admin
        finally:
            admin.cut()
