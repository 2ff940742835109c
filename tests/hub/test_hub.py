"""The hub: its bounds, what it finds for whom and how long; then anything in any order."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.live import STREAM_HEAD, event, record
from trioproxy.errors import CancelReason, HubFull, InternalError, StreamNotFound
from trioproxy.hub.hub import Hub, HubBounds
from trioproxy.hub.live import LiveStream, Outcome, Subscription
from trioproxy.hub.recorder import Recorder
from trioproxy.policy.replay import Slow

STALL_S = 5.0


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def unguarded(run: Callable[[], Awaitable[None]]) -> None:
    await run()


@asynccontextmanager
async def running(guard: Any = unguarded, **bounds: Any) -> Any:
    """A hub at work. Whatever it kept is gone when the block is left."""
    hub = Hub(guard, HubBounds(**bounds))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await trio.testing.wait_all_tasks_blocked()
        yield hub
        hub.stop()
    assert hub.producers.open == 0


class Origin:
    """Produces one stream as it is told to, for as long as somebody reads it. `sent` are the events so far."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._tell, self._orders = trio.open_memory_channel[bytes | bool](100_000)

    def publish(self, *sizes: int) -> None:
        for size in sizes:
            self.sent.append(event(len(self.sent) + 1, size))
            self._tell.send_nowait(self.sent[-1])

    def end(self) -> None:
        self._tell.send_nowait(True)

    def cut(self) -> None:
        self._tell.send_nowait(False)

    async def produce(self, stream: LiveStream) -> None:
        recorder = Recorder(stream)
        recorder.head(200, STREAM_HEAD)
        try:
            async with trio.open_nursery() as nursery:

                def stop(reason: CancelReason) -> None:
                    nursery.cancel_scope.cancel()
                    stream.stop_waiting()

                async def watch() -> None:
                    await stream.wait_abandoned()
                    stop(CancelReason.ABANDONED)

                stream.stop = stop
                nursery.start_soon(watch)
                async for data in self._orders:
                    if isinstance(data, bytes):
                        await recorder.send(data)
                        continue
                    if data:
                        await recorder.finish()
                    break
                nursery.cancel_scope.cancel()
        finally:
            recorder.close()


def start(
    hub: Hub, caller: str | None = "me", key: str | None = None, linger_s: float = 0.0
) -> tuple[Origin, LiveStream]:
    origin = Origin()
    stream = hub.start(
        origin.produce, record(), caller=caller, share_key=key, linger_s=linger_s, client_stall_s=STALL_S
    )
    return origin, stream


async def test_a_stream_is_found_by_its_caller_alone(clock: trio.testing.MockClock) -> None:
    async with running() as hub:
        _, stream = start(hub, "me", "k", linger_s=5)
        _, nobodys = start(hub, None, linger_s=5)
        assert hub.find(stream.id, "me") is stream and hub.find(nobodys.id, None) is nobodys
        assert hub.find_shared("me", "k") is stream
        for stream_id, caller in ((stream.id, "you"), (stream.id, None), (nobodys.id, "me"), ("x", "me")):
            with pytest.raises(StreamNotFound):
                hub.find(stream_id, caller)
        assert hub.find_shared("you", "k") is None and hub.find_shared("me", "other") is None
        assert len(stream.id) >= 20 and stream.id != nobodys.id


async def test_an_ended_stream_stays_for_its_time_and_an_error_does_not(clock: trio.testing.MockClock) -> None:
    async def answers_with_an_error(stream: LiveStream) -> None:
        recorder = Recorder(stream)
        recorder.head(429, [])
        await recorder.finish(b"{}")
        recorder.close()

    async with running(retain_s=5) as hub:
        origin, stream = start(hub, key="k", linger_s=9)
        origin.publish(10)
        origin.end()
        await trio.sleep(1)
        assert hub.find(stream.id, "me").log.last == 1 and hub.find_shared("me", "k") is None
        assert (hub.producers.open, hub.held_bytes) == (0, len(event(1, 10)))
        await trio.sleep(4.5)
        assert (hub.streams, hub.held_bytes) == ([], 0)
        hub.start(answers_with_an_error, record(), caller="me", share_key=None, linger_s=9, client_stall_s=1)
        await trio.testing.wait_all_tasks_blocked()
        assert not hub.streams


