"""The shaper: takes what the pump read and writes it to the client, in the request's own task.

It decides when the head goes out, joins events into one write if that is wanted, writes a heartbeat when the origin is
silent, and ends the answer honestly: cleanly only if the origin ended cleanly *and* the dialect's terminal was seen.
Otherwise the client gets the dialect's error event and a connection that is cut. It changes, drops and adds nothing
else.
"""

import re

import trio

from trioproxy.errors import ProxyError, UpstreamFault, UpstreamTruncated
from trioproxy.relay.call import Call, Downstream, Timing
from trioproxy.relay.pump import End, Follower, Piece, Pump
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.upstream.attempt import Attempt
from trioproxy.wire import render
from trioproxy.wire.headers import Headers

MAX_HELD_BYTES = 65536
"""Comments before the first event are held with the head, up to this; then the head goes out."""

# openai-go before 3.43 takes the blank line behind a comment for an event, and dies of it.
_OLD_GO = re.compile(rb"OpenAI/Go (?:[0-2]\.|3\.(?:[0-9]|[1-3][0-9]|4[0-2])\.)")

Channel = trio.MemoryReceiveChannel[Piece | End]


class ErrorInside(Exception):
    """The first event of a 200 is an error object: the answer is an error after all. Carries the event's data."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the first event is an error")
        self.data = data


class Cut(Exception):
    """The origin died behind content, and another one could go on. Carries the fault."""

    def __init__(self, fault: UpstreamFault) -> None:
        super().__init__("the stream was cut")
        self.fault = fault


class Shaper:
    """Writes one event stream to one client."""

    def __init__(
        self,
        call: Call,
        attempt: Attempt,
        follower: Follower,
        pump: Pump,
        downstream: Downstream,
        timing: Timing,
        *,
        quiet_since: float | None = None,
        waits_for_content: bool = False,
    ) -> None:
        """`waits_for_content`: nothing goes out before the first content, as another try may still be made."""
        self._call = call
        self._attempt = attempt
        self._follower = follower
        self._framer = follower.framer
        self._watch = follower.watch
        self._transcript = follower.transcript
        self._pump = pump
        self._downstream = downstream
        self._timing = timing
        self._quiet_since = quiet_since or 0.0  # when the last bytes went out
        self._at_border = True
        self._waits_for_content = waits_for_content
        self._joining = timing.joining()
        self._waits = call.exchange.flow

    async def run(self, channel: Channel, status: int, headers: Headers) -> None:
        """Relay until the end. Raises UpstreamFault or ErrorInside while no head went out; afterwards every fault is
        told in band, but for one behind which another origin can go on: that raises Cut. Returns when the answer is
        over, honestly or not."""
        item: Piece | End = Piece(b"", at_border=True)
        if not self._downstream.has_head:
            item = await self._hold(channel)
            self._waits.turn(PROXY, trio.current_time())
            self._downstream.head(status, headers)
        if not isinstance(item, End):
            item = await self._flow(channel, item)
        if isinstance(item, End):
            await self._end(item)
        else:
            await self._downstream.finish(self._behind_held(item.data))
            self._waits.turn(UPSTREAM, trio.current_time())
            await self._pump.drained.wait()

    async def break_off(self, error: ProxyError) -> None:
        """Tell the client in band why the stream ends here, and let the connection end without an honest end.

        In the middle of an event that event is ended first: clients that drop what they cannot read then still see the
        error, and the others raise on the half event.
        """
        await self._write_held()
        if rest := self._follower.rest():
            await self._downstream.send(rest)
            self._at_border = self._framer.at_border
        await send_error_event(error, self._call, self._downstream, self._framer.line_end, self._at_border)

    async def _hold(self, channel: Channel) -> Piece | End:
        """Wait for the first event, so that an error in it can still become a status, but not for too long."""
        held = Piece(b"", at_border=True)
        with trio.CancelScope(deadline=self._attempt.answered + self._timing.commit_after_s):
            while not self._is_enough and len(held.data) <= MAX_HELD_BYTES:
                self._waits.turn(UPSTREAM, trio.current_time())
                item = await channel.receive()
                if isinstance(item, End):
                    return self._end_without_event(item, held)
                held = Piece(held.data + item.data, item.at_border, item.is_last)
        if self._watch.first_error is not None:
            raise ErrorInside(self._watch.first_error)
        return held

    @property
    def _is_enough(self) -> bool:
        """Whether what came decides what becomes of the head."""
        watch = self._watch
        if watch.first_error is not None or not self._waits_for_content:
            return watch.saw_first
        return watch.saw_content or watch.saw_done

    def _end_without_event(self, end: End, held: Piece) -> Piece | End:
        """The origin ended and nothing went out: nothing is lost by telling so in a status. What was held goes out with
        an honest end."""
        if end.fault is not None:
            raise end.fault
        if self._watch.first_error is not None:  # its blank line was missing
            raise ErrorInside(self._watch.first_error)
        if self._timing.is_strict and not self._watch.may_end:
            raise self._truncated()
        data = held.data + self._follower.rest()
        if not data:
            return end
        if not self._watch.may_end:
            self._call.exchange.notes["ended_without_terminal"] = True
        return Piece(data, held.at_border, is_last=True)

    async def _flow(self, channel: Channel, item: Piece) -> Piece | End:
        """Relay pieces until the last one, which is returned unsent, or the end."""
        downstream, joining, flow = self._downstream, self._joining, self._waits
        if item.is_last:
            return item
        if item.data or not downstream.has_head:
            await downstream.send(item.data)
            self._at_border = item.at_border
            self._quiet_since = trio.current_time()
        flow.turn(UPSTREAM, trio.current_time())
        while True:
            # As in the pump: one scope for many pieces, which looks when it fires. A send is not cut short by it.
            with trio.CancelScope(deadline=self._due) as scope:
                while True:
                    next_item = await channel.receive()
                    if flow.on == UPSTREAM:  # it was there already
                        flow.turn(PROXY, trio.current_time())
                    if isinstance(next_item, End) or next_item.is_last:
                        return next_item
                    if next_item.may_wait and self._holds(next_item):
                        scope.deadline = min(scope.deadline, self._due)
                        flow.turn(UPSTREAM, trio.current_time())
                        continue
                    await downstream.send(next_item.data if joining is None else joining.take(next_item.data))
                    self._at_border = next_item.at_border
                    self._quiet_since = trio.current_time()
                    flow.turn(UPSTREAM, self._quiet_since)
            await self._keep_alive()

    @property
    def _due(self) -> float:
        """When there is something to write though nothing comes: what is held, or else a heartbeat."""
        if self._joining is not None and self._joining.is_holding:
            return self._joining.due
        return self._quiet_since + self._timing.heartbeat_s

    def _holds(self, piece: Piece) -> bool:
        """Hold a piece that may wait; False if it is not to wait after all."""
        assert self._joining is not None
        if not self._joining.has_room_for(piece.data, piece.events):
            return False
        self._joining.hold(piece.data, piece.events, trio.current_time())
        self._at_border = piece.at_border
        return True

    def _behind_held(self, data: bytes) -> bytes:
        """What is to be written: all that is held, which then is not any more, and these bytes."""
        return data if self._joining is None else self._joining.take(data)

    async def _write_held(self) -> None:
        if held := self._behind_held(b""):
            await self._downstream.send(held)
            self._quiet_since = trio.current_time()

    async def _keep_alive(self) -> None:
        """Write what was held for long enough; else a comment, if the stream was silent for long enough and stands
        where one harms nobody."""
        now = trio.current_time()
        if now < self._due:
            return
        if self._joining is not None and self._joining.is_holding:
            await self._write_held()
            return
        self._quiet_since = now
        if self._at_border and not self._framer.saw_id:
            await send_heartbeat(self._call, self._downstream, self._framer.line_end)

    async def _end(self, end: End) -> None:
        fault = end.fault
        if fault is None and self._timing.is_strict and not self._watch.may_end:
            fault = self._truncated()
        if fault is not None:
            self._attempt.note_fault(fault)
            if self._transcript is not None and self._transcript.can_continue:
                await self._write_held()
                raise Cut(fault)
            await self.break_off(fault)
            return
        if not self._watch.may_end:
            self._call.exchange.notes["ended_without_terminal"] = True
        await self._downstream.finish(self._behind_held(self._follower.rest()))

    def _truncated(self) -> UpstreamTruncated:
        name = self._attempt.endpoint.name
        return UpstreamTruncated(f"The upstream '{name}' ended its stream without the final event; it is incomplete.")


async def send_heartbeat(call: Call, downstream: Downstream, line_end: bytes = b"\n") -> None:
    """Write a comment; the stream has to stand at a border."""
    is_old_go = _OLD_GO.match(call.user_agent) is not None
    await downstream.send(b":" + line_end if is_old_go else b": keep-alive" + line_end + line_end)
    call.exchange.heartbeats += 1


LOST = b": lost "
"""How a comment begins that tells how many events a reader lost."""


async def send_comment(text: bytes, call: Call, downstream: Downstream, line_end: bytes = b"\n") -> None:
    """Write a comment that says something; the stream has to stand at a border."""
    await downstream.send(comment(text, call, line_end))


def comment(text: bytes, call: Call, line_end: bytes = b"\n") -> bytes:
    """A comment that says something, as this client can take it."""
    is_old_go = _OLD_GO.match(call.user_agent) is not None
    return b": " + text + line_end + (b"" if is_old_go else line_end)


async def send_error_event(
    error: ProxyError, call: Call, downstream: Downstream, line_end: bytes = b"\n", at_border: bool = True
) -> None:
    """Write the dialect's error event, behind the end of an event that is under way, and let the connection end without
    an honest end."""
    event = render.event(error, call.dialect, call.exchange.request_id, line_end)
    await downstream.send(event if at_border else line_end + line_end + event)
    downstream.abort()
    call.exchange.fail(error)
