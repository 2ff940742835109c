"""Asking one target: a place at its endpoint, a key, the breaker's leave, the request as it is to be there, and the
attempt. Called by `course`, which decides who is asked.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from math import inf

import trio

from trioproxy.errors import (
    NoHealthyUpstream,
    ProxyError,
    UpstreamFault,
    UpstreamFirstContentTimeout,
    UpstreamIdleTimeout,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.policy.breaker import Outcome
from trioproxy.policy.hedge import Hedge
from trioproxy.policy.retry import retry_after_s
from trioproxy.telemetry.exchange import Exchange, Trying
from trioproxy.telemetry.flow import PROXY, UPSTREAM
from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.request import Clocks, Form, OnceBody, OriginRequest
from trioproxy.upstream.stay import Stay, outcome_of
from trioproxy.upstream.way import Target, Way
from trioproxy.wire import render
from trioproxy.wire.headers import is_encoded, is_event_stream
from trioproxy.wire.sse import Framer
from trioproxy.wire.trace_context import with_context
from trioproxy.wire.unfold import unfold
from trioproxy.wire.usage import usage_of

MAX_WHOLE_BYTES = 64 * 1024 * 1024
"""Largest whole answer that a stream is made of."""
_MAX_AHEAD_BYTES = 65536
"""More than this in front of the first content counts as content."""


class Asker:
    """Asks targets, one request's. `body` is the request's; one that comes in pieces is sent at most once."""

    def __init__(self, request: OriginRequest, exchange: Exchange, clocks: Clocks, nursery: trio.Nursery) -> None:
        self.request = request
        if not isinstance(request.body, bytes):
            request.body = OnceBody(request.body)
        self._exchange = exchange
        self._clocks = clocks
        self._nursery = nursery
        self._asked = 0  # how many origins it is waited for: two in a race

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """It is waited for an origin meanwhile."""
        flow = self._exchange.flow
        self._asked += 1
        flow.turn(UPSTREAM, trio.current_time())
        try:
            yield
        finally:
            self._asked -= 1
            if not self._asked:
                flow.turn(PROXY, trio.current_time())

    @property
    def body(self) -> bytes | AsyncIterator[bytes]:
        return self.request.body

    @property
    def can_repeat(self) -> bool:
        """Whether the body could be sent once more."""
        return not isinstance(self.body, OnceBody) or not self.body.is_begun

    async def ask(
        self,
        target: Target,
        way: Way,
        trying: Trying,
        *,
        model: str | None,
        form: Form,
        is_canary: bool,
        hedge: Hedge | None,
    ) -> Attempt:
        """An origin that has answered, whatever its status. Raises UpstreamFault, NoHealthyUpstream or Overloaded. If
        cancelled, nothing is held. `trying` is in the record from when there is a place at the endpoint."""
        endpoint = target.endpoint
        stay = await self._enter(target, way, is_canary, hedge)
        self._exchange.begin_try(trying, trio.current_time())
        try:
            with self.waiting():
                return await self._ask(endpoint, stay, trying, model, form)
        except BaseException as error:
            trying.ended = trio.current_time()
            if isinstance(error, ProxyError):
                trying.result = type(error).code  # of the class: an origin's own words come from no closed set
            raise

    async def _ask(self, endpoint: Endpoint, stay: Stay, trying: Trying, model: str | None, form: Form) -> Attempt:
        clocks = self._clocks
        try:
            asks_usage = self.request.asks_usage or endpoint.asks_usage
            options = self.request.options_with_usage() if asks_usage and form is Form.AS_ASKED else None
            body, headers = self.request.dressed(model, form, options)
            if trying.span is not None:
                headers = with_context(headers, trying.span)
            attempt = await open_attempt(
                endpoint,
                self.request.method,
                endpoint.target(self.request.target_for(model)),
                headers,
                body,
                key=stay.key,
                connect_s=clocks.connect_s,
                head_s=clocks.head_s,
                nursery=self._nursery,
                trying=trying,
            )
        except UpstreamFault:
            stay.note(Outcome.FAULT)
            stay.leave()
            raise
        except BaseException:
            stay.leave()
            raise
        attempt.stay = stay
        attempt.has_asked_usage = options is not None
        try:
            is_stream = attempt.status < 300 and is_event_stream(attempt.headers)
            becomes_stream = form is Form.WHOLE and attempt.status < 300 and not is_stream
            self._note_head(attempt, stay, becomes_stream)
            if becomes_stream:
                await self._make_stream(attempt)
            attempt.is_to_be_folded = form is Form.STREAM and is_stream
        except BaseException:
            attempt.close()
            raise
        trying.result = str(attempt.status)
        return attempt

    async def wait_for_content(self, attempt: Attempt) -> None:
        """Read a stream ahead until its first content is there; of a compressed one that cannot be seen, and its head
        counts. Raises UpstreamFault if none comes. If cancelled, what was read is kept."""
        if is_encoded(attempt.headers):
            return
        with self.waiting():
            await self._read_to_content(attempt)

    async def _read_to_content(self, attempt: Attempt) -> None:
        name, clocks = attempt.endpoint.name, self._clocks
        watch = self.request.dialect.watch()
        framer = Framer(watch)
        framer.feed(attempt.ahead)  # a stream that was made of a whole answer is there already
        by = attempt.started + clocks.first_content_s
        heard, events = inf, 0  # since when no event has come; a model that thinks before the first one may be silent
        try:
            while not (watch.saw_content or watch.saw_done or watch.first_error is not None):
                if len(attempt.ahead) > _MAX_AHEAD_BYTES:
                    break
                with trio.CancelScope(deadline=min(by, heard + clocks.idle_s)) as scope:
                    piece = await attempt.read_more()
                if scope.cancelled_caught:
                    if trio.current_time() < by:
                        raise UpstreamIdleTimeout(f"The upstream '{name}' was silent for too long.")
                    raise UpstreamFirstContentTimeout(f"The upstream '{name}' sent no content in time.")
                framer.feed(piece)
                if framer.events != events:
                    heard, events = trio.current_time(), framer.events
                if not piece:
                    framer.finish()
                    break
            if watch.first_error is not None:
                raise render.error_in_stream(render.status_of(watch.first_error), watch.first_error, name)
            if not (watch.saw_content or watch.may_end or len(attempt.ahead) > _MAX_AHEAD_BYTES):
                raise UpstreamTruncated(f"The upstream '{name}' ended its stream before it began.")
        except UpstreamFault as fault:
            attempt.note_fault(fault)
            fault.had_head = True
            raise
        attempt.note_first_content(trio.current_time())

    async def _enter(self, target: Target, way: Way, is_canary: bool, hedge: Hedge | None) -> Stay:
        endpoint = target.endpoint
        await endpoint.slots.take()
        now = trio.current_time()
        if not endpoint.has_key(now):  # the last one was set aside while we waited
            endpoint.slots.give_back()
            raise no_healthy_upstream()
        key = endpoint.keys.take(now)
        turn = endpoint.breaker.take(now, by_force=True)
        assert turn is not None
        canary = None if way.canary is None else way.canary.state
        return Stay(endpoint, key, turn, canary=canary, is_canary=is_canary, hedge=hedge)

    @staticmethod
    def _note_head(attempt: Attempt, stay: Stay, becomes_stream: bool) -> None:
        """What the head says of endpoint and key. A stream, or what becomes one, has yet to show that it brings
        something."""
        status = attempt.status
        has_events = is_event_stream(attempt.headers) and not is_encoded(attempt.headers)
        if status >= 300 or not (has_events or becomes_stream):
            stay.note(outcome_of(status), is_error=status >= 400)
        told_s = retry_after_s(attempt.headers, time.time())
        stay.endpoint.keys.note(stay.key, status, told_s, trio.current_time())

    async def _make_stream(self, attempt: Attempt) -> None:
        """Read the whole answer and make it a stream."""
        name = attempt.endpoint.name
        whole = b""
        try:
            with trio.CancelScope(deadline=attempt.started + self._clocks.first_content_s) as scope:
                whole = await attempt.read_whole(MAX_WHOLE_BYTES)
            if scope.cancelled_caught:
                raise UpstreamFirstContentTimeout(f"The upstream '{name}' did not send its answer in time.")
            request = self.request
            stream = unfold(request.dialect, whole, with_usage=request.wants_usage)
            if stream is None or is_encoded(attempt.headers):
                raise UpstreamProtocolError(f"The upstream '{name}' sent an answer that no stream can be made of.")
        except UpstreamFault as fault:
            attempt.note_fault(fault)
            fault.had_head = True
            raise
        attempt.usage = usage_of(whole, request.dialect)
        kept = [header for header in attempt.headers if header[0] not in (b"content-type", b"content-length")]
        attempt.become([*kept, (b"content-type", b"text/event-stream; charset=utf-8")], stream)
        attempt.note_first_content(trio.current_time())


def no_healthy_upstream() -> NoHealthyUpstream:
    """The error for a model whose route has nobody who can be asked."""
    return NoHealthyUpstream("No upstream can be used for this model now; send the request again later.")
