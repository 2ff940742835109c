"""`/admin/session`: the page shows the key once, and has a session from then on."""

from typing import Any

import msgspec

from trioproxy.errors import BadRequest, InvalidKey
from trioproxy.web.admin.desk import AdminDesk
from trioproxy.web.admin.sessions import GONE
from trioproxy.web.connection import Incoming
from trioproxy.wire.json_object import JsonObject

PATH = "/admin/session"
METHODS = ("GET", "HEAD", "POST", "DELETE")
_MAX_BODY_BYTES = 4096


async def session(desk: AdminDesk, incoming: Incoming) -> None:
    """Tell how one stands (GET), begin a session (POST), or end it (DELETE). Raises BadRequest or one of its kinds."""
    match incoming.method:
        case "POST":
            await _log_in(desk, incoming)
        case "DELETE":
            await _log_out(desk, incoming)
        case _:
            await _tell(desk, incoming)


async def _tell(desk: AdminDesk, incoming: Incoming) -> None:
    try:
        await desk.check(incoming)
        is_open = True
    except InvalidKey:
        is_open = False
    found = desk.guard.session(incoming.headers)
    token = None if found is None else found.token
    await _reply(incoming, {"needs_key": desk.guard.needs_key, "is_open": is_open, "csrf": token})


async def _log_in(desk: AdminDesk, incoming: Incoming) -> None:
    incoming.body.limit(_MAX_BODY_BYTES)
    ends = incoming.keep_to(desk.timing)
    key = JsonObject.parse(await incoming.body.read(ends)).string("key")
    if key is None:
        raise BadRequest("""The request body has to be {"key": KEY}.""", param="key")
    if not desk.guard.needs_key:
        await _reply(incoming, {"csrf": None})
        return
    await desk.slow_down(incoming)
    is_right = desk.guard.is_key(key.encode("utf-8", "replace"))
    desk.note_key(incoming, is_right=is_right)
    if not is_right:
        raise InvalidKey("This is not the key of this address.")
    cookie, begun = desk.guard.begin_session()
    incoming.answer.told += [(b"set-cookie", cookie)]
    await _reply(incoming, {"csrf": begun.token})


async def _log_out(desk: AdminDesk, incoming: Incoming) -> None:
    found = desk.guard.session(incoming.headers)
    if found is not None:
        await desk.check(incoming)
        desk.guard.end_session(found)
    incoming.answer.told += [(b"set-cookie", GONE)]
    await incoming.reply_nothing()


async def _reply(incoming: Incoming, said: dict[str, Any]) -> None:
    await incoming.reply(200, msgspec.json.encode(said))
