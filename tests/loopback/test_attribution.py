"""Who was waited for, on real sockets: origins and clients that are slow by known amounts, within 5 %."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.loopback.processes import Server, demo_upstream, serving
from tests.loopback.raw_http import Wire, ask, chat, request_bytes

PATH = "/v1/chat/completions"
HAS_ID = {"content-type": "application/json", "x-request-id": "it"}


@pytest.fixture
def proxy() -> Iterator[Server]:
    with demo_upstream() as origin, serving(origin.base_url) as server:
        yield server


def waited(proxy: Server) -> tuple[float, float, float]:
    """For origin, client and proxy, seconds; together the whole time."""
    line = proxy.exchange("it")
    upstream_s, client_s, proxy_s = (line[f"{side}_ms"] / 1000 for side in ("upstream", "client", "proxy"))
    assert upstream_s + client_s + proxy_s == pytest.approx(line["total_ms"] / 1000, abs=0.0001)
    return upstream_s, client_s, proxy_s


def test_a_slow_origin(proxy: Server) -> None:
    answer = ask(proxy.port, "POST", PATH, json.dumps(chat("m-n40-i50-t1000")).encode(), HAS_ID)
    assert answer.is_clean
    upstream_s, client_s, proxy_s = waited(proxy)
    assert upstream_s == pytest.approx(1 + 39 * 0.05, rel=0.05)
    assert client_s + proxy_s < 0.05 * upstream_s


def test_a_client_that_sends_slowly(proxy: Server) -> None:
    body = json.dumps(chat("m-n1-i0-t0")).encode()
    with Wire.to(proxy.port) as wire:
        request = request_bytes("POST", PATH, body, HAS_ID)
        wire.send(request[: -len(body)])
        began = time.monotonic()
        for at in range(20):
            time.sleep(0.1)
            wire.send(request[len(request) - len(body) :][at : at + 1] if at < 19 else body[19:])
        took_s = time.monotonic() - began
        assert wire.read_answer().is_clean
    upstream_s, client_s, proxy_s = waited(proxy)
    assert client_s == pytest.approx(took_s, rel=0.05)
    assert upstream_s + proxy_s < 0.05 * client_s


def test_a_client_that_does_not_read(proxy: Server) -> None:
    with Wire.to(proxy.port, receive_buffer=4096) as wire:
        wire.send(request_bytes("POST", PATH, json.dumps(chat("m-n20000-i0-t0-b1000")).encode(), HAS_ID))
        began = time.monotonic()
        time.sleep(4)
        stalled_s = time.monotonic() - began
        wire.reset()
    upstream_s, client_s, proxy_s = waited(proxy)
    assert client_s == pytest.approx(stalled_s, rel=0.05)
    assert upstream_s + proxy_s < 0.1 * client_s
