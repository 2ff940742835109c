"""What one request has received and its app has not taken yet: the ASGI `receive` side of a request.

Hypercorn's own channel blocks the connection's reader once ten messages wait, and a blocked reader does not see the
client leave. Here the reader never blocks: it asks `has_room` before it reads on. The disconnect is an event of its
own, so that it overtakes a body that nobody is reading. And a client that waits to be asked for its body (`expect:
100-continue`) is asked when the app wants it: a refusal then comes instead.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trioproxy.errors import CancelReason, ProxyError

Message = dict[str, Any]

_DISCONNECT: Message = {"type": "http.disconnect"}


class Inbox:
    """The messages of one request, in order. `put` is called by the connection's reader, `receive` by the app.

    It stands in the request's scope as the extension `trioproxy.departure`, for whoever watches for the client leaving.

    Attributes:
        reason: why the connection went, a `CancelReason`'s value; valid once `gone` is set.
        abort: closes the connection at once, by a reset.
        waiting_bytes: body bytes received and not taken.
        gone: set once the client has left, or the connection was closed under the request.
        taken: an event that is set, and renewed, whenever the app took something.
    """

    __slots__ = ("_arrived", "_ask", "_fault", "_messages", "abort", "gone", "reason", "taken", "waiting_bytes")

    def __init__(self, abort: Callable[[], None], ask: Callable[[], Awaitable[None]]) -> None:
        self.abort = abort
        self._ask = ask
        self._fault: ProxyError | None = None
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
        self._arrived.set()

    def fail(self, fault: ProxyError) -> None:
        """The rest of the body cannot be read: whoever asks for it gets the fault, once what came before was taken."""
        self._fault = fault
        self._arrived.set()

    async def receive(self) -> Message:
        """The app's `receive`. The end of the body stands once; behind it only the disconnect comes. Raises the fault
        that ended the body, if one did. If cancelled, no message was taken."""
        if not self._messages:
            await self._ask()
        while not self._messages:
            if self.gone.is_set():
                return _DISCONNECT
            if self._fault is not None:
                raise self._fault
            self._arrived = trio.Event()
            await self._arrived.wait()
        message = self._messages.popleft()
        self.waiting_bytes -= len(message["body"])
        taken, self.taken = self.taken, trio.Event()
        taken.set()
        return message
