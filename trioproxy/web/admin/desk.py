"""What the admin routes work with: who knows and decides, and who may ask."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import trio

from trioproxy.errors import InvalidKey, MethodNotAllowed, RateLimited
from trioproxy.policy.wrong_keys import WrongKeys
from trioproxy.web.admin.guard import Guard, shows_key
from trioproxy.web.connection import Incoming
from trioproxy.web.service import Desk

_LOOKS = ("GET", "HEAD")


class Watch(Protocol):
    """One who watches the live table."""

    async def next(self) -> bytes:
        """What happened since the last time, as events of a stream; a comment where nothing has for a while."""
        ...


class LiveTable(Protocol):
    """The requests under way in all workers."""

    async def rows(self) -> bytes:
        """All of them, as JSON."""
        ...

    def watched(self, after: int | None) -> AbstractContextManager[Watch]:
        """A watcher who knows what happened up to number `after`; None: nothing."""
        ...


class Staff(Protocol):
    """Who knows and decides: the supervisor."""

    @property
    def live_table(self) -> LiveTable: ...

    async def metrics(self) -> bytes:
        """Every worker's metrics in one, as Prometheus reads them."""
        ...

    async def resources(self) -> dict[str, Any]:
        """What is open in every worker, what was opened and released, and who runs."""
        ...

    async def upstreams(self) -> dict[str, Any]:
        """How each upstream is, over all workers."""
        ...

    async def backpressure(self) -> dict[str, Any]:
        """What shared streams hold, and what slow readers came to, over all workers."""
        ...

    async def keys(self) -> dict[str, Any]:
        """The virtual keys, and what was used of their limits."""
        ...

    async def stream(self, row_id: str) -> dict[str, Any]:
        """One request, live or lately ended, with its tries and its timeline; empty if nobody has it."""
        ...

    async def stop_stream(self, row_id: str, reason: str) -> int:
        """Stop a request, or a stream for all its readers. Returns how many there were."""
        ...

    def config(self) -> dict[str, str]:
        """The configuration in force as `toml`, secrets masked, and the program's `version`."""
        ...

    def data_urls(self, host: str) -> list[str]:
        """Where clients find the data address; `host` is what this machine is called by who asks."""
        ...

    async def reload(self, proven: str | None = None) -> list[str]:
        """Put the configuration into force, if it holds the key that was `proven`; the problems if it was refused."""
        ...


class AdminDesk(Desk):
    """What the admin routes work with."""

    def __init__(self, staff: Staff, guard: Guard) -> None:
        super().__init__()
        self.staff = staff
        self.guard = guard
        self._wrong_keys = WrongKeys()

    async def check(self, incoming: Incoming) -> None:
        """Whether a request may come in. Raises ForeignHost, ForeignOrigin, InvalidKey, or RateLimited where many wrong
        keys came from the same address."""
        self.guard.check_place(incoming.headers)
        changes = incoming.method not in _LOOKS
        if not self.guard.needs_key or not shows_key(incoming.headers):
            self.guard.check_key(incoming.headers, changes=changes)
            return
        await self.slow_down(incoming)
        try:
            self.guard.check_key(incoming.headers, changes=changes)
        except InvalidKey:
            self.note_key(incoming, is_right=False)
            raise
        self.note_key(incoming, is_right=True)

    async def slow_down(self, incoming: Incoming) -> None:
        """Wait for as long as one has to before a key is looked at. Raises RateLimited."""
        wait_s = self._wrong_keys.wait_s(incoming.exchange.client or "", trio.current_time())
        if wait_s is None:
            raise RateLimited("Too many wrong keys came from your address; try again later.", retry_after_s=10.0)
        if wait_s:  # else no checkpoint: of a crowd only the first one's key may be looked at before it is noted
            await trio.sleep(wait_s)

    def note_key(self, incoming: Incoming, *, is_right: bool) -> None:
        """A key was looked at."""
        self._wrong_keys.note(incoming.exchange.client or "", trio.current_time(), is_right=is_right)


Route = Callable[[AdminDesk, Incoming], Awaitable[None]]


def guarded(route: Route, *methods: str, needs_key: bool = True) -> Route:
    """A route behind the guard, for these methods (none named: for all)."""

    async def run(desk: AdminDesk, incoming: Incoming) -> None:
        if needs_key:
            await desk.check(incoming)
        else:
            desk.guard.check_place(incoming.headers)
        if methods and incoming.method not in methods:
            allow = ", ".join(methods)
            raise MethodNotAllowed(f"{incoming.method} is not allowed here; use {methods[0]}.", allow=allow)
        await route(desk, incoming)

    return run
