"""The store of many replicas keeps what `streams` promises on a real redis-server, and says so when that is gone."""

import math
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings

from tests.harness.counting import TaskCounter
from tests.harness.stores import (
    HASTY,
    HEAD,
    HISTORIES,
    PATIENCE_S,
    SMALL,
    Mirror,
    OpenWorld,
    Step,
    StoreCases,
    World,
    check_history,
    claimed,
    event,
    events,
    mirrored,
)
from tests.loopback.processes import until
from tests.loopback.redis_server import PASSWORD, RedisServer, redis_server, write_certificate
from trioproxy.state.redis import RedisStore
from trioproxy.state.redis_link import RedisLink, address_of
from trioproxy.state.streams import START, Fate, Limits, StateUnavailable, StreamLost

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """For tests that let it live."""
    with redis_server() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """For tests that do not."""
    with redis_server() as server:
        yield server


def new_store(port: int, prefix: str = "test:", limits: Limits | None = None) -> RedisStore:
    address = address_of(f"redis://127.0.0.1:{port}")
    return RedisStore(address, limits or Limits(), prefix=prefix, timeout_s=TIMEOUT_S)


def world_on(server: RedisServer, limits: Limits, nursery: trio.Nursery) -> World:
    """Two replicas, connecting."""
    prefix = f"{secrets.token_hex(4)}:"
    here, there = (new_store(server.port, prefix, limits) for _ in range(2))
    nursery.start_soon(here.run)
    nursery.start_soon(there.run)

    async def end_lease(stream_id: str, others: Sequence[str]) -> None:
        # As if its time were over; a record that is not there stays away.
        key = f"{prefix}{{{stream_id}}}:record"
        script = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'lease', 0) end"
        await trio.to_thread.run_sync(server.ask, "EVAL", script, "1", key)

    return World(here, there, end_lease)


@pytest.fixture
async def open_world(shared_server: RedisServer, nursery: trio.Nursery) -> OpenWorld:
    async def open_redis(limits: Limits) -> World:
        world = world_on(shared_server, limits, nursery)
        await until_up(world)
        return world

    return open_redis


@pytest.fixture
async def world(server: RedisServer, nursery: trio.Nursery) -> World:
    world = world_on(server, HASTY, nursery)
    await until_up(world)
    return world


async def until_up(world: World) -> None:
    """Wait until both replicas have all their connections."""
    stores = [store for store in (world.here, world.there) if isinstance(store, RedisStore)]
    links = [link for store in stores for link in (store._commands, store._reading, store._hearing)]
    with trio.fail_after(PATIENCE_S):
        for link in links:
            while True:
                try:
                    await link.call(b"PING")
                    break
                except StateUnavailable:
                    await trio.sleep(0.02)


async def end_nothing(stream_id: str, others: Sequence[str]) -> None:
    """For worlds in which no lease ends."""


class TestContract(StoreCases):
    """See there."""


class Watchful(Limits):
    """A long lease, at which mirrors look often."""

    @property
    def look_s(self) -> float:
        return 0.05


@settings(max_examples=15)
@given(steps=HISTORIES)
def test_every_mirror_sees_a_suffix_with_explicit_gaps_and_one_fate(
    shared_server: RedisServer, steps: list[Step]
) -> None:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            limits = Watchful(max_events=SMALL.max_events, lease_s=60)
            world = world_on(shared_server, limits, nursery)
            await check_history(steps, world)
            nursery.cancel_scope.cancel()

    trio.run(check)


