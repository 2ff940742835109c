"""`/admin/streams`: the requests under way, as JSON or as a stream of changes; one of them; its end by an operator."""

from math import inf
from urllib.parse import unquote

import msgspec

from trioproxy.errors import ProxyError, StreamNotFound
from trioproxy.web.admin.desk import AdminDesk
from trioproxy.web.connection import Incoming
from trioproxy.wire.headers import find
from trioproxy.wire.live_table import position_in
from trioproxy.wire.sharing import LAST_EVENT_ID
from trioproxy.wire.target import query_pairs

PATH = "/admin/streams"
BELOW = "/admin/streams/"
RETRY = b"retry: 1000\n\n"
CUT_S = 20.0
"""A watcher that takes nothing for so long is cut. Nothing is kept for it meanwhile."""
_EVENT_STREAM = b"text/event-stream"
_LONGEST_ID = 200


async def table(desk: AdminDesk, incoming: Incoming) -> None:
    """All of them; with `accept: text/event-stream` and what happens from now on."""
    if incoming.method == "GET" and _EVENT_STREAM in (find(incoming.headers, b"accept") or b""):
        await _watch(desk, incoming)
    else:
        await incoming.reply(200, await desk.staff.live_table.rows())


async def one(desk: AdminDesk, incoming: Incoming) -> None:
    """One of them (GET), or its end (DELETE, with a reason for the log in the query). Raises StreamNotFound."""
    row_id = unquote(incoming.raw_path[len(BELOW) :].decode("ascii", "replace"))[:_LONGEST_ID]
    if incoming.method == "DELETE":
        reason = dict(query_pairs(incoming.target)).get(b"reason", b"").decode("utf-8", "replace")
        if not await desk.staff.stop_stream(row_id, reason):
            raise _not_found()
        await incoming.reply_nothing()
        return
    found = await desk.staff.stream(row_id)
    if not found:
        raise _not_found()
    await incoming.reply(200, msgspec.json.encode(found))


async def _watch(desk: AdminDesk, incoming: Incoming) -> None:
    answer = incoming.answer
    incoming.lifetime.end_at(inf)
    incoming.departure.client_stall_s = CUT_S
    answer.head(
        200,
        [
            (b"content-type", _EVENT_STREAM),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-accel-buffering", b"no"),
            (b"x-request-id", incoming.exchange.request_id.encode("ascii")),
        ],
    )
    with desk.staff.live_table.watched(position_in(find(incoming.headers, LAST_EVENT_ID))) as watch:
        await answer.send(RETRY)
        while True:
            said = await watch.next()
            try:
                desk.guard.check(incoming.headers)  # its session may have ended, and the key may be another one
            except ProxyError:
                break
            await answer.send(said)
    await answer.finish()


def _not_found() -> StreamNotFound:
    return StreamNotFound("There is no such request under way, nor did it end within the last minute.")
