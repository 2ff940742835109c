"""An origin's WebSocket on its connection: what is read when, and what came with the head."""

import trio
import trio.testing
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from trioproxy.net.tcp import close_nowait
from trioproxy.upstream.origin_socket import OriginSocket
from trioproxy.wire.messages import VANISHED, Close, Message


def frames(*events: TextMessage | CloseConnection | Ping) -> bytes:
    peer = Connection(ConnectionType.SERVER)
    return b"".join(bytes(peer.send(event)) for event in events)


def word(number: int) -> TextMessage:
    return TextMessage(data=f"word{number}")


async def test_what_came_with_the_head_is_read_first() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    side = OriginSocket(ours, frames(word(1), word(2)), None)
    await theirs.send_all(frames(word(3), CloseConnection(code=4000)))
    heard = [await side.receive() for _ in range(5)]
    assert heard[:3] == [Message(b"word%d" % number, True) for number in (1, 2, 3)]
    assert heard[3:] == [Close(4000), Close(VANISHED)]


async def test_nothing_is_read_that_nobody_asks_for(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    side = OriginSocket(ours, b"", None)
    assert not side.is_listening
    with trio.move_on_after(60) as patience:
        await theirs.send_all(frames(word(1)))
    assert patience.cancelled_caught


async def test_a_broken_connection_is_an_end_and_no_error() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    side = OriginSocket(ours, b"", None)
    close_nowait(theirs)
    await side.send(Message(b"x", False))
    assert await side.receive() == await side.receive() == Close(VANISHED)


async def test_a_flood_of_pings_is_read_no_further_than_it_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    side = OriginSocket(ours, b"", None)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await theirs.send_all(frames(*[Ping(payload=b"x" * 125)] * 100))
            sent += 100 * 127

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        nursery.start_soon(side.receive)
        await trio.sleep(1)
        assert 65536 < sent + 127 * 100 < 2 * 65536
        peer = Connection(ConnectionType.SERVER)
        peer.receive_data(bytes(await theirs.receive_some(1_000_000)))
        assert Pong(payload=b"x" * 125) in list(peer.events())
        nursery.cancel_scope.cancel()
