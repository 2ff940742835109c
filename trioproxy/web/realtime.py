"""`/v1/realtime` and `/v1/responses` as WebSocket: passed through, both ways. The model in the query says where to.

The handshake is an ordinary call, with the ways, retries and refusals of every other; only an answer of 101 makes a
session of it. What is not asked for as a WebSocket is passed through as it is.
"""

from secrets import token_bytes

from trioproxy.errors import BadRequest
from trioproxy.relay.relay import relay
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import identify, unread_call
from trioproxy.web.passthrough import pass_through
from trioproxy.web.service import Service
from trioproxy.wire.target import query_pairs
from trioproxy.wire.upgrade import wish_fields

_NAMES = {b"/v1/realtime": "realtime", b"/v1/responses": "responses_ws"}


async def realtime(service: Service, incoming: Incoming) -> None:
    """Relay a WebSocket session."""
    if incoming.socket is None:
        await pass_through(service, incoming)
        return
    identity = identify(service, incoming)
    service.admission.admit(incoming.lifetime.stack)
    exchange = incoming.exchange
    exchange.endpoint = _NAMES[incoming.raw_path]
    models = [value for name, value in query_pairs(incoming.target) if name == b"model"]
    if len(models) > 1:  # origins differ in which one they take, and one is judged here
        raise BadRequest("The query names several models; name one.", param="model")
    exchange.model = models[0].decode("utf-8", "replace") if models else None
    timing = service.timings.find(exchange.model)
    incoming.keep_to(timing)
    service.gate.check_model(identity, exchange.model)
    # A session of /v1/responses names a model with each request inside it.
    call = await unread_call(service, incoming, has_model=exchange.endpoint == "realtime")
    call.headers = wish_fields(call.headers, token_bytes(16))
    call.socket = incoming.socket
    await relay(call, service.dispatcher, timing, incoming.lifetime, incoming.answer)
