"""How a request comes in, whichever way: who asks, what is made of it, and what it takes of the limits. One pipeline: a
rule that is kept on one path is kept on all.

    identify        whose key it shows
    read_call       a body that was read, as the gate lets it go on
    relay_or_share  the relay, alone or as one reader of a stream that others may read
    unread_call     what is passed on as it comes
"""

from math import inf

import trio

from trioproxy.errors import RequestTimeout
from trioproxy.gate.keys import Identity
from trioproxy.relay.call import Call, Downstream, Timing
from trioproxy.relay.relay import relay, stopped
from trioproxy.relay.shared import share
from trioproxy.web.connection import Incoming
from trioproxy.web.service import Service, Sharing
from trioproxy.wire.credentials import without_credentials
from trioproxy.wire.headers import Headers, find, to_origin
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sharing import Wish
from trioproxy.wire.timing_filter import wants_timing

IDENTITY = (b"accept-encoding", b"identity")
"""A compressed answer could be passed, but not looked at for its usage; and most origins would buffer a stream to
compress it."""


_WITHOUT_WORK = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
"""Methods that no model works for."""


def identify(service: Service, incoming: Incoming) -> Identity:
    """Who asks, by the key that the request shows. Raises InvalidKey."""
    return known_as(incoming, service.gate.identify(incoming.headers))


def known_as(incoming: Incoming, identity: Identity) -> Identity:
    """Note who asks."""
    incoming.identity = identity
    incoming.exchange.key = identity.name
    return identity


async def read_body(service: Service, incoming: Incoming) -> JsonObject:
    """The request's body, at its top level. Raises BadRequest or one of its kinds."""
    incoming.body.limit(service.max_body_bytes)
    ends = incoming.keep_to(service.timing)
    incoming.lifetime.end_at(inf)  # the body ends with it too, and has an answer of its own
    try:
        return JsonObject.parse(await incoming.body.read(ends))
    except RequestTimeout:
        if incoming.lifetime.stopped is None:
            raise
        raise stopped(incoming.lifetime.stopped) from None


async def read_call(service: Service, incoming: Incoming, request: JsonObject, *, stream: bool | None = None) -> Call:
    """What the relay is asked to do for a request that was read; `stream` where the way that it came says so. Raises
    what the gate has against it."""
    exchange, gate, identity = incoming.exchange, service.gate, incoming.identity
    exchange.model = request.string("model")
    exchange.stream = bool(request.boolean("stream")) if stream is None else stream
    request = await gate.check(identity, request, incoming.dialect, incoming.headers, exchange)
    call = make_call(incoming, request.body)
    call.json = request
    call.ticket = gate.ticket(identity, exchange, request, incoming.dialect)
    if exchange.stream or call.ticket.asks_usage:
        call.headers = [header for header in call.headers if header[0] != IDENTITY[0]] + [IDENTITY]
    return call


async def relay_or_share(
    service: Service,
    incoming: Incoming,
    call: Call,
    wish: Wish,
    sharing: Sharing,
    timing: Timing,
    downstream: Downstream,
    *,
    has_ids: bool = False,
    retry_ms: int | None = None,
) -> None:
    """Relay a call, or let its client read a stream that is shared or kept, as one is whose events have ids. Raises
    what the ticket raises, HubFull, or StateUnavailable."""
    identity, lifetime, ticket = incoming.identity, incoming.lifetime, call.ticket
    assert ticket is not None
    is_kept = has_ids or bool(wish.resume_s)
    if not is_kept and (wish.share_key is None or identity.caller is None):
        incoming.answer.told += await ticket.enter(call.exchange, lifetime.stack)
        await relay(call, service.dispatcher, timing, lifetime, downstream)
        return
    incoming.answer.told += await ticket.count()
    call.exchange.permitted_at = trio.current_time()
    await share(
        call,
        wish,
        identity.caller,
        sharing.linger_s,
        service.studio,
        timing,
        lifetime,
        downstream,
        has_ids=has_ids,
        retry_ms=retry_ms,
    )


async def unread_call(service: Service, incoming: Incoming, *, has_model: bool = False) -> Call:
    """What the relay is asked to do for a request that is passed on as it is; `has_model`: its model is known, and was
    checked. Raises what the gate has against it."""
    service.gate.check_path(incoming.identity, incoming.raw_path)
    if incoming.socket is not None or incoming.method not in _WITHOUT_WORK:
        service.gate.check_unread(incoming.identity, has_model=has_model)
    call = make_call(incoming, b"")
    ticket = service.gate.ticket(incoming.identity, incoming.exchange, None, incoming.dialect)
    incoming.answer.told += await ticket.enter(incoming.exchange, incoming.lifetime.stack)
    return call


async def count_reader(service: Service, incoming: Incoming) -> Headers:
    """Count a request that reads what another one has paid for. Returns the fields that tell how its limits stand.
    Raises what the ticket raises."""
    ticket = service.gate.ticket(incoming.identity, incoming.exchange, None, incoming.dialect)
    return await ticket.count()


def make_call(incoming: Incoming, body: bytes) -> Call:
    """What the relay is asked to do for a request. A virtual key stays here."""
    shown = incoming.headers if incoming.identity.key is None else without_credentials(incoming.headers)
    headers: Headers = to_origin(shown)
    headers.append((b"x-request-id", incoming.exchange.request_id.encode("ascii")))
    return Call(
        method=incoming.method,
        target=incoming.target,
        headers=headers,
        body=body,
        dialect=incoming.dialect,
        user_agent=find(incoming.headers, b"user-agent") or b"",
        exchange=incoming.exchange,
        upstreams=incoming.identity.upstreams,
        wants_timing=wants_timing(incoming.headers),
    )
