"""`/healthz`, `/health` and `/readyz`: is the process alive, and can it be given work."""

import msgspec

from trioproxy.web.connection import Incoming
from trioproxy.web.service import Service


async def health(service: Service, incoming: Incoming) -> None:
    """Alive: the process answers."""
    await _answer(incoming, 200, {"status": "ok"})


async def ready(service: Service, incoming: Incoming) -> None:
    """Ready: not draining, and the upstream can be reached."""
    if service.is_draining:
        await _answer(incoming, 503, {"status": "draining"})
        return
    fault = await service.reachability.look()
    if fault is not None:
        await _answer(incoming, 503, {"status": "unavailable", "reason": fault})
    else:
        await _answer(incoming, 200, {"status": "ready"})


async def _answer(incoming: Incoming, status: int, value: dict[str, str]) -> None:
    body = msgspec.json.encode(value)
    incoming.answer.head(
        status,
        [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", incoming.exchange.request_id.encode("ascii")),
        ],
    )
    await incoming.answer.finish(body)
