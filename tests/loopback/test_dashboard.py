"""The dashboard of a running proxy, in a browser: streams appear as they run, one is stopped, a chat is sent and
stopped. Its pictures are kept in `artefacts/`, which no commit holds."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from tests.loopback.browser_page import Page, open_page
from tests.loopback.processes import Server, demo_upstream, serving, until
from tests.loopback.raw_http import Wire, ask, chat, request_bytes

ARTEFACTS: Final = Path(__file__).resolve().parents[2] / "artefacts"
CHAT: Final = "/v1/chat/completions"
KEY: Final = "an-admin-key-of-this-test"
ROWS: Final = "[...document.querySelectorAll('.grid-space .row:not([hidden])')]"
MODELS: Final = (
    *(f"demo-n2000-i{gap_ms}" for gap_ms in (20, 35, 50)),  # they flow
    "demo-silent30-i20",  # its upstream stalls
    "demo-silent",  # no content
    "demo-t30000",  # no head
    "demo-n20-i50-x20",  # it breaks off
)
PATIENT: Final = {"TRIOPROXY_DEADLINES__CLIENT_STALL_S": "120"}
HELD: Final = "demo-flood"
"""Its client reads nothing."""
_direct = build_opener(ProxyHandler({}))


@contextmanager
def clients_of(proxy: Server) -> Iterator[None]:
    """A stream of each model, read by a thread each, all but one."""
    wires: dict[str, Wire] = {}
    threads = []
    try:
        for model in (*MODELS, HELD):
            wires[model] = Wire.to(proxy.port, 4096 if model == HELD else None)
            wires[model].send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode()))
            if model != HELD:
                threads.append(threading.Thread(target=_read_on, args=(wires[model],)))
                threads[-1].start()
        yield
    finally:
        for wire in wires.values():
            _hang_up(wire)
        for thread in threads:
            thread.join(10)


def _read_on(wire: Wire) -> None:
    wire.socket.settimeout(60)
    try:
        while wire.read_some():
            pass
    except OSError:
        pass  # it broke off, or the test is over


def _hang_up(wire: Wire) -> None:
    try:
        wire.socket.shutdown(2)
    except OSError:
        pass  # it is closed already
    wire.close()


def stats(upstream: Server) -> dict[str, Any]:
    """What the origin has counted."""
    with _direct.open(f"{upstream.url}/stats", timeout=5) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def row_of(model: str) -> str:
    """The row of a model, as an expression."""
    return f"{ROWS}.find((row) => row.querySelector('.c-model').textContent === {json.dumps(model)})"


def wait_for_state(page: Page, model: str, state: str) -> None:
    page.wait(f"{row_of(model)}?.querySelector('.c-state').textContent === '{state}'", f"{model} is {state}")


def picture(page: Page, name: str) -> None:
    """The page as it is, in both schemes and on a phone."""
    page.picture(ARTEFACTS / f"{name}-light.png")
    page.look(scheme="dark")
    page.picture(ARTEFACTS / f"{name}-dark.png")
    page.look(scheme="dark", width=390, height=844, is_phone=True)
    page.picture(ARTEFACTS / f"{name}-phone.png")
    page.look()


def test_streams_appear_one_is_stopped_and_a_chat_is_sent_and_stopped(tmp_path: Path) -> None:
    with (
        demo_upstream() as upstream,
        serving(upstream.base_url, "--admin-bind", "127.0.0.1:0", env=PATIENT) as proxy,
        open_page(f"{proxy.admin_url}/", tmp_path) as page,
    ):
        page.wait("!document.querySelector('#empty').hidden", "the word that nothing runs")
        with clients_of(proxy):
            for model, state in {
                "demo-n20-i50-x20": "failed",
                "demo-n2000-i20": "flowing",
                "demo-silent30-i20": "stalled",
                "demo-silent": "thinking",
                "demo-t30000": "waiting",
                HELD: "held",
            }.items():
                wait_for_state(page, model, state)
            page.ask(
                "(() => { const it = document.querySelector('#window'); it.value = 15;"
                " it.dispatchEvent(new Event('change')); })()"
            )
            page.wait(f"parseFloat({row_of(HELD)}.querySelector('.c-age').textContent) > 6", "something to see")
            picture(page, "streams")
            see_its_timeline(page, HELD)
            stop_one(page, proxy, upstream)
        try_the_playground(page, proxy, upstream)
        for view in ("upstreams", "keys", "config"):
            page.ask(f"location.hash = '#/{view}'")
            page.wait(f"!document.querySelector('#view-{view}').hidden", view)
            picture(page, view)
        assert page.faults == []
        assert {url.split("/")[2] for url in page.asked} == {
            f"127.0.0.1:{proxy.port}",
            proxy.admin_url.split("/")[2],
        }


def see_its_timeline(page: Page, model: str) -> None:
    """A stream's own page says whose fault it is."""
    found = page.ask(f"{row_of(model)}.id").removeprefix("row-")
    page.ask(f"location.hash = '#/streams/{found}'")
    word = page.wait("document.querySelector('#stream-word').textContent", "a word about it")
    assert word.endswith("Now it waits for the client.")
    assert page.ask("document.querySelectorAll('#stream-tries tbody tr').length") == 1
    picture(page, "stream")
    page.ask("location.hash = '#/'")
    page.wait(f"{ROWS}.length > 0", "all streams")


