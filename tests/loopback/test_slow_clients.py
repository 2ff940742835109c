"""Two thousand clients that send their requests as slowly as they can, half of them the head and half the body.

They cost their own memory and nothing else: paced streams beside them keep their pace.
"""

import time

import trio

from tests.loopback.crowd import CHAT, allow_files, streams
from tests.loopback.pacing import bound_ms, measure, measure_both
from tests.loopback.processes import PATIENCE_S, demo_upstream, serving, until
from tests.loopback.raw_http import request_bytes

SLOW = 2000
PAUSE_S = 1.0
"""Between two bytes of a slow client."""
MOST_KIB = 32
"""Of the process's own memory for each: a connection's task and parser, and a request's where the head is whole. What
a client has sent of its head or of a body that is held comes on top; `max_header_bytes` and `max_body_bytes` bound it.
"""
ENV = {
    "TRIOPROXY_SERVER__HEADER_S": "12",  # long enough for the measuring
    "TRIOPROXY_SERVER__BODY_IDLE_S": "12",
    "TRIOPROXY_DEADLINES__TOTAL_S": "13",  # for those who send a byte of the body now and then
}
PACED_CLIENTS = 50
PACED = "m-n200-i20-t0"

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: "
HEAD_AND_BODY = request_bytes("POST", CHAT, headers={"content-length": "1000000"}) + b'{"model":"'


class Crowd:
    """Slow clients: every second one dawdles with its head, every fourth one stops in its body.

    Attributes:
        ends: what the proxy said to each that it let go.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.ends: list[bytes] = []

    async def run(self) -> None:
        """Be slow until the proxy has let go of every one."""
        async with trio.open_nursery() as nursery:
            for number in range(SLOW):
                beginning = HEAD if number % 2 else HEAD_AND_BODY
                nursery.start_soon(self._dawdle, beginning, PAUSE_S * number / SLOW, number % 4 == 2)

    async def _dawdle(self, beginning: bytes, delay_s: float, stops: bool) -> None:
        await trio.sleep(delay_s)
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(beginning)
            async with trio.open_nursery() as nursery:
                if not stops:
                    nursery.start_soon(self._drip, stream)
                said = b""
                try:
                    while data := await stream.receive_some(65536):
                        said += data
                except trio.BrokenResourceError:
                    pass  # a byte of ours was on its way
                self.ends.append(said)
                nursery.cancel_scope.cancel()

    @staticmethod
    async def _drip(stream: trio.SocketStream) -> None:
        try:
            while True:
                await trio.sleep(PAUSE_S)
                await stream.send_all(b"x")
        except trio.BrokenResourceError:
            return  # the proxy let go


async def test_two_thousand_slow_clients_cost_little_and_slow_nobody_down() -> None:
    allow_files(SLOW + 500)
    with demo_upstream() as upstream, serving(upstream.base_url, env=ENV) as proxy:
        files = proxy.open_files()
        alone = await measure(proxy.port, PACED_CLIENTS, PACED)
        before_kib = proxy.memory_kib()
        crowd = Crowd(proxy.port)
        start = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            with trio.fail_after(PATIENCE_S):
                while proxy.resources()["open"]["client_connections"] < SLOW:  # noqa: ASYNC110
                    await trio.sleep(0.1)
            first_kib = proxy.memory_kib() - before_kib
            beside, direct = await measure_both(proxy.port, upstream.port, PACED_CLIENTS, PACED)
            later_kib = proxy.memory_kib() - before_kib
            assert crowd.ends == [], "this machine is too slow: the first was let go before the measuring was over"
        took_s = time.monotonic() - start
        print(f"{first_kib / SLOW:.1f} KiB for each slow client, {later_kib / SLOW:.1f} some seconds later")
        print(f"alone: {alone}\nbeside them: {beside}\nnot through the proxy: {direct}")
        print(f"all were let go after {took_s:.1f} s")
        assert {end.partition(b"\r\n")[0] for end in crowd.ends} == {b"HTTP/1.1 408 "}
        assert all(b"request_timeout" in end for end in crowd.ends)
        assert streams(upstream) == 0
        until(lambda: proxy.open_files() <= files, "no file descriptor is left", patience_s=10.0)
    assert later_kib / SLOW <= MOST_KIB
    assert later_kib - first_kib <= SLOW * 8  # what 50 streams take, and the bytes that dripped in
    assert beside.p99 <= bound_ms(alone, direct)
