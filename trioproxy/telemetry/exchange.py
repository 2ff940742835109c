"""The exchange: what happens to one request, from accept to end. Times are trio's clock, seconds.

Written by the request's own task as things happen, and closed once, when it is over: what it came to is its `Record`.
It never holds a body, a key, a query or a header's value other than the request ids.
"""

from dataclasses import dataclass, field
from time import time
from typing import Any, Final

from trioproxy.errors import CancelReason, Deadline, ProxyError
from trioproxy.telemetry.flow import OVER, PROXY, Flow
from trioproxy.telemetry.gaps import Gaps
from trioproxy.telemetry.record import Record, Try
from trioproxy.telemetry.trace import Trace
from trioproxy.wire.trace_context import TraceContext
from trioproxy.wire.usage import Usage

MAX_WORD: Final = 200
"""Longest client-given word (path, model) that is kept."""
CANCELLED: Final = "cancelled"
HEDGE_LOST: Final = "hedge_lost"
_DEADLINES: dict[str, Deadline] = {
    CancelReason.TOTAL: Deadline.TOTAL,
    CancelReason.CLIENT_STALLED: Deadline.CLIENT_STALL,
}


@dataclass(slots=True)
class Trying:
    """One try at an upstream, while it is made and its answer is read; a field means what it means in `record.Try`. Its
    `result` is that of one which was cancelled until it comes to another one; `span` is what its origin is told."""

    upstream: str
    model: str | None = None
    started: float = 0.0
    connected: float | None = None
    head: float | None = None
    first_content: float | None = None
    ended: float | None = None
    result: str = CANCELLED
    span: TraceContext | None = None

    def note_connected(self, now: float) -> None:
        """Its connection is there."""
        self.connected = now

    def close(self, now: float) -> Try:
        """What it came to; it is over now, if it was not before."""
        return Try(
            self.upstream,
            self.model,
            self.started,
            self.connected,
            self.head,
            self.first_content,
            now if self.ended is None else self.ended,
            self.result,
            None if self.span is None else self.span.span_id,
        )


@dataclass(slots=True)
class Exchange:
    """One request. `outcome` is `finished`, `failed` (with `code`) or `cancelled` (with `reason`); `deadline` is the
    clock that ended it, if one did.

    `key` is the name of the virtual key that it came with. `served_model` is what the upstream that answered was asked
    for. `usage` is what that one said it took, and never made up; `cost` is in picodollars, None where it is unknown;
    `is_estimated`: tokens were counted, and the cost reckoned, of which no upstream has told.

    `started_wall` is when it was accepted, in seconds since 1970; `read_at` when its body was here, `permitted_at` when
    the limits had let it in. `head_at`, `first_content_at` and `last_event_at` are of the answer that it got, `gone_at`
    is when its client was seen to have left. `tries` are in the order in which they began. `flow` is whom it waits for.
    `gaps` are there for an event stream, `trace` where one is kept.
    """

    request_id: str
    method: str
    path: str
    accepted: float
    client: str | None = None
    key: str | None = None
    endpoint: str = "other"
    model: str | None = None
    served_model: str | None = None
    stream: bool = False
    upstream: str | None = None
    upstream_request_id: str | None = None
    attempts: int = 0
    status: int = 0
    started_wall: float = field(default_factory=time)
    read_at: float | None = None
    permitted_at: float | None = None
    head_at: float | None = None
    first_content_at: float | None = None
    last_event_at: float | None = None
    gone_at: float | None = None
    ended: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    events: int = 0
    heartbeats: int = 0
    usage: Usage | None = None
    cost: int | None = None
    is_estimated: bool = False
    outcome: str = "finished"
    code: str | None = None
    reason: str | None = None
    deadline: Deadline | None = None
    tries: list[Trying] = field(default_factory=list)
    gaps: Gaps | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    trace: Trace | None = None
    flow: Flow = field(init=False)

    def __post_init__(self) -> None:
        self.flow = Flow(self.accepted, PROXY)

    @property
    def phase(self) -> str:
        """How far it is: "reading" its body, "waiting" for an upstream's head, "thinking" until content comes,
        "flowing", or "ended"."""
        if self.ended is not None:
            return "ended"
        if self.first_content_at is not None or (not self.stream and (self.bytes_out or self.status == 101)):
            return "flowing"
        if self.head_at is not None:
            return "thinking"
        return "reading" if self.read_at is None and not self.tries else "waiting"

    @property
    def results(self) -> list[tuple[str, str]]:
        """Who was asked, and what each try came to."""
        return [(one.upstream, one.result) for one in self.tries]

    def beginning(self, now: float) -> "Exchange":
        """A record of what this request has started, and what may outlive it: the same request, as of now."""
        return Exchange(
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            accepted=now,
            client=self.client,
            key=self.key,
            endpoint=self.endpoint,
            model=self.model,
            stream=self.stream,
            bytes_in=self.bytes_in,
            trace=None if self.trace is None else self.trace.begin_inner(),
        )

    def begin_try(self, trying: Trying, now: float) -> None:
        """A try at an upstream begins."""
        trying.started = now
        if self.trace is not None:
            trying.span = self.trace.begin_try()
        self.tries.append(trying)
        self.attempts += 1
        self.upstream = trying.upstream

    def fail(self, error: ProxyError) -> None:
        """The request did not get what it asked for. The code is that of the error's class, as in the README's table:
        an origin's own words, which an error may show, come from no closed set."""
        self.outcome = "failed"
        self.code = type(error).code
        self.deadline = error.deadline

    def cancel(self, reason: str) -> None:
        """The request was ended from outside; `reason` is a `CancelReason`."""
        self.outcome = "cancelled"
        self.reason = reason
        self.deadline = _DEADLINES.get(reason)

    def close(self, now: float) -> Record:
        """It is over, unless it was before: what it came to."""
        if self.ended is None:
            self.ended = now
        flow, gaps = self.flow, self.gaps
        flow.turn(OVER, self.ended)
        return Record(
            request_id=self.request_id,
            method=self.method,
            path=self.path[:MAX_WORD],
            client=self.client,
            key=self.key,
            endpoint=self.endpoint,
            model=None if self.model is None else self.model[:MAX_WORD],
            served_model=None if self.served_model is None else self.served_model[:MAX_WORD],
            stream=self.stream,
            upstream=self.upstream,
            upstream_request_id=self.upstream_request_id,
            attempts=self.attempts,
            tries=tuple([one.close(self.ended) for one in self.tries]),
            status=self.status,
            started_wall=self.started_wall,
            accepted=self.accepted,
            read_at=self.read_at,
            permitted_at=self.permitted_at,
            head_at=self.head_at,
            first_content_at=self.first_content_at,
            last_event_at=self.last_event_at,
            gone_at=self.gone_at,
            ended=self.ended,
            upstream_s=flow.upstream_s,
            client_s=flow.client_s,
            proxy_s=flow.proxy_s,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            events=self.events,
            heartbeats=self.heartbeats,
            gaps=None if gaps is None else tuple(gaps.counts),
            gaps_s=0.0 if gaps is None else gaps.total_s,
            longest_gap_s=0.0 if gaps is None else gaps.longest_s,
            usage=self.usage,
            cost=self.cost,
            is_estimated=self.is_estimated,
            outcome=self.outcome,
            code=self.code,
            reason=self.reason,
            deadline=self.deadline,
            flow=flow,
            notes=dict(self.notes),
            trace=self.trace,
        )
