"""What one request has received and its app has not taken yet: the ASGI `receive` side of a request.

Hypercorn's own channel blocks the connection's reader once ten messages wait, and a blocked reader does not see the
client leave. Here the reader never blocks: it asks `has_room` before it reads on. The disconnect is an event of its
own, so that it overtakes a body that nobody is reading. And a client that waits to be asked for its body (`expect:
100-continue`) is asked when the app wants it: a refusal then comes instead. The client's time to send runs only while
the app waits: an origin that is slow to take an upload is not the client's doing.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import trio

from trioproxy.errors import CancelReason, Deadline, ProxyError, RequestTimeout
from trioproxy.telemetry.flow import Flow

Message = dict[str, Any]

_DISCONNECT: Message = {"type": "http.disconnect"}


class Inbox:
    """The messages of one request, in order. `put` is called by the connection's reader, `receive` by the app.

    It stands in the request's scope as the extension `trioproxy.departure`, for whoever watches for the client leaving.

    Attributes:
        reason: why the connection went, a `CancelReason`'s value; valid once `gone` is set.
        abort: closes the connection at once, by a reset.
        client_stall_s: how long the client may leave bytes of its answer unread, where this request's route says so.
        flow: of the request, where it is noted that it waits for its client.
        fault: what ended the body before its end, if anything did.
        waiting_bytes: body bytes received and not taken.
        gone: set once the client has left, or the connection was closed under the request.
        taken: an event that is set, and renewed, whenever the app took something.
    """

    __slots__ = (
        "_arrived",
        "_ask",
        "_is_whole",
        "_messages",
        "_patience_s",
        "abort",
        "client_stall_s",
        "fault",
        "flow",
        "gone",
        "reason",
        "taken",
        "waiting_bytes",
    )

    def __init__(
        self, abort: Callable[[], None], ask: Callable[[], Awaitable[None]], *, patience_s: float = inf
    ) -> None:
        """`patience_s` is how long the app waits for the next bytes of a body."""
        self.abort = abort
        self._ask = ask
        self._patience_s = patience_s
        self._is_whole = False
        self.client_stall_s: float | None = None
        self.fault: ProxyError | None = None
        self.flow: Flow | None = None
        self.reason = CancelReason.CLIENT_GONE.value
        self._messages: deque[Message] = deque()
        self._arrived = trio.Event()
        self.waiting_bytes = 0
        self.gone = trio.Event()
        self.taken = trio.Event()

    async def put(self, message: Message) -> None:
        """Take an ASGI message from Hypercorn. Never waits."""
        if message["type"] == "http.disconnect":
            self.gone.set()
        else:
            self._messages.append(message)
            self.waiting_bytes += len(message["body"])
            self._is_whole = not message["more_body"]
        self._arrived.set()

    def fail(self, fault: ProxyError) -> None:
        """The rest of the body cannot be read: whoever asks for it gets the fault, once what came before was taken."""
        self.fault = fault
        self._arrived.set()

    async def receive(self) -> Message:
        """The app's `receive`. The end of the body stands once; behind it only the disconnect comes. Raises the fault
        that ended the body, if one did, RequestTimeout if the client sends nothing for too long. If cancelled, no
        message was taken."""
        if not self._messages:
            await self._ask()
        while not self._messages:
            if self.gone.is_set():
                return _DISCONNECT
            if self.fault is not None:
                raise self.fault
            arrived = self._arrived = trio.Event()
            with trio.move_on_after(inf if self._is_whole else self._patience_s):
                await arrived.wait()
            if not arrived.is_set():
                self.fault = RequestTimeout(
                    f"No byte of the request's body came for {self._patience_s:g} s.", deadline=Deadline.BODY
                )
        message = self._messages.popleft()
        self.waiting_bytes -= len(message["body"])
        taken, self.taken = self.taken, trio.Event()
        taken.set()
        return message
