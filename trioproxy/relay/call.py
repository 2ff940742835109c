"""What the relay is asked to do, and the ends it works on. Made by `web`, used by everything in `relay`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import trio

from trioproxy.errors import CancelReason
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers


@dataclass(frozen=True, slots=True)
class Timing:
    """The relay's clocks, in seconds. What each means is in `conf/trioproxy.toml`."""

    first_content_s: float = 600.0
    idle_s: float = 300.0
    total_s: float = 3600.0
    heartbeat_s: float = 15.0
    commit_after_s: float = 10.0
    is_strict: bool = True


@dataclass(slots=True)
class Call:
    """One request, read and understood. `headers` are those for the origin; `body` is held, or comes piece by piece."""

    method: str
    raw_path: bytes
    query: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    dialect: Dialect
    user_agent: bytes
    exchange: Exchange


class Lifetime:
    """The one nursery and the one exit stack of a request, and how to end it early.

    Attributes:
        nursery: where the request's other tasks run; cancelling it is the end of the request.
        stack: what the request holds. Left when the nursery is, whatever happened.
        traffic: the scope round the work for the client. Cancelled, there is still time to tell the client why.
        stopped: why `traffic` was cancelled, if it was.
    """

    __slots__ = ("nursery", "stack", "stopped", "traffic")

    def __init__(self, nursery: trio.Nursery, stack: AsyncExitStack) -> None:
        self.nursery = nursery
        self.stack = stack
        self.traffic = trio.CancelScope()
        self.stopped: CancelReason | None = None

    def stop(self, reason: CancelReason) -> None:
        """End the traffic; the request's own task then tells the client and ends."""
        if self.stopped is None:
            self.stopped = reason
            self.traffic.cancel(reason=reason.value)


class Downstream(Protocol):
    """The client's end of an answer.

    `send` and `finish` wait until the client's side took the bytes; that is the back-pressure. They are not cut short
    by cancellation (half a piece would corrupt the stream), only by the client's stall deadline, and say nothing when
    the client is gone: the request is cancelled then.
    """

    is_sending: bool
    has_head: bool

    def head(self, status: int, headers: Headers) -> None:
        """Set the head; it goes out with the first bytes."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        ...

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece and the honest end."""
        ...

    def abort(self) -> None:
        """Let the connection end without an honest end once this request's task is over."""
        ...