class TestServerGone:
    async def test_a_read_hears_of_it_at_once_and_all_goes_on_when_it_is_back(
        self, server: RedisServer, world: World
    ) -> None:
        stream_id = await claimed(world.here, "key")
        await world.here.append(stream_id, 1, events(1, 3))
        mirror = Mirror(stream_id)
        await mirror.read_up_to(world.there, 3)

        async def kill_soon() -> None:
            await trio.sleep(0.1)
            server.process.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_soon)
            start = trio.current_time()
            with pytest.raises(StateUnavailable):
                await mirror.read_to_the_end(world.there)
            assert trio.current_time() - start < 0.1 + TIMEOUT_S + 0.3
        server.kill()
        start = trio.current_time()
        for change in (
            partial(world.here.append, stream_id, 4, events(4, 1)),
            partial(world.here.renew, [stream_id]),
            partial(world.here.look, stream_id),
            partial(world.here.stop, stream_id),
            partial(world.here.end, stream_id, "finished"),
            partial(claimed, world.here, "key"),
        ):
            with pytest.raises(StateUnavailable):
                await change()
        assert trio.current_time() - start < 2 * TIMEOUT_S
        await trio.to_thread.run_sync(server.start)
        await until_up(world)
        # It is back, and knows nothing.
        with pytest.raises(StreamLost):
            await world.here.append(stream_id, 4, events(4, 1))
        await mirror.read_to_the_end(world.there)
        assert mirror.fate is Fate.FORGOTTEN
        again = await claimed(world.here, "key")
        await world.there.stop(again)
        with trio.fail_after(PATIENCE_S):
            assert await world.here.next_stop() == again

    async def test_a_server_that_does_not_answer_costs_its_time_and_no_more(
        self, server: RedisServer, world: World
    ) -> None:
        stream_id = await claimed(world.here)
        await world.here.append(stream_id, 1, events(1, 1))
        server.pause()
        try:
            for call in (
                partial(world.here.append, stream_id, 2, events(2, 1)),
                partial(world.there.read, {stream_id: START}),
                partial(world.there.look, stream_id),
            ):
                start = trio.current_time()
                with pytest.raises(StateUnavailable):
                    await call()
                assert trio.current_time() - start < TIMEOUT_S + 0.6
            assert isinstance(world.here, RedisStore)
            assert world.here._commands._usable is None  # nothing is left that would wait to be written
        finally:
            server.go_on()
        await until_up(world)
        again = await claimed(world.here)
        await world.here.append(again, 1, events(1, 2))
        await world.here.append(again, 1, events(1, 4))
        await world.here.end(again, "finished")
        assert (await mirrored(world.there, again)).events.keys() == {1, 2, 3, 4}

    async def test_a_stop_that_was_not_heard_is_told_by_the_renewal(self, server: RedisServer, world: World) -> None:
        stream_id = await claimed(world.here)
        with trio.move_on_after(0.1):
            await world.here.next_stop()
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")  # no task of ours runs until the stop below
        assert await world.there.stop(stream_id)
        assert (await world.here.renew([stream_id])).stopped == {stream_id}

    async def test_a_store_can_start_before_its_server(
        self, nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with redis_server() as server:
            server.kill()
            store = new_store(server.port)
            nursery.start_soon(store.run)
            with pytest.raises(StateUnavailable, match="refused"):
                await claimed(store)
            await trio.to_thread.run_sync(server.start)
            await until_up(World(store, store, end_nothing))
            await claimed(store)
            nursery.cancel_scope.cancel()
        assert capfd.readouterr() == ("", "")

    async def test_scripts_that_the_server_has_forgotten_are_sent_again(
        self, server: RedisServer, world: World
    ) -> None:
        streams = [await claimed(world.here, f"key {number}") for number in range(3)]
        server.ask("SCRIPT", "FLUSH")
        assert (await world.here.renew(streams)).lost == set()
        server.ask("SCRIPT", "FLUSH")
        await world.here.append(streams[0], 1, events(1, 3))
        await world.here.end(streams[0], "finished")
        assert (await mirrored(world.there, streams[0])).events.keys() == {1, 2, 3}


async def test_a_replica_hears_of_its_own_streams_only(open_world: OpenWorld) -> None:
    world = await open_world(Limits())
    ours, theirs = await claimed(world.here), await claimed(world.there)
    await world.there.stop(ours)
    await world.here.stop(theirs)
    with trio.fail_after(PATIENCE_S):
        assert await world.here.next_stop() == ours
        assert await world.there.next_stop() == theirs


async def test_what_came_behind_a_read_is_not_hidden_by_the_loss_of_its_owner(open_world: OpenWorld) -> None:
    """It came, and its lease ran out, between the read and the look at why it is quiet."""
    world = await open_world(HASTY)
    stream_id = await claimed(world.here)
    await world.here.append(stream_id, 1, events(1, 3))
    await world.end_lease(stream_id, [])
    assert isinstance(world.there, RedisStore)
    for position, told in ((START, False), (2, False), (3, True)):
        world.there._looked_at = {stream_id: -math.inf}
        assert bool(await world.there._look_at_quiet({stream_id: position}, ())) is told


class TestNothingLeaks:
    async def test_three_connections_and_none_when_it_is_over(self, server: RedisServer) -> None:
        counter = TaskCounter()
        trio.lowlevel.add_instrument(counter)
        before = server.clients()
        async with trio.open_nursery() as nursery:
            store = new_store(server.port)
            nursery.start_soon(store.run)
            stream_id = await claimed(store)
            for number in range(100):
                async with trio.open_nursery() as callers:
                    callers.start_soon(store.append, stream_id, number, [event(number)])
                    callers.start_soon(store.look, stream_id)
                    with trio.move_on_after(0.0005 * (number % 5)):
                        await store.read({stream_id: number})
                    callers.cancel_scope.cancel()
            await until_up(World(store, store, end_nothing))
            await until_clients(server, before + 3)
            assert await store.look(stream_id) is not None
            nursery.cancel_scope.cancel()
        await until_clients(server, before)
        trio.lowlevel.remove_instrument(counter)
        assert not list(counter.alive.values())

    async def test_every_key_has_its_end_and_names_nobody(self, server: RedisServer, world: World) -> None:
        shared, ended = await claimed(world.here, "secret question"), await claimed(world.here, caller="hash")
        await world.here.set_head(shared, HEAD)
        await world.here.append(shared, 1, events(1, 3))
        await world.here.end(ended, "finished")
        await world.here.append(await claimed(world.here), 1, events(1, 1))
        keys = server.ask("KEYS", "*").splitlines()
        assert len(keys) == 7
        for key in keys:
            assert 0 < int(server.ask("PTTL", key)) <= 1000 * (HASTY.lease_s + HASTY.retain_s)
            assert "secret" not in key
        for key in (key for key in keys if key.endswith(":record")):
            assert "secret" not in server.ask("HGETALL", key)


async def until_clients(server: RedisServer, number: int) -> None:
    await trio.to_thread.run_sync(until, lambda: server.clients() == number, f"{number} connections")


class TestWhoWeAre:
    async def test_by_tls_with_a_password(self, tmp_path: Path, nursery: trio.Nursery) -> None:
        certificate, trusted = write_certificate(tmp_path)
        with redis_server(certificate, PASSWORD) as server:
            url = f"rediss://:open%20sesame@127.0.0.1:{server.port}/2"
            store = RedisStore(address_of(url, str(trusted)), Limits())
            nursery.start_soon(store.run)
            stream_id = await claimed(store)
            await store.end(stream_id, "finished")
            assert (await mirrored(store, stream_id)).fate is Fate.ENDED
            stranger = RedisStore(address_of(url), Limits())
            nursery.start_soon(stranger.run)
            with pytest.raises(StateUnavailable, match="certificate"):
                await claimed(stranger)
            nursery.cancel_scope.cancel()

    async def test_a_wrong_password_is_said_and_shown_nowhere(
        self, nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with redis_server(password=PASSWORD) as server:
            address = address_of(f"redis://me:wrong-word@127.0.0.1:{server.port}")
            store = RedisStore(address, Limits())
            nursery.start_soon(store.run)
            with pytest.raises(StateUnavailable, match="invalid username-password pair") as raised:
                await claimed(store)
            chain: BaseException | None = raised.value
            while chain is not None:
                assert "wrong-word" not in repr(chain)
                chain = chain.__cause__
            assert "wrong-word" not in repr(address)
            nursery.cancel_scope.cancel()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "url",
        [
            "http://host",
            "host:6379",
            "redis://",
            "redis:///1",
            "redis://:hidden@host/x",
            "redis://:hidden@host?db=1",
            "redis://:hidden/word@host",
            "redis://[hidden",
        ],
    )
    def test_a_url_that_is_none_is_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(ValueError, match="expected redis://") as raised:
            address_of(url)
        assert "hidden" not in str(raised.value) and raised.value.__suppress_context__


async def test_commands_follow_each_other_on_one_connection(shared_server: RedisServer, nursery: trio.Nursery) -> None:
    link = RedisLink(address_of(f"redis://127.0.0.1:{shared_server.port}"), TIMEOUT_S)
    nursery.start_soon(link.keep)
    answers: dict[int, object] = {}

    async def ask(number: int) -> None:
        answers[number] = await link.call(b"ECHO", number)

    async with trio.open_nursery() as callers:
        for number in range(200):
            callers.start_soon(ask, number)
    assert answers == {number: b"%d" % number for number in range(200)}
    nursery.cancel_scope.cancel()
