"""The sending half of a WebSocket connection, the same towards clients and origins: messages one at a time, pings and
answers to pings between them, and whether the other side is still there. How bytes come in is for who has them.
"""

import trio

from trioproxy.wire.messages import Close, Codec, Message

PING_EVERY_S = 20.0
"""How often the other side is asked whether it is there; so long it has for a sign of life."""
MAX_ANSWERS_BYTES = 65536
"""How much may wait to be sent in answer to pings before no more is read."""


class WebSocket:
    """One side's connection. Any task may send; `tend` has one of its own, for as long as the connection is used."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._sending = trio.Lock()
        self._has_answers = trio.Event()
        self._is_cut = False  # in the middle of a frame: if that is left, nothing can follow
        self._signs = 0

    @property
    def is_sending(self) -> bool:
        """Whether a send waits for the other side. One that is only about to begin does not count: it is not stuck."""
        return self._sending.locked() and self._is_cut

    @property
    def is_listening(self) -> bool:
        """Whether something that the other side sends would be noticed now."""
        return True

    @property
    def failed_with(self) -> int | None:
        """The code with which the other side was told that it broke the rules, if it did."""
        return self._codec.failed_with

    async def send(self, message: Message) -> None:
        """Send a message, and wait until it was taken. Silent once the closing has begun. If cancelled, the connection
        can only be closed."""
        async with self._sending:
            self._codec.send(message)
            await self._flush()

    async def close(self, close: Close) -> None:
        """Send a closing frame, unless one was sent; whatever waits to be sent goes out too."""
        async with self._sending:
            self._codec.close(close)
            await self._flush()

    async def tend(self) -> None:
        """Answer pings, and ask the other side for signs of life; returns once it gives none."""
        asked: int | None = None
        due = trio.current_time() + PING_EVERY_S
        while True:
            with trio.move_on_at(due):
                await self._has_answers.wait()
            if self._has_answers.is_set():
                self._has_answers = trio.Event()
            else:
                # Who takes no bytes has a clock of its own, and who is not listened to cannot be heard.
                if self._signs == asked and self.is_listening and not self.is_sending:
                    return
                asked = self._signs
                self._codec.ping()
                due = trio.current_time() + PING_EVERY_S
            async with self._sending:
                await self._flush()

    def take_in(self, data: bytes) -> list[Message | Close]:
        """What came from the other side, b"" for its end of file."""
        self._signs += 1
        found = self._codec.feed(data)
        if self._codec.out_bytes:
            self._has_answers.set()
        return found

    async def _write(self, data: bytes) -> None:
        """Send everything; says nothing of a connection that is broken: reading tells."""
        raise NotImplementedError

    async def _flush(self) -> None:
        data = self._codec.take()
        if data and not self._is_cut:
            self._is_cut = True
            await self._write(data)
            self._is_cut = False
