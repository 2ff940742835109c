"""Connections to origins that wait for their next request: one LIFO stack per origin.

Last in, first out keeps few connections busy and lets the others run out. Every operation is O(1). A connection waits
for less time than the origin keeps it (`keep-alive: timeout=N` if it says so): one that the origin closes just as a
request goes out would fail a request for nothing.
"""

import re
from collections import defaultdict

import trio

from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.http1 import OriginConnection

Origin = tuple[str, str, int]
"""Scheme, host and port."""

DEFAULT_IDLE_S = 4.0
"""Just below the 5 s after which the most common servers in Python and Node close an idle connection."""
MAX_IDLE_S = 60.0
_TIMEOUT = re.compile(rb"timeout\s*=\s*(\d{1,5})")


class Pool:
    """The idle connections. Its `reap` belongs in the process nursery; without it they end at their next use.

    `connections` counts all that were opened, waiting or not.
    """

    def __init__(self) -> None:
        self.connections = Tally()
        self._idle: dict[Origin, list[OriginConnection]] = defaultdict(list)
        self._has_idle = trio.Event()

    @property
    def idle_connections(self) -> int:
        """How many connections wait."""
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin) -> OriginConnection | None:
        """The connection that was used last and is still good, or None."""
        waiting = self._idle.get(origin)
        now = trio.current_time()
        while waiting:
            connection = waiting.pop()
            if now < connection.idle_since + connection.idle_limit_s and not connection.is_stale():
                return connection
            connection.close_nowait()
        return None

    def has(self, origin: Origin) -> bool:
        """Whether a good connection waits. It goes on waiting, and no longer than it would have."""
        connection = self.take(origin)
        if connection is not None:
            self._idle[origin].append(connection)
        return connection is not None

    def give_back(self, origin: Origin, connection: OriginConnection) -> None:
        """Keep a connection whose answer is complete, or close it if it cannot be used again."""
        if not connection.can_be_reused:
            connection.close_nowait()
            return
        limit = DEFAULT_IDLE_S
        for name, value in connection.headers:
            if name == b"keep-alive" and (found := _TIMEOUT.search(value.lower())):
                limit = min(int(found.group(1)) - 1, MAX_IDLE_S)
        if limit > 0:
            self.keep(origin, connection, limit)
        else:
            connection.close_nowait()

    def keep(self, origin: Origin, connection: OriginConnection, limit_s: float = DEFAULT_IDLE_S) -> None:
        """Keep a connection that is ready for a request, for at most `limit_s` seconds."""
        connection.idle_since = trio.current_time()
        connection.idle_limit_s = limit_s
        self._idle[origin].append(connection)
        self._has_idle.set()

    async def reap(self) -> None:
        """Close connections whose time is over, until cancelled."""
        while True:
            await self._has_idle.wait()
            await trio.sleep(1)
            self.close_expired()
            if not self.idle_connections:
                self._has_idle = trio.Event()

    def close_expired(self) -> None:
        """Close what has waited too long, and what its origin has closed."""
        now = trio.current_time()
        for waiting in self._idle.values():
            kept = []
            for connection in waiting:
                if now < connection.idle_since + connection.idle_limit_s and not connection.is_stale():
                    kept.append(connection)
                else:
                    connection.close_nowait()
            waiting[:] = kept

    def close_nowait(self) -> None:
        """Close everything that waits."""
        for waiting in self._idle.values():
            while waiting:
                waiting.pop().close_nowait()
