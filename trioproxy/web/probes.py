"""`/healthz`, `/health` and `/readyz`: is the process alive, and can it be given work."""

import msgspec

from trioproxy.web.connection import Incoming
from trioproxy.web.service import Service


async def health(service: Service, incoming: Incoming) -> None:
    """Alive: the process answers."""
    await incoming.reply(200, msgspec.json.encode({"status": "ok"}))


async def ready(service: Service, incoming: Incoming) -> None:
    """Ready: not draining, and the upstream can be reached."""
    if service.is_draining:
        await incoming.reply(503, msgspec.json.encode({"status": "draining"}))
        return
    fault = await service.reachability.look()
    if fault is not None:
        await incoming.reply(503, msgspec.json.encode({"status": "unavailable", "reason": fault}))
    else:
        await incoming.reply(200, msgspec.json.encode({"status": "ready"}))
