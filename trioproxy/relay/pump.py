"""The pump: reads the origin, frames what it reads and hands it over. It runs in the request's nursery, beside the
shaper.

Nothing is awaited between a read and its hand-over, and the channel has no buffer: while the client does not take,
nothing is read. The pump never raises: a fault, also an expired clock, is the last item through the channel.

Why a task of its own: the shaper has to write a heartbeat while the origin is silent, and must not interrupt a read
for it.
"""

from dataclasses import dataclass
from math import inf

import trio

from trioproxy.errors import UpstreamErrorInStream, UpstreamFault, UpstreamFirstContentTimeout, UpstreamIdleTimeout
from trioproxy.relay.call import Timing
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.telemetry.gaps import Gaps
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire.continuing import Transcript
from trioproxy.wire.dialect import StreamWatch
from trioproxy.wire.sse import Framer
from trioproxy.wire.timing_filter import TimingFilter
from trioproxy.wire.usage_filter import UsageFilter

LINGER_S = 0.05
"""How long the rest of an answer is waited for once the stream has said that it is over."""


class Piece:
    """Bytes of the body, in order, and where the stream stood behind them.

    Attributes:
        at_border: a comment may be written behind this piece.
        is_last: the stream is over with it, whatever the origin does next.
        may_wait: it may be held for a moment to be written with others; only where that is asked for at all.
        events: how many end in it; known if it may wait.
    """

    __slots__ = ("at_border", "data", "events", "is_last", "may_wait")

    def __init__(self, data: bytes, at_border: bool = False, is_last: bool = False) -> None:
        self.data = data
        self.at_border = at_border
        self.is_last = is_last
        self.may_wait = False
        self.events = 0


@dataclass(frozen=True, slots=True)
class End:
    """The last item, unless a piece was: the answer is complete by its framing, or `fault` says what broke it off."""

    fault: UpstreamFault | None = None


class Follower:
    """What is known of an event stream: its borders (`framer`) and its meaning (`watch`). Written by the pump only.

    `transcript` is there if the stream may be gone on with elsewhere, `usage_filter` if its usage is not for the
    client, and `timing_filter` if the client is told how it went: they say what may be shown. `shows_all`: none of them
    is there, and all is shown as it comes.
    """

    __slots__ = ("framer", "shows_all", "timing_filter", "transcript", "usage_filter", "watch")

    def __init__(
        self,
        watch: StreamWatch,
        transcript: Transcript | None = None,
        usage_filter: UsageFilter | None = None,
        timing_filter: TimingFilter | None = None,
    ) -> None:
        self.watch = watch
        self.framer = Framer(watch, note_last=watch.note_last)
        self.transcript = transcript
        self.usage_filter = usage_filter
        self.timing_filter = timing_filter
        self.shows_all = transcript is None and usage_filter is None and timing_filter is None

    def shown(self, data: bytes) -> bytes:
        """What may be shown now that these bytes have come."""
        if self.usage_filter is not None:
            data = self.usage_filter.feed(data)
        if self.transcript is not None:
            data = self.transcript.feed(data)
        return data if self.timing_filter is None else self.timing_filter.feed(data)

    def rest(self) -> bytes:
        """What is held and may be shown now, as no more comes."""
        data = b"" if self.usage_filter is None else self.usage_filter.finish()
        if self.transcript is not None:
            data = (self.transcript.feed(data) if data else b"") + self.transcript.finish()
        if self.timing_filter is not None:
            data = (self.timing_filter.feed(data) if data else b"") + self.timing_filter.finish()
        return data

    @property
    def shows_whole_events(self) -> bool:
        """What was shown so far ends at an event's border, whatever came; False if it need not."""
        if self.timing_filter is not None and self.timing_filter.shows_whole_events:
            return True
        if self.transcript is not None and self.transcript.shows_whole_events:
            return True
        return self.usage_filter is not None and self.usage_filter.shows_whole_events

    @property
    def events(self) -> int:
        """How many went by that may be shown."""
        return self.framer.events - (0 if self.usage_filter is None else self.usage_filter.left_out)


