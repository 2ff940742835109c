"""The demo upstream on memory streams, for clients that bring their own way to connect."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from trioproxy.bench.demo_upstream import State, serve_connection
from trioproxy.bench.http_client import Failed, Url

DEMO = Url("http", "demo", 80, "/v1")

Connect = Callable[[Url], Awaitable[trio.abc.Stream]]


@asynccontextmanager
async def open_demo() -> AsyncIterator[tuple[Connect, State]]:
    """A way to connect to it, and what it counts. Nobody else is there."""
    state = State()

    async def connect(url: Url) -> trio.abc.Stream:
        if url != DEMO:
            raise Failed("cannot connect")
        theirs, ours = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_connection, ours, state)
        return theirs

    async with trio.open_nursery() as nursery:
        yield connect, state
        nursery.cancel_scope.cancel()