async def test_a_stream_that_takes_the_place_of_another_is_found_instead(clock: trio.testing.MockClock) -> None:
    async with running(max_events=1) as hub:
        first, old = start(hub, key="k", linger_s=9)
        first.publish(1, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert hub.find_shared("me", "k") is None  # its start has left
        _, new = start(hub, key="k", linger_s=9)
        first.end()
        await trio.testing.wait_all_tasks_blocked()
        assert not old.is_live and hub.find_shared("me", "k") is new


@pytest.mark.parametrize("bounds", [{"max_streams": 2}, {"max_per_caller": 2}, {"max_total_bytes": 50}])
async def test_it_keeps_no_more_than_it_may(bounds: dict[str, int], clock: trio.testing.MockClock) -> None:
    async with running(retain_s=3, **bounds) as hub:
        for _ in range(2):
            origin, _ = start(hub, linger_s=9)
            origin.publish(25)
            origin.end()
        await trio.sleep(1)
        with pytest.raises(HubFull):
            start(hub)
        if "max_per_caller" in bounds:
            start(hub, "you")
        await trio.sleep(3)
        start(hub)


async def test_none_begins_before_or_after_its_time(clock: trio.testing.MockClock) -> None:
    hub = Hub(unguarded)
    with pytest.raises(HubFull):
        start(hub)
    async with running() as hub:
        _, stream = start(hub, linger_s=9)
        hub.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert not stream.is_live
        with pytest.raises(HubFull):
            start(hub)


async def test_a_stop_waits_for_no_slow_reader(clock: trio.testing.MockClock) -> None:
    async with running(max_events=1) as hub:
        origin, stream = start(hub, linger_s=9)
        with stream.subscribed(0, Slow.BLOCK):
            origin.publish(1, 1, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert stream.log.last == 1
            hub.stop()
            await trio.testing.wait_all_tasks_blocked()
            assert (hub.producers.open, trio.current_time()) == (0, 0)


async def test_a_bug_in_a_production_ends_that_stream_alone(clock: trio.testing.MockClock) -> None:
    async def crashes(stream: LiveStream) -> None:
        raise ValueError

    async def guard(run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except ValueError:
            pass

    async with running(guard) as hub:
        _, other = start(hub, linger_s=9)
        stream = hub.start(crashes, record(), caller="me", share_key="k", linger_s=9, client_stall_s=1)
        with stream.subscribed(0, Slow.ERROR) as reader, pytest.raises(InternalError):
            await reader.wait_head()
        assert hub.streams == [other] and hub.find_shared("me", "k") is None


# --- anything in any order --------------------------------------------------------------------------------------------


class Reader:
    """A reader of a stream, and what it has a right to."""

    def __init__(self, origin: Origin, stream: LiveStream, after: int, slow: Slow) -> None:
        self.stream = stream
        self.is_told = False
        self._origin = origin
        self._next = after + 1
        self._slow = slow
        self._stack = ExitStack()
        self._place: Subscription = self._stack.enter_context(stream.subscribed(after, slow))

    def take(self, max_bytes: int) -> bool:
        """Take what is there, and see that it is right; False if there was nothing."""
        batch = self._place.take(max_bytes)
        log = self.stream.log
        if batch.is_overrun:
            assert self._slow in (Slow.ERROR, Slow.BLOCK) and self._next < log.first and not batch.events
            self.is_told = True
            return True
        assert not (self.is_told and batch.events)
        assert not batch.lost or self._slow in (Slow.DROP_OLDEST, Slow.DROP_NEWEST)
        first = self._next + batch.lost
        assert batch.events == self._origin.sent[first - 1 : first - 1 + len(batch.events)]
        self._next = first + len(batch.events)
        if batch.outcome is not None:
            assert (batch.outcome, self._next) == (log.outcome, log.last + 1)
            self.is_told = True
        return bool(batch.events) or self.is_told

    async def read_on(self) -> None:
        """Take all that comes, as soon as it comes, until the end."""
        try:
            await self._place.wait_head()
        except InternalError:
            assert self.stream.log.outcome == Outcome(is_clean=False)
            self.is_told = True
        while not self.is_told:
            if not self.take(1):
                await self._place.wait_news()
        self.leave()

    def leave(self) -> None:
        self._stack.close()


class Play:
    """A hub, and what was done with it so far."""

    def __init__(self, hub: Hub, nursery: trio.Nursery) -> None:
        self.hub = hub
        self.streams: list[tuple[Origin, LiveStream]] = []
        self.readers: list[Reader] = []
        self.reading_on: list[Reader] = []
        self._nursery = nursery

    def ask(self, caller: str | None, key: str | None, slow: Slow, linger_s: float, reads_on: bool) -> None:
        """Share a stream, or start one."""
        hub, bounds = self.hub, self.hub.bounds
        stream = None if key is None else hub.find_shared(caller, key)
        if stream is None:
            mine = [stream for stream in hub.streams if stream.caller == caller]
            is_full = len(hub.streams) >= bounds.max_streams or len(mine) >= bounds.max_per_caller
            is_full = is_full or hub.held_bytes >= bounds.max_total_bytes
            try:
                origin, stream = start(hub, caller, key, linger_s)
            except HubFull:
                assert is_full
                return
            assert not is_full
            self.streams.append((origin, stream))
        assert stream.log.first == 1
        self.read(stream, 0, slow, reads_on)

    def read(self, stream: LiveStream, after: int, slow: Slow, reads_on: bool) -> None:
        (origin,) = [origin for origin, other in self.streams if other is stream]
        reader = Reader(origin, stream, after, slow)
        if reads_on:
            self.reading_on.append(reader)
            self._nursery.start_soon(reader.read_on)
        else:
            self.readers.append(reader)

    def resume(self, number: int, back: int, slow: Slow, reads_on: bool) -> None:
        """Come back to one, from `back` events before its last on, if that is there."""
        if self.streams:
            stream = self.streams[number % len(self.streams)][1]
            after = max(stream.log.last - back, stream.log.first - 1)
            self.read(stream, after, slow, reads_on)

    def publish(self, number: int, sizes: list[int]) -> None:
        if self.streams:
            origin, stream = self.streams[number % len(self.streams)]
            if stream.is_live:
                origin.publish(*sizes)

    def end(self, number: int, how: str) -> None:
        if self.streams:
            origin, stream = self.streams[number % len(self.streams)]
            if not stream.is_live:
                return
            if how == "stop" and stream.stop is not None:
                stream.stop(CancelReason.STOPPED)
            elif how == "end":
                origin.end()
            else:
                origin.cut()

    def take(self, number: int, max_bytes: int) -> None:
        if self.readers:
            self.readers[number % len(self.readers)].take(max_bytes)

    def leave(self, number: int) -> None:
        if self.readers:
            self.readers.pop(number % len(self.readers)).leave()

    def check(self) -> None:
        """What is true at any time."""
        bounds = self.hub.bounds
        assert len(self.hub.streams) <= bounds.max_streams
        for origin, stream in self.streams:
            log = stream.log
            assert log.last - log.first < bounds.max_events
            assert log.size_bytes <= bounds.max_bytes or log.first == log.last
            assert log.last <= len(origin.sent)
        open_ones = [reader for reader in self.reading_on if not reader.is_told]
        assert sum(stream.readers for _, stream in self.streams) == len(self.readers) + len(open_ones)


numbers = st.integers(0, 5)
policies = st.sampled_from(Slow)
STEPS = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from([None, "k", "l"]),
        policies,
        st.sampled_from([0.0, 2.0]),
        st.booleans(),
    ),
    st.tuples(st.just("resume"), numbers, numbers, policies, st.booleans()),
    st.tuples(st.just("publish"), numbers, st.lists(st.sampled_from([0, 20, 80]), min_size=1, max_size=5)),
    st.tuples(st.just("publish"), numbers, st.lists(st.sampled_from([0, 20, 80]), min_size=1, max_size=5)),
    st.tuples(st.just("take"), numbers, st.sampled_from([1, 30, 1000])),
    st.tuples(st.just("leave"), numbers),
    st.tuples(st.just("end"), numbers, st.sampled_from(["end", "cut", "stop"])),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.5, 3.0, 6.0])),
)


