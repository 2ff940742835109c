"""Which endpoint gets a request. Today there is one; what chooses, repeats and falls back belongs here."""

from collections.abc import AsyncIterator

import trio

from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.wire.headers import Headers


class Dispatcher:
    """Opens the attempts of requests. `head_s` is how long an origin may take for its head, seconds."""

    def __init__(self, endpoint: Endpoint, *, head_s: float) -> None:
        self.endpoint = endpoint
        self.head_s = head_s

    async def open(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        nursery: trio.Nursery,
    ) -> Attempt:
        """An origin that has answered. Raises UpstreamFault; see `open_attempt` for cancellation and ownership."""
        endpoint = self.endpoint
        return await open_attempt(
            endpoint, method, endpoint.target(target), headers, body, head_s=self.head_s, nursery=nursery
        )
