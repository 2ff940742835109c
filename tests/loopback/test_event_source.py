"""A browser's own EventSource, in a page of the proxy's site: whatever happens to its connections, the text comes whole
and once. And tokens, which hold for all workers."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.loopback.browser import browsing
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import LAST_CHUNK, Head, Wire, ask, chunk, event_stream_head, open_origin, request_bytes

WORDS: Final = [f"word{number} " for number in range(100)]
PACE_S: Final = 0.04
RESETS: Final = 3
_BROWSER_S: Final = 60.0
"""How long a browser may take on a machine that does much else; a few seconds are usual."""

PAGE: Final = b"""<!doctype html><title>A chat</title><script>
const seen = {text: "", ids: [], opens: 0, closed: 0, errors: 0};
async function read() {
  const made = await fetch("/v1/stream/tokens", {method: "POST"});
  const {token} = await made.json();
  const source = new EventSource("/v1/chat/stream?model=m&prompt=hi&token=" + token);
  source.onopen = () => { seen.opens += 1; };
  source.onmessage = (event) => {
    seen.ids.push(event.lastEventId);
    if (event.data !== "[DONE]") seen.text += JSON.parse(event.data).choices[0].delta.content;
  };
  source.onerror = () => {
    seen.errors += 1;
    if (source.readyState === EventSource.CLOSED) fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
  };
}
read();
</script>"""


class Site:
    """Serves the page, and passes what is below /v1/ to the proxy, as a load balancer of the same site would. The first
    few connections that carry a stream it resets, each in the middle of an event.

    Attributes:
        seen: what the page says at its end.
        resets: how many connections it has reset.
        tokens: those that went by.
    """

    def __init__(self, proxy: Server) -> None:
        self._proxy = proxy
        self.seen: dict[str, Any] | None = None
        self.resets = 0
        self.tokens: list[str] = []

    def __call__(self, wire: Wire) -> None:
        head, body = wire.read_request()
        if head.target == "/":
            _reply(wire, "200 OK", PAGE)
        elif head.target == "/seen":
            self.seen = json.loads(body)
            _reply(wire, "204 No Content")
        elif head.target.startswith("/v1/"):
            self._pass(wire, head, body)
        else:
            _reply(wire, "404 Not Found")

    def _pass(self, wire: Wire, head: Head, body: bytes) -> None:
        method, target = head.line.split(" ")[:2]
        if "&token=" in target:
            self.tokens.append(target.partition("&token=")[2])
        with Wire.to(self._proxy.port) as upstream:
            upstream.send(request_bytes(method, target, body, {**head.headers, "connection": "close"}))
            received = b""
            while piece := upstream.read_some():
                received += piece
                if self.resets < RESETS and received.count(b"\ndata: ") > 7:
                    self.resets += 1
                    wire.send(piece[: len(piece) // 2])
                    time.sleep(0.05)  # a reset takes along what the browser has not read yet
                    wire.reset()
                    return
                wire.send(piece)
        wire.close()


def _reply(wire: Wire, status: str, body: bytes = b"") -> None:
    fields = f"content-type: text/html\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    wire.send(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + body)
    wire.close()


@contextmanager
def keyed_proxy(upstream: str, directory: Path, *arguments: str) -> Iterator[Server]:
    """A proxy whose upstream has a key of its own."""
    text = f'[[upstream]]\nname = "origin"\nbase_url = "{upstream}"\napi_key = "env:OUR_KEY"\n'
    (directory / "trioproxy.toml").write_text(text)
    with serving(None, *arguments, env={"OUR_KEY": "sk-ours"}, directory=directory) as proxy:
        yield proxy


def test_a_browser_whose_connection_is_reset_three_times_has_the_whole_text_once(tmp_path: Path) -> None:
    asked: list[tuple[Head, bytes]] = []
    left = threading.Event()

    def speak(wire: Wire) -> None:
        asked.append(wire.read_request())
        wire.send(event_stream_head())
        for word in WORDS:
            event = json.dumps({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            wire.send(chunk(f"data: {event}\n\n".encode()))
            time.sleep(PACE_S)
        wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
        left.set()

    with open_origin(speak) as origin, keyed_proxy(origin.base_url, tmp_path) as proxy:
        site = Site(proxy)
        with open_origin(site) as front, browsing(f"http://127.0.0.1:{front.port}/", tmp_path):
            until(lambda: site.seen is not None, "the page's word that it is done", _BROWSER_S)
        seen = site.seen
        assert seen is not None
        assert seen["text"] == "".join(WORDS)
        stream = seen["ids"][0].partition(".")[0]
        assert seen["ids"] == [f"{stream}.{number}" for number in range(1, len(WORDS) + 2)]
        assert (site.resets, seen["opens"]) == (RESETS, RESETS + 1)
        assert left.is_set()
        statuses = [line["status"] for line in proxy.exchanges if line["path"] == "/v1/chat/stream"]
        assert statuses == [200] * (RESETS + 1) + [204]
        assert set(site.tokens) == {site.tokens[0]}
        assert not any(site.tokens[0] in line for line in [*proxy.out, *proxy.err])
    ((head, _),) = asked  # the origin was called once, with its own key
    assert head.headers["authorization"] == "Bearer sk-ours"


def test_a_token_is_good_at_every_worker_and_behind_a_reload(tmp_path: Path) -> None:
    with open_origin() as origin, keyed_proxy(origin.base_url, tmp_path, "--workers", "2") as proxy:
        token = ask(proxy.port, "POST", "/v1/stream/tokens", headers={"authorization": "Bearer me"}).json["token"]

        def statuses(shown: str) -> set[int]:
            """A question that lacks its model, on many connections, so that every worker is asked."""
            return {ask(proxy.port, "GET", f"/v1/chat/stream?token={shown}").status for _ in range(20)}

        assert statuses(token) == {400}
        assert statuses("A" * len(token)) == {401}
        before = proxy.worker_pids()
        proxy.process.send_signal(signal.SIGHUP)
        until(lambda: not set(before) & set(proxy.worker_pids()), "new workers alone", 20.0)
        assert statuses(token) == {400}
