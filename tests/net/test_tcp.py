"""TCP streams on real sockets: nothing here waits on a clock, only for the kernel."""

import gc
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from tests.harness.wires import loopback, tls_client
from trioproxy.net.tcp import (
    PROBE_AFTER_S,
    PROBE_EVERY_S,
    PROBES,
    UNACKNOWLEDGED_S,
    TcpStream,
    close_nowait,
    guard_against_vanished_peers,
)


@contextmanager
def connected() -> Iterator[tuple[TcpStream, socket.socket]]:
    stream, peer = loopback()
    try:
        yield stream, peer
    finally:
        stream.close_nowait()
        peer.close()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def arrived(sock: socket.socket) -> None:
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(sock)


async def read_exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await arrived(peer)
        data += peer.recv(size - len(data))
    return data


def fill(stream: TcpStream) -> int:
    """Send until the kernel takes no more; how many bytes it took."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    total = 0
    while sent := stream.send_nowait(b"x" * 65536):
        total += sent
    return total


async def test_its_socket_sends_at_once_and_never_blocks() -> None:
    with connected() as (stream, _):
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not stream.socket.getblocking()


async def test_a_socket_that_refuses_its_options_is_taken_all_the_same() -> None:
    ours, peer = socket.socketpair(socket.AF_UNIX)  # has no TCP_NODELAY
    stream = TcpStream(ours)
    with peer:
        await stream.send_all(b"a")
        assert peer.recv(2) == b"a"
        stream.close_nowait()
        assert peer.recv(2) == b""


async def test_a_socket_that_refuses_to_be_reset_is_closed_all_the_same() -> None:
    class Refusing(socket.socket):
        def setsockopt(self, *args: object) -> None:
            raise OSError(22, "invalid argument")

    with connected() as (stream, peer):
        refusing = Refusing(fileno=stream.socket.detach())
        TcpStream(refusing).close_nowait(reset=True)
        assert refusing.fileno() == -1
        assert await read_to_the_end(peer) == b""


async def read_to_the_end(peer: socket.socket) -> bytes:
    data = b""
    while True:
        await arrived(peer)
        piece = peer.recv(65536)
        if not piece:
            return data
        data += piece


async def test_what_fits_is_sent_without_a_checkpoint() -> None:
    with connected() as (stream, peer):
        with trio.testing.assert_no_checkpoints():
            await stream.send_all(b"abc")
            await stream.send_all(bytearray(b"def"))
            await stream.send_all(memoryview(b"ghi"))
            await stream.send_all(b"")
        assert await read_exactly(peer, 9) == b"abcdefghi"


async def test_sending_now_takes_what_fits_and_no_more() -> None:
    with connected() as (stream, peer):
        taken = fill(stream)
        assert taken % 65536, "the last piece fitted only in part"
        assert stream.send_nowait(b"more") == 0
        assert await read_exactly(peer, taken) == b"x" * taken
        with trio.fail_after(5):
            await stream.wait_send_all_might_not_block()
        assert stream.send_nowait(b"more") == 4


async def test_a_large_send_arrives_whole_and_waits_for_its_reader() -> None:
    data = bytes(range(256)) * 20_000
    with connected() as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            assert await read_exactly(peer, len(data)) == data


async def test_a_send_that_waits_can_be_cancelled() -> None:
    with connected() as (stream, _):
        fill(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"more")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def test_a_read_brings_what_is_there_up_to_its_limit_then_the_end() -> None:
    with connected() as (stream, peer):
        peer.send(b"abcdef")
        await arrived(stream.socket)
        assert await stream.receive_some(4) == b"abcd"
        assert await stream.receive_some(4) == b"ef"
        peer.send(b"x" * 20_000)
        peer.close()
        await arrived(stream.socket)
        data = b""
        while piece := await stream.receive_some():
            assert len(piece) <= 16384
            data += piece
        assert data == b"x" * 20_000
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("read_before", [0, 4], ids=["nothing read yet", "the last read was full"])
async def test_a_read_waits_while_there_is_nothing(read_before: int) -> None:
    with connected() as (stream, peer):
        if read_before:
            peer.send(b"x" * read_before)
            await arrived(stream.socket)
            assert len(await stream.receive_some(read_before)) == read_before
        got: list[bytes] = []

        async def read() -> None:
            got.append(await stream.receive_some(4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            peer.send(b"abcd")
        assert got == [b"abcd"]


@pytest.mark.parametrize("read_before", [0, 4], ids=["nothing read yet", "the last read was full"])
async def test_a_cancelled_read_takes_nothing(read_before: int) -> None:
    with connected() as (stream, peer):
        peer.send(b"x" * read_before + b"abc")
        await arrived(stream.socket)
        if read_before:
            await stream.receive_some(read_before)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some(4)
        assert scope.cancelled_caught
        assert await stream.receive_some(4) == b"abc"


async def test_every_read_is_a_checkpoint() -> None:
    with connected() as (stream, peer):
        peer.send(b"x" * 8)
        await arrived(stream.socket)
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await stream.receive_some(4)


async def test_one_task_may_send_while_another_reads() -> None:
    with connected() as (stream, peer):
        taken = fill(stream)
        got: list[bytes] = []

        async def read() -> None:
            got.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(stream.send_all, b"y" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            peer.send(b"hi")
            assert (await read_exactly(peer, taken + 100_000)).endswith(b"xy" + b"y" * 99_999)
        assert got == [b"hi"]


WAITS: dict[str, Callable[[TcpStream], Awaitable[object]]] = {
    "receive_some": lambda stream: stream.receive_some(),
    "send_all": lambda stream: stream.send_all(b"x" * 100),
    "wait_send_all_might_not_block": lambda stream: stream.wait_send_all_might_not_block(),
}


@pytest.mark.parametrize("way", WAITS)
async def test_who_waits_while_it_is_closed_here_is_told_so(way: str) -> None:
    with connected() as (stream, _):
        fill(stream)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await WAITS[way](stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            stream.close_nowait()


async def test_a_closed_stream_says_so_to_everybody() -> None:
    with connected() as (stream, _):
        stream.close_nowait()
        for wait in WAITS.values():
            with pytest.raises(trio.ClosedResourceError):
                await wait(stream)
        with pytest.raises(trio.ClosedResourceError):
            stream.send_nowait(b"x")
        with pytest.raises(trio.ClosedResourceError):
            stream.receive_nowait()
        assert stream.is_readable()
        assert stream.peer_has_left()
        stream.close_nowait(reset=True)
        await stream.aclose()
        await stream.send_eof()


async def test_closing_in_a_cancelled_scope_closes() -> None:
    with connected() as (stream, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert stream.socket.fileno() == -1
        assert await read_to_the_end(peer) == b""


async def test_the_peer_sees_an_end_of_file_behind_our_bytes() -> None:
    with connected() as (stream, peer):
        await stream.send_all(b"last words")
        stream.close_nowait()
        assert await read_to_the_end(peer) == b"last words"


async def test_the_peer_sees_a_reset_if_that_was_asked_for() -> None:
    with connected() as (stream, peer):
        stream.close_nowait(reset=True)
        with pytest.raises(ConnectionResetError):
            await read_to_the_end(peer)


async def test_unread_bytes_make_closing_a_reset() -> None:
    with connected() as (stream, peer):
        peer.send(b"nobody reads this")
        await arrived(stream.socket)
        stream.close_nowait()
        with pytest.raises(ConnectionResetError):
            await read_to_the_end(peer)


async def test_a_peer_s_reset_breaks_both_directions() -> None:
    with connected() as (stream, peer):
        reset(peer)
        await arrived(stream.socket)
        with pytest.raises(trio.BrokenResourceError, match="connection is broken"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        await stream.send_eof()


async def test_a_reset_reaches_who_waits_to_send() -> None:
    with connected() as (stream, peer):
        fill(stream)

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"more")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            reset(peer)


async def test_after_our_end_of_file_the_peer_may_go_on_sending() -> None:
    with connected() as (stream, peer):
        await stream.send_all(b"a")
        await stream.send_eof()
        assert await read_to_the_end(peer) == b"a"
        assert not stream.peer_has_left()
        peer.send(b"b")
        assert await stream.receive_some() == b"b"
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"c")


async def test_a_peer_that_has_left_is_seen_behind_its_unread_bytes() -> None:
    with connected() as (stream, peer):
        assert not stream.peer_has_left()
        peer.send(b"last words")
        await arrived(stream.socket)
        assert not stream.peer_has_left()
        peer.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            while not stream.peer_has_left():
                await trio.lowlevel.checkpoint()
        assert await stream.receive_some() == b"last words"
        assert await stream.receive_some() == b""


@pytest.mark.parametrize("sent_eof", [False, True], ids=["open", "after our end of file"])
async def test_a_peer_that_reset_or_closed_has_left(sent_eof: bool) -> None:
    for leave in (reset, socket.socket.close):
        with connected() as (stream, peer):
            if sent_eof:
                await stream.send_eof()
            leave(peer)
            await arrived(stream.socket)
            assert stream.peer_has_left()


async def test_it_is_readable_exactly_when_a_read_would_return() -> None:
    with connected() as (stream, peer):
        assert not stream.is_readable()
        assert stream.receive_nowait() is None
        peer.send(b"a")
        await arrived(stream.socket)
        assert stream.is_readable()
        assert stream.is_readable(), "looking takes nothing"
        assert stream.receive_nowait() == b"a"
        assert not stream.is_readable()
        peer.close()
        await arrived(stream.socket)
        assert stream.is_readable()
        assert stream.receive_nowait() == b""


async def test_a_reset_makes_it_readable() -> None:
    with connected() as (stream, peer):
        reset(peer)
        await arrived(stream.socket)
        assert stream.is_readable()
        with connected() as (other, other_peer):
            reset(other_peer)
            await arrived(other.socket)
            with pytest.raises(trio.BrokenResourceError):
                other.receive_nowait()


async def test_any_stream_is_closed_synchronously() -> None:
    with connected() as (stream, peer):
        secured = trio.SSLStream(stream, tls_client(), server_hostname="127.0.0.1")
        with trio.testing.assert_no_checkpoints():
            close_nowait(secured, reset=True)
        assert stream.socket.fileno() == -1
        with pytest.raises(ConnectionResetError):
            await read_to_the_end(peer)
    ours, theirs = trio.testing.memory_stream_pair()
    close_nowait(ours)
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")
    with pytest.raises(TypeError, match="_LockstepSendStream"):
        close_nowait(trio.testing.lockstep_stream_pair()[0].send_stream)  # type: ignore[arg-type]


async def test_a_reset_is_told_from_an_end_of_file_also_behind_unread_bytes() -> None:
    with connected() as (stream, peer):
        assert not stream.was_reset()
        peer.sendall(b"unread")
        peer.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            while not stream.peer_has_left():
                await trio.lowlevel.checkpoint()
        assert not stream.was_reset()
        reset(peer)
        with trio.fail_after(5):
            while not stream.was_reset():
                await trio.lowlevel.checkpoint()
        stream.close_nowait()
        assert stream.was_reset()


def test_an_accepted_connection_inherits_the_guard_of_its_listening_socket() -> None:
    with socket.socket() as listening:
        guard_against_vanished_peers(listening)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()) as client, listening.accept()[0] as accepted:
            assert guard_of(accepted) == (1, PROBE_AFTER_S, PROBE_EVERY_S, PROBES, 1000 * UNACKNOWLEDGED_S)
            assert PROBE_AFTER_S + PROBES * PROBE_EVERY_S == UNACKNOWLEDGED_S == 60
            assert guard_of(client)[0] == 0
            guard_against_vanished_peers(client, unacknowledged_s=None)
            assert guard_of(client) == (1, PROBE_AFTER_S, PROBE_EVERY_S, PROBES, 0)


def guard_of(sock: socket.socket) -> tuple[int, ...]:
    """Whether probes are sent, when, how often, how many, and the milliseconds that bytes may be on their way."""
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    is_on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return (is_on, *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names))


async def test_the_guard_also_ends_a_connection_whose_window_stays_shut() -> None:
    """Why an origin is not guarded so, and why the limit must not be below the time that clients have."""
    with connected() as (stream, _):
        guard_against_vanished_peers(stream.socket, unacknowledged_s=0.4)
        fill(stream)
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="timed out"):
            await stream.send_all(b"x" * 1_000_000)
        assert stream.was_reset()


async def test_nothing_is_left_to_the_garbage_collector(recwarn: pytest.WarningsRecorder) -> None:
    def leave_all() -> None:
        for stream, peer in [loopback() for _ in range(3)]:
            close_nowait(stream)
            peer.close()

    leave_all()
    gc.collect()
    assert [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []
