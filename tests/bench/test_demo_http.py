"""HTTP/1.1 on one stream."""

import pytest
import trio
import trio.testing

from trioproxy.bench.demo_http import IDLE_S, MAX_AHEAD_BYTES, Connection, Gone, Malformed

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"


def pair() -> tuple[trio.abc.Stream, Connection]:
    peer, mine = trio.testing.memory_stream_pair()
    return peer, Connection(mine)


async def test_a_head_waits_for_the_first_bytes_of_its_body() -> None:
    peer, connection = pair()
    await peer.send_all(GET)
    await connection.receive_head()
    connection.begin(200, ())
    await connection.write(b"abc")
    data = await peer.receive_some(1000)
    assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"3\r\nabc\r\n")


async def test_a_flush_writes_the_head_alone_and_only_once() -> None:
    peer, connection = pair()
    await peer.send_all(GET)
    await connection.receive_head()
    connection.begin(200, ())
    await connection.flush()
    await connection.flush()
    data = await peer.receive_some(1000)
    assert data.count(b"HTTP/1.1 200") == 1 and data.endswith(b"\r\n\r\n")


async def test_a_peer_that_waits_is_told_to_go_on() -> None:
    peer, connection = pair()
    await peer.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    await connection.receive_head()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.receive_piece)
        assert (await peer.receive_some(1000)).startswith(b"HTTP/1.1 100")
        await peer.send_all(b"ab")


async def test_what_a_peer_sends_ahead_is_its_next_request() -> None:
    peer, connection = pair()
    await peer.send_all(GET)
    await connection.receive_head()
    assert await connection.receive_piece() is None
    with trio.move_on_after(0.01):
        await peer.send_all(GET.replace(b"/a", b"/b"))
        await connection.wait_gone()
    connection.begin(204, ())
    await connection.finish()
    assert connection.can_go_on()
    head = await connection.receive_head()
    assert head is not None and head.target == b"/b"


async def test_a_peer_that_leaves_is_seen_and_one_that_sends_too_much_ahead_too() -> None:
    for data in (b"", b"x" * (2 * MAX_AHEAD_BYTES)):
        peer, connection = pair()
        await peer.send_all(GET + data)
        await connection.receive_head()
        if not data:
            await peer.aclose()
        with trio.fail_after(1):
            await connection.wait_gone()


async def test_a_silent_peer_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    _peer, connection = pair()
    with pytest.raises(Gone):
        await connection.receive_head()
    assert trio.current_time() == pytest.approx(IDLE_S)


async def test_a_body_that_stops_half_way_is_a_peer_that_left() -> None:
    peer, connection = pair()
    await peer.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\nabc")
    await peer.aclose()
    await connection.receive_head()
    assert await connection.receive_piece() == b"abc"
    with pytest.raises(Gone):
        await connection.receive_piece()


@pytest.mark.parametrize(("data", "status"), [(b"\x00\xff\r\n\r\n", 400), (b"GET /" + b"a" * 70_000, 431)])
async def test_bytes_that_are_not_http_have_a_status(data: bytes, status: int) -> None:
    peer, connection = pair()
    await peer.send_all(data)
    with pytest.raises(Malformed) as caught:
        await connection.receive_head()
    assert caught.value.status == status
    assert connection.can_answer


async def test_a_connection_of_http_1_0_ends_with_its_answer() -> None:
    peer, connection = pair()
    await peer.send_all(b"GET / HTTP/1.0\r\n\r\n")
    await connection.receive_head()
    await connection.receive_piece()
    connection.begin(200, ())
    await connection.write(b"abc")
    await connection.finish()
    assert not connection.can_go_on()
    assert (await peer.receive_some(1000)).endswith(b"\r\n\r\nabc")


async def test_a_reset_on_a_stream_that_is_no_socket_is_a_plain_close() -> None:
    _peer, connection = pair()
    connection.arm_reset()
