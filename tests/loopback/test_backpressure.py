"""What an operator sees of shared streams and their slow readers, over real sockets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import Wire, ask, chat, request_bytes

CHAT = "/v1/chat/completions"
SHARED = {"authorization": "Bearer me", "x-trioproxy-share": "auto"}
ENDLESS = "demo-n5000-i20-t0"
FLOOD = "demo-n2000-i0-t0-b8000"
"""16 MB: more than any buffers between here and there."""


@pytest.fixture(scope="module")
def service(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that keeps little of a stream."""
    folder: Path = tmp_path_factory.mktemp("service")
    (folder / "trioproxy.toml").write_text(f"[hub]\nmax_events = 50\n[[upstream]]\nbase_url = '{upstream.base_url}'\n")
    with serving(None, directory=folder) as proxy:
        yield proxy


def told(service: Server) -> dict[str, Any]:
    with urlopen(f"{service.admin_url}/admin/backpressure", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def metric(service: Server, name: str, **labels: str) -> float:
    """A metric's value, summed over the workers."""
    with urlopen(f"{service.admin_url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = [
        line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and all(one in line for one in wanted)
    ]
    assert found, name
    return sum(float(line.rpartition(" ")[2]) for line in found)


def begin(service: Server, model: str, **headers: str) -> Wire:
    """A client that has sent its request, and reads little."""
    wire = Wire.to(service.port, receive_buffer=4096)
    wire.send(request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), {**SHARED, **headers}))
    return wire


def test_readers_and_what_is_kept_for_them_are_told_while_they_are_there(service: Server) -> None:
    with begin(service, ENDLESS) as client:
        client.read_until(b"data: ")
        until(lambda: told(service)["readers"] == 1, "a reader")
        words = told(service)
        assert (words["live"], words["policies"]["error"]["dropped"]) == (1, 0)
        assert words["held_bytes"] == sum(one["held_bytes"] for one in words["workers"]) > 0
        assert sorted(one["pid"] for one in words["workers"]) == sorted(service.worker_pids())
        assert metric(service, "trioproxy_subscribers") == 1
        assert metric(service, "trioproxy_hub_bytes") > 0
    until(lambda: told(service)["readers"] == 0, "the reader is gone")
    until(lambda: told(service)["live"] == 0, "and its stream")


def test_a_reader_that_does_not_read_loses_events_which_are_counted(service: Server) -> None:
    slow = {"x-trioproxy-slow": "drop-oldest"}
    kept = told(service)["kept"]
    with begin(service, FLOOD, **slow) as client:
        until(lambda: told(service)["kept"] == kept + 1, "the stream has ended without its reader", patience_s=20)
        assert metric(service, "trioproxy_streams_kept") == kept + 1
        body = client.read_until(b"data: [DONE]\n\n")
    lost = sum(int(part.partition(b" ")[0]) for part in body.split(b": lost ")[1:])
    counts = told(service)["policies"]["drop-oldest"]
    assert counts["dropped"] == lost == metric(service, "trioproxy_dropped_events_total", policy="drop-oldest") > 0
    assert 0 < counts["deepest_events"] <= 50
    assert counts["delivered"] == body.count(b"data: ") == 2003 - lost  # 2000, the role, the last chunk and the end


def test_what_is_not_shared_is_not_kept(service: Server) -> None:
    before = told(service)
    assert ask(service.port, "POST", CHAT, chat("demo-n5-i0-t0")).is_clean
    after = told(service)
    assert (after["live"], after["kept"]) == (before["live"], before["kept"])
