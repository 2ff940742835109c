"""A thousand readers that never read: what each costs, and that all of it is given back when they are let go."""

import time
from contextlib import ExitStack

from tests.loopback.crowd import CHAT, allow_files, stalled_readers, streams
from tests.loopback.processes import demo_upstream, serving, until
from tests.loopback.raw_http import ask, chat

READERS = 1000
STALL_S = 12.0
MOST_KIB = 128
"""Of the process's own memory, for each reader: what its task, its parser and three pieces of 16 KiB take."""
FLOOD = "m-n999999-i0-t0-b8000"
"""Events of 8 KB as fast as they are taken: a demo upstream with small ones would need a minute to stall them all."""


def test_a_thousand_readers_that_never_read_cost_little_and_are_let_go() -> None:
    allow_files(READERS + 500)
    env = {"TRIOPROXY_DEADLINES__CLIENT_STALL_S": str(STALL_S)}
    with demo_upstream() as upstream, serving(upstream.base_url, env=env) as proxy, ExitStack() as opened:
        files = proxy.open_files()
        for _ in range(20):
            assert ask(proxy.port, "POST", CHAT, chat("m-n5-i0-t0")).is_clean
        before_kib = proxy.memory_kib()
        start = time.monotonic()
        clients = stalled_readers(proxy.port, FLOOD, READERS, opened)
        until(lambda: streams(upstream) == READERS, "every reader has its stream", patience_s=STALL_S)
        time.sleep(0.5)
        grown_kib = proxy.memory_kib() - before_kib
        # The others are served meanwhile.
        assert ask(proxy.port, "GET", "/healthz").status == 200
        assert ask(proxy.port, "POST", CHAT, chat("m-n5-i0-t0")).is_clean
        assert streams(upstream) >= READERS  # the last one may not have been counted off yet
        print(f"{grown_kib / READERS:.0f} KiB for each of {READERS}, measured after {time.monotonic() - start:.1f} s")
        until(lambda: streams(upstream) == 0, "no generation runs", patience_s=2 * STALL_S, pause_s=0.05)
        print(f"all were let go after {time.monotonic() - start:.1f} s")
        until(lambda: proxy.open_files() <= files, "no file descriptor is left", patience_s=10.0)
        print(f"afterwards {proxy.memory_kib() - before_kib} KiB more than before, which malloc keeps")
        lines = [proxy.exchange(f"stalled-{number}") for number in range(READERS)]
        assert {(line["outcome"], line["reason"]) for line in lines} == {("cancelled", "client_stalled")}
        assert not any(client.read_all().endswith(b"0\r\n\r\n") for client in clients)
    assert grown_kib / READERS <= MOST_KIB
