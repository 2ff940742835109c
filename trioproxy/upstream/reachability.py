"""Whether an upstream can be reached: by opening a real connection, the way requests do, and keeping it for one.

Asked by `/readyz`, which anybody may call: an answer is kept for a second, and one look at a time is under way.
"""

from collections.abc import Sequence

import httpx
import trio

from trioproxy.errors import NoHealthyUpstream
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.faults import fault_before_head

_FRESH_S = 1.0
_LOOK_S = 2.0
"""How long a look may take, seconds: load balancers give their probes little more."""


class Reachability:
    """Looks after some endpoints, of which one is enough."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._lock = trio.Lock()
        self._looked: float | None = None
        self._code: str | None = None

    async def look(self) -> str | None:
        """None if an endpoint can be reached, else the code of what is wrong with the first."""
        async with self._lock:
            if self._looked is None or trio.current_time() > self._looked + _FRESH_S:
                self._code = await self._try()
                self._looked = trio.current_time()
            return self._code

    async def _try(self) -> str | None:
        codes: list[str] = []
        for endpoint in self._endpoints:
            if not endpoint.health.is_healthy:
                codes.append(NoHealthyUpstream.code)
                continue
            try:
                await endpoint.transport.warm_up(endpoint.url, min(endpoint.connect_s, _LOOK_S))
            except httpx.TransportError as error:
                codes.append(fault_before_head(error, endpoint.name).code)
            else:
                return None
        return codes[0]
