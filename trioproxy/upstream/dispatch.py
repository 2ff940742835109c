"""Which endpoint gets a request. Today there is one; what chooses, repeats and falls back belongs here."""

from collections.abc import AsyncIterator

import trio

from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.wire.headers import Headers


class Dispatcher:
    """Opens the attempts of requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def open(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        *,
        connect_s: float,
        head_s: float,
        nursery: trio.Nursery,
    ) -> Attempt:
        """An origin that has answered. Raises UpstreamFault; see `open_attempt` for times, cancellation, ownership."""
        endpoint = self.endpoint
        return await open_attempt(
            endpoint,
            method,
            endpoint.target(target),
            headers,
            body,
            connect_s=connect_s,
            head_s=head_s,
            nursery=nursery,
        )
