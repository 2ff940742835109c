"""Every other path below `/v1/`: passed through byte for byte, both ways streaming, whatever the method.

Uploads are not held: each piece goes to the origin as it comes, and a slow origin slows the client.
"""

from trioproxy.relay.relay import relay
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import identify, unread_call
from trioproxy.web.service import Service
from trioproxy.wire.headers import find


async def pass_through(service: Service, incoming: Incoming) -> None:
    """Relay a request without reading it. Raises RequestTooLarge for a body beyond `max_upload_bytes`, and what the
    gate has against it."""
    identify(service, incoming)
    service.admission.admit(incoming.lifetime.stack)
    incoming.keep_to(service.timing)
    body = incoming.body
    body.limit(service.max_upload_bytes)
    call = await unread_call(service, incoming)
    if body.content_length not in (None, b"0"):
        call.body = body
        call.headers.append((b"content-length", body.content_length))
    elif find(incoming.headers, b"transfer-encoding") is not None:
        call.body = body
        call.headers.append((b"transfer-encoding", b"chunked"))
    elif body.content_length is not None:
        call.headers.append((b"content-length", b"0"))
    await relay(call, service.dispatcher, service.timing, incoming.lifetime, incoming.answer)
