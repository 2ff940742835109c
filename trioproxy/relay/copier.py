"""The copier: passes on an answer that is no event stream (JSON, audio, files, a compressed stream) as it comes.

Its end is honest by HTTP's own framing: a body that broke off ends with the connection, never with a clean end.
"""

import trio

from trioproxy.errors import ProxyError
from trioproxy.relay.call import Call, Downstream
from trioproxy.relay.pump import End, Piece
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.headers import Headers


class Copier:
    """Writes one answer's bytes to one client."""

    def __init__(self, call: Call, attempt: Attempt, downstream: Downstream) -> None:
        self._call = call
        self._attempt = attempt
        self._downstream = downstream

    async def run(self, channel: trio.MemoryReceiveChannel[Piece | End], status: int, headers: Headers) -> None:
        """Relay until the end. Raises UpstreamFault while nothing of the body went out, so that it becomes a status."""
        downstream = self._downstream
        item = await channel.receive()
        if isinstance(item, End) and item.fault is not None:
            raise item.fault
        downstream.head(status, headers)
        while not isinstance(item, End):
            await downstream.send(item.data)
            item = await channel.receive()
        if item.fault is not None:
            self._attempt.note_fault(item.fault)
            await self.break_off(item.fault)
        else:
            await downstream.finish()

    async def break_off(self, error: ProxyError) -> None:
        """Let the answer end without an honest end; there is no place in such a body for words."""
        self._downstream.abort()
        self._call.exchange.fail(error)
