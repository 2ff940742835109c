"""The admin address's routes. Those that tell one thing are here, the others have modules of their own."""

import os
from collections.abc import Mapping

import msgspec

from trioproxy.errors import UnknownPath
from trioproxy.telemetry.metrics import CONTENT_TYPE
from trioproxy.web.admin import pages, session, streams
from trioproxy.web.admin.desk import AdminDesk, guarded
from trioproxy.web.app import RoutedApp
from trioproxy.web.connection import Incoming
from trioproxy.wire.headers import find

_INDEX = b"""trioproxy, admin address

GET    /                    the dashboard
GET    /metrics             for Prometheus
GET    /admin/streams       requests under way; as text/event-stream: and what happens from now on
GET    /admin/streams/ID    one of them, or one of the last minute: its tries, and for whom it waited when
DELETE /admin/streams/ID    stop it; ?reason=TEXT is for the log
GET    /admin/upstreams     how each upstream is: breaker, health, requests, keys, canaries
GET    /admin/keys          virtual keys: what each may do, and what it has used
GET    /admin/backpressure  streams that several clients read: what they hold, and what slow readers came to
GET    /admin/resources     what is open, what was opened and released, and who runs
GET    /admin/config        the configuration in force, secrets masked
POST   /admin/reload        put the configuration into force as it is now
GET    /admin/session       whether a key is needed; POST shows it once, for a page; DELETE ends the session
GET    /healthz             alive
"""


PROVEN = b"trioproxy-proven"
"""The header that names a key which the configuration has to hold, or the reload is refused (see `config.proven`)."""


class AdminApp(RoutedApp[AdminDesk]):
    """The app of the admin address."""

    def __init__(self, desk: AdminDesk, files: Mapping[str, pages.File] | None = None) -> None:
        """`files` are the dashboard's; None: those that belong to the program."""
        super().__init__(desk)
        self.add("/healthz", _health)
        looks = ("GET", "HEAD")
        self.add("/metrics", guarded(_metrics, *looks))
        self.add("/admin", guarded(_index, *looks))
        self.add(streams.PATH, guarded(streams.table, *looks))
        self.add(streams.BELOW + "<id>", guarded(streams.one, *looks, "DELETE"))
        self.add("/admin/resources", guarded(_resources, *looks))
        self.add("/admin/upstreams", guarded(_upstreams, *looks))
        self.add("/admin/backpressure", guarded(_backpressure, *looks))
        self.add("/admin/keys", guarded(_keys, *looks))
        self.add("/admin/config", guarded(_config, *looks))
        self.add("/admin/reload", guarded(_reload, "POST"))
        # A page has to be there before a key can be typed into it.
        self.add(session.PATH, guarded(session.session, *session.METHODS, needs_key=False))
        for name, file in (pages.files_in(pages.FOLDER) if files is None else files).items():
            path = "/" if name == pages.INDEX else pages.STATIC + name
            self.add(path, guarded(pages.serving(file), *looks, needs_key=False))
        self.add("/<path:rest>", guarded(_unknown_path))


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


async def _keys(desk: AdminDesk, incoming: Incoming) -> None:
    await incoming.reply(200, msgspec.json.encode(await desk.staff.keys()))


async def _config(desk: AdminDesk, incoming: Incoming) -> None:
    said = {**desk.staff.config(), "data_urls": desk.staff.data_urls(pages.host_in(incoming))}
    await incoming.reply(200, msgspec.json.encode(said))


async def _reload(desk: AdminDesk, incoming: Incoming) -> None:
    proven = find(incoming.headers, PROVEN)
    problems = await desk.staff.reload(None if proven is None else proven.decode("latin-1"))
    await incoming.reply(409 if problems else 200, msgspec.json.encode({"pid": os.getpid(), "problems": problems}))


async def _health(desk: AdminDesk, incoming: Incoming) -> None:
    """Alive: no key and no host name is needed to learn that."""
    await incoming.reply(200, msgspec.json.encode({"status": "ok"}))


async def _unknown_path(desk: AdminDesk, incoming: Incoming) -> None:
    raise UnknownPath("There is nothing here; GET /admin lists what there is.")
