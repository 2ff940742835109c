"""The five routes whose requests are read: chat, completions, responses, messages, embeddings.

A body is held and read at its top level only (which model, stream or not); it is forwarded as it came, but for what a
rule of its route says.
"""

from trioproxy.errors import MethodNotAllowed
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import identify, read_body, read_call, relay_or_share
from trioproxy.web.service import Service
from trioproxy.wire.sharing import Wish, wish_of


async def relay_request(service: Service, incoming: Incoming) -> None:
    """Read a request to one of the five routes and relay it. Raises BadRequest or one of its kinds."""
    if incoming.method != "POST":
        path = incoming.raw_path.decode("ascii")
        raise MethodNotAllowed(f"{incoming.method} is not allowed on {path}; use POST.", allow="POST")
    with service.gate.reading(identify(service, incoming)):
        service.admission.admit(incoming.lifetime.stack)
        request = await read_body(service, incoming)
    call = await read_call(service, incoming, request)
    timing = service.timings.find(call.exchange.model)
    incoming.keep_to(timing)
    sharing = service.sharing.find(call.exchange.model)
    wish = Wish()
    if call.exchange.stream:
        wish = wish_of(incoming.headers, call.json, share=sharing.share, resume_s=sharing.resume_s)
    await relay_or_share(service, incoming, call, wish, sharing, timing, incoming.answer)
