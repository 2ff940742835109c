"""The five routes whose requests are read: chat, completions, responses, messages, embeddings.

A body is held and read at its top level only (which model, stream or not); it is forwarded as it came.
"""

from math import inf

from trioproxy.errors import MethodNotAllowed
from trioproxy.relay.call import Call
from trioproxy.relay.relay import relay
from trioproxy.relay.shared import share
from trioproxy.web.connection import Incoming
from trioproxy.web.service import Service
from trioproxy.wire.headers import Headers, find, to_origin
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sharing import caller_of, wish_of

IDENTITY = (b"accept-encoding", b"identity")


async def relay_request(service: Service, incoming: Incoming) -> None:
    """Read a request to one of the five routes and relay it. Raises BadRequest or one of its kinds."""
    if incoming.method != "POST":
        path = incoming.raw_path.decode("ascii")
        raise MethodNotAllowed(f"{incoming.method} is not allowed on {path}; use POST.", allow="POST")
    service.admission.admit(incoming.lifetime.stack)
    incoming.body.limit(service.max_body_bytes)
    exchange = incoming.exchange
    ends = incoming.keep_to(service.timing)
    incoming.lifetime.end_at(inf)  # the body ends with it too, and has an answer of its own
    body = await incoming.body.read(ends)
    request = JsonObject.parse(body)
    exchange.model = request.string("model")
    exchange.stream = bool(request.boolean("stream"))
    call = make_call(incoming, body)
    if exchange.stream:
        # A compressed stream could be passed, but not looked at; and most origins would buffer to compress it.
        call.headers = [header for header in call.headers if header[0] != b"accept-encoding"] + [IDENTITY]
    call.json = request
    timing = service.timings.find(exchange.model)
    incoming.keep_to(timing)
    if exchange.stream:
        sharing = service.sharing.find(exchange.model)
        wish = wish_of(incoming.headers, request, share=sharing.share, resume_s=sharing.resume_s)
        caller = caller_of(incoming.headers) if not wish.is_plain else None
        if wish.resume_s or (wish.share_key is not None and caller is not None):
            await share(
                call, wish, caller, sharing.linger_s, service.studio, timing, incoming.lifetime, incoming.answer
            )
            return
    await relay(call, service.dispatcher, timing, incoming.lifetime, incoming.answer)


def make_call(incoming: Incoming, body: bytes) -> Call:
    """What the relay is asked to do for a request."""
    headers: Headers = to_origin(incoming.headers)
    headers.append((b"x-request-id", incoming.exchange.request_id.encode("ascii")))
    return Call(
        method=incoming.method,
        target=incoming.target,
        headers=headers,
        body=body,
        dialect=incoming.dialect,
        user_agent=find(incoming.headers, b"user-agent") or b"",
        exchange=incoming.exchange,
    )
