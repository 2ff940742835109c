"""An origin that takes some keys and refuses all others, and remembers which key it was asked with, and for what."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.loopback.raw_http import LAST_CHUNK, Head, Origin, Wire, chunk, event_stream_head, open_origin

MODELS: Final = "GET /v1/models"
CHAT: Final = "POST /v1/chat/completions"
MESSAGES: Final = "POST /v1/messages"

_PAUSE_S: Final = 0.03
_EVENT: Final = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
_END: Final = {**_EVENT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@dataclass(frozen=True)
class Seen:
    """One request: what was asked for, with which key (None: with none), and the status that it got."""

    what: str
    key: str | None
    status: int


class KeyedOrigin:
    """Answers with 401 unless the key is one of `accepted`.

    Attributes:
        statuses: what other answer some requests get, by what is asked for; 200 is for everybody, key or not.
    """

    def __init__(self, *accepted: str) -> None:
        self.accepted = set(accepted)
        self.statuses: dict[str, int] = {}
        self.origin: Origin
        self._seen: list[Seen] = []
        self._lock = threading.Lock()

    @property
    def seen(self) -> list[Seen]:
        """All requests so far, in their order."""
        with self._lock:
            return list(self._seen)

    def forget(self) -> None:
        """Begin anew: no request so far, nothing special."""
        self.statuses.clear()
        with self._lock:
            self._seen.clear()

    def serve(self, wire: Wire) -> None:
        """Answer one request."""
        head, body = wire.read_request()
        what, key = f"{head.line.split(' ')[0]} {head.target}", _key(head)
        with self._lock:
            status = self.statuses.get(what, 200 if key in self.accepted else 401)
            self._seen.append(Seen(what, key, status))
        if status == 200 and body and json.loads(body).get("stream"):
            wire.send(event_stream_head())
            for event in (_EVENT, _EVENT, _END):
                time.sleep(_PAUSE_S)
                wire.send(chunk(f"data: {json.dumps(event)}\n\n".encode()))
            wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
            return
        answer = b'{"object":"list","data":[]}' if status == 200 else b'{"error":{"message":"no"}}'
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(answer)}"]
        wire.send("\r\n".join([*lines, "", ""]).encode() + answer)


def _key(head: Head) -> str | None:
    if "x-api-key" in head.headers:
        return head.headers["x-api-key"]
    return head.headers["authorization"].removeprefix("Bearer ") if "authorization" in head.headers else None


@contextmanager
def keyed_origin(*accepted: str) -> Iterator[KeyedOrigin]:
    """An origin that takes these keys, on a free port."""
    keyed = KeyedOrigin(*accepted)
    with open_origin(keyed.serve) as keyed.origin:
        yield keyed