class Pump:
    """Reads one attempt into a channel. `follower` is None for an answer that is no event stream, or a compressed one.

    Attributes:
        first_content_at: when a stream's first content was read, trio's clock.
        drained: set once the pump reads no more.
    """

    def __init__(self, attempt: Attempt, follower: Follower | None, timing: Timing, exchange: Exchange) -> None:
        self._attempt = attempt
        self._follower = follower
        self._timing = timing
        self._exchange = exchange
        self._flow = exchange.flow
        if follower is not None and exchange.gaps is None:
            exchange.gaps = Gaps()
        self._gaps = exchange.gaps
        self._events_before = exchange.events  # of other attempts, behind whose content this one goes on
        self._heard = inf  # since when no event has come, less the time we waited for the client; inf before the first
        self._read_at = 0.0
        self._events = 0
        self._handed_over = 0  # how many of them, where pieces may wait
        self._has_content = False
        self._is_sooner = False  # the deadline has come nearer than the scope's
        self.first_content_at: float | None = None
        self.drained = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def events(self) -> int:
        """How many went by that may be shown, those of the attempts before this one among them."""
        return self._events_before + (0 if self._follower is None else self._follower.events)

    def stop(self) -> None:
        """Pump no more: nobody takes it."""
        self._scope.cancel(reason="another try is made")

    async def run(self, channel: trio.MemorySendChannel[Piece | End]) -> None:
        """Pump until the origin's end, a fault, or a last piece. If cancelled, the attempt's owner closes it."""
        try:
            with self._scope, channel:
                end = await self._pump(channel)
                if end is not None:
                    await channel.send(end)
        finally:
            self.drained.set()

    async def _pump(self, channel: trio.MemorySendChannel[Piece | End]) -> End | None:
        waiting: Piece | None = None
        while True:
            if waiting is not None:  # the clock fired while we waited for the client: that time is not the origin's
                await channel.send(waiting)
                if waiting.is_last:
                    await self._drain()
                    return None
                waiting = None
                self._heard += trio.current_time() - self._read_at
            # One scope for many reads: it is not moved at each event (that costs more than all other bookkeeping of an
            # event), it looks when it fires and is set anew. Reads and hand-overs are atomic: nothing is lost by that.
            self._is_sooner = False
            with trio.CancelScope(deadline=self._deadline()):
                while not self._is_sooner:
                    try:
                        data = await self._attempt.read()
                    except UpstreamFault as fault:
                        return End(None if self._is_over else fault)
                    if not data:
                        return self._finish()
                    waiting = self._follow(data)
                    if waiting is None:
                        if self._flow.on == PROXY:
                            self._flow.turn(UPSTREAM, trio.current_time())
                        continue
                    await channel.send(waiting)
                    if waiting.is_last:
                        await self._drain()
                        return None
                    waiting = None
                    self._heard += trio.current_time() - self._read_at
            if self._has_told_error:
                name = self._attempt.endpoint.name
                return End(UpstreamErrorInStream(f"The upstream '{name}' reported an error in its stream."))
            if waiting is None and trio.current_time() >= self._deadline():
                return End(None if self._is_over else self._expired())

    def _follow(self, data: bytes) -> Piece | None:
        """What is to be handed over of the bytes that were read; None for nothing yet."""
        self._read_at = trio.current_time()
        if self._flow.on == UPSTREAM:  # else it is the client that is waited for, whatever has come meanwhile
            self._flow.turn(PROXY, self._read_at)
        follower = self._follower
        if follower is None:
            self._is_sooner = not self._has_content
            self._has_content = True
            self._heard = self._read_at
            return Piece(data)
        has_content = self._has_content
        follower.framer.feed(data)
        if follower.framer.events != self._events:
            self._note_event(follower)
        is_last = follower.watch.saw_done and follower.watch.ends_at_once
        if follower.shows_all:
            piece = Piece(data, follower.framer.at_border, is_last)
            if self._timing.coalesce_s:
                self._let_wait(piece, follower, has_content)
            return piece
        shown = follower.shown(data)
        if self._has_told_error:  # it has failed, whatever comes behind it
            self._is_sooner, is_last = True, False
        elif is_last:
            shown += follower.rest()
        at_border = follower.framer.at_border or follower.shows_whole_events
        if not shown and not is_last:
            return None
        piece = Piece(shown, at_border, is_last)
        if self._timing.coalesce_s:
            self._let_wait(piece, follower, has_content)
        return piece

    def _let_wait(self, piece: Piece, follower: Follower, has_content: bool) -> None:
        """Say whether a piece may wait: it is neither the first content (`has_content`: that came before it) nor the
        stream's end."""
        piece.may_wait = has_content and not follower.watch.saw_done
        piece.events = follower.framer.events - self._handed_over
        self._handed_over = follower.framer.events

    def _finish(self) -> End:
        if self._follower is not None:
            self._follower.framer.finish()
        return End()

    async def _drain(self) -> None:
        """Behind the terminal: read the origin's end, so that its connection can be used again, but don't wait long."""
        with trio.move_on_after(LINGER_S):
            try:
                while await self._attempt.read():
                    pass
            except UpstreamFault:
                return  # the stream was complete; the connection is not used again

    @property
    def _has_told_error(self) -> bool:
        """Whether the origin said that it failed, where another one could go on."""
        follower = self._follower
        return follower is not None and follower.transcript is not None and follower.transcript.saw_error

    @property
    def _is_over(self) -> bool:
        return self._follower is not None and self._follower.watch.saw_done and not self._has_told_error

    def _note_event(self, follower: Follower) -> None:
        """The time since the last event starts anew; comments and pieces of an unfinished event do not count."""
        self._is_sooner = self._events == 0 or follower.watch.saw_done
        events, exchange = follower.framer.events, self._exchange
        assert self._gaps is not None
        if self._events:
            self._gaps.note(self._read_at - self._heard, events - self._events)
        elif events > 1:
            self._gaps.note(0.0, events - 1)
        self._events = events
        self._heard = exchange.last_event_at = self._read_at
        exchange.events = self._events_before + follower.events
        if not self._has_content and follower.watch.saw_content and follower.watch.first_error is None:
            self._has_content = True
            self.first_content_at = self._read_at
            if exchange.first_content_at is None:
                exchange.first_content_at = self._read_at
            self._attempt.note_first_content(self._read_at)

    def _deadline(self) -> float:
        if self._is_over:
            return self._heard + LINGER_S
        idle = self._heard + self._timing.idle_s
        if self._has_content:
            return idle
        return min(self._attempt.started + self._timing.first_content_s, idle)

    def _expired(self) -> UpstreamFault:
        name = self._attempt.endpoint.name
        if trio.current_time() < self._heard + self._timing.idle_s:
            return UpstreamFirstContentTimeout(f"The upstream '{name}' sent no content in time.")
        return UpstreamIdleTimeout(f"The upstream '{name}' was silent for too long.")
