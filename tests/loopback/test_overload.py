"""Too much to do: new requests are refused at once, running streams go on, and then all is as before."""

import json
import os
import re
import signal
import time
from urllib.request import urlopen

import trio

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import ask, chat, request_bytes
from tests.loopback.streams import CHAT, Ends, read_stream

SLOW = "demo-n20-i100-t0"
LIMIT = 20


def post(server: Server, model: str = "demo-n1-t0") -> tuple[int, dict[str, str], str, float]:
    """Status, headers, error code ("" if there is none) and the milliseconds that it took."""
    began = time.perf_counter()
    answer = ask(server.port, "POST", CHAT, chat(model))
    took_ms = 1000 * (time.perf_counter() - began)
    code = answer.error["code"] if answer.status != 200 else ""
    return answer.status, answer.headers, code, took_ms


def gauge(server: Server, name: str) -> float:
    """A metric's value, summed over its labels."""
    with urlopen(f"{server.admin_url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def test_above_max_streams_new_requests_get_503_at_once_and_running_streams_go_on(upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_SERVER__MAX_STREAMS": str(LIMIT)}) as server:
        ends = Ends()
        memory = server.memory_kib()
        slowest_ms = 0.0
        async with trio.open_nursery() as nursery:
            for _ in range(LIMIT):
                nursery.start_soon(read_stream, server.port, SLOW, ends)
            full = lambda: server.resources()["open"]["permits"] == LIMIT  # noqa: E731
            await trio.to_thread.run_sync(until, full, "as many requests as may be")
            for _ in range(200):
                status, headers, code, took_ms = await trio.to_thread.run_sync(post, server)
                assert (status, code, headers["retry-after"]) == (503, "overloaded", "1")
                slowest_ms = max(slowest_ms, took_ms)
            health = await trio.to_thread.run_sync(ask, server.port, "GET", "/healthz")
            assert health.status == 200
            grown_kib = server.memory_kib() - memory
        assert (ends.whole, ends.all) == (LIMIT, LIMIT)
        print(f"the slowest of 200 refusals took {slowest_ms:.1f} ms, memory grew by {grown_kib} KiB")
        assert slowest_ms < 100
        assert grown_kib < 16 * 1024
        assert post(server)[0] == 200
        assert gauge(server, "trioproxy_shed_total") == 200
        assert server.resources()["open"]["permits"] == 0


async def test_a_refused_upload_is_not_read(upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_SERVER__MAX_STREAMS": "1"}) as server:
        ends = Ends()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_stream, server.port, SLOW, ends)
            full = lambda: server.resources()["open"]["permits"] == 1  # noqa: E731
            await trio.to_thread.run_sync(until, full, "one request")
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
                await client.send_all(request_bytes("POST", "/v1/files", b"x" * 1000, {"content-length": "50000000"}))
                answer = bytes(await client.receive_some(65536))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"
        assert ends.whole == 1


def test_above_a_memory_limit_requests_are_refused_and_probes_answered(upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_SERVER__MAX_MEMORY_BYTES": "1000000"}) as server:
        assert post(server)[2] == "overloaded"
        assert ask(server.port, "GET", "/healthz").status == 200
        assert gauge(server, "trioproxy_resident_memory_bytes") > 1_000_000


def test_while_the_event_loop_is_late_requests_are_refused_and_then_served_again(upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_SERVER__MAX_LAG_S": "0.1"}) as server:
        assert post(server)[0] == 200
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGSTOP)  # as if something had kept the loop for so long
        time.sleep(1)
        os.kill(worker, signal.SIGCONT)
        until(lambda: post(server)[2] == "overloaded", "a refusal", 0.5)
        assert ask(server.port, "GET", "/healthz").status == 200
        until(lambda: post(server)[0] == 200, "full recovery")
        assert gauge(server, "trioproxy_shed_total") > 0
