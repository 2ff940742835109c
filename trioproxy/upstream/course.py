"""One request's course: which targets it tries, one after the other or two side by side, and when it gives up. Called
by `relay`.

It acts; what to do is decided elsewhere, purely: the order by `policy/plan`, a second try by `policy/retry` and
`policy/budget`, one beside the first by `policy/hedge`, who is left alone by `policy/breaker`, `policy/health` and
`policy/keys`, where else to ask by `policy/error_class`. A try itself is made by `asking`.
"""

import time
from collections.abc import Callable
from functools import partial

import structlog
import trio

from trioproxy.errors import ModelNotAllowed, NoHealthyUpstream, Overloaded, ProxyError, UpstreamFault
from trioproxy.policy.error_class import ErrorClass, blames, class_of_answer, class_of_fault
from trioproxy.policy.plan import lot
from trioproxy.policy.retry import Progress, decide, progress_before_head, should_retry
from trioproxy.telemetry.exchange import CANCELLED, HEDGE_LOST, Exchange, Trying
from trioproxy.telemetry.flow import PROXY
from trioproxy.upstream.asking import Asker, no_healthy_upstream
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.race import Ask, Race
from trioproxy.upstream.request import Clocks, Form, OriginRequest
from trioproxy.upstream.way import Target, arranged
from trioproxy.wire.headers import Headers, find, is_event_stream
from trioproxy.wire.json_object import JsonObject

log = structlog.get_logger()

OnHead = Callable[[float], None]
"""Told when a try that is waited on has got its head, trio's clock."""

_KEY_STATUSES = (401, 402, 429)


