"""What the relay is asked to do, and the ends it works on. Made by `web`, used by everything in `relay`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from typing import Protocol

import trio

from trioproxy.errors import CancelReason
from trioproxy.policy.joining import Joining
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.messages import Close, Message


@dataclass(frozen=True, slots=True)
class Timing:
    """The relay's clocks, in seconds. What each means is in `conf/trioproxy.toml`. Events wait for `coalesce_s` (0: not
    at all), or until they are `coalesce_events`, to be written together."""

    connect_s: float = 5.0
    head_s: float = 600.0
    first_content_s: float = 600.0
    idle_s: float = 300.0
    total_s: float = 3600.0
    client_stall_s: float = 30.0
    heartbeat_s: float = 15.0
    commit_after_s: float = 10.0
    commit_before_head_s: float = inf
    is_strict: bool = True
    coalesce_s: float = 0.0
    coalesce_events: int = 100

    def joining(self) -> Joining | None:
        """What is to hold the events of one stream; None if none waits."""
        return Joining(self.coalesce_s, self.coalesce_events) if self.coalesce_s else None


@dataclass(slots=True)
class Call:
    """One request, read and understood. `target` is as the client wrote it, query and all; `headers` are those for the
    origin; `body` is held, or comes piece by piece; `json` is a held one's top level; `socket` is what an answer of 101
    is made with, where the client asked for one; `upstreams` are those that may be asked (None: all); `ticket` is what
    it wants of the limits; `wants_timing`: the client is told, inside a stream, how it went."""

    method: str
    target: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    dialect: Dialect
    user_agent: bytes
    exchange: Exchange
    json: JsonObject | None = None
    socket: "ClientSocket | None" = None
    upstreams: frozenset[str] | None = None
    ticket: "Ticket | None" = None
    wants_timing: bool = False


class Ticket(Protocol):
    """What a request wants of the limits; see `gate/ticket`.

    Attributes:
        asks_usage: whether it has to be known how many tokens the answer took.
    """

    asks_usage: bool

    async def count(self) -> Headers:
        """Count a request that reads what another one pays for."""
        ...

    async def enter(self, exchange: Exchange, stack: AsyncExitStack) -> Headers:
        """Take what the request may come to, until `stack` is left."""
        ...


class ClientSocket(Protocol):
    """A client's end of a WebSocket; `net/websocket.WebSocket` says what its other methods do.

    Attributes:
        is_sending: a send is under way, which nothing but the end of the connection can end.
        failed_with: the code with which the client was told that it broke the rules, if it did.
    """

    @property
    def is_sending(self) -> bool: ...

    @property
    def failed_with(self) -> int | None: ...

    async def accept(self, subprotocol: bytes | None, headers: Headers) -> None:
        """Answer the handshake. Raises BadRequest if the client did not wait for that."""
        ...

    async def receive(self) -> Message | Close: ...

    async def send(self, message: Message) -> None: ...

    async def close(self, close: Close) -> None: ...

    async def tend(self) -> None: ...


class Lifetime:
    """The one nursery and the one exit stack of a request, and how to end it early.

    Attributes:
        nursery: where the request's other tasks run; cancelling it is the end of the request.
        stack: what the request holds. Left when the nursery is, whatever happened.
        traffic: the scope round the work for the client. Cancelled, there is still time to tell the client why.
        whole: the scope whose deadline is the end of the request's whole time. It is not round the work, but round
            somebody's wait, who then stops the traffic.
        stopped: why `traffic` was cancelled, if it was.
        break_send: ends a send that is stuck, which nothing but the end of the connection can, and the wait for the
            rest of a body that is held.
    """

    __slots__ = ("break_send", "nursery", "stack", "stopped", "traffic", "whole")

    def __init__(self, nursery: trio.Nursery, stack: AsyncExitStack, break_send: Callable[[], None]) -> None:
        self.nursery = nursery
        self.stack = stack
        self.break_send = break_send
        self.traffic = trio.CancelScope()
        self.whole = trio.CancelScope()
        self.stopped: CancelReason | None = None

    def end_at(self, deadline: float) -> None:
        """Set when the whole request has to be over, trio's clock."""
        self.whole.deadline = deadline

    def stop(self, reason: CancelReason) -> None:
        """End the traffic; the request's own task then tells the client and ends. A client that takes no bytes at this
        moment cannot be told: its connection is closed."""
        if self.stopped is None:
            self.stopped = reason
            self.traffic.cancel(reason=reason.value)
            self.break_send()


class Downstream(Protocol):
    """The client's end of an answer.

    `send` and `finish` wait until the client's side took the bytes; that is the back-pressure. They are not cut short
    by cancellation (half a piece would corrupt the stream), only by the client's stall deadline, and say nothing when
    the client is gone: the request is cancelled then.

    Attributes:
        has_head: something went out.
        is_finished: the honest end went out; nothing can follow.
    """

    has_head: bool
    is_finished: bool

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
