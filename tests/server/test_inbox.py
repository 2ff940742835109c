"""What a request has received waits in order, and the client's departure overtakes it."""

import pytest
import trio

from trioproxy.errors import RequestTimeout
from trioproxy.server.inbox import Inbox


def piece(body: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_messages_are_taken_in_order_and_counted_while_they_wait() -> None:
    inbox = Inbox(lambda: None, trio.lowlevel.checkpoint)
    await inbox.put(piece(b"ab"))
    await inbox.put(piece(b"c", more=False))
    assert inbox.waiting_bytes == 3
    taken = inbox.taken
    assert (await inbox.receive())["body"] == b"ab"
    assert taken.is_set() and inbox.waiting_bytes == 1
    assert (await inbox.receive())["more_body"] is False


async def test_the_departure_is_known_though_nobody_takes_the_body() -> None:
    inbox = Inbox(lambda: None, trio.lowlevel.checkpoint)
    await inbox.put(piece(b"x" * 100_000))
    await inbox.put({"type": "http.disconnect"})
    assert inbox.gone.is_set() and inbox.reason == "client_gone"
    assert (await inbox.receive())["type"] == "http.request"
    assert (await inbox.receive())["type"] == "http.disconnect"
    assert (await inbox.receive())["type"] == "http.disconnect"


async def test_a_cancelled_receive_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox(lambda: None, trio.lowlevel.checkpoint)
    with trio.move_on_after(1):
        await inbox.receive()
    await inbox.put(piece(b"kept"))
    assert (await inbox.receive())["body"] == b"kept"


async def test_bytes_are_waited_for_only_so_long_and_only_while_some_are_owed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inbox = Inbox(lambda: None, trio.lowlevel.checkpoint, patience_s=5)
    await trio.sleep(60)  # nobody asks
    await inbox.put(piece(b"ab"))
    await inbox.receive()
    for _ in range(2):
        with pytest.raises(RequestTimeout):
            await inbox.receive()
    assert trio.current_time() == 65
    inbox = Inbox(lambda: None, trio.lowlevel.checkpoint, patience_s=5)
    await inbox.put(piece(b"ab", more=False))
    await inbox.receive()
    with trio.move_on_after(60) as waiting:
        await inbox.receive()
    assert waiting.cancelled_caught and inbox.fault is None
