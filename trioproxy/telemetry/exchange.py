"""The exchange: the record of one request, from accept to end. Times are trio's clock, seconds.

Written by the request's own task as things happen and read once, when it is over. It never holds a body, a key, a query
or a header's value other than the request ids.
"""

from dataclasses import dataclass, field
from typing import Any

from trioproxy.errors import CancelReason, Deadline, ProxyError
from trioproxy.policy.price import dollars
from trioproxy.wire.usage import Usage

MAX_WORD = 200
"""Longest client-given word (path, model) that is kept."""
_DEADLINES: dict[str, Deadline] = {
    CancelReason.TOTAL: Deadline.TOTAL,
    CancelReason.CLIENT_STALLED: Deadline.CLIENT_STALL,
}


@dataclass(slots=True)
class Exchange:
    """One request. `outcome` is `finished`, `failed` (with `code`) or `cancelled` (with `reason`); `deadline` is the
    clock that ended it, if one did.

    `key` is the name of the virtual key that it came with. `served_model` is what the upstream that answered was asked
    for. `usage` is what that one said it took, and never made up; `cost` is in picodollars, None where it is unknown;
    `is_estimated`: tokens were counted, and the cost reckoned, of which no upstream has told.
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
    head_at: float | None = None
    first_content_at: float | None = None
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
    tries: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

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
        )

    def note_try(self, upstream: str, result: str) -> None:
        """One try at an upstream and what it came to: a status, or the code of a fault."""
        self.tries.append((upstream, result))

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

    def line(self) -> dict[str, Any]:
        """The fields of the log line; times in milliseconds since accept, absent where they did not happen."""
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:MAX_WORD],
            "endpoint": self.endpoint,
            "model": self.model[:MAX_WORD] if self.model else None,
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
            "tries": [f"{upstream} {result}" for upstream, result in self.tries] if len(self.tries) > 1 else None,
            "head_ms": self._since_accept(self.head_at),
            "first_content_ms": self._since_accept(self.first_content_at),
            "total_ms": self._since_accept(self.ended),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "events": self.events,
            "heartbeats": self.heartbeats or None,
            "input_tokens": self.usage.input if self.usage else None,
            "cached_tokens": self.usage.cached or None if self.usage else None,
            "output_tokens": self.usage.output if self.usage else None,
            "estimated": self.is_estimated or None,
            "cost_usd": dollars(self.cost) if self.cost is not None else None,
            **self.notes,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _since_accept(self, moment: float | None) -> float | None:
        return None if moment is None else round(1000 * (moment - self.accepted), 2)
