"""Where requests may go: the endpoints, and for each model the way through some of them. Made by `server/build`."""

from collections.abc import Callable, Sequence
from random import random

from trioproxy.policy.routing import Routes
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.shadow import Shadows
from trioproxy.upstream.way import Way


class Dispatcher:
    """Knows all endpoints and ways. `draw` gives random numbers from 0 up to but not including 1."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        ways: Routes[Way],
        shadows: Shadows | None = None,
        *,
        draw: Callable[[], float] = random,
    ) -> None:
        self.endpoints = endpoints
        self.ways = ways
        self.shadows = shadows
        self.draw = draw
