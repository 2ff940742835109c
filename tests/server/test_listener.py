"""Binding and accepting."""

import errno
import socket

import pytest
import trio

from tests.harness.house import ListLog
from trioproxy.config import load
from trioproxy.server.build import House
from trioproxy.server.listener import bind


def test_a_port_in_use_is_an_error_and_not_a_second_listener() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])


def test_ipv6_is_bound_as_such() -> None:
    with bind("::1", 0) as listening:
        assert listening.family == socket.AF_INET6


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
    assert sum(line["event"] == "no room for another connection" for line in log.lines) == 3
