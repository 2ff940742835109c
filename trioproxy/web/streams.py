"""`/v1/streams/{id}`: join or resume a live or recent stream (GET), or stop it for everyone (DELETE)."""

from trioproxy.errors import BadRequest, MethodNotAllowed, ModelNotAllowed
from trioproxy.gate.keys import Identity
from trioproxy.hub.live import LiveStream
from trioproxy.policy.replay import Slow
from trioproxy.relay.reading import read_stream
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import count_reader, make_call
from trioproxy.web.service import Service
from trioproxy.web.tokens import identify_by
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import find
from trioproxy.wire.sharing import LAST_EVENT_ID, position_of, wish_of
from trioproxy.wire.target import query_pairs

PREFIX = "/v1/streams/"
_LONGEST_ID = 64


async def stream(service: Service, incoming: Incoming) -> None:
    """Serve one request to a stream's path. Raises StreamNotFound, PositionGone or BadRequest."""
    stream_id = incoming.raw_path.decode("ascii", "replace")[len(PREFIX) :]
    identity = identify_by(service, incoming, token_of(incoming), opens=False)
    found = await find_stream(service, identity, stream_id)
    match incoming.method:
        case "GET":
            await _read(service, incoming, found)
        case "DELETE":
            await service.studio.stop(found)
            await incoming.reply_nothing()
        case _:
            raise MethodNotAllowed("A stream is read with GET and stopped with DELETE.", allow="GET, DELETE")


async def find_stream(service: Service, identity: Identity, stream_id: str) -> LiveStream:
    """The stream of this id, if it is of who asks. Raises StreamNotFound, StateUnavailable, or ModelNotAllowed for a
    token that is bound to another model; of another replica's stream the model is not known."""
    found = await service.studio.find(stream_id[:_LONGEST_ID], identity.caller)
    if identity.model is not None and found.exchange.model not in (identity.model, None):
        raise ModelNotAllowed("The token is for another model than this stream's.")
    return found


async def _read(service: Service, incoming: Incoming, found: LiveStream) -> None:
    after, has_ids = _position(incoming, found)
    await resume(service, incoming, found, after, has_ids=has_ids)


async def resume(
    service: Service, incoming: Incoming, found: LiveStream, after: int, *, has_ids: bool, retry_ms: int | None = None
) -> None:
    """Answer with what a stream holds, and will, behind event `after`; see `read_stream`. Raises PositionGone or
    BadRequest."""
    service.admission.admit(incoming.lifetime.stack)
    incoming.answer.told += await count_reader(service, incoming)
    exchange = incoming.exchange
    incoming.dialect = Dialect(found.exchange.endpoint)
    exchange.stream, exchange.model = True, found.exchange.model
    if not found.is_live and after >= found.log.last:
        await incoming.reply_nothing()  # behind the end: an EventSource stops asking
        return
    timing = service.timings.find(found.exchange.model)
    incoming.keep_to(timing)
    slow = Slow(wish_of(incoming.headers, None).slow)
    call = make_call(incoming, b"")
    lifetime, answer = incoming.lifetime, incoming.answer
    await read_stream(found, after, slow, call, timing, lifetime, answer, has_ids=has_ids, retry_ms=retry_ms)


def token_of(incoming: Incoming) -> str | None:
    """The token that stands in a request's query, if any."""
    shown = dict(query_pairs(incoming.target)).get(b"token")
    return None if shown is None else shown.decode("ascii", "replace")


def _position(incoming: Incoming, found: LiveStream) -> tuple[int, bool]:
    """Behind which event the client goes on, and whether it wants to be told the numbers. What a browser sends when it
    connects anew goes before what stands in the URL, which stays the same."""
    last = find(incoming.headers, LAST_EVENT_ID)
    if last is not None and last.strip():
        position = position_of(last.strip(), found.id)
        if position is None:
            raise BadRequest("'last-event-id' has to be the id of an event of this stream.", param="last-event-id")
        return position, True
    query = query_pairs(incoming.target)
    has_ids = b"ids" in dict(query)
    given = [value for name, value in query if name == b"after"]
    if not given:
        return 0, has_ids
    position = position_of(given[0]) if len(given) == 1 else None
    if position is None:
        raise BadRequest("'after' has to be the number of an event.", param="after")
    return position, has_ids
