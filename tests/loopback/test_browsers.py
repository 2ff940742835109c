"""A real browser decides who reads the proxy's answers: a page of a listed origin does, one of any other does not, and
nothing that it tries comes to the origin server."""

import json
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from tests.loopback.browser import browsing
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import LAST_CHUNK, Wire, chunk, event_stream_head, open_origin

_BROWSER_S: Final = 60.0
"""How long a browser may take on a machine that does much else; a few seconds are usual."""

PAGE: Final = """<!doctype html><title>A page of another site</title><script>
const proxy = "http://127.0.0.1:PORT";
const seen = {};
async function attempt(name, run) {
  try { seen[name] = await run(); } catch (error) { seen[name] = error.name; }
}
function ask(path, more) {
  const headers = {"authorization": "Bearer mine", "content-type": "application/json", "x-stainless-lang": "js"};
  return fetch(proxy + path, {method: "POST", headers, ...more});
}
const body = JSON.stringify({model: "m", stream: true, messages: []});
async function main() {
  await attempt("stream", async () => {
    const answer = await ask("/v1/chat/completions", {body});
    return [answer.status, await answer.text(), answer.headers.get("x-request-id") !== null];
  });
  await attempt("error", async () => {
    const answer = await ask("/v1/chat/completions", {body: "{"});
    return [answer.status, (await answer.json()).error.code];
  });
  await attempt("unsafe", async () => (await ask("/v1/files", {headers: {"x-of-the-page": "1"}})).status);
  await attempt("blind", async () => (await fetch(proxy + "/v1/files", {method: "POST", mode: "no-cors", body})).type);
  await attempt("token", async () => {
    const made = await (await ask("/v1/stream/tokens", {body: JSON.stringify({model: "m"})})).json();
    return new Promise((resolve) => {
      const source = new EventSource(proxy + "/v1/chat/stream?model=m&prompt=hi&token=" + made.token);
      source.onmessage = (event) => { source.close(); resolve(event.data); };
      source.onerror = () => { source.close(); resolve("error"); };
    });
  });
  await attempt("socket", () => new Promise((resolve) => {
    const socket = new WebSocket(proxy.replace("http", "ws") + "/v1/stream/ws");
    socket.onopen = () => { socket.close(); resolve("open"); };
    socket.onerror = () => resolve("error");
  }));
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
}
main();
</script>"""


class Site:
    """Serves the page, and takes what it has seen."""

    def __init__(self) -> None:
        self.proxy_port = 0
        self.seen: dict[str, Any] | None = None

    def __call__(self, wire: Wire) -> None:
        head, body = wire.read_request()
        if head.target == "/seen":
            self.seen = json.loads(body)
        page = PAGE.replace("PORT", str(self.proxy_port)).encode() if head.target == "/" else b""
        fields = f"content-type: text/html\r\ncontent-length: {len(page)}\r\nconnection: close\r\n"
        wire.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + page)
        wire.close()


class Speaker:
    """An origin server that answers each chat with one word, and anything else with nothing. What it says of pages that
    may read that is not for it to say.

    Attributes:
        asked: method and path of each request.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, wire: Wire) -> None:
        head, _ = wire.read_request()
        with self._lock:
            self.asked.append(head.line.removesuffix(" HTTP/1.1"))
        if head.target != "/v1/chat/completions":
            wire.send(b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n")
            return
        wire.send(event_stream_head("access-control-allow-origin: *"))
        wire.send(chunk(b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'))
        wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)


def what_is_seen(site: Site, port: int, proxy: Server, directory: Path) -> dict[str, Any]:
    """What the page sees that a browser opens at this port."""
    site.proxy_port = proxy.port
    with browsing(f"http://127.0.0.1:{port}/", directory):
        until(lambda: site.seen is not None, "the page's word that it is done", _BROWSER_S)
    assert site.seen is not None
    return site.seen


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_page_of_another_origin_uses_the_proxy_if_it_is_listed_and_not_at_all_otherwise(
    is_listed: bool, tmp_path: Path
) -> None:
    site, speaker = Site(), Speaker()
    with open_origin(speaker) as origin, open_origin(site) as front:
        text = f'[[upstream]]\nname = "origin"\nbase_url = "{origin.base_url}"\napi_key = "env:OUR_KEY"\n'
        (tmp_path / "trioproxy.toml").write_text(text)
        listed = f"http://127.0.0.1:{front.port}" if is_listed else "https://other.example"
        env = {"OUR_KEY": "sk-ours", "TRIOPROXY_CORS__ORIGINS": listed}
        with serving(None, env=env, directory=tmp_path) as proxy:
            seen = what_is_seen(site, front.port, proxy, tmp_path)
            statuses = {line["status"] for line in proxy.exchanges}
    if is_listed:
        status, told, has_id = seen["stream"]
        assert (status, told.endswith("data: [DONE]\n\n"), has_id) == (200, True, True)
        assert seen["error"] == [400, "invalid_body"]
        assert json.loads(seen["token"])["choices"][0]["delta"] == {"content": "word"}
        assert seen["socket"] == "open"
        assert seen["unsafe"] == "TypeError"  # a field that no client of the API sends
        assert seen["blind"] == "opaque"
        assert sorted(speaker.asked) == ["POST /v1/chat/completions"] * 2 + ["POST /v1/files"]
    else:
        assert {seen[name] for name in ("stream", "error", "unsafe", "token")} == {"TypeError"}
        assert (seen["socket"], seen["blind"]) == ("error", "opaque")
        assert statuses == {403}
        assert speaker.asked == []
