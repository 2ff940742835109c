"""The aggregator: folds an origin's stream into the whole answer that the client asked for, in the request's own task.

Nothing goes out before the stream has come to its honest end, so whatever goes wrong is told by a status. The pump's
clocks run as for a stream, and the client's departure ends the origin's work as that of a stream.
"""

import trio

from trioproxy.errors import ProxyError, UpstreamProtocolError, UpstreamTruncated
from trioproxy.relay.call import Call, Downstream
from trioproxy.relay.heads import total_time
from trioproxy.relay.pump import End, Follower, Piece, Pump
from trioproxy.relay.shaper import ErrorInside
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.fold import Fold
from trioproxy.wire.headers import Headers


class Aggregator:
    """Makes one whole answer of one stream."""

    def __init__(self, call: Call, attempt: Attempt, follower: Follower, pump: Pump, downstream: Downstream) -> None:
        self._fold = Fold(call.dialect)
        self._exchange = call.exchange
        self._flow = call.exchange.flow
        self._name = attempt.endpoint.name
        self._watch = follower.watch
        self._pump = pump
        self._downstream = downstream

    async def run(self, channel: trio.MemoryReceiveChannel[Piece | End], status: int, headers: Headers) -> None:
        """Read until the end and answer. Raises UpstreamFault or ErrorInside; then nothing went out."""
        is_last = False
        while not is_last:
            self._flow.turn(UPSTREAM, trio.current_time())
            item = await channel.receive()
            if self._flow.on == UPSTREAM:  # it was there already
                self._flow.turn(PROXY, trio.current_time())
            if isinstance(item, End):
                if item.fault is not None:
                    raise item.fault
                break
            self._fold.feed(item.data)
            is_last = item.is_last
        self._fold.finish()
        error = self._watch.first_error or self._fold.error
        if error is not None:
            raise ErrorInside(error)
        if not self._watch.may_end:
            raise UpstreamTruncated(f"The upstream '{self._name}' ended its stream without the final event.")
        answer = self._fold.answer()
        if answer is None:
            raise UpstreamProtocolError(f"The upstream '{self._name}' sent a stream that no answer can be made of.")
        length = (b"content-length", b"%d" % len(answer))
        self._downstream.head(status, [*headers, total_time(self._exchange), length])
        await self._downstream.finish(answer)
        if is_last:
            self._flow.turn(UPSTREAM, trio.current_time())
            await self._pump.drained.wait()

    async def break_off(self, error: ProxyError) -> None:
        """The head went out with the whole answer: there is nothing to break off but the connection."""
        self._downstream.abort()
