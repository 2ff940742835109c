"""`GET /v1/chat/stream`: a chat for a browser's EventSource.

What the query asks for becomes a chat request, which goes the way of any other that can be resumed. A browser connects
anew whenever the connection ends, also behind a clean end, with the id of the last event that it has got:

    it says where it was, and there is more       the rest
    it says where it was, and that was the end    204
    what it names is not there (any more)         404 or 410
    it says nothing                               a new stream

To an EventSource all statuses but 200 are one: it stops for good, and its page sees that without `[DONE]` the text is
not whole. So 204 keeps its meaning, and whoever can read a status (other clients, the log) learns what happened.

No new stream may come where the browser has been told of one: so its id goes out with the head, and none of these
streams is ever relayed without one.
"""

from dataclasses import replace

from trioproxy.errors import BadRequest, MethodNotAllowed
from trioproxy.relay.call import Call
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import IDENTITY, read_call, relay_or_share
from trioproxy.web.service import Service
from trioproxy.web.streams import find_stream, resume
from trioproxy.web.tokens import identify_by
from trioproxy.wire.chat_query import chat_body, query_of, resume_of
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import find
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sharing import LAST_EVENT_ID, place_of, wish_of

PATH = "/v1/chat/stream"
RESUME_S = 30.0
"""How long a stream goes on without its reader, where neither request nor route says."""
RETRY_MS = 1000
"""How soon the browser is to connect anew."""

_CHAT = b"/v1/chat/completions"
_OF_BROWSERS = frozenset(
    {b"accept-encoding", b"accept-language", b"cache-control", b"content-type", b"origin", b"pragma", b"priority"}
    | {b"referer", b"dnt", LAST_EVENT_ID}
)
"""What a browser says of its page and of this connection: not the origin's business."""


async def chat_stream(service: Service, incoming: Incoming) -> None:
    """Begin a stream, or go on with one. Raises BadRequest or one of its kinds, HubFull, or StateUnavailable."""
    incoming.dialect = Dialect.CHAT
    incoming.exchange.endpoint = incoming.dialect.value
    incoming.exchange.stream = True
    if incoming.method != "GET":
        raise MethodNotAllowed("This stream is read with GET; POST goes to /v1/chat/completions.", allow="GET")
    values = query_of(incoming.target)
    last = (find(incoming.headers, LAST_EVENT_ID) or b"").strip()
    identity = identify_by(service, incoming, values.get("token"), opens=not last)
    if not last:
        await _open(service, incoming, values)
        return
    place = place_of(last)
    if place is None:
        raise BadRequest("'last-event-id' has to be the id of an event.", param="last-event-id")
    stream_id, after = place
    found = await find_stream(service, identity, stream_id)
    await resume(service, incoming, found, after, has_ids=True, retry_ms=RETRY_MS)


async def _open(service: Service, incoming: Incoming, values: dict[str, str]) -> None:
    service.admission.admit(incoming.lifetime.stack)
    call = await _call(service, incoming, chat_body(values))
    timing = service.timings.find(call.exchange.model)
    incoming.keep_to(timing)
    sharing = service.sharing.find(call.exchange.model)
    wish = wish_of(incoming.headers, call.json, share=sharing.share, resume_s=sharing.resume_s or RESUME_S)
    wanted_s = resume_of(values)
    if wanted_s is not None:
        wish = replace(wish, resume_s=wanted_s)
    await relay_or_share(
        service, incoming, call, wish, sharing, timing, incoming.answer, has_ids=True, retry_ms=RETRY_MS
    )


async def _call(service: Service, incoming: Incoming, body: bytes) -> Call:
    """The chat request that is made of this one."""
    call = await read_call(service, incoming, JsonObject.parse(body), stream=True)
    call.method, call.target = "POST", _CHAT
    call.headers = [
        *(field for field in call.headers if field[0] not in _OF_BROWSERS and not field[0].startswith(b"sec-")),
        (b"content-type", b"application/json"),
        IDENTITY,
    ]
    return call
