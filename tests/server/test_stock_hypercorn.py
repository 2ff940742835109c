"""What Hypercorn does when nobody mends it: one test for each fact that `server/` has a remedy for.

Its connection server runs here as it is, on memory streams in virtual time, in front of a bare ASGI app. When a pin
moves and one of these tests fails, the remedy that it names may be taken out.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import LifespanState

from tests.harness.house import FakeSocket
from tests.harness.origin import LAST_CHUNK, chunk
from trioproxy.net.tcp import close_nowait

App = Callable[[Any, Any, Any], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LONG_S = 10_000.0


class Stock:
    """A stock connection server and its client.

    Attributes:
        client: the client's end.
        crash: what the server raised.
        ended: when the server's task ended, infinite until then.
        scope: of the server's task.
    """

    def __init__(self, app: App, lockstep: bool) -> None:
        make: Any = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self.client, server = make()
        server.socket = FakeSocket()
        self._config = Config()
        self._config.accesslog = self._config.errorlog = None
        self._server = TCPServer(ASGIWrapper(app), self._config, WorkerContext(None), LifespanState({}), server)
        self.crash: BaseException | None = None
        self.ended = inf
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self.scope:
                await self._server.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, that it comes out is what is looked for
            self.crash = error
        self.ended = trio.current_time()

    async def read_some(self) -> bytes:
        """What the client has got by now, b"" if nothing more will come in a long time."""
        with trio.move_on_after(LONG_S):
            return bytes(await self.client.receive_some(65536))
        return b""


@asynccontextmanager
async def open_stock(app: App, *, lockstep: bool = False) -> AsyncIterator[Stock]:
    """A stock server with its client; the client leaves at the end."""
    stock = Stock(app, lockstep)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stock.run)
        yield stock
        close_nowait(stock.client)
        nursery.cancel_scope.cancel()


async def answer(send: Any, status: int = 200, body: bytes = b"ok") -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def says_ok(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers."""
    while (await receive()).get("more_body"):
        pass
    await answer(send)


async def refuses_early(scope: Any, receive: Any, send: Any) -> None:
    """Answers before the body is there."""
    await answer(send, 404)


class Waits:
    """Waits for the client leaving, in the way that ASGI has for it; `told` is when it was."""

    def __init__(self) -> None:
        self.told = inf

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.told = trio.current_time()


# --- connection.py, protocol.py, inbox.py: the client's departure -----------------------------------------------------


