"""The client's departure on real sockets, where it is hardest to see: behind bytes that nobody reads."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.harness.house import ListLog
from trioproxy.config import load
from trioproxy.server.build import House
from trioproxy.server.sockets import bind

HEAD = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n"


async def swallow_nothing(stream: trio.SocketStream) -> None:
    """An origin that takes the connection and never reads from it."""
    await trio.sleep_forever()


async def wait_until_gone(house: House) -> None:
    with trio.fail_after(2):
        while house.service.live:  # noqa: ASYNC110  (nothing tells of it but the set itself)
            await trio.sleep(0.01)


@asynccontextmanager
async def open_client() -> AsyncIterator[tuple[trio.socket.SocketType, House, ListLog]]:
    """A client's socket, connected to a house whose origin takes connections and nothing else."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, swallow_nothing, 0)
        port = listeners[0].socket.getsockname()[1]
        log = ListLog()
        house = House(load(flags={"upstream.base_url": f"http://127.0.0.1:{port}/v1"}, environ={}), log)
        listening = bind("127.0.0.1", 0)
        address = listening.getsockname()
        nursery.start_soon(house.listener.accept, listening, nursery)
        with trio.socket.socket() as client:
            await client.connect(address)
            yield client, house, log
        nursery.cancel_scope.cancel()


async def test_a_reset_behind_an_upload_that_nobody_takes_is_seen() -> None:
    async with open_client() as (client, house, log):
        await client.send(HEAD)
        with trio.move_on_after(1):
            while True:  # until nobody takes any more, on the whole way
                await client.send(b"x" * 65536)
        assert house.service.live
        # A FIN would have to wait behind the client's own unsent bytes; a reset does not.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await wait_until_gone(house)
        assert log.exchanges[0]["reason"] == "client_gone"


async def test_a_fin_behind_bytes_that_wait_for_the_app_is_seen() -> None:
    async with open_client() as (client, house, log):
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
        await trio.sleep(0.2)
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 90_000)
        await trio.sleep(0.2)
        assert house.service.live
        client.close()
        await wait_until_gone(house)
        assert log.exchanges[0]["reason"] == "client_gone"
