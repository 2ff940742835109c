"""The sending half of a WebSocket connection: who sends when, and signs of life."""

import pytest
import trio
import trio.testing
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import Event, Ping, Pong, TextMessage

from trioproxy.net.websocket import PING_EVERY_S, WebSocket
from trioproxy.wire.messages import Close, Codec, Message

WORD = Message(b"word", True)


class Slow(WebSocket):
    """Sends into a list; each send takes `takes_s`."""

    def __init__(self, takes_s: float = 0.0) -> None:
        super().__init__(Codec(is_client=False))
        self.takes_s = takes_s
        self.sent: list[bytes] = []
        self.peer = Connection(ConnectionType.CLIENT)

    async def _write(self, data: bytes) -> None:
        await trio.sleep(self.takes_s)
        self.sent.append(data)

    def heard(self) -> list[Event]:
        """What the other side makes of it."""
        self.peer.receive_data(b"".join(self.sent))
        self.sent.clear()
        return list(self.peer.events())

    def say(self, event: Event) -> None:
        """Let the other side say something."""
        self.take_in(bytes(self.peer.send(event)))


async def test_messages_go_one_at_a_time_and_answers_between_them(autojump_clock: trio.testing.MockClock) -> None:
    side = Slow(takes_s=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.tend)
        nursery.start_soon(side.send, WORD)
        await trio.sleep(0.5)
        assert side.is_sending
        side.say(Ping(payload=b"1"))
        side.say(Ping(payload=b"2"))
        await side.send(WORD)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    heard = side.heard()
    assert heard.count(TextMessage(data="word")) == 2
    assert [one for one in heard if isinstance(one, Pong)] == [Pong(payload=b"1"), Pong(payload=b"2")]


async def test_who_takes_bytes_at_once_is_never_found_sending() -> None:
    class Quick(Slow):
        async def _write(self, data: bytes) -> None:
            self.sent.append(data)

    side = Quick()
    async with trio.open_nursery() as nursery:
        for number in range(50):  # Trio runs a tick's tasks in random order
            nursery.start_soon(side.send, WORD)
            while len(side.sent) <= number:
                await trio.lowlevel.checkpoint()
                assert not side.is_sending


async def test_nothing_follows_half_a_frame(autojump_clock: trio.testing.MockClock) -> None:
    side = Slow(takes_s=1)
    with trio.move_on_after(0.5):
        await side.send(WORD)
    await side.send(WORD)
    await side.close(Close(1000))
    assert side.sent == []


async def test_who_gives_no_sign_of_life_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    side = Slow()
    await side.tend()
    assert trio.current_time() == pytest.approx(2 * PING_EVERY_S)
    assert side.heard() == [Ping()]


async def test_any_byte_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    side = Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.tend)
        for _ in range(100):
            await trio.sleep(PING_EVERY_S - 1)
            side.say(TextMessage(data="x"))
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("why", ["stuck", "not listened to"])
async def test_who_could_not_be_heard_is_not_given_up(
    autojump_clock: trio.testing.MockClock, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Slow()
    if why == "not listened to":
        monkeypatch.setattr(Slow, "is_listening", False)
    given_up = False

    async def tend() -> None:
        nonlocal given_up
        await side.tend()
        given_up = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tend)
        await trio.sleep(1.5 * PING_EVERY_S)
        if why == "stuck":
            side.takes_s = 1000
            nursery.start_soon(side.send, WORD)
        await trio.sleep(500)
        assert not given_up
        nursery.cancel_scope.cancel()
