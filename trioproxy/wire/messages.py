"""WebSocket messages ↔ bytes: one side of a connection, behind its handshake. PURE. The only door to websockets.

The package's core is used, on both sides of the proxy, and nothing else of it: its connections read ahead into queues,
follow redirects and ask the environment for proxies. Fragments are joined; text stays bytes, and whether it is UTF-8
is for its reader to say. There are no extensions.

Sources: RFC 6455 sections 5.4 (fragments), 5.5 (control frames), 7 (closing).
"""

from typing import NamedTuple

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
NORMAL, GOING_AWAY, PROTOCOL_ERROR, REFUSED, TOO_LARGE, FAILED, RESTARTS = 1000, 1001, 1002, 1008, 1009, 1011, 1012
VANISHED = 1006
"""The code of a connection that ended without a closing frame; it never stands in one."""
_UNSAID = frozenset({1005, VANISHED, 1015})
_MAX_REASON_BYTES = 123


class Message(NamedTuple):
    """A whole message."""

    data: bytes
    is_text: bool


class Close(NamedTuple):
    """The end, as the other side told it; nothing comes behind it."""

    code: int
    reason: str = ""

    def passed_on(self) -> "Close":
        """What is said on the other side of a proxy: the same, but for codes that cannot be said."""
        return Close(FAILED) if self.code in _UNSAID else self


class Codec:
    """One side's bytes. What was fed may have to be answered (pings, closing frames): `take` has the bytes to be sent.

    Attributes:
        failed_with: the code with which the other side was told that it broke the rules, if it did.
        is_over: the Close has come; nothing comes behind it.
        out_bytes: how many bytes wait in `take`.
    """

    def __init__(self, *, is_client: bool) -> None:
        self._protocol = Protocol(Side.CLIENT if is_client else Side.SERVER, max_size=MAX_MESSAGE_BYTES)
        self._begun = bytearray()
        self._is_text = False
        self.is_over = False
        self._out: list[bytes] = []
        self.out_bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close."""
        return self._protocol.state is State.OPEN

    @property
    def failed_with(self) -> int | None:
        protocol = self._protocol
        if protocol.parser_exc is None or protocol.close_rcvd is not None or protocol.close_sent is None:
            return None
        return int(protocol.close_sent.code)

    def feed(self, data: bytes) -> list[Message | Close]:
        """What came, b"" for the end of file, as messages. The last thing that ever comes is one Close."""
        if self.is_over:
            return []
        protocol = self._protocol
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        found: list[Message | Close] = []
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            self._take_frame(frame, found)
        if protocol.close_rcvd is not None:
            self.is_over = True
            found.append(Close(int(protocol.close_rcvd.code), protocol.close_rcvd.reason))
        elif protocol.parser_exc is not None or not data:
            self.is_over = True
            found.append(Close(VANISHED))
        self._collect()
        return found

    def _take_frame(self, frame: Frame, found: list[Message | Close]) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if not frame.fin or self._begun:
            self._begun += frame.data
        if frame.fin:
            found.append(Message(bytes(self._begun or frame.data), self._is_text))
            self._begun = bytearray()

    def send(self, message: Message) -> None:
        """Have a message in `take`; none once the closing has begun."""
        if self.is_open:
            if message.is_text:
                self._protocol.send_text(message.data)
            else:
                self._protocol.send_binary(message.data)
            self._collect()

    def ping(self) -> None:
        """Have a ping in `take`."""
        if self.is_open:
            self._protocol.send_ping(b"")
            self._collect()

    def close(self, close: Close) -> None:
        """Have a closing frame in `take`, unless one was sent. The reason is cut to what fits."""
        if self.is_open:
            reason = close.reason.encode()[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
            self._protocol.send_close(CloseCode(close.code) if close.code < 3000 else close.code, reason)
            self._collect()

    def _collect(self) -> None:
        for piece in self._protocol.data_to_send():
            self._out.append(piece)  # an empty one says that the connection may end: its owner's business
            self.out_bytes += len(piece)

    def take(self) -> bytes:
        """The bytes to be sent, once."""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.out_bytes = 0
        return out
