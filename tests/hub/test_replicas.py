"""One replica among others. The stories of two, with whole houses, are `tests/way/test_replicas.py`."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trioproxy import errors
from trioproxy.hub.hub import Hub
from trioproxy.hub.replicas import Replicas
from trioproxy.state.memory import MemoryStore
from trioproxy.state.streams import START, Head, Limits, StreamRecord
from trioproxy.wire.dialect import Dialect

EVENT = b"data: {}\n\n"
HEAD = Head(200, ((b"content-type", b"text/event-stream"),))


async def plainly(run: Callable[[], Awaitable[None]]) -> None:
    await run()


async def test_who_claims_the_same_waits_and_no_lock_is_left(autojump_clock: trio.testing.MockClock) -> None:
    replicas = Replicas(Hub(plainly), MemoryStore(Limits()))
    order: list[str] = []

    async def claim(name: str) -> None:
        async with replicas.claiming("me", "key"):
            order.append(name)
            await trio.sleep(1)
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(claim, name)
    assert [first == second for first, second in zip(order[::2], order[1::2], strict=True)] == [True] * 3
    assert not replicas._claiming


async def test_a_stream_of_another_caller_is_not_found(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore(Limits())
    await store.claim(StreamRecord("id", "me", Dialect.CHAT.value), None)
    replicas = Replicas(Hub(plainly), store)
    for stream_id, caller in (("id", "other"), ("id", None), ("nothing", "me")):
        with pytest.raises(errors.StreamNotFound):
            await replicas.find(stream_id, caller)


async def test_a_mirror_has_what_the_store_has_and_goes_when_nobody_reads_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore(Limits(max_events=3))
    hub = Hub(plainly)
    replicas = Replicas(hub, store)
    await store.claim(StreamRecord("id", "me", Dialect.CHAT.value), None)
    await store.set_head("id", HEAD)
    await store.append("id", 1, [EVENT] * 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(replicas.run)
        await trio.testing.wait_all_tasks_blocked()
        stream = await replicas.find("id", "me")
        assert (stream.log.first, stream.log.last) == (3, 5)
        assert stream.head is not None
        assert stream.head.status == 200
        await store.append("id", 6, [EVENT])
        await store.end("id", '{"clean": true, "code": null}')
        await trio.sleep(1)
        assert (stream.log.last, stream.is_live) == (6, False)
        assert await replicas.find("id", "me") is stream
        await trio.sleep(10)
        assert not hub.knows("id")
        nursery.cancel_scope.cancel()
    assert START < 0
