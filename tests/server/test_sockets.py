"""Listening sockets: one port for all slots, each slot somebody's, and nobody listens before he is there."""

import socket
from collections.abc import Iterator

import pytest

from trioproxy.server.sockets import BACKLOG, SlotSockets, authority, bind


@pytest.fixture
def slots() -> Iterator[SlotSockets]:
    sockets = SlotSockets("127.0.0.1", 0)
    yield sockets
    sockets.close()


def listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_shared_sockets_share_a_port_and_others_do_not() -> None:
    with bind("127.0.0.1", 0, shared=True) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port, shared=True):
            pass
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", port)


def test_a_second_service_on_the_port_is_refused_though_it_would_share(slots: SlotSockets) -> None:
    with pytest.raises(OSError, match="in use"):
        SlotSockets("127.0.0.1", slots.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
def test_all_slots_have_one_port(host: str) -> None:
    slots = SlotSockets(host, 0)
    sockets = [one for slot in range(3) for one in slots.for_worker(slot, 3)]
    assert {one.getsockname()[1] for one in sockets} == {slots.port}
    slots.close()


def test_every_socket_is_one_worker_s_whatever_their_number_was_and_is(slots: SlotSockets) -> None:
    most = 0
    for workers in (1, 4, 2, 3, 1, 7, 5, 7):
        most = max(most, workers)
        shares = [slots.for_worker(slot, workers) for slot in range(workers)]
        numbers = [one.fileno() for share in shares for one in share]
        assert len(numbers) == len(set(numbers)) == most
        assert all(shares)


def test_a_slot_that_is_new_does_not_listen_before_its_worker_is_there(slots: SlotSockets) -> None:
    (first,) = slots.for_worker(0, 1)
    assert listens(first)
    (second,) = slots.for_worker(1, 2)
    assert not listens(second)
    clients = [socket.create_connection(("127.0.0.1", slots.port)) for _ in range(20)]
    for client in clients:
        with client, first.accept()[0]:
            pass
    second.listen(BACKLOG)
    assert listens(second)


def test_what_is_closed_is_free_again(slots: SlotSockets) -> None:
    slots.for_worker(2, 3)
    slots.close()
    slots.close()
    with bind("127.0.0.1", slots.port):
        pass


@pytest.mark.parametrize(
    ("host", "here", "says"),
    [
        ("127.0.0.1", None, "127.0.0.1:80"),
        ("127.0.0.1", "proxy", "127.0.0.1:80"),
        ("::1", None, "[::1]:80"),
        ("0.0.0.0", None, "0.0.0.0:80"),
        ("0.0.0.0", "proxy.example", "proxy.example:80"),
        ("::", "fe80::1", "[fe80::1]:80"),
    ],
)
def test_an_address_as_it_stands_in_a_url(host: str, here: str | None, says: str) -> None:
    assert authority(host, 80, here) == says
