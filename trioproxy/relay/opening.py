"""The opening: waits for the origin to answer and, if that is wanted, keeps the client company meanwhile.

Usually the attempt is opened in the request's own task. With `commit_before_head_s` it is opened beside that task, in
the request's nursery; once the origin has been silent for that long, the client gets a 200 head and heartbeats, so that
no load balancer cuts a connection on which a model only thinks. The status is spent by that: whatever goes wrong
afterwards is told in band.
"""

from math import inf

import trio

from trioproxy.errors import ProxyError, UpstreamFault, UpstreamProtocolError
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.heads import early_head
from trioproxy.relay.shaper import send_error_event, send_heartbeat
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.course import Course
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.request import Clocks, OriginRequest
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import find, is_encoded, is_event_stream
from trioproxy.wire.json_object import JsonObject

MAX_ERROR_BYTES = 65536
ERROR_BODY_S = 5.0
"""How much of an origin's error is read, and for how long, where it cannot be passed on as it comes."""

_STREAMED = frozenset({Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES})


class Opening:
    """The opening of one call's attempt.

    Attributes:
        quiet_since: when the client last got bytes, trio's clock; None while no head went out.
    """

    def __init__(
        self, call: Call, dispatcher: Dispatcher, timing: Timing, lifetime: Lifetime, downstream: Downstream
    ) -> None:
        self._call = call
        request = OriginRequest(
            call.method,
            call.target,
            call.headers,
            call.body,
            call.dialect,
            call.json,
            call.exchange.stream,
            upstreams=call.upstreams,
            asks_usage=call.ticket is not None and call.ticket.asks_usage,
        )
        self._course = Course(
            dispatcher,
            request,
            call.exchange,
            Clocks(timing.connect_s, timing.head_s, timing.first_content_s, timing.idle_s),
            deadline=lifetime.whole.deadline,
            nursery=lifetime.nursery,
        )
        self._timing = timing
        self._lifetime = lifetime
        self._downstream = downstream
        self._scope = trio.CancelScope()
        self._patience = trio.CancelScope()  # the company's, until the next comment
        self._over = trio.Event()
        self._attempt: Attempt | None = None
        self._fault: ProxyError | None = None
        self.quiet_since: float | None = None

    async def run(self) -> Attempt:
        """An origin that has answered, held by the request's exit stack. Raises UpstreamFault; once the head went out,
        also for an answer that cannot follow that head. If cancelled, nothing goes on."""
        exchange = self._call.exchange
        is_stream = exchange.stream and self._call.dialect in _STREAMED
        may_be_early = self._timing.commit_before_head_s < inf or self._course.may_hedge or self._downstream.has_head
        attempt = await (self._open_beside() if is_stream and may_be_early else self._open())
        if exchange.first_content_at is None:  # else another attempt's stream is gone on with
            exchange.head_at = attempt.answered
        origin_id = find(attempt.headers, b"x-request-id")
        if origin_id is not None:
            exchange.upstream_request_id = origin_id.decode("latin-1")
        if self._downstream.has_head:
            await self._check(attempt)
        return attempt

    @property
    def may_go_on(self) -> bool:
        """Whether a failure before the first content might be answered by another try."""
        return self._course.may_go_on

    @property
    def may_continue(self) -> bool:
        """Whether a stream that is cut may be gone on with elsewhere."""
        return self._course.may_continue

    def continues(self, request: JsonObject) -> bool:
        """Whether `run` is to be called once more, to go on by this request with a stream that was cut."""
        return self._course.continues(request)

    async def goes_on(self, error: ProxyError) -> bool:
        """Whether `run` is to be called once more, after a fault behind the head and before any content."""
        return await self._course.goes_on(error)

    async def break_off(self, error: ProxyError) -> None:
        """Tell the client, who has a head and at most comments behind it, why there will be no stream."""
        await send_error_event(error, self._call, self._downstream)

    async def _open(self) -> Attempt:
        attempt = await self._course.open(self._note_head)
        return self._lifetime.stack.enter_context(attempt)

    def _note_head(self, at: float) -> None:
        """A try has its head, and waits for its content: the client's head waits no longer than it would for one."""
        if not self._downstream.has_head:
            self._patience.deadline = min(self._patience.deadline, at + self._timing.commit_after_s)

    async def _open_beside(self) -> Attempt:
        self._begin_anew()
        self._lifetime.nursery.start_soon(self._open_in_its_task)
        try:
            await self._keep_company()
        finally:
            self._scope.cancel()
        if self._fault is not None:
            raise self._fault
        assert self._attempt is not None
        return self._attempt

    def _begin_anew(self) -> None:
        self._scope, self._over = trio.CancelScope(), trio.Event()
        self._attempt = self._fault = None
        wait_s = self._timing.heartbeat_s if self._downstream.has_head else self._timing.commit_before_head_s
        self._patience = trio.CancelScope(deadline=trio.current_time() + wait_s)

    async def _open_in_its_task(self) -> None:
        with self._scope:
            try:
                self._attempt = await self._open()
            except ProxyError as fault:
                self._fault = fault.with_traceback(None)
        self._over.set()

    async def _keep_company(self) -> None:
        """Wait until the origin has answered or failed; write heartbeats once that takes too long."""
        while True:
            with self._patience:
                await self._over.wait()
                return
            if not self._downstream.has_head:
                self._downstream.head(200, early_head(self._call.exchange))
            await send_heartbeat(self._call, self._downstream)
            self.quiet_since = trio.current_time()
            self._patience = trio.CancelScope(deadline=self.quiet_since + self._timing.heartbeat_s)

    async def _check(self, attempt: Attempt) -> None:
        """Raise UpstreamFault for an answer that is not the event stream which the client's head announced."""
        name = attempt.endpoint.name
        if attempt.status >= 400:
            raise render.error_in_stream(attempt.status, await _read_error(attempt), name)
        if attempt.status >= 300 or not is_event_stream(attempt.headers):
            raise UpstreamProtocolError(f"The upstream '{name}' was asked for a stream and answered without one.")
        if is_encoded(attempt.headers):
            raise UpstreamProtocolError(f"The upstream '{name}' compressed a stream that was to come as it is.")


async def _read_error(attempt: Attempt) -> bytes:
    """An error's body, or as much of it as comes in time."""
    whole = attempt.take_whole()
    if whole is not None:
        return whole
    body = b""
    with trio.move_on_after(ERROR_BODY_S):
        try:
            while len(body) < MAX_ERROR_BYTES and (piece := await attempt.read()):
                body += piece
        except UpstreamFault:
            pass  # its status is known, and that is told
    return body
