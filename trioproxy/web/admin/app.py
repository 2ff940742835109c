"""The admin address's routes: metrics, resources, upstreams, backpressure, reload."""

import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from trioproxy.errors import MethodNotAllowed, UnknownPath
from trioproxy.telemetry.metrics import CONTENT_TYPE
from trioproxy.web.admin.guard import Guard
from trioproxy.web.app import RoutedApp
from trioproxy.web.connection import Incoming
from trioproxy.web.service import Desk
from trioproxy.wire.headers import find

_INDEX = b"""trioproxy, admin address

GET  /metrics             for Prometheus
GET  /admin/resources     what is open, what was opened and released, and who runs
GET  /admin/upstreams     how each upstream is: breaker, health, requests, keys
GET  /admin/backpressure  streams that several clients read: what they hold, and what slow readers came to
POST /admin/reload        put the configuration into force as it is now
GET  /healthz             alive
"""


class Staff(Protocol):
    """Who knows and decides: the supervisor."""

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

    async def reload(self, proven: str | None = None) -> list[str]:
        """Put the configuration into force, if it holds the key that was `proven`; the problems if it was refused."""
        ...


class AdminDesk(Desk):
    """What the admin routes work with."""

    def __init__(self, staff: Staff, guard: Guard) -> None:
        super().__init__()
        self.staff = staff
        self.guard = guard


PROVEN = b"trioproxy-proven"
"""The header that names a key which the configuration has to hold, or the reload is refused (see `config.proven`)."""

Route = Callable[[AdminDesk, Incoming], Awaitable[None]]


class AdminApp(RoutedApp[AdminDesk]):
    """The app of the admin address."""

    def __init__(self, desk: AdminDesk) -> None:
        super().__init__(desk)
        self.add("/healthz", _health)
        self.add("/", _guarded(_index, "GET", "HEAD"))
        self.add("/metrics", _guarded(_metrics, "GET", "HEAD"))
        self.add("/admin/resources", _guarded(_resources, "GET", "HEAD"))
        self.add("/admin/upstreams", _guarded(_upstreams, "GET", "HEAD"))
        self.add("/admin/backpressure", _guarded(_backpressure, "GET", "HEAD"))
        self.add("/admin/reload", _guarded(_reload, "POST"))
        self.add("/<path:rest>", _guarded(_unknown_path))


def _guarded(route: Route, *methods: str) -> Route:
    """A route behind the guard, for these methods (none named: for all)."""

    async def run(desk: AdminDesk, incoming: Incoming) -> None:
        desk.guard.check(incoming.headers)
        if methods and incoming.method not in methods:
            allow = ", ".join(methods)
            raise MethodNotAllowed(f"{incoming.method} is not allowed here; use {methods[0]}.", allow=allow)
        await route(desk, incoming)

    return run


async def _index(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, _INDEX, b"text/plain; charset=utf-8")


async def _metrics(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, await desk.staff.metrics(), CONTENT_TYPE.encode("ascii"))


async def _resources(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, msgspec.json.encode(await desk.staff.resources()))


async def _upstreams(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, msgspec.json.encode(await desk.staff.upstreams()))


async def _backpressure(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, msgspec.json.encode(await desk.staff.backpressure()))


async def _reload(desk: AdminDesk, incoming: Incoming) -> None:
    proven = find(incoming.headers, PROVEN)
    problems = await desk.staff.reload(None if proven is None else proven.decode("latin-1"))
    await incoming.reply(409 if problems else 200, msgspec.json.encode({"pid": os.getpid(), "problems": problems}))


async def _health(desk: AdminDesk, incoming: Incoming) -> None:
    """Alive: no key and no host name is needed to learn that."""
    await incoming.reply(200, msgspec.json.encode({"status": "ok"}))


async def _unknown_path(desk: AdminDesk, incoming: Incoming) -> None:
    raise UnknownPath("There is nothing here; GET / lists what there is.")
