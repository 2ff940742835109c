"""One request's course: which targets it tries, one after the other, and when it gives up. Called by `relay`.

It acts; what to do is decided elsewhere, purely: the order by `policy/plan`, a second try by `policy/retry` and
`policy/budget`, who is left alone by `policy/breaker` and `policy/keys`, where else to ask by `policy/error_class`.
A try holds a place at its endpoint and a key for as long as its answer is read.
"""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from trioproxy.errors import NoHealthyUpstream, Overloaded, ProxyError, UpstreamErrorInStream, UpstreamFault
from trioproxy.policy.breaker import Outcome, usable
from trioproxy.policy.error_class import ErrorClass, class_of_answer, class_of_fault
from trioproxy.policy.plan import Candidate, arrange
from trioproxy.policy.retry import Progress, decide, progress_before_head, retry_after_s
from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.dispatch import Dispatcher, Target
from trioproxy.upstream.stay import Stay
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.json_object import JsonObject


@dataclass(slots=True)
class OriginRequest:
    """What is to be sent. `json` is the body, read at its top level, if it was; `headers` lack the length of a body
    that is held, which another model's name changes."""

    method: str
    target: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    dialect: Dialect
    json: JsonObject | None = None


class _Once(AsyncIterator[bytes]):
    """A body that comes piece by piece, and can be sent once. `is_begun`: a piece was asked for."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.is_begun = False

    async def __anext__(self) -> bytes:
        self.is_begun = True
        return await anext(self._source)


class Course:
    """One request's tries. `open` is called again after `goes_on` has said so."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: OriginRequest,
        exchange: Exchange,
        *,
        connect_s: float,
        head_s: float,
        deadline: float,
        nursery: trio.Nursery,
    ) -> None:
        """`deadline` is the end of the whole request, trio's clock: no wait goes beyond it."""
        self._deadline = deadline
        self._dispatcher = dispatcher
        self._request = request
        self._exchange = exchange
        self._connect_s = connect_s
        self._head_s = head_s
        self._nursery = nursery
        self._body = request.body if isinstance(request.body, bytes) else _Once(request.body)
        self._fallbacks: list[str] = []
        self._asked: set[str | None] = set()  # a glob's fallback may lead back: no model is asked twice
        self._attempt: Attempt | None = None
        self._set_out(exchange.model, is_first=True)

    def _set_out(self, model: str | None, *, is_first: bool = False) -> None:
        self._model = model
        self._asked.add(model)
        self._is_renamed = not is_first
        self._way = self._dispatcher.ways.find(model)
        self._targets = self._way.targets_for(self._request.dialect)
        self._tries = 0
        self._tried: set[int] = set()
        self._order: list[int] = []
        if is_first:
            self._way.budget.note_request(trio.current_time())

    @property
    def may_go_on(self) -> bool:
        """Whether a failure behind the head might be answered by another try: then nothing is shown too early."""
        return isinstance(self._body, bytes) and (
            (len(self._targets) > 1 and self._tries < self._way.rules.tries) or self._may_fall_back
        )

    @property
    def _may_fall_back(self) -> bool:
        return bool(self._way.fallback or self._fallbacks)

    @property
    def _has_other(self) -> bool:
        return any(index not in self._tried for index in self._usable)

    @property
    def _usable(self) -> list[int]:
        """Those of the order that have a key: one may have been set aside by this request's own tries."""
        now = trio.current_time()
        return [index for index in self._order if self._targets[index].endpoint.has_key(now)]

    async def open(self) -> Attempt:
        """An origin that has answered. Raises UpstreamFault, NoHealthyUpstream or Overloaded, or what a streamed body's
        source raised; a status that nobody betters is an answer. If cancelled, nothing is held."""
        while True:
            try:
                attempt = await self._try(self._next())
            except NoHealthyUpstream as lack:
                if not self._falls_back(lack, None):
                    raise
                continue
            except Overloaded:
                if not self._has_other:
                    raise
                continue
            except UpstreamFault as fault:
                if not await self._goes_on(fault, [], progress_before_head(fault)):
                    raise
                continue
            if attempt.status < 400:
                return attempt
            try:
                await self._read_error(attempt)
                goes_on = await self._goes_on(attempt.status, attempt.headers, Progress.HEAD, attempt)
            except BaseException:
                attempt.close()
                raise
            if not goes_on:
                return attempt
            attempt.close()

    async def goes_on(self, error: ProxyError) -> bool:
        """Whether another try is to be made after a fault behind the head, before any content; then the attempt is let
        go of, and `open` is next."""
        attempt = self._attempt
        assert attempt is not None and attempt.stay is not None
        is_told = isinstance(error, UpstreamErrorInStream)
        attempt.stay.note(_outcome(error.status) if is_told else Outcome.FAULT)
        goes_on = await self._goes_on(error, attempt.headers, Progress.HEAD, attempt)
        if goes_on:
            attempt.close()
        return goes_on

    def _next(self) -> Target:
        """The target that is tried now: the first in the order that was not tried yet, else the first again."""
        if not self._order:
            self._order = self._arranged()
        if not self._order:
            raise _no_healthy_upstream()
        usable = self._usable or self._order
        index = next((one for one in usable if one not in self._tried), usable[0])
        self._tried.add(index)
        return self._targets[index]

    def _arranged(self) -> list[int]:
        now = trio.current_time()
        targets = self._targets
        lets_in = usable([one.endpoint.breaker for one in targets], now)
        candidates = [
            Candidate(
                name=one.name,
                weight=one.weight,
                in_flight=one.endpoint.slots.taken,
                first_content_s=one.endpoint.first_content.value(now),
                is_usable=is_in and one.endpoint.has_key(now),
            )
            for one, is_in in zip(targets, lets_in, strict=True)
        ]
        order = arrange(candidates, self._way.strategy, draw=self._dispatcher.draw, sticky=self._sticky())
        # Who has room now goes before those where one would have to wait, and these before those where too many do.
        slots = [one.endpoint.slots for one in targets]
        return sorted(order, key=lambda index: (not slots[index].has_room, not slots[index].may_wait))

    def _sticky(self) -> str | None:
        kind, _, name = self._way.sticky.partition(":")
        if kind == "header":
            value = find(self._request.headers, name.encode("ascii"))
            return None if value is None else value.decode("latin-1")
        raw = self._request.json.members.get(kind) if kind and self._request.json is not None else None
        return None if raw is None else bytes(raw).decode("utf-8", "replace")

    async def _try(self, target: Target) -> Attempt:
        endpoint, request, exchange = target.endpoint, self._request, self._exchange
        self._tries += 1
        exchange.upstream = endpoint.name
        await endpoint.slots.take()
        if not endpoint.has_key(trio.current_time()):  # the last one was set aside while we waited
            endpoint.slots.give_back()
            raise _no_healthy_upstream()
        key = endpoint.keys.take(trio.current_time())
        turn = endpoint.breaker.take(trio.current_time(), by_force=True)
        assert turn is not None
        stay = Stay(endpoint, key, turn)
        exchange.attempts += 1
        body, headers = self._dressed(target)
        try:
            attempt = await open_attempt(
                endpoint,
                request.method,
                endpoint.target(request.target),
                headers,
                body,
                key=key,
                connect_s=self._connect_s,
                head_s=self._head_s,
                nursery=self._nursery,
            )
        except UpstreamFault as fault:
            stay.note(Outcome.FAULT)
            stay.leave()
            exchange.note_try(endpoint.name, fault.code)
            raise
        except BaseException:
            stay.leave()
            exchange.note_try(endpoint.name, "cancelled")
            raise
        attempt.stay = stay
        self._attempt = attempt
        stay.note(_outcome(attempt.status))
        endpoint.keys.note(key, attempt.status, retry_after_s(attempt.headers, time.time()), trio.current_time())
        exchange.note_try(endpoint.name, str(attempt.status))
        return attempt

    def _dressed(self, target: Target) -> tuple[bytes | AsyncIterator[bytes], Headers]:
        """The body and its fields as this target gets them."""
        request = self._request
        body = self._body
        model = target.model or (self._model if self._is_renamed else None)
        if model is not None and request.json is not None:
            body = request.json.replace({"model": json.dumps(model).encode()})
        if isinstance(body, bytes) and (body or request.json is not None):
            return body, [*request.headers, (b"content-length", b"%d" % len(body))]
        return body, request.headers

    async def _goes_on(
        self, failure: ProxyError | int, headers: Headers, progress: Progress, attempt: Attempt | None = None
    ) -> bool:
        """Wait for, and prepare, the next try. False if there is none."""
        now = trio.current_time()
        wait_s = decide(
            failure,
            headers,
            progress,
            self._way.rules,
            method=self._request.method,
            can_repeat=isinstance(self._body, bytes) or not self._body.is_begun,
            tries=self._tries,
            candidates=len(self._order),
            has_other=self._has_other,
            now=now,
            wall_now=time.time(),
            deadline=self._deadline,
            draw=self._dispatcher.draw,
        )
        if wait_s is not None and self._usable and self._way.budget.take(now):
            if wait_s:
                if attempt is not None:
                    attempt.close()
                await trio.sleep(wait_s)
            return True
        return self._falls_back(failure, attempt)

    def _falls_back(self, failure: ProxyError | int, attempt: Attempt | None) -> bool:
        """Go on with another model, if the route names one for this kind of failure."""
        if not isinstance(self._body, bytes) or self._request.json is None:
            return False
        if isinstance(failure, int):
            kind = class_of_answer(failure, attempt.ahead if attempt is not None else b"")
        elif isinstance(failure, NoHealthyUpstream):
            kind = ErrorClass.RATE_LIMIT  # every key is set aside
        else:
            kind = class_of_fault(failure)
        if kind is not None:
            models = [*self._way.fallback.get(kind, ()), *self._fallbacks]
            self._fallbacks = [model for model in models if model not in self._asked]
        if kind is None or not self._fallbacks:
            return False
        model = self._fallbacks.pop(0)
        self._exchange.notes["fallback"] = model
        self._set_out(model)
        return True

    async def _read_error(self, attempt: Attempt) -> None:
        """Read an error's body where it decides about the fallback; it is passed on all the same."""
        if self._may_fall_back:
            await attempt.read_ahead()


def _no_healthy_upstream() -> NoHealthyUpstream:
    return NoHealthyUpstream("No upstream can be used for this model now; send the request again later.")


def _outcome(status: int) -> Outcome:
    if status < 400:
        return Outcome.OK
    return Outcome.FAULT if status >= 500 else Outcome.NEUTRAL
