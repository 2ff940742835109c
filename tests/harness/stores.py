"""What holds for every store of streams, as cases: `StoreCases` for one example each, `check_history` for any order.

A case is given `open_world`: two replicas that know the same streams. A store of one process alone is both of them.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from hypothesis import strategies as st

from trioproxy.state.streams import START, Batch, Fate, Head, Limits, StreamLost, StreamRecord, StreamStore

HEAD = Head(200, ((b"content-type", b"text/event-stream"), (b"x-name", b"caf\xe9")))
HASTY = Limits(lease_s=1.2, retain_s=0.4)
"""Times that a test can wait for."""
SMALL = Limits(max_events=4, max_bytes=1000)
PATIENCE_S = 8.0


@dataclass(frozen=True)
class World:
    """Two replicas. `end_lease` makes the lease of one stream run out, as it would if its owner died; those of the
    others that are given hold."""

    here: StreamStore
    there: StreamStore
    end_lease: Callable[[str, Sequence[str]], Awaitable[None]]


OpenWorld = Callable[[Limits], Awaitable[World]]


def new_stream(caller: str = "alice") -> StreamRecord:
    return StreamRecord(secrets.token_hex(8), caller, "chat")


def event(number: int, size: int = 0) -> bytes:
    return b"data: %d\n\n" % number + b"x" * size


def events(first: int, count: int) -> list[bytes]:
    return [event(number) for number in range(first, first + count)]


@dataclass
class Mirror:
    """A stream as a replica has it: each number is either an event or lost, and none comes twice."""

    stream_id: str
    position: int = START
    head: Head | None = None
    events: dict[int, bytes] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    fate: Fate | None = None
    outcome: str = ""

    def take(self, batch: Batch) -> None:
        assert self.fate is None
        assert batch.head is None or self.position == START
        assert batch.lost >= 0
        start = max(self.position, 0) + 1
        self.lost |= set(range(start, start + batch.lost))
        if batch.events:
            assert batch.first == start + batch.lost
        self.events |= dict(enumerate(batch.events, batch.first))
        self.head = batch.head or self.head
        self.position = batch.position_behind(self.position)
        self.fate, self.outcome = batch.fate, batch.outcome
        assert self.events.keys() | self.lost == set(range(1, max(self.position, 0) + 1))
        assert not self.events.keys() & self.lost

    async def read(self, store: StreamStore) -> bool:
        """Read once; whether there was something."""
        found = await store.read({self.stream_id: self.position})
        assert found.keys() <= {self.stream_id}
        for batch in found.values():
            assert batch != Batch()
            self.take(batch)
        return bool(found)

    async def read_up_to(self, store: StreamStore, position: int) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.position < position:
                await self.read(store)

    async def read_to_the_end(self, store: StreamStore) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.fate is None:
                await self.read(store)


async def claimed(store: StreamStore, share_key: str | None = None, caller: str = "alice") -> str:
    return await store.claim(new_stream(caller), share_key)


async def mirrored(store: StreamStore, stream_id: str) -> Mirror:
    mirror = Mirror(stream_id)
    await mirror.read_to_the_end(store)
    return mirror


class StoreCases:
    """One promise each. What is called `here` produces, what is called `there` mirrors."""

    async def test_a_stream_is_read_as_it_was_written(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        await world.here.set_head(stream_id, HEAD)
        await world.here.append(stream_id, 1, [b"data: \xff\x00\n\n", b""])
        await world.here.set_head(stream_id, Head(500, ()))
        await world.here.append(stream_id, 3, events(3, 2))
        await world.here.end(stream_id, "finished: très bien")
        mirror = await mirrored(world.there, stream_id)
        assert (mirror.head, mirror.lost) == (HEAD, set())
        assert mirror.events == {1: b"data: \xff\x00\n\n", 2: b"", 3: event(3), 4: event(4)}
        assert (mirror.fate, mirror.outcome) == (Fate.ENDED, "finished: très bien")

    async def test_a_mirror_that_waits_gets_what_comes(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        mirror = Mirror(stream_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mirror.read_to_the_end, world.there)
            await trio.testing.wait_all_tasks_blocked()
            await world.here.set_head(stream_id, HEAD)
            for number in range(1, 6):
                await world.here.append(stream_id, number, [event(number)])
                await trio.sleep(0.01)
            await world.here.end(stream_id, "finished")
        assert mirror.head == HEAD and mirror.events == dict(enumerate(events(1, 5), 1))

    async def test_a_stream_without_events_has_its_end(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        with_head, without_head = await claimed(world.here), await claimed(world.here)
        await world.here.set_head(with_head, HEAD)
        for stream_id, head in ((with_head, HEAD), (without_head, None)):
            await world.here.end(stream_id, "fault")
            mirror = await mirrored(world.there, stream_id)
            assert (mirror.head, mirror.events, mirror.outcome) == (head, {}, "fault")

    async def test_what_was_written_is_not_written_again(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        for _ in range(2):
            await world.here.append(stream_id, 1, events(1, 3))
        await world.here.append(stream_id, 2, events(2, 4))
        await world.here.end(stream_id, "finished")
        await world.here.end(stream_id, "finished again")
        mirror = await mirrored(world.there, stream_id)
        assert mirror.events == dict(enumerate(events(1, 5), 1)) and mirror.outcome == "finished"

    async def test_numbers_that_the_producer_left_out_are_a_gap(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        await world.here.append(stream_id, 1, events(1, 2))
        await world.here.append(stream_id, 5, events(5, 2))
        await world.here.end(stream_id, "finished")
        mirror = await mirrored(world.there, stream_id)
        assert mirror.lost == {3, 4} and mirror.events.keys() == {1, 2, 5, 6}

    async def test_a_position_that_the_log_has_left_is_told(self, open_world: OpenWorld) -> None:
        world = await open_world(SMALL)
        stream_id = await claimed(world.here)
        await world.here.set_head(stream_id, HEAD)
        await world.here.append(stream_id, 1, events(1, 3))
        early, late = Mirror(stream_id), Mirror(stream_id)
        await early.read_up_to(world.there, 3)
        await world.here.append(stream_id, 4, events(4, 6))
        record = await world.there.look(stream_id)
        assert record is not None and (record.first, record.last) == (6, 9)
        await world.here.end(stream_id, "finished")
        for mirror in (early, late):
            await mirror.read_to_the_end(world.there)
            assert mirror.head == HEAD
        assert early.lost == {4, 5} and late.lost == {1, 2, 3, 4, 5}

    async def test_a_log_is_bounded_in_bytes_and_keeps_the_newest_event(self, open_world: OpenWorld) -> None:
        world = await open_world(SMALL)
        stream_id = await claimed(world.here)
        await world.here.append(stream_id, 1, [event(1, 400), event(2, 400), event(3, 400)])
        record = await world.there.look(stream_id)
        assert record is not None and (record.first, record.last) == (2, 3)
        await world.here.append(stream_id, 4, [event(4, 4000)])
        await world.here.end(stream_id, "finished")
        mirror = await mirrored(world.there, stream_id)
        assert mirror.events == {4: event(4, 4000)} and mirror.lost == {1, 2, 3}

    async def test_nothing_is_written_behind_the_end(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        await world.here.end(stream_id, "finished")
        with pytest.raises(StreamLost):
            await world.here.append(stream_id, 1, events(1, 1))
        assert (await world.here.renew([stream_id])).lost == {stream_id}
        mirror = await mirrored(world.there, stream_id)
        assert mirror.events == {}

    async def test_a_record_tells_what_is_known(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        record = new_stream("bob")
        await world.here.claim(record, "key")
        stream_id = record.stream_id
        assert await world.there.look(stream_id) == StreamRecord(stream_id, "bob", "chat", has_owner=True)
        await world.here.set_head(stream_id, HEAD)
        await world.here.append(stream_id, 1, events(1, 3))
        assert await world.there.look(stream_id) == StreamRecord(stream_id, "bob", "chat", HEAD, 1, 3, has_owner=True)
        await world.here.end(stream_id, "stopped")
        assert await world.there.look(stream_id) == StreamRecord(stream_id, "bob", "chat", HEAD, 1, 3, "stopped")
        assert await world.there.look("another") is None

    async def test_a_producer_that_is_silent_is_lost_and_its_mirrors_hear_so_in_time(
        self, open_world: OpenWorld
    ) -> None:
        world = await open_world(HASTY)
        stream_id = await claimed(world.here)
        mirror = Mirror(stream_id)
        await mirror.read(world.there)
        await world.here.append(stream_id, 1, events(1, 2))
        silent_since = trio.current_time()
        await mirror.read_to_the_end(world.there)
        assert HASTY.lease_s / 2 < trio.current_time() - silent_since < HASTY.lease_s + 0.25
        assert mirror.fate is Fate.OWNER_LOST and mirror.events.keys() == {1, 2}
        for change in (
            partial(world.here.append, stream_id, 3, events(3, 1)),
            partial(world.here.set_head, stream_id, HEAD),
            partial(world.here.end, stream_id, "finished"),
        ):
            with pytest.raises(StreamLost):
                await change()
        assert (await world.here.renew([stream_id])).lost == {stream_id}
        assert not await world.there.stop(stream_id)

    async def test_events_that_came_just_before_the_owner_was_lost_are_told_first(self, open_world: OpenWorld) -> None:
        world = await open_world(HASTY)
        stream_id = await claimed(world.here)
        mirror = Mirror(stream_id)
        while await mirror.read(world.there):
            pass
        await world.here.append(stream_id, 1, events(1, 3))
        await world.end_lease(stream_id, [])
        await mirror.read_to_the_end(world.there)
        assert mirror.events.keys() == {1, 2, 3}

    async def test_a_sign_of_life_keeps_the_lease(self, open_world: OpenWorld) -> None:
        world = await open_world(HASTY)
        renewed, written = await claimed(world.here, "key"), await claimed(world.here)
        for number in range(1, 8):
            await trio.sleep(HASTY.renew_s)
            assert (await world.here.renew([renewed])).lost == set()
            await world.here.append(written, number, [event(number)])
        for stream_id in (renewed, written):
            record = await world.there.look(stream_id)
            assert record is not None and record.has_owner
        assert await claimed(world.there, "key") == renewed

    async def test_what_nobody_knows_is_told_as_forgotten(self, open_world: OpenWorld) -> None:
        world = await open_world(HASTY)
        assert (await mirrored(world.there, "nothing")).fate is Fate.FORGOTTEN
        assert (await world.here.renew(["nothing"])).lost == {"nothing"}

    async def test_a_stream_is_forgotten_when_its_time_is_over(self, open_world: OpenWorld) -> None:
        world = await open_world(HASTY)
        ended, silent = await claimed(world.here), await claimed(world.here)
        await world.here.append(ended, 1, events(1, 1))
        await world.here.end(ended, "finished")
        await trio.sleep(HASTY.retain_s + 0.1)
        assert await world.there.look(ended) is None
        assert await world.there.look(silent) is not None
        await trio.sleep(HASTY.held_s)
        assert await world.there.look(silent) is None
        assert (await mirrored(world.there, ended)).fate is Fate.FORGOTTEN

    async def test_a_live_stream_is_shared_by_its_caller_alone(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        first = await claimed(world.here, "key")
        loser = new_stream()
        assert await world.there.claim(loser, "key") == first
        assert await world.there.look(loser.stream_id) is None
        others = [
            await claimed(world.there, "key", caller="bob"),
            await claimed(world.there, "another key"),
            await claimed(world.there),
            await claimed(world.there),
        ]
        assert len({first, *others}) == 5

    async def test_a_stream_that_is_not_live_is_not_shared(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        first = await claimed(world.here, "key")
        await world.here.end(first, "finished")
        second = await claimed(world.here, "key")
        await world.there.stop(second)
        third = await claimed(world.there, "key")
        await world.end_lease(third, [second])
        fourth = await claimed(world.here, "key")
        assert len({first, second, third, fourth}) == 4
        await world.here.end(second, "stopped")
        assert await claimed(world.there, "key") == fourth

    async def test_of_many_claims_at_the_same_moment_one_wins(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        for key in ("one", "two", "three"):
            got: list[str] = []

            async def claim(store: StreamStore, record: StreamRecord, key: str = key, got: list[str] = got) -> None:
                got.append(await store.claim(record, key))

            records = [new_stream() for _ in range(20)]
            async with trio.open_nursery() as nursery:
                for number, record in enumerate(records):
                    nursery.start_soon(claim, (world.here, world.there)[number % 2], record)
            assert len(got) == 20 and len(set(got)) == 1
            known = [record for record in records if await world.here.look(record.stream_id) is not None]
            assert [record.stream_id for record in known] == [got[0]]

    async def test_the_owner_hears_that_a_stream_is_to_be_stopped(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        first, second = await claimed(world.here), await claimed(world.here)
        assert await world.there.stop(first)
        with trio.fail_after(PATIENCE_S):
            assert await world.here.next_stop() == first
        assert await world.here.renew([first, second]) == await world.here.renew([second, first])
        assert (await world.here.renew([first, second])).stopped == {first}
        await world.here.end(first, "stopped")
        assert not await world.there.stop(first)
        assert not await world.there.stop("nothing")
        with trio.move_on_after(0.1):
            pytest.fail(f"stopped again: {await world.here.next_stop()}")

    async def test_a_wait_for_stops_that_is_cancelled_misses_none(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        streams = {await claimed(world.here) for _ in range(5)}
        heard = set()
        for stream_id in streams:
            with trio.move_on_after(0.01):
                heard.add(await world.here.next_stop())
            await world.there.stop(stream_id)
        with trio.fail_after(PATIENCE_S):
            while heard != streams:
                heard.add(await world.here.next_stop())

    async def test_one_read_serves_many_streams(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        streams = [await claimed(world.here) for _ in range(40)]
        for number, stream_id in enumerate(streams):
            await world.here.append(stream_id, 1, events(1, number))
            if number % 2:
                await world.here.end(stream_id, f"end of {number}")
        mirrors = {stream_id: Mirror(stream_id) for stream_id in streams}
        with trio.fail_after(PATIENCE_S):
            while found := await world.there.read({one.stream_id: one.position for one in mirrors.values()}):
                for stream_id, batch in found.items():
                    mirrors[stream_id].take(batch)
                    if batch.fate is not None:
                        assert mirrors[stream_id].outcome == f"end of {len(mirrors.pop(stream_id).events)}"
        assert [len(mirror.events) for mirror in mirrors.values()] == list(range(0, 40, 2))

    async def test_a_read_that_is_cancelled_takes_nothing_away(self, open_world: OpenWorld) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        mirror = Mirror(stream_id)
        for number in range(1, 21):
            await world.here.append(stream_id, number, [event(number)])
            with trio.move_on_after(0.002 * (number % 4)):
                await mirror.read(world.there)
        await mirror.read_up_to(world.there, 20)
        await world.here.end(stream_id, "finished")
        await mirror.read_to_the_end(world.there)
        assert mirror.events == dict(enumerate(events(1, 20), 1))

    async def test_a_read_of_nothing_waits_for_a_moment_and_not_for_one_that_was_cancelled(
        self, open_world: OpenWorld
    ) -> None:
        world = await open_world(Limits())
        stream_id = await claimed(world.here)
        start = trio.current_time()
        assert await world.there.read({}) == {}
        assert await world.there.read({stream_id: START}) == {}
        assert 0.3 < trio.current_time() - start < 1.5
        for _ in range(20):
            with trio.move_on_after(0.002):
                await world.there.read({stream_id: START})
        start = trio.current_time()
        assert await world.there.read({stream_id: START}) == {}
        assert trio.current_time() - start < 1.5


Step = tuple[str, int, int]
"""What happens, to which stream (counted round), and a number that says how."""

HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["claim", "share", "head", "append", "again", "end", "stop", "lose", "read", "join"]),
        st.integers(0, 3),
        st.integers(0, 7),
    ),
    max_size=25,
)


@dataclass
class Written:
    """What was done to a stream, as a model: everything that it ever had, and what its log may still have."""

    stream_id: str
    share: int | None
    head: Head | None = None
    last: int = 0
    events: list[int] = field(default_factory=list)
    fate: Fate | None = None
    outcome: str = ""
    is_stopped: bool = False
    mirrors: list[Mirror] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        return self.fate is None

    def check(self, mirror: Mirror) -> None:
        """A mirror that has read to the end has all that the log had, and has lost only what the log left."""
        assert mirror.head == self.head
        assert all(got == event(number) for number, got in mirror.events.items())
        assert set(self.events[-SMALL.max_events :]) <= mirror.events.keys() <= set(self.events)
        assert max(mirror.position, 0) == self.last
        assert (mirror.fate, mirror.outcome) == (self.fate, self.outcome)


async def check_history(steps: Sequence[Step], world: World) -> None:
    """Whatever happens in whatever order: each mirror sees a suffix with explicit gaps, and its fate once."""
    streams: list[Written] = []
    for what, which, how in steps:
        if what in ("claim", "share") or not streams:
            share = how % 2 if what == "share" else None
            record = new_stream()
            got = await world.here.claim(record, None if share is None else f"key {share}")
            sharers = [
                one
                for one in streams
                if share is not None and one.share == share and one.is_live and not one.is_stopped
            ]
            assert got == (sharers[0].stream_id if sharers else record.stream_id)
            if not sharers:
                streams.append(Written(got, share, mirrors=[Mirror(got)]))
            continue
        stream = streams[which % len(streams)]
        try:
            await _step(what, how, stream, streams, world)
        except StreamLost:
            assert not stream.is_live
        else:
            assert stream.is_live or what not in ("head", "append", "again")
    for stream in streams:
        if stream.is_live:
            await world.end_lease(stream.stream_id, [one.stream_id for one in streams if one.is_live])
            stream.fate = Fate.OWNER_LOST
        for mirror in stream.mirrors:
            if mirror.fate is None:
                await mirror.read_to_the_end(world.there)
            stream.check(mirror)


async def _step(what: str, how: int, stream: Written, streams: Sequence[Written], world: World) -> None:
    """One thing that happens; the model changes behind the store, if that did not raise."""
    stream_id, was_live = stream.stream_id, stream.is_live
    if what == "head":
        await world.here.set_head(stream_id, HEAD)
        stream.head = HEAD if stream.last == 0 else stream.head
    elif what == "append":
        first = stream.last + 1 + (how == 7)
        await world.here.append(stream_id, first, events(first, how % 4))
        stream.events += range(first, first + how % 4)
        stream.last = stream.events[-1] if stream.events else 0
    elif what == "again":
        await world.here.append(stream_id, 1, events(1, min(stream.last, 1)))
    elif what == "end":
        outcome = f"end {how}"
        await world.here.end(stream_id, outcome)
        if was_live:
            stream.fate, stream.outcome = Fate.ENDED, outcome
    elif what == "stop":
        assert await world.there.stop(stream_id) == was_live
        stream.is_stopped = stream.is_stopped or was_live
        assert (await world.here.renew([stream_id])).stopped == (
            {stream_id} if stream.is_stopped and was_live else set()
        )
    elif what == "lose" and was_live:
        await world.end_lease(stream_id, [one.stream_id for one in streams if one.is_live and one is not stream])
        stream.fate = Fate.OWNER_LOST
    elif what == "join":
        stream.mirrors.append(Mirror(stream_id))
    elif what == "read":
        mirror = stream.mirrors[how % len(stream.mirrors)]
        if mirror.fate is None:
            await mirror.read(world.there)
