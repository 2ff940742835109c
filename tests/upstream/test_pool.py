"""Connections that wait for their next request: which are kept, for how long, and which comes first."""

from math import inf

import pytest
import trio
import trio.testing

from tests.harness.wires import is_closed, loopback
from trioproxy.net.tcp import TcpStream
from trioproxy.upstream.http1 import OriginConnection
from trioproxy.upstream.pool import DEFAULT_IDLE_S, MAX_IDLE_S, Pool

HERE = ("http", "here", 80)
THERE = ("https", "there", 443)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%b\r\nhi"


async def answered(head: bytes = b"", raw: bytes | None = None, *, is_read: bool = True) -> OriginConnection:
    """A connection that has just brought an answer."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = OriginConnection(ours)
    await theirs.send_all(ANSWER % head if raw is None else raw)
    await theirs.send_eof()
    await connection.read_head()
    while is_read and await connection.read():
        pass
    return connection


def fresh() -> OriginConnection:
    return OriginConnection(trio.testing.memory_stream_pair()[0])


async def test_a_connection_is_used_again_by_the_same_origin_only() -> None:
    pool = Pool()
    connection = await answered()
    assert pool.take(HERE) is None
    pool.give_back(HERE, connection)
    assert pool.idle_connections == 1
    for other in (THERE, ("https", "here", 80), ("http", "here", 81)):
        assert pool.take(other) is None
    assert pool.take(HERE) is connection
    assert pool.take(HERE) is None
    assert pool.idle_connections == 0


@pytest.mark.parametrize(
    "raw",
    [
        ANSWER % b"connection: close\r\n",
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0") % b"",
        ANSWER % b"" + ANSWER % b"",
        ANSWER % b"" + b"\0",
        b"HTTP/1.1 200 OK\r\n\r\nto the end",
    ],
    ids=["closed by the origin", "HTTP/1.0", "an answer too many", "garbage behind it", "ended with the connection"],
)
async def test_a_connection_that_cannot_be_used_again_is_closed(raw: bytes) -> None:
    pool = Pool()
    connection = await answered(raw=raw)
    pool.give_back(HERE, connection)
    assert pool.idle_connections == 0
    assert is_closed(connection.stream)


@pytest.mark.parametrize(
    "raw",
    [ANSWER % b"", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", b"HTTP/1.1 200 OK\r\n\r\n"],
    ids=["its body was not read", "its body is not here", "its body has no end yet"],
)
async def test_a_connection_whose_answer_is_not_through_is_closed(raw: bytes) -> None:
    pool = Pool()
    connection = await answered(raw=raw, is_read=False)
    pool.give_back(HERE, connection)
    assert is_closed(connection.stream)


async def test_last_in_is_first_out() -> None:
    pool = Pool()
    first, second, third = fresh(), fresh(), fresh()
    pool.keep(HERE, first)
    pool.keep(HERE, second)
    assert pool.take(HERE) is second
    pool.keep(HERE, third)
    assert [pool.take(HERE), pool.take(HERE)] == [third, first]


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        (b"", DEFAULT_IDLE_S),
        (b"keep-alive: timeout=10\r\n", 9),
        (b"Keep-Alive: max=100, Timeout = 10\r\n", 9),
        (b"keep-alive: timeout=3\r\n", 2),
        (b"keep-alive: timeout=86400\r\n", MAX_IDLE_S),
        (b"keep-alive: timeout=99999999999999999999\r\n", MAX_IDLE_S),
        (b"keep-alive: timeout=-5\r\n", DEFAULT_IDLE_S),
        (b"keep-alive: timeout=soon\r\n", DEFAULT_IDLE_S),
        (b"x-keep-alive: timeout=10\r\n", DEFAULT_IDLE_S),
    ],
)
async def test_a_connection_waits_for_less_than_its_origin_does(
    head: bytes, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    pool = Pool()
    for late in (False, True):
        connection = await answered(head)
        pool.give_back(HERE, connection)
        await trio.sleep(seconds - 0.01 + 0.02 * late)
        assert pool.has(HERE) is not late
        assert pool.take(HERE) is (None if late else connection)
        assert is_closed(connection.stream) is late


@pytest.mark.parametrize("seconds", [0, 1])
async def test_an_origin_that_hardly_waits_is_not_waited_with(seconds: int) -> None:
    pool = Pool()
    connection = await answered(b"keep-alive: timeout=%d\r\n" % seconds)
    pool.give_back(HERE, connection)
    assert pool.idle_connections == 0
    assert is_closed(connection.stream)


async def test_an_old_connection_behind_a_new_one_is_not_used(autojump_clock: trio.testing.MockClock) -> None:
    pool = Pool()
    old, new = fresh(), fresh()
    pool.keep(HERE, old)
    await trio.sleep(DEFAULT_IDLE_S - 1)
    pool.keep(HERE, new)
    await trio.sleep(2)
    assert pool.take(HERE) is new
    assert pool.take(HERE) is None
    assert is_closed(old.stream)


async def test_to_look_for_a_connection_does_not_lengthen_its_time(autojump_clock: trio.testing.MockClock) -> None:
    pool = Pool()
    connection = fresh()
    pool.keep(HERE, connection, 3)
    for _ in range(3):
        assert pool.has(HERE)
        assert pool.idle_connections == 1
        await trio.sleep(1)
    assert not pool.has(HERE)
    assert pool.idle_connections == 0
    assert is_closed(connection.stream)


def stale(happens: str) -> tuple[OriginConnection, TcpStream]:
    stream, peer = loopback()
    if happens == "stray bytes":
        peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    peer.close()
    return OriginConnection(stream), stream


@pytest.mark.parametrize("happens", ["an end of file", "stray bytes"])
async def test_a_connection_on_which_something_happened_is_not_used(happens: str) -> None:
    for look in ("take", "has", "close_expired"):
        pool = Pool()
        (old, old_stream), good = stale(happens), fresh()
        pool.keep(HERE, good)
        pool.keep(HERE, old)
        await trio.lowlevel.wait_readable(old_stream.socket)
        if look == "take":
            assert pool.take(HERE) is good
        elif look == "has":
            assert pool.has(HERE) and pool.idle_connections == 1
        else:
            pool.close_expired()
            assert pool.idle_connections == 1
        assert old_stream.socket.fileno() == -1


async def test_the_reaper_closes_what_has_waited_too_long(autojump_clock: trio.testing.MockClock) -> None:
    pool = Pool()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.reap)
        await trio.sleep(100)
        for _ in range(2):
            connections = [fresh(), fresh()]
            pool.keep(HERE, connections[0])
            pool.keep(THERE, connections[1], 8)
            await trio.sleep(DEFAULT_IDLE_S + 1.1)
            assert [is_closed(connection.stream) for connection in connections] == [True, False]
            await trio.sleep(4)
            assert [is_closed(connection.stream) for connection in connections] == [True, True]
            assert pool.idle_connections == 0
            await trio.sleep(100)
        nursery.cancel_scope.cancel()


async def test_the_reaper_sleeps_while_nothing_waits(mock_clock: trio.testing.MockClock) -> None:
    async def seconds_to_wake() -> float:
        await trio.testing.wait_all_tasks_blocked()
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    pool = Pool()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.reap)
        for _ in range(2):
            assert await seconds_to_wake() == inf
            pool.keep(HERE, fresh())
            assert await seconds_to_wake() == pytest.approx(1)
            mock_clock.jump(DEFAULT_IDLE_S + 1)
        assert await seconds_to_wake() == inf
        assert pool.idle_connections == 0
        nursery.cancel_scope.cancel()


async def test_closing_the_pool_closes_all_that_waits() -> None:
    pool = Pool()
    connections = [fresh() for _ in range(4)]
    for connection, origin in zip(connections, [HERE, HERE, THERE, HERE], strict=True):
        pool.keep(origin, connection)
    assert pool.idle_connections == 4
    with trio.testing.assert_no_checkpoints():
        pool.close_nowait()
    assert pool.idle_connections == 0
    assert all(is_closed(connection.stream) for connection in connections)
    assert pool.take(HERE) is None
