"""One endpoint gets every request."""

import pytest
import trio
import trio.testing

from tests.harness.origin import Visit
from tests.harness.wires import HOST, open_net
from trioproxy.errors import UpstreamHeadTimeout
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool


async def test_a_request_goes_to_the_endpoint_within_its_time(autojump_clock: trio.testing.MockClock) -> None:
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        got.append(await visit.read_request())
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        got.append(await visit.read_request())

    async with open_net(script) as net, trio.open_nursery() as nursery:
        headers = [(b"authorization", b"Bearer own")]
        endpoint = Endpoint(
            "name", f"http://{HOST}/api", pool=Pool(), connect_s=5, headers=headers, open_tcp=net.open_tcp
        )
        dispatcher = Dispatcher(endpoint)
        length = (b"content-length", b"2")
        with await dispatcher.open(
            "POST", b"/v1/x?a=b", [length], b"{}", connect_s=5, head_s=7, nursery=nursery
        ) as attempt:
            assert attempt.endpoint is endpoint
            assert attempt.take_whole() == b"hi"
        assert got == [
            b"POST /api/x?a=b HTTP/1.1\r\nhost: origin.test\r\ncontent-length: 2\r\nauthorization: Bearer own\r\n\r\n{}"
        ]
        with pytest.raises(UpstreamHeadTimeout):
            await dispatcher.open("GET", b"/v1/y", [], b"", connect_s=5, head_s=7, nursery=nursery)
        assert trio.current_time() == pytest.approx(7)
