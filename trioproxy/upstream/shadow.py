"""Shadows: copies of requests that go to another upstream, are read to their end, measured, and forgotten.

No client ever feels one: a copy has a task, a connection and a record of its own, counts against no breaker, key or
place, and is not made where too many, or too many bytes, are under way. Its owner runs `run` in the process nursery;
`course` offers requests.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trioproxy.errors import CancelReason, ProxyError, UpstreamErrorInStream, UpstreamTotalTimeout, UpstreamTruncated
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.flow import UPSTREAM
from trioproxy.telemetry.record import Record
from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.request import Clocks, Form, OriginRequest
from trioproxy.upstream.way import ShadowTarget
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import is_encoded, is_event_stream
from trioproxy.wire.sse import Framer

Guard = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs a task so that a bug in it ends nothing else."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""The bodies of all copies under way at once, together."""


class Shadows:
    """The copies under way. `note` is given the record of each when it is over; `left_out` counts those not made."""

    def __init__(self, note: Callable[[Record], None], guard: Guard) -> None:
        self._note = note
        self._guard = guard
        self._nursery: trio.Nursery | None = None
        self._held_bytes = 0
        self.left_out = 0

    async def run(self) -> None:
        """Own the copies until stopped or cancelled; they end then."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # no copy begins any more

    def stop(self) -> None:
        """End all copies; make no more."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=CancelReason.DRAIN.value)

    def offer(
        self, shadow: ShadowTarget, request: OriginRequest, exchange: Exchange, clocks: Clocks, deadline: float
    ) -> None:
        """Copy a request whose body is held, if there is room. Never waits. `deadline` (trio's clock) is the latest
        end of the copy."""
        nursery = self._nursery
        body = request.body
        if nursery is None or not isinstance(body, bytes):
            return
        endpoint = shadow.target.endpoint
        can_be_asked = endpoint.slots.has_room and endpoint.has_key(trio.current_time())
        has_room = shadow.under_way < shadow.max_concurrent and can_be_asked
        if not has_room or self._held_bytes + len(body) > MAX_HELD_BYTES:
            self.left_out += 1
            return
        record = Exchange(
            request_id=exchange.request_id,
            method=exchange.method,
            path=exchange.path,
            accepted=trio.current_time(),
            endpoint=exchange.endpoint,
            model=shadow.target.model or exchange.model,
            stream=exchange.stream,
            upstream=shadow.target.endpoint.name,
            attempts=1,
            bytes_in=len(body),
        )
        copy = partial(self._copy, nursery, shadow, request, record, clocks, deadline)
        nursery.start_soon(self._guard, copy)
        shadow.under_way += 1
        self._held_bytes += len(body)

    async def _copy(
        self,
        nursery: trio.Nursery,
        shadow: ShadowTarget,
        request: OriginRequest,
        record: Exchange,
        clocks: Clocks,
        deadline: float,
    ) -> None:
        record.flow.turn(UPSTREAM, trio.current_time())
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                await self._run_one(nursery, shadow, request, record, clocks)
            if scope.cancelled_caught:
                record.fail(UpstreamTotalTimeout("the copy took longer than its request may"))
        except ProxyError as fault:
            record.fail(fault)
        except trio.Cancelled:
            record.cancel(CancelReason.DRAIN.value)
            raise
        finally:
            shadow.under_way -= 1
            self._held_bytes -= record.bytes_in
            self._note(record.close(trio.current_time()))

    @staticmethod
    async def _run_one(
        nursery: trio.Nursery, shadow: ShadowTarget, request: OriginRequest, record: Exchange, clocks: Clocks
    ) -> None:
        endpoint = shadow.target.endpoint
        body, headers = request.dressed(shadow.target.model, Form.AS_ASKED)
        key = endpoint.keys.take(trio.current_time())
        try:
            attempt = await open_attempt(
                endpoint,
                request.method,
                endpoint.target(request.target),
                headers,
                body,
                key=key,
                connect_s=clocks.connect_s,
                head_s=clocks.head_s,
                nursery=nursery,
            )
            with attempt:
                record.status = attempt.status
                record.head_at = attempt.answered
                await _drain(attempt, request.dialect, record)
        finally:
            endpoint.keys.give_back(key)


async def _drain(attempt: Attempt, dialect: Dialect, record: Exchange) -> None:
    """Read an answer to its end, and measure it. Raises UpstreamFault for one that is no honest end."""
    watch = dialect.watch()
    is_stream = attempt.status < 300 and is_event_stream(attempt.headers) and not is_encoded(attempt.headers)
    framer = Framer(watch) if is_stream else None
    while piece := await attempt.read():
        record.bytes_out += len(piece)
        if framer is not None:
            framer.feed(piece)
            record.events = framer.events
            if watch.saw_content and record.first_content_at is None:
                record.first_content_at = trio.current_time()
            if watch.saw_done:
                break  # whatever the origin does behind it
    if framer is None:
        return
    framer.finish()
    if watch.first_error is not None:
        raise UpstreamErrorInStream("The copy's first event is an error.")
    if not watch.may_end:
        raise UpstreamTruncated("The copy ended without its final event.")
