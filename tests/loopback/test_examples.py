"""The clients of conf/examples, as they are: in Python, and in a browser."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.loopback.browser import browsing
from tests.loopback.processes import START_S, STOP_S, Running, Server, serving, until
from tests.loopback.raw_http import Origin, Wire, ask, open_origin

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "conf/examples"
_BROWSER_S: Final = 60.0
_TYPES: Final = {".html": "text/html", ".js": "text/javascript"}

# What a user would do, and what there is to be seen then; the page itself knows nothing of it.
DRIVER: Final = """
const answer = document.getElementById("answer"), state = document.getElementById("state");
const until = async (condition) => { while (!condition()) await new Promise((next) => setTimeout(next, 10)); };
async function ask(model, stopsAfter) {
  document.getElementById("model").value = model;
  document.querySelector("form button").click();
  await until(() => !state.textContent);
  if (stopsAfter) {
    await until(() => answer.textContent.length > stopsAfter);
    document.getElementById("stop").click();
  }
  await until(() => state.textContent);
  return {text: answer.textContent, state: state.textContent, canStop: !document.getElementById("stop").disabled};
}
const seen = [];
for (const [model, stopsAfter] of MODELS) seen.push(await ask(model, stopsAfter));
await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
"""
MODELS: Final = [
    ["m-n30-i5-t0-crlf", 0],
    ["m-n2000-i20-t0", 40],
    ["m-n9-i5-x4", 0],
    ["m-n9-i5-error4", 0],
    ["m-e429", 0],
]


class Site:
    """A site of its own that serves the example's page, and with it the script that uses it. It also has an API, whose
    answers end before they are whole."""

    def __init__(self, models: list[list[Any]]) -> None:
        self._models = models
        self.seen: list[dict[str, Any]] | None = None

    def __call__(self, wire: Wire) -> None:
        head, body = wire.read_request()
        path = head.target.partition("?")[0]
        if path == "/seen":
            self.seen = json.loads(body)
            self._reply(wire, "text/plain", b"")
        elif path == "/driver.js":
            self._reply(wire, "text/javascript", DRIVER.replace("MODELS", json.dumps(self._models)).encode())
        elif path == "/v1/chat/completions":
            event = {"choices": [{"index": 0, "delta": {"content": "<b>Half</b>"}}]}
            self._reply(wire, "text/event-stream", f"data: {json.dumps(event)}\n\n".encode())
        else:
            content = (EXAMPLES / path[1:]).read_bytes() if path.startswith("/stream.") else b""
            if path.endswith(".html"):
                content += b'<script src="driver.js" type="module"></script>'
            self._reply(wire, _TYPES.get(Path(path).suffix, "text/plain"), content)

    def _reply(self, wire: Wire, content_type: str, content: bytes) -> None:
        fields = f"content-type: {content_type}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
        wire.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + content)
        wire.close()


@contextmanager
def open_proxy(upstream: Server, site: Origin) -> Iterator[Server]:
    """A proxy that lets pages of this site in."""
    origins = json.dumps([f"http://127.0.0.1:{site.port}"])
    with serving(upstream.base_url, env={"TRIOPROXY_CORS__ORIGINS": origins}) as proxy:
        yield proxy


def test_the_browser_s_client_streams_stops_and_says_what_went_wrong(upstream: Server, tmp_path: Path) -> None:
    site = Site(MODELS)
    aborted = ask(upstream.port, "GET", "/stats").json["aborted"]
    with open_origin(site) as front, open_proxy(upstream, front) as proxy:
        page = f"http://127.0.0.1:{front.port}/stream.html?base={proxy.base_url}"
        with browsing(page, tmp_path):
            until(lambda: site.seen is not None, "the page's word that it is done", _BROWSER_S)
            until(lambda: ask(upstream.port, "GET", "/stats").json["streams"] == 0, "the origin is let go")
    assert site.seen is not None
    whole, stopped, cut, failed, refused = site.seen
    assert not any(one["canStop"] for one in site.seen)
    assert (whole["state"], len(whole["text"].split())) == ("done", 30)
    assert (stopped["state"], stopped["text"] != "") == ("stopped", True)
    assert ask(upstream.port, "GET", "/stats").json["aborted"] == aborted + 1
    for one in (cut, failed):
        assert len(one["text"].split()) == 4
        assert one["state"] not in ("", "done", "stopped")
    assert (refused["text"], refused["state"]) == ("", "Simulated error 429.")


def test_the_browser_s_client_takes_half_an_answer_for_half_and_text_for_text(tmp_path: Path) -> None:
    site = Site([["m", 0]])
    with open_origin(site) as front:
        page = f"http://127.0.0.1:{front.port}/stream.html?base=/v1"
        with browsing(page, tmp_path):
            until(lambda: site.seen is not None, "the page's word that it is done", _BROWSER_S)
    assert site.seen == [{"text": "<b>Half</b>", "state": "The answer ended before it was whole.", "canStop": False}]


@contextmanager
def python_client(proxy: Server, model: str) -> Iterator[Running]:
    """The Python client, on its way."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "stream.py"), "Tell me about rivers."],
        env={**os.environ, "OPENAI_BASE_URL": proxy.base_url, "OPENAI_API_KEY": "any", "MODEL": model},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    client = Running(process)
    try:
        yield client
    finally:
        client.kill()


def test_the_python_client_prints_the_answer(proxy: Server) -> None:
    with python_client(proxy, "m-n30-i5-t0-usage") as client:
        assert client.wait(START_S) == 0, client.err
        assert len(" ".join(client.out).split()) == 30


def test_the_python_client_stops_the_model_when_it_is_stopped(proxy: Server, upstream: Server) -> None:
    aborted = ask(upstream.port, "GET", "/stats").json["aborted"]
    with python_client(proxy, "m-n2000-i20-t0") as client:
        until(lambda: ask(upstream.port, "GET", "/stats").json["streams"] == 1, "the origin is at it", START_S)
        client.process.send_signal(signal.SIGINT)
        client.wait(STOP_S)
    until(lambda: ask(upstream.port, "GET", "/stats").json["streams"] == 0, "the origin is let go")
    assert ask(upstream.port, "GET", "/stats").json["aborted"] == aborted + 1
