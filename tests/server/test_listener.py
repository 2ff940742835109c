"""Binding and accepting."""

import errno
import socket

import pytest
import trio

from tests.harness.house import ListLog
from trioproxy.config import load
from trioproxy.net.tcp import UNACKNOWLEDGED_S
from trioproxy.server.build import House
from trioproxy.server.sockets import bind


def test_a_port_in_use_is_an_error_and_not_a_second_listener() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])


def test_ipv6_is_bound_as_such() -> None:
    with bind("::1", 0) as listening:
        assert listening.family == socket.AF_INET6


def test_its_connections_are_guarded_against_peers_that_vanish() -> None:
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        with listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * UNACKNOWLEDGED_S


async def test_no_file_descriptor_left_is_waited_out_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    log = ListLog()
    house = House(load(flags={"upstream.base_url": "http://origin/v1"}, environ={}), log)
    tries = 0

    async def accept(self: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise OSError(errno.ECONNABORTED, "gone already")
        if tries < 5:
            raise OSError(errno.EMFILE, "too many open files")
        return await trio.sleep_forever()

    monkeypatch.setattr("trio._socket._SocketType.accept", accept)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.listener.accept, bind("127.0.0.1", 0), nursery)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert tries == 5
    assert sum(line["event"] == "no room for another connection" for line in log.lines) == 1


async def test_what_waits_in_the_queue_is_served_when_accepting_ends() -> None:
    house = House(load(flags={"upstream.base_url": "http://origin/v1"}, environ={}), ListLog())
    listening = bind("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        clients = [await trio.to_thread.run_sync(socket.create_connection, listening.getsockname()) for _ in range(20)]
        with trio.CancelScope() as accepting:
            accepting.cancel()
            await house.listener.accept(listening, nursery)
        for client in clients:
            with client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n")
                assert (await trio.to_thread.run_sync(client.recv, 65536)).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()
    assert house.listener.tally.opened == 20


async def test_what_was_taken_from_the_queue_is_waited_for() -> None:
    house = House(load(flags={"upstream.base_url": "http://origin/v1"}, environ={}), ListLog())
    listening = bind("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        client = await trio.to_thread.run_sync(socket.create_connection, listening.getsockname())
        with trio.CancelScope() as accepting:
            accepting.cancel()
            await house.listener.accept(listening, nursery)
        with client, trio.move_on_after(0.05) as waiting:
            await house.listener.wait_empty()
        assert waiting.cancelled_caught
        with trio.fail_after(5):
            await house.listener.wait_empty()
