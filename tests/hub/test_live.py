"""A live stream: its writer waits for those who wished it and nobody else, and its readers miss nothing."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.harness.live import PLENTY, STREAM_HEAD, event, live_stream
from trioproxy.errors import BadRequest, InternalError, PositionGone
from trioproxy.hub.live import Head, LiveStream, Outcome, Subscription
from trioproxy.policy.replay import Slow

STALL_S = 30.0


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def publish(stream: LiveStream, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await stream.publish(event(number))


async def took(run: Callable[[], Awaitable[object]]) -> float:
    began = trio.current_time()
    await run()
    return trio.current_time() - began


async def test_readers_get_all_from_their_position_on() -> None:
    stream = live_stream()
    await publish(stream, 1, 3)
    with stream.subscribed(0, Slow.ERROR) as early, stream.subscribed(2, Slow.ERROR) as late:
        assert (stream.readers, stream.joined) == (2, 2)
        await publish(stream, 4, 4)
        stream.end(Outcome(is_clean=True))
        assert early.take(PLENTY).events == [event(number) for number in (1, 2, 3, 4)]
        batch = late.take(PLENTY)
        assert (batch.events, batch.outcome) == ([event(3), event(4)], Outcome(is_clean=True))
    assert (stream.readers, stream.joined) == (0, 2)


async def test_a_position_has_to_be_there() -> None:
    stream = live_stream(max_events=2)
    await publish(stream, 1, 4)
    with pytest.raises(PositionGone) as gone, stream.subscribed(1, Slow.ERROR):
        pass
    assert (gone.value.first, gone.value.last) == (3, 4)
    with pytest.raises(BadRequest), stream.subscribed(5, Slow.ERROR):
        pass
    assert (stream.readers, stream.joined) == (0, 0)


async def test_readers_are_woken_by_head_events_and_end(clock: trio.testing.MockClock) -> None:
    stream = live_stream()
    woken: list[float] = []

    async def read() -> None:
        with stream.subscribed(0, Slow.ERROR) as reader:
            await reader.wait_head()
            woken.append(trio.current_time())
            while True:
                batch = reader.take(PLENTY)
                if batch.outcome is not None:
                    return
                if not batch.events:
                    await reader.wait_news()
                    woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.sleep(1)
        stream.begin(Head(200, STREAM_HEAD))
        await trio.sleep(1)
        await stream.publish(event(1))
        await trio.sleep(1)
        stream.end(Outcome(is_clean=True))
    assert woken == [1, 1, 2, 2, 3, 3]


async def test_who_waits_for_a_head_that_never_comes_is_told(clock: trio.testing.MockClock) -> None:
    stream = live_stream()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with stream.subscribed(0, Slow.ERROR) as reader, pytest.raises(InternalError):
                await reader.wait_head()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        stream.end(Outcome(is_clean=False))
        nursery.start_soon(wait)


def can_be_joined(stream: LiveStream) -> bool:
    return stream.can_be_joined


async def test_only_a_stream_with_its_start_and_a_future_can_be_joined() -> None:
    stream = live_stream(max_events=2)
    assert can_be_joined(stream)
    stream.begin(Head(200, STREAM_HEAD))
    await publish(stream, 1, 2)
    assert can_be_joined(stream)
    await publish(stream, 3, 3)
    assert not can_be_joined(stream)

    stream = live_stream()
    stream.begin(Head(429, [], b"{}"))
    assert not can_be_joined(stream)

    stream = live_stream()
    stream.stop_waiting()
    assert not can_be_joined(stream) and stream.is_live

    stream = live_stream()
    for is_clean in (True, False):
        stream.end(Outcome(is_clean))
    assert (can_be_joined(stream), stream.log.outcome) == (False, Outcome(is_clean=True))


@pytest.mark.parametrize("slow", Slow)
async def test_the_writer_waits_for_those_alone_who_wished_it(slow: Slow, clock: trio.testing.MockClock) -> None:
    stream = live_stream(max_events=2, client_stall_s=STALL_S)
    with stream.subscribed(0, slow):
        waited_s = await took(lambda: publish(stream, 1, 9))
    assert waited_s == (STALL_S if slow is Slow.BLOCK else 0)


async def test_the_writer_goes_on_as_soon_as_there_is_room(clock: trio.testing.MockClock) -> None:
    for leaves in (False, True):
        stream = live_stream(max_events=2)
        async with trio.open_nursery() as nursery:
            opened = stream.subscribed(0, Slow.BLOCK)
            reader = opened.__enter__()
            await publish(stream, 1, 2)
            nursery.start_soon(publish, stream, 3, 4)
            await trio.sleep(5)
            assert stream.log.last == 2
            if leaves:
                opened.__exit__(None, None, None)
            else:
                assert reader.take(PLENTY).events == [event(1), event(2)]
            await trio.testing.wait_all_tasks_blocked()
            assert stream.log.last == 4
            if not leaves:
                assert reader.take(PLENTY).events == [event(3), event(4)]
                opened.__exit__(None, None, None)


async def test_what_others_do_moves_no_stalled_reader_s_clock(clock: trio.testing.MockClock) -> None:
    stream = live_stream(max_events=2, client_stall_s=STALL_S)
    await publish(stream, 1, 2)

    async def come_and_go() -> None:
        while True:
            with stream.subscribed(1, Slow.ERROR) as other:
                other.take(PLENTY)
                await trio.sleep(10)

    with stream.subscribed(0, Slow.BLOCK) as stalled:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_go)
            assert await took(lambda: publish(stream, 3, 3)) == STALL_S
            nursery.cancel_scope.cancel()
        assert stalled.take(PLENTY).is_overrun


async def test_one_who_reads_slowly_is_not_stalled(clock: trio.testing.MockClock) -> None:
    stream = live_stream(max_events=2, client_stall_s=STALL_S)

    async def read(reader: Subscription, pause_s: float, got: list[bytes]) -> None:
        while stream.is_live or len(got) < 9:
            await trio.sleep(pause_s)
            got += reader.take(1).events

    got: list[bytes] = []
    with stream.subscribed(0, Slow.BLOCK) as slow_one, stream.subscribed(0, Slow.BLOCK) as stalled:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, slow_one, STALL_S - 1, got)
            await publish(stream, 1, 9)
            stream.end(Outcome(is_clean=True))
        assert got == [event(number) for number in range(1, 10)]
        assert stalled.take(PLENTY).is_overrun


async def test_whoever_takes_something_has_a_clock_anew_though_there_is_no_room_yet(
    clock: trio.testing.MockClock,
) -> None:
    stream = live_stream(max_bytes=60, client_stall_s=STALL_S)
    await publish(stream, 1, 5)
    with stream.subscribed(0, Slow.BLOCK) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.publish, event(6, 50))
            for number in range(1, 6):
                await trio.sleep(STALL_S - 1)
                assert reader.take(1).events == [event(number)]
        assert reader.take(PLENTY).events == [event(6, 50)]


async def test_a_wait_is_counted_once_with_its_whole_time(clock: trio.testing.MockClock) -> None:
    stream = live_stream(max_events=2, client_stall_s=STALL_S)
    await publish(stream, 1, 2)
    with stream.subscribed(0, Slow.BLOCK), stream.subscribed(0, Slow.BLOCK) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, stream, 3, 3)
            await trio.sleep(20)
            other.take(1)
            await trio.sleep(1)
            other.take(PLENTY)
    counts = stream.log._counts[Slow.BLOCK]
    assert (counts.waits, counts.waited_s) == (1, STALL_S)


async def test_a_writer_is_not_cut_short_while_it_waits_but_may_be_told_to_stop(clock: trio.testing.MockClock) -> None:
    for tells in (False, True):
        stream = live_stream(max_events=1, client_stall_s=STALL_S)
        began = trio.current_time()
        with stream.subscribed(0, Slow.BLOCK):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, stream, 1, 2)
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
                if tells:
                    stream.stop_waiting()
        assert trio.current_time() - began == (1 if tells else STALL_S)
        assert stream.log.last == 2


async def test_nothing_follows_the_end_not_even_what_was_waiting(clock: trio.testing.MockClock) -> None:
    stream = live_stream(max_events=1, client_stall_s=STALL_S)
    with stream.subscribed(0, Slow.BLOCK) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, stream, 1, 2)
            await trio.sleep(1)
            stream.end(Outcome(is_clean=False))
        batch = reader.take(PLENTY)
        assert (batch.events, batch.outcome) == ([event(1)], Outcome(is_clean=False))


async def test_abandoned_is_what_nobody_reads_for_as_long_as_it_lingers(clock: trio.testing.MockClock) -> None:
    async def read(stream: LiveStream, wait_s: float, for_s: float) -> None:
        await trio.sleep(wait_s)
        with stream.subscribed(0, Slow.ERROR):
            await trio.sleep(for_s)

    for linger_s, ends in ((0.0, 2.0), (3.0, 9.0)):
        stream = live_stream(linger_s=linger_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, stream, 0, 2)
            nursery.start_soon(read, stream, 1, 1)
            nursery.start_soon(read, stream, 4, 1)
            nursery.start_soon(read, stream, 4.5, 1.5)
            await trio.testing.wait_all_tasks_blocked()
            assert await took(stream.wait_abandoned) == ends
