"""The line between the supervisor and one worker: a Unix socket pair, JSON messages both ways, in order.

Orders and questions go down, answers come up. The end of the line tells each side that the other is gone, whatever it
died of.
"""

import json
from enum import IntEnum
from math import inf
from typing import Any

import trio

from trioproxy.net.tcp import close_nowait

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_LENGTH_BYTES = 4

Message = dict[str, Any]


class Order(IntEnum):
    """What a worker is told to do; each is stricter than the one before it, and none is taken back."""

    WAIT = 0  # be ready, and accept nothing yet
    SERVE = 1
    RETIRE = 2  # another worker has this one's place: accept no more, idle connections may ask once more
    DRAIN = 3  # the service stops: no more work, streams may end
    STOP = 4  # end every stream now


class Orders:
    """The strictest order so far. `is_orphan`: the one who gives them is gone."""

    def __init__(self) -> None:
        self.current = Order.WAIT
        self.is_orphan = False
        self._changed = trio.Event()

    def give(self, order: Order) -> None:
        """Give an order; one that is not stricter than the current one changes nothing."""
        if order > self.current:
            self.current = order
            self._changed.set()
            self._changed = trio.Event()

    async def wait_for(self, least: Order) -> Order:
        """Wait for an order at least as strict as this, and return the current one."""
        while self.current < least:
            await self._changed.wait()
        return self.current


class Link:
    """One end of the line. One task receives; any task may send."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._received = bytearray()

    async def send(self, message: Message) -> None:
        """Send a message; says nothing if the other side is gone. If cancelled in the middle, the line is broken."""
        data = json.dumps(message).encode()
        async with self._sending:
            try:
                await self._stream.send_all(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def receive(self) -> Message | None:
        """The next message; None once the other side is gone. If cancelled, nothing is lost."""
        try:
            length = int.from_bytes(await self._peek(_LENGTH_BYTES), "big")
            if length > MAX_MESSAGE_BYTES:
                return None
            await self._peek(_LENGTH_BYTES + length)
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        data = self._received[_LENGTH_BYTES : _LENGTH_BYTES + length]
        del self._received[: _LENGTH_BYTES + length]
        message: Message = json.loads(data)
        return message

    async def _peek(self, size: int) -> bytes:
        """The first bytes of what was received, which stay there."""
        while len(self._received) < size:
            data = await self._stream.receive_some(65536)
            if not data:
                raise EOFError
            self._received += data
        return bytes(self._received[:size])

    def close_nowait(self) -> None:
        """Close our end, at once."""
        close_nowait(self._stream)


class Questions:
    """Questions asked over a link and not answered yet."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._next = 0
        self._waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._is_given_up = False

    async def ask(self, what: str, timeout_s: float = inf, **said: Any) -> Any:
        """The answer, or None if none came in time or the other side is gone. `said` is what the question needs."""
        if self._is_given_up:
            return None
        self._next += 1
        number, arrived = self._next, trio.Event()
        box: list[Any] = []
        self._waiting[number] = (arrived, box)
        try:
            with trio.move_on_after(timeout_s):
                await self._link.send({"ask": what, "number": number, "said": said})
                await arrived.wait()
        finally:
            del self._waiting[number]
        return box[0] if box else None

    def take(self, message: Message) -> None:
        """Give an answer to whoever waits for it; one that comes too late is dropped."""
        if message["answer"] in self._waiting:
            arrived, box = self._waiting[message["answer"]]
            box.append(message["value"])
            arrived.set()

    def give_up(self) -> None:
        """The other side is gone: nobody need wait, now or later."""
        self._is_given_up = True
        for arrived, _ in self._waiting.values():
            arrived.set()
