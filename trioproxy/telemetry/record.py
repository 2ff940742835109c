"""What is known of a request once it is over: one frozen object, made once, from which its log line, the metrics, its
spans and the last word of the live table are all made. Times are trio's clock, seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trioproxy.errors import Deadline
from trioproxy.policy.price import dollars
from trioproxy.telemetry.flow import Flow
from trioproxy.telemetry.trace import Trace
from trioproxy.wire.usage import Usage


@dataclass(frozen=True, slots=True)
class Try:
    """One try at an upstream. `model` is what the request calls it there, None where the request was passed on as it
    came; `connected` is when its connection was there, `head` and `first_content` when those were; None for what did
    not come. `result` is a status, the code of a fault, "hedge_lost" or "cancelled". `span_id` is what the upstream was
    told of who calls it, where the request is traced."""

    upstream: str
    model: str | None
    started: float
    connected: float | None
    head: float | None
    first_content: float | None
    ended: float
    result: str
    span_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request. See `telemetry/exchange.Exchange`, of which this is the end; fields of one name mean the same.

    `started_wall` is when it was accepted, in seconds since 1970. `upstream_s`, `client_s` and `proxy_s` are for how
    long it waited for each; together they are the time from `accepted` to `ended`. `gaps` are those between a stream's
    events, by `gaps.BOUNDS_S`. `flow` is over, and knows the longest waits. `trace` is there where one is kept.
    """

    request_id: str
    method: str
    path: str
    client: str | None
    key: str | None
    endpoint: str
    model: str | None
    served_model: str | None
    stream: bool
    upstream: str | None
    upstream_request_id: str | None
    attempts: int
    tries: tuple[Try, ...]
    status: int
    started_wall: float
    accepted: float
    read_at: float | None
    permitted_at: float | None
    head_at: float | None
    first_content_at: float | None
    last_event_at: float | None
    gone_at: float | None
    ended: float
    upstream_s: float
    client_s: float
    proxy_s: float
    bytes_in: int
    bytes_out: int
    events: int
    heartbeats: int
    gaps: tuple[int, ...] | None
    gaps_s: float
    longest_gap_s: float
    usage: Usage | None
    cost: int | None
    is_estimated: bool
    outcome: str
    code: str | None
    reason: str | None
    deadline: Deadline | None
    flow: Flow
    trace: Trace | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def turns(self) -> list[tuple[float, str, float]]:
        """The longest waits, see `Flow.turns`."""
        return self.flow.turns()

    def line(self) -> dict[str, Any]:
        """The fields of the log line; times in milliseconds, moments since accept, absent where they did not happen."""
        usage = self.usage
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "endpoint": self.endpoint,
            "model": self.model or None,
            "stream": self.stream,
            "status": self.status,
            "outcome": self.outcome,
            "code": self.code,
            "reason": self.reason,
            "deadline": self.deadline,
            "client": self.client,
            "key": self.key,
            "upstream": self.upstream,
            "upstream_request_id": self.upstream_request_id,
            "attempts": self.attempts,
            "tries": [f"{one.upstream} {one.result}" for one in self.tries] if len(self.tries) > 1 else None,
            "head_ms": self._since_accept(self.head_at),
            "first_content_ms": self._since_accept(self.first_content_at),
            "total_ms": self._since_accept(self.ended),
            "upstream_ms": _milliseconds(self.upstream_s),
            "client_ms": _milliseconds(self.client_s),
            "proxy_ms": _milliseconds(self.proxy_s),
            "longest_gap_ms": _milliseconds(self.longest_gap_s) if self.gaps is not None else None,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "events": self.events,
            "heartbeats": self.heartbeats or None,
            "input_tokens": usage.input if usage else None,
            "cached_tokens": usage.cached or None if usage else None,
            "output_tokens": usage.output if usage else None,
            "estimated": self.is_estimated or None,
            "cost_usd": dollars(self.cost) if self.cost is not None else None,
            **self.notes,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _since_accept(self, moment: float | None) -> float | None:
        return None if moment is None else _milliseconds(moment - self.accepted)


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 2)