@pytest.mark.parametrize("behind", [b"", b"GET"])
async def test_bytes_behind_a_request_make_it_blind_for_the_client_leaving(
    behind: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    app = Waits()
    async with open_stock(app) as stock:
        await stock.client.send_all(GET + behind)
        await trio.sleep(1)
        close_nowait(stock.client)
        await trio.sleep(LONG_S)
        assert (app.told < LONG_S) is (behind == b"")


async def test_ten_messages_that_nobody_takes_make_it_blind_for_the_client_leaving(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told = Waits()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(LONG_S)
        await told(scope, receive, send)

    async with open_stock(busy) as stock:
        await stock.client.send_all(CHUNKED + chunk(b"a") * 20)
        await trio.sleep(1)
        close_nowait(stock.client)
        await trio.sleep(LONG_S - 2)
        assert stock.ended == inf and told.told == inf
        await trio.sleep(3)
        assert told.told == pytest.approx(LONG_S)


async def test_a_send_to_a_client_that_left_raises_nothing(autojump_clock: trio.testing.MockClock) -> None:
    sent = 0

    async def floods(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await trio.sleep(1)
            sent += 1

    async with open_stock(floods) as stock:
        await stock.client.send_all(GET)
        await trio.sleep(5)
        close_nowait(stock.client)
        await trio.sleep(LONG_S)
    assert sent == 100


# --- connection.py: writes --------------------------------------------------------------------------------------------


async def test_a_send_to_a_client_that_does_not_read_has_no_deadline_and_cannot_be_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def tries_to_stop(scope: Any, receive: Any, send: Any) -> None:
        with trio.move_on_after(5):
            await answer(send)

    async with open_stock(tries_to_stop, lockstep=True) as stock:
        await stock.client.send_all(GET)
        await trio.sleep(LONG_S)
        stock.scope.cancel()
        await trio.sleep(LONG_S)
        assert stock.ended == inf
        close_nowait(stock.client)
        await trio.sleep(1)
        assert stock.ended < inf


async def test_a_large_piece_is_one_write(autojump_clock: trio.testing.MockClock) -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=b"x" * 500_000)

    async with open_stock(large, lockstep=True) as stock:
        await stock.client.send_all(GET)
        await stock.client.receive_some(65536)
        assert len(await stock.client.receive_some(10**6)) == 500_000


# --- protocol.py: writes that could be one, and what looks complete ---------------------------------------------------


async def test_head_piece_and_end_of_an_answer_are_written_one_by_one(autojump_clock: trio.testing.MockClock) -> None:
    async def small(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})

    async with open_stock(small, lockstep=True) as stock:
        await stock.client.send_all(GET)
        assert (await stock.client.receive_some(65536)).endswith(b"\r\n\r\n")
        assert await stock.client.receive_some(65536) == chunk(b"ok")
        assert await stock.client.receive_some(65536) == LAST_CHUNK


async def test_an_answer_that_the_app_left_unfinished_ends_as_a_finished_one_does_in_1_0(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def dies(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    async with open_stock(dies) as stock:
        await stock.client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        data = await stock.read_some()
        while piece := await stock.read_some():  # an error here would tell the client
            data += piece
        assert data.endswith(b"half")


async def test_a_client_is_told_to_go_on_before_the_app_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stock(refuses_early) as stock:
        await stock.client.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert (await stock.read_some()).startswith(b"HTTP/1.1 100")


# --- barrier.py: one connection's exception ---------------------------------------------------------------------------


KILLERS = {
    "a bad HTTP2-Settings": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\r\n"
    ),
    "one byte behind an upgrade to a WebSocket": TO_WEBSOCKET + b"\x00",
}


@pytest.mark.parametrize("raw", KILLERS.values(), ids=KILLERS)
async def test_an_exception_in_one_connection_comes_out_where_it_ends_the_process(
    raw: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_stock(refuses_early) as stock:
        await stock.client.send_all(raw)
        await trio.sleep(1)
        assert stock.crash is not None


# --- protocol.py: ways to another protocol ----------------------------------------------------------------------------


async def test_an_upgrade_to_h2c_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stock(says_ok) as stock:
        await stock.client.send_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert (await stock.read_some()).startswith(b"HTTP/1.1 101")


async def test_the_preface_of_http_2_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stock(says_ok) as stock:
        await stock.client.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert (await stock.read_some())[3:4] == b"\x04"  # a SETTINGS frame


# --- strict.py: what h11 forgives -------------------------------------------------------------------------------------


FORGIVEN = {
    "a length beside chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + LAST_CHUNK,
    "chunks in 1.0": CHUNKED.replace(b"1.1", b"1.0") + LAST_CHUNK,
    "a length that stands twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a length that is a list": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "folded lines": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "control characters in values": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x01c\r\n\r\n",
    "any host": b"GET / HTTP/1.1\r\nHost: a/b c@d\r\n\r\n",
    "a whole URL": b"GET http://x:y@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method for tunnels": b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "other versions": b"GET / HTTP/1.9\r\nHost: a\r\n\r\n",
    "a size of 20 digits": CHUNKED + b"1".zfill(20) + b"\r\na\r\n" + LAST_CHUNK,
    "a blank behind a size": CHUNKED + b"1 \t\r\na\r\n" + LAST_CHUNK,
    "a bare line feed in an extension": CHUNKED + b"1;a\rb\r\na\r\n" + LAST_CHUNK,
    "bare line feeds round trailers": CHUNKED + b"0\r\nX-A: b\n\n",
}


@pytest.mark.parametrize("raw", FORGIVEN.values(), ids=FORGIVEN)
async def test_a_request_that_can_be_read_in_two_ways_is_served(
    raw: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_stock(says_ok) as stock:
        await stock.client.send_all(raw)
        assert (await stock.read_some()).startswith(b"HTTP/1.1 200")


async def test_an_empty_line_before_a_request_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stock(says_ok) as stock:
        await stock.client.send_all(b"\r\n" + GET)
        assert (await stock.read_some()).startswith(b"HTTP/1.1 400")


async def test_http_0_9_is_waited_for_and_never_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_stock(says_ok) as stock:
        await stock.client.send_all(b"GET /\r\n")
        assert await stock.read_some() == b""