@given(steps=st.lists(STEPS, max_size=40), is_drained=st.booleans(), waits=st.booleans())
@settings(max_examples=400)
def test_every_reader_sees_a_suffix_with_its_gaps_told_and_the_end(
    steps: list[tuple[Any, ...]], is_drained: bool, waits: bool
) -> None:
    async def main() -> None:
        bounds = {"max_streams": 4, "max_per_caller": 2, "max_events": 4, "max_bytes": 150, "max_total_bytes": 300}
        async with running(retain_s=4.0, **bounds) as hub, trio.open_nursery() as nursery:
            play = Play(hub, nursery)
            for name, *arguments in steps:
                if name == "pass":
                    await trio.sleep(arguments[0])
                else:
                    getattr(play, name)(*arguments)
                if waits:
                    await trio.testing.wait_all_tasks_blocked()
                    play.check()
            if is_drained:
                hub.stop()
                await trio.testing.wait_all_tasks_blocked()
            else:
                for number in range(len(play.streams)):
                    play.end(number, "end")
                await trio.sleep(STALL_S * 50)  # for each event somebody may be waited for
            assert hub.producers.open == 0
            assert all(reader.is_told for reader in play.reading_on)
            for reader in play.readers:
                while not reader.is_told:
                    assert reader.take(1)
                reader.leave()
            assert not any(stream.readers for _, stream in play.streams)
            if not is_drained:
                assert (hub.streams, hub.held_bytes, dict(hub._per_caller), hub._shared) == ([], 0, {}, {})

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