def stop_one(page: Page, proxy: Server, upstream: Server) -> None:
    """The origin is left at once, and the log says who did it."""
    model = "demo-n2000-i35"
    before = stats(upstream)["aborted"]
    found = page.ask(f"{row_of(model)}.id").removeprefix("row-")
    page.tap(f"#row-{found} .stop")
    page.wait("document.querySelector('#ask').open", "the question")
    picture(page, "stop")
    page.call("Input.insertText", text="not <needed>")
    page.tap("#ask-yes")
    until(lambda: stats(upstream)["aborted"] == before + 1, "the origin sees that it is left")
    assert proxy.exchange(found)["reason"] == "stopped_by_admin"
    page.wait(f"!{row_of(model)} || {row_of(model)}.querySelector('.stop').hidden", "it is over here too")


def try_the_playground(page: Page, proxy: Server, upstream: Server) -> None:
    """A chat goes through the data address and is stopped; another comes to its end, beside one in one piece."""
    page.ask("location.hash = '#/playground'")
    page.wait("document.querySelector('#play-url').value", "the data address")
    page.wait("document.querySelector('.model').value", "a model")
    page.tap("#play-two")
    page.fill(".model", "demo-n2000-i20")
    before = stats(upstream)["aborted"]
    page.tap("#play-send")
    page.wait("document.querySelector('.answer').textContent.length > 100", "an answer")
    page.tap("#play-stop")
    page.wait("document.querySelector('.pane p').textContent.startsWith('Stopped.')", "the end")
    until(lambda: stats(upstream)["aborted"] == before + 1, "the origin sees that it is left")

    page.tap("#play-two")
    page.ask("document.querySelectorAll('.model').forEach((model) => { model.value = 'demo-n30-i20-usage'; })")
    page.tap("#play-send")
    page.wait(
        "[...document.querySelectorAll('.pane p')].every((word) => word.textContent.startsWith('Finished.'))",
        "both answers",
    )
    streamed, whole = page.ask(
        "[...document.querySelectorAll('.pane')].map((pane) => ({text: pane.querySelector('.answer').textContent,"
        " figures: [...pane.querySelectorAll('.tile b')].map((figure) => figure.textContent)}))"
    )
    assert len(streamed["text"].split()) == len(whole["text"].split()) == 30
    assert (streamed["figures"][2], whole["figures"][2]) == ("30", "1")
    assert all(re.search(r"[0-9]", figure) for figure in streamed["figures"])
    assert float(streamed["figures"][1]) > 5
    picture(page, "playground")
    page.tap(".pane p a")
    page.wait("document.querySelector('#stream-word').textContent.startsWith('Over after')", "its timeline")
    # The page of another address may not do the same.
    assert ask(proxy.port, "POST", CHAT, chat("demo"), {"origin": "http://127.0.0.1:1"}).status == 403


def test_the_key_opens_the_page_and_a_change_shows_the_token(tmp_path: Path) -> None:
    env = {"TRIOPROXY_ADMIN__KEY": "env:THE_KEY", "THE_KEY": KEY}
    with (
        demo_upstream() as upstream,
        serving(upstream.base_url, "--admin-bind", "127.0.0.1:0", env=env) as proxy,
        open_page(f"{proxy.admin_url}/", tmp_path) as page,
    ):
        page.wait("document.activeElement?.id === 'login-key'", "the question for the key")
        page.fill("#login-key", "wrong")
        page.key("Enter")
        page.wait("document.querySelector('#login-error').textContent === 'This is not the key.'", "the refusal")
        page.faults.clear()  # the browser notes the 401
        page.fill("#login-key", KEY)
        page.key("Enter")
        with clients_of(proxy):
            wait_for_state(page, "demo-n2000-i20", "flowing")
            stop_one(page, proxy, upstream)
            page.tap("#log-out")
            page.wait("document.activeElement.id === 'login-key'", "the question for the key")
            assert page.ask("fetch('/admin/streams').then((answer) => answer.status)") == 401
