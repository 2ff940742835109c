"""A client's WebSocket, once its request's route takes it: what its connection reads goes in by `feed`, and waits,
bounded, until the app asks for it.

The connection's reader never waits here: it asks `has_room` before it reads on, so that a departure stays visible. A
message counts as waiting until the app asks for the next one: what it still sends on has not left us.
"""

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from trioproxy.net.websocket import MAX_ANSWERS_BYTES, WebSocket
from trioproxy.wire.headers import Headers
from trioproxy.wire.messages import Close, Codec, Message

MAX_WAITING_BYTES = 65536
"""How much may wait to be taken before reading stops. A message that has begun is read to its end all the same."""
_COST_BYTES = 64
"""What a message counts beside its bytes: empty ones take room too."""


class ClientSocket(WebSocket):
    """The app's end. It stands in the request's scope as the extension `trioproxy.socket`.

    Attributes:
        taken: an event that is set, and renewed, whenever the app took something.
        is_over: nothing more comes, and the client said so or broke the rules: its leaving is no departure.
    """

    def __init__(
        self, switch: Callable[[bytes | None, Headers], Awaitable[None]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        super().__init__(Codec(is_client=False))
        self._switch = switch
        self._put = write
        self._waiting: deque[Message | Close] = deque()
        self._waiting_bytes = 0
        self._in_hand_bytes = 0
        self._arrived = trio.Event()
        self.taken = trio.Event()
        self.is_over = False

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return self._waiting_bytes < MAX_WAITING_BYTES and self._codec.out_bytes < MAX_ANSWERS_BYTES

    @property
    def is_listening(self) -> bool:
        return self.has_room

    async def accept(self, subprotocol: bytes | None, headers: Headers) -> None:
        """Answer the handshake; `headers` go with the answer. Raises BadRequest if the client did not wait for that."""
        await self._switch(subprotocol, headers)

    def feed(self, data: bytes) -> None:
        """What the client sent, b"" for its end of file. Called by the connection's reader."""
        for one in self.take_in(data):
            self._waiting.append(one)
            if isinstance(one, Message):
                self._waiting_bytes += len(one.data) + _COST_BYTES
            else:
                self.is_over = bool(data)
        self._arrived.set()

    async def receive(self) -> Message | Close:
        """The next message; the Close is the last thing that comes. If cancelled, nothing was taken."""
        if self._in_hand_bytes:
            self._waiting_bytes -= self._in_hand_bytes
            self._in_hand_bytes = 0
            self._wake_reader()
        while not self._waiting:
            self._arrived = trio.Event()
            await self._arrived.wait()
        one = self._waiting.popleft()
        if isinstance(one, Message):
            self._in_hand_bytes = len(one.data) + _COST_BYTES
        return one

    def forget(self) -> None:
        """Let go of the connection: it and we hold each other, and a ring would be left to the garbage collector."""
        del self._switch, self._put

    async def _write(self, data: bytes) -> None:
        await self._put(data)
        self._wake_reader()

    def _wake_reader(self) -> None:
        taken, self.taken = self.taken, trio.Event()
        taken.set()
