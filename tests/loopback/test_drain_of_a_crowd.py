"""A hundred streams and twenty stalled readers when the proxy is told to stop: what can finish in time does, whole."""

import json
import signal
import threading
import time
from contextlib import ExitStack

from tests.loopback.crowd import CHAT, Received, allow_files, is_beginning, sent_by_demo, stalled_readers, streams
from tests.loopback.processes import START_S, demo_upstream, running, until
from tests.loopback.raw_http import Wire, chat, request_bytes

TIMEOUT_S = 4.0
SHORT = "m-n35-i40-t0-usage"
"""1.4 s at least: it outlives the signal and has time to spare."""
LONG = "m-n999999-i40-t0"


class Reader:
    """A client that reads its stream to whatever end it has, in a thread."""

    def __init__(self, port: int, model: str) -> None:
        self.body = json.dumps(chat(model)).encode()
        self.received = bytearray()
        self.ended = 0.0
        self._wire = Wire.to(port)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self._wire as wire:
            wire.send(request_bytes("POST", CHAT, self.body))
            try:
                while data := wire.read_some():
                    self.received += data
            except ConnectionResetError:
                pass
            self.ended = time.monotonic()

    def join(self) -> None:
        self._thread.join()


def test_what_can_finish_in_time_does_and_the_rest_is_told() -> None:
    allow_files(1000)
    env = {"TRIOPROXY_DRAIN__TIMEOUT_S": str(TIMEOUT_S)}
    with (
        demo_upstream() as upstream,
        running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", env=env) as proxy,
        ExitStack() as opened,
    ):
        proxy.port = int(json.loads(proxy.wait_for_text('"listening"', START_S))["port"])
        stalled = stalled_readers(proxy.port, "m-n999999-i0-t0-b8000", 20, opened)
        until(lambda: streams(upstream) == 20, "the stalled readers have their streams")
        long = [Reader(proxy.port, LONG) for _ in range(40)]
        short = [Reader(proxy.port, SHORT) for _ in range(60)]
        until(lambda: all(reader.received for reader in short + long), "every stream has begun")
        assert streams(upstream) == 120
        assert not any(reader.ended for reader in short + long)
        told = time.monotonic()
        proxy.process.send_signal(signal.SIGTERM)
        code = proxy.wait(TIMEOUT_S + 5)
        took_s = time.monotonic() - told
        for reader in short + long:
            reader.join()
        left_s = until(lambda: streams(upstream) == 0, "no generation runs")
        assert not any(client.read_all().endswith(b"0\r\n\r\n") for client in stalled)
    finished_s = max(reader.ended for reader in short) - told
    print(f"the last that could finish did after {finished_s:.2f} s, the process ended after {took_s:.2f} s")
    print(f"the origin was free {1000 * left_s:.0f} ms later")
    for reader in short:
        answer = Received(bytes(reader.received)).read_answer()
        assert answer.is_clean
        assert answer.body == b"".join(sent_by_demo(CHAT, reader.body, answer.headers["x-request-id"]))
    for reader in long:
        answer = Received(bytes(reader.received)).read_answer()
        assert (answer.status, answer.is_clean) == (200, False)
        events, _, last = answer.body.removesuffix(b"\n\n").rpartition(b"data: ")
        assert json.loads(last)["error"]["code"] == "draining"
        assert is_beginning(events, sent_by_demo(CHAT, reader.body, answer.headers["x-request-id"]))
    assert code == 0
    assert proxy.err == []
    assert TIMEOUT_S <= took_s < TIMEOUT_S + 1