class Course:
    """One request's tries. `open` is called again after `goes_on` or `continues` has said so."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: OriginRequest,
        exchange: Exchange,
        clocks: Clocks,
        *,
        deadline: float,
        nursery: trio.Nursery,
    ) -> None:
        """`deadline` is the end of the whole request, trio's clock: no wait goes beyond it."""
        self._deadline = deadline
        self._dispatcher = dispatcher
        self._request = request
        self._exchange = exchange
        self._asker = Asker(request, exchange, clocks, nursery)
        self._fallbacks: list[str] = []
        self._asked: set[str | None] = set()  # a glob's fallback may lead back: no model is asked twice
        self._attempt: Attempt | None = None
        self._is_batch = False
        self._set_out(exchange.model, is_first=True)
        shadow, shadows = self._way.shadow, dispatcher.shadows
        if shadow is None or shadows is None or request.json is None:
            return
        if not self._way.is_like_others(shadow.target, request.dialect):
            return
        if not request.may_go_to(shadow.target.endpoint.name):
            return
        if dispatcher.draw() < shadow.share:
            shadows.offer(shadow, request, exchange, clocks, deadline)

    def _set_out(self, model: str | None, *, is_first: bool = False) -> None:
        self._model = model
        self._asked.add(model)
        self._is_renamed = not is_first
        self._way = self._dispatcher.ways.find(model)
        may_go_to = self._request.may_go_to
        self._targets = [one for one in self._way.targets_for(self._request.dialect) if may_go_to(one.endpoint.name)]
        self._canary = self._draw_canary()
        self._tries = 0
        self._tried: set[int] = set()
        self._order: list[int] = []
        if is_first:
            self._way.budget.note_request(trio.current_time())
            if self._way.hedge is not None and self._request.wants_stream:
                self._way.hedge.note_request()

    def _draw_canary(self) -> int | None:
        """The canary's index among the targets, if this request is one of its share; it is added to them then."""
        canary = self._way.canary
        if canary is None or not self._way.is_like_others(canary.target, self._request.dialect):
            return None
        if not self._request.may_go_to(canary.target.endpoint.name):
            return None
        step = canary.state.step(trio.current_time())
        if step is not None:
            log.info("canary step", target=canary.target.name, old=step.old, new=step.new, reason=step.reason)
        sticky = self._sticky()
        drawn = self._dispatcher.draw() if sticky is None else lot(sticky, "canary")
        if drawn >= canary.state.share:
            return None
        self._targets.append(canary.target)
        return len(self._targets) - 1

    @property
    def may_go_on(self) -> bool:
        """Whether a failure behind the head might be answered by another try: then nothing is shown too early."""
        return isinstance(self._request.body, bytes) and (
            (len(self._targets) > 1 and self._tries < self._way.rules.tries)
            or self._may_fall_back
            or self._may_ask_whole
        )

    @property
    def may_hedge(self) -> bool:
        """Whether a second try may be made beside the first: first content is waited for before anything is shown."""
        return self._way.hedge is not None and self._request.wants_stream and self._request.json is not None

    @property
    def may_continue(self) -> bool:
        """Whether a stream that is cut may be gone on with elsewhere."""
        return self._way.continues and self._request.wants_stream and self._request.json is not None

    @property
    def _may_fall_back(self) -> bool:
        return bool(self._way.fallback or self._fallbacks)

    @property
    def _may_ask_whole(self) -> bool:
        request = self._request
        may = self._way.falls_back_to_batch and not self._is_batch
        return may and request.wants_stream and request.can_be_bridged

    @property
    def _has_other(self) -> bool:
        return any(index not in self._tried for index in self._usable)

    @property
    def _usable(self) -> list[int]:
        """Those of the order that have a key: one may have been set aside by this request's own tries."""
        now = trio.current_time()
        return [index for index in self._order if self._targets[index].endpoint.has_key(now)]

    async def open(self, on_head: OnHead = lambda at: None) -> Attempt:
        """An origin that has answered. Raises UpstreamFault, NoHealthyUpstream or Overloaded, or what a streamed body's
        source raised; a status that nobody betters is an answer. If cancelled, nothing is held."""
        attempt = self._attempt = await self._open(on_head)
        self._exchange.served_model = attempt.model
        return attempt

    async def _open(self, on_head: OnHead) -> Attempt:
        while True:
            try:
                attempt = await self._make_try(on_head)
            except (NoHealthyUpstream, Overloaded) as lack:
                if isinstance(lack, Overloaded) and self._has_other:
                    continue
                if not self._falls_back(lack, None):
                    raise
                continue
            except UpstreamFault as fault:
                progress = Progress.HEAD if fault.had_head else progress_before_head(fault)
                if not await self._goes_on(fault, [], progress):
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
        assert attempt is not None
        goes_on = await self._goes_on(error, attempt.headers, Progress.HEAD, attempt)
        if goes_on:
            attempt.close()
        return goes_on

    def continues(self, request: JsonObject) -> bool:
        """Whether another target is to be asked to go on with a stream that was cut, by this request; then the attempt
        is let go of, and `open` is next."""
        now = trio.current_time()
        may = self._tries < self._way.rules.tries and now < self._deadline and bool(self._usable)
        if not may or not self._way.budget.take(now):
            return False
        assert self._attempt is not None
        self._attempt.close()
        self._request.json, self._request.body = request, request.body
        return True

    def _next(self) -> int:
        """The target that is tried now: the first in the order that was not tried yet, else the first again."""
        if not self._targets:
            raise ModelNotAllowed("This key may use none of the upstreams that have this model.", param="model")
        if not self._order:
            self._order = arranged(
                self._targets,
                self._way.strategy,
                first=self._canary,
                draw=self._dispatcher.draw,
                sticky=self._sticky(),
                now=trio.current_time(),
            )
        if not self._order:
            raise no_healthy_upstream()
        usable = self._usable or self._order
        index = next((one for one in usable if one not in self._tried), usable[0])
        self._tried.add(index)
        return index

    def _sticky(self) -> str | None:
        kind, _, name = self._way.sticky.partition(":")
        if kind == "header":
            value = find(self._request.headers, name.encode("ascii"))
            return None if value is None else value.decode("latin-1")
        raw = self._request.json.members.get(kind) if kind and self._request.json is not None else None
        return None if raw is None else bytes(raw).decode("utf-8", "replace")

    async def _make_try(self, on_head: OnHead) -> Attempt:
        """The next try, or two side by side; whatever the status."""
        index = self._next()
        hedge = self._way.hedge
        delay_s = hedge.delay() if hedge is not None and self.may_hedge and self._has_other else None
        if delay_s is None:
            return await self._ask(index, self._trying(index))
        race = Race()
        attempt = await race.run(
            partial(self._ask_for_content, index, race, on_head, is_first=True),
            partial(self._hedged, race, on_head),
            delay_s,
        )
        self._exchange.upstream = attempt.endpoint.name
        return attempt

    def _hedged(self, race: Race, on_head: OnHead) -> Ask | None:
        """What runs beside a try that is late."""
        hedge = self._way.hedge
        assert hedge is not None
        if self._tries >= self._way.rules.tries or not self._has_other or not hedge.take():
            return None
        self._exchange.notes["hedged"] = True
        return partial(self._ask_for_content, self._next(), race, on_head, is_first=False)

    async def _ask_for_content(self, index: int, race: Race, on_head: OnHead, *, is_first: bool) -> Attempt:
        """A try in a race: it is there with its first content, not with its head."""
        trying = self._trying(index)
        started = trio.current_time()
        try:
            attempt = await self._ask(index, trying, learns=is_first)
            try:
                if attempt.status < 300 and is_event_stream(attempt.headers):
                    on_head(attempt.answered)
                    await self._asker.wait_for_content(attempt)
            except UpstreamFault as fault:
                trying.result = type(fault).code  # as in `asking`
                attempt.close()
                raise
            except BaseException:
                attempt.close()
                raise
        except trio.Cancelled:
            trying.result = HEDGE_LOST if race.is_decided else CANCELLED
            if race.is_decided:
                self._note_lost(index, trio.current_time() - started, is_first=is_first)
            raise
        if attempt.status < 400 and race.is_decided:  # by another one, in the same moment
            trying.result = HEDGE_LOST
        return attempt

    def _note_lost(self, index: int, took_s: float, *, is_first: bool) -> None:
        """A try was cancelled because another one was quicker. Its first content would have taken at least so long:
        left out, the slow ones would vanish from what late means and from how a canary is seen."""
        way = self._way
        if is_first and way.hedge is not None:
            way.hedge.note(took_s)
        if way.canary is not None:
            way.canary.state.note(is_canary=index == self._canary, is_error=False, first_content_s=took_s)

    def _trying(self, index: int) -> Trying:
        target = self._targets[index]
        return Trying(target.endpoint.name, target.model or self._model)

    async def _ask(self, index: int, trying: Trying, *, learns: bool = True) -> Attempt:
        """A try. `learns`: how long its first content takes counts for when a try is late."""
        self._tries += 1
        target = self._targets[index]
        attempt = await self._asker.ask(
            target,
            self._way,
            trying,
            model=target.model or (self._model if self._is_renamed else None),
            form=self._form(target),
            is_canary=index == self._canary,
            hedge=self._way.hedge if learns else None,
        )
        attempt.model = trying.model
        return attempt

    def _form(self, target: Target) -> Form:
        request = self._request
        if not request.can_be_bridged:
            return Form.AS_ASKED
        if request.wants_stream:
            return Form.WHOLE if self._is_batch or not target.endpoint.streams else Form.AS_ASKED
        return Form.STREAM if self._way.aggregates and target.endpoint.streams else Form.AS_ASKED

    async def _goes_on(
        self, failure: ProxyError | int, headers: Headers, progress: Progress, attempt: Attempt | None = None
    ) -> bool:
        """Wait for, and prepare, the next try. False if there is none."""
        now = trio.current_time()
        wait_s = (
            0.0
            if self._may_change_key(failure, headers, attempt)
            else decide(
                failure,
                headers,
                progress,
                self._way.rules,
                method=self._request.method,
                can_repeat=self._asker.can_repeat,
                tries=self._tries,
                candidates=len(self._order),
                has_other=self._has_other,
                now=now,
                wall_now=time.time(),
                deadline=self._deadline,
                draw=self._dispatcher.draw,
            )
        )
        if wait_s is not None and self._usable and self._way.budget.take(now):
            if wait_s:
                if attempt is not None:
                    attempt.close()
                self._exchange.flow.turn(PROXY, trio.current_time())
                await trio.sleep(wait_s)
            return True
        return self._falls_back(failure, attempt)

    def _may_change_key(self, failure: ProxyError | int, headers: Headers, attempt: Attempt | None) -> bool:
        """Whether it is our own key that was refused, and the endpoint has another one. A client that repeats could do
        nothing about the key, so this also holds where there is nobody else to ask."""
        if failure not in _KEY_STATUSES or attempt is None or attempt.stay is None or attempt.stay.key is None:
            return False
        may = self._asker.can_repeat and self._tries < self._way.rules.tries and should_retry(headers) is not False
        return may and attempt.endpoint.has_key(trio.current_time())

    def _falls_back(self, failure: ProxyError | int, attempt: Attempt | None) -> bool:
        """Go on with another model, if the route names one for this kind of failure; at last with a whole answer."""
        if not isinstance(self._request.body, bytes) or self._request.json is None:
            return False
        said = attempt.ahead if attempt is not None else b""
        if isinstance(failure, int):
            kind = class_of_answer(failure, said)
        elif isinstance(failure, NoHealthyUpstream | Overloaded):
            # Without a healthy one it is an outage; else every key is set aside, or there is no room.
            is_up = any(target.endpoint.health.is_healthy for target in self._targets)
            kind = ErrorClass.RATE_LIMIT if is_up else ErrorClass.OUTAGE
        else:
            kind = class_of_fault(failure)
        if kind is not None:
            models = [*self._way.fallback.get(kind, ()), *self._fallbacks]
            self._fallbacks = [model for model in models if model not in self._asked]
            if self._fallbacks:
                model = self._fallbacks.pop(0)
                self._exchange.notes["fallback"] = model
                self._set_out(model)
                return True
        refuses_stream = isinstance(failure, int) and blames(said, "stream")
        if not self._may_ask_whole or not (kind is ErrorClass.OUTAGE or refuses_stream):
            return False
        self._exchange.notes["batch_fallback"] = self._is_batch = True
        self._tries, self._tried, self._order = 0, set(), []
        return True

    async def _read_error(self, attempt: Attempt) -> None:
        """Read an error's body where it decides about the fallback; it is passed on all the same."""
        if self._may_fall_back or self._may_ask_whole:
            with self._asker.waiting():
                await attempt.read_ahead()
