"""A page in headless Chromium, driven through the DevTools protocol: what it shows, a key, a tap, a picture.

One command at a time, each answered before the next. What the page's console says of errors, what it throws and what
its content security policy forbids is kept in `faults`.
"""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import ClientConnection, connect

from tests.loopback.browser import browsing
from tests.loopback.processes import until

WAIT_S: Final = 20.0
_MAX_MESSAGE: Final = 64 * 1024 * 1024
_direct = build_opener(ProxyHandler({}))

_KEYS: Final = {
    "Enter": 13,
    "Delete": 46,
    "Escape": 27,
    "ArrowDown": 40,
    "ArrowUp": 38,
    "End": 35,
    "Home": 36,
    "Tab": 9,
}


class Page:
    """A page that is open.

    Attributes:
        faults: what went wrong in it so far.
        asked: the addresses that it has asked for.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.faults: list[str] = []
        self.asked: list[str] = []
        self._socket = socket
        self._last = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command, and its answer. Raises AssertionError if it is refused."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(WAIT_S))
            if message.get("id") == self._last:
                assert "error" not in message, (method, message)
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.faults.append(str(told["exceptionDetails"].get("exception", {}).get("description", told)))
        elif message.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.faults.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif message.get("method") == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])

    def open(self, url: str) -> None:
        """Go to an address, and wait until all of it is there."""
        assert "errorText" not in self.call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'", "the page")

    def ask(self, expression: str) -> Any:
        """What an expression comes to in the page, a promise's outcome included."""
        told = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str, what: str, patience_s: float = WAIT_S) -> Any:
        """Wait until an expression is true, and return it."""
        ends = time.monotonic() + patience_s
        while not (found := self.ask(expression)):
            assert time.monotonic() < ends, f"still not: {what}; {self.faults}; the page says: {self.text()[:1500]}"
            time.sleep(0.05)
        return found

    def text(self) -> str:
        """What there is to read."""
        return str(self.ask("document.body?.innerText ?? ''"))

    def fill(self, selector: str, text: str) -> None:
        """Put text into a field, as somebody who types it."""
        self.ask(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.focus(); it.select?.(); }})()"
        )
        self.call("Input.insertText", text=text)

    def tap(self, selector: str) -> None:
        """Click on the middle of an element."""
        place = self.ask(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)});"
            " it.scrollIntoView({block: 'nearest'});"
            " const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def key(self, key: str, *, control: bool = False) -> None:
        """Press a key."""
        told: dict[str, object] = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0].upper())),
        }
        told["modifiers"] = 2 if control else 0
        if key == "Enter":
            told["text"] = "\r"
        elif len(key) == 1:
            told["text"] = key
        self.call("Input.dispatchKeyEvent", type="keyDown", **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def look(self, *, scheme: str = "light", width: int = 1440, height: int = 900, is_phone: bool = False) -> None:
        """Show the page in a colour scheme and a size."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    def picture(self, path: Path) -> None:
        """Take a screenshot of what is seen, as PNG."""
        time.sleep(0.4)  # one more of its own paintings, in the size and the colours of now
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_page(url: str, directory: Path) -> Iterator[Page]:
    """A browser with one page, at this address; its profile is in the directory."""
    port_file = directory / "profile" / "DevToolsActivePort"
    with browsing("about:blank", directory, "--remote-debugging-port=0"):
        until(lambda: port_file.exists() and "\n" in port_file.read_text(), "the browser's port", 60.0)
        port = int(port_file.read_text().split()[0])
        with _direct.open(f"http://127.0.0.1:{port}/json/list", timeout=WAIT_S) as answer:
            (target,) = [one for one in json.load(answer) if one["type"] == "page"]
        with connect(target["webSocketDebuggerUrl"], max_size=_MAX_MESSAGE, proxy=None, compression=None) as socket:
            page = Page(socket)
            page.look()
            page.open(url)
            yield page
