"""The copier: passes on an answer that is no event stream (JSON, audio, files, a compressed stream) as it comes.

Its end is honest by HTTP's own framing: a body that broke off ends with the connection, never with a clean end.
"""

from collections import deque
from typing import Final

import trio

from trioproxy.errors import ProxyError
from trioproxy.relay.call import Call, Downstream
from trioproxy.relay.pump import End, Piece
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers, is_encoded
from trioproxy.wire.usage import Usage, usage_at_end, usage_of

LAST_BYTES: Final = 65536
"""How much of an answer's end is kept, where it may tell its usage: that stands behind what was said."""


def tells_usage(call: Call, attempt: Attempt) -> bool:
    """Whether an answer may say what this request took. One to a request that was not read may tell of an older one."""
    return call.json is not None and attempt.status < 300 and not is_encoded(attempt.headers)


class Copier:
    """Writes one answer's bytes to one client."""

    def __init__(self, call: Call, attempt: Attempt, downstream: Downstream) -> None:
        self._call = call
        self._attempt = attempt
        self._downstream = downstream
        self._ending = _Ending() if tells_usage(call, attempt) else None

    async def run(self, channel: trio.MemoryReceiveChannel[Piece | End], status: int, headers: Headers) -> None:
        """Relay until the end. Raises UpstreamFault while nothing of the body went out, so that it becomes a status."""
        downstream, flow = self._downstream, self._call.exchange.flow
        item = await channel.receive()
        if isinstance(item, End) and item.fault is not None:
            raise item.fault
        downstream.head(status, headers)
        while not isinstance(item, End):
            if self._ending is not None:
                self._ending.add(item.data)
            await downstream.send(item.data)
            flow.turn(UPSTREAM, trio.current_time())
            item = await channel.receive()
            if flow.on == UPSTREAM:  # it was there already
                flow.turn(PROXY, trio.current_time())
        if item.fault is not None:
            self._attempt.note_fault(item.fault)
            await self.break_off(item.fault)
        else:
            if self._ending is not None:
                self._call.exchange.usage = self._ending.usage(self._call.dialect)
            await downstream.finish()

    async def break_off(self, error: ProxyError) -> None:
        """Let the answer end without an honest end; there is no place in such a body for words."""
        self._downstream.abort()
        self._call.exchange.fail(error)


class _Ending:
    """The last pieces of a body, `LAST_BYTES` of them and the rest of the piece that those begin in."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_whole = True

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) >= LAST_BYTES:
            self._size -= len(self._pieces.popleft())
            self._is_whole = False

    def usage(self, dialect: Dialect) -> Usage | None:
        """What the body says, which is over."""
        last = b"".join(self._pieces)
        return usage_of(last, dialect) if self._is_whole else usage_at_end(last, dialect)
