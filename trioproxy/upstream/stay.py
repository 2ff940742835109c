"""What one try holds at its endpoint: a place, a key, the breaker's leave. Taken by `course`, kept by the attempt."""

import trio

from trioproxy.policy.breaker import Outcome, Turn
from trioproxy.upstream.endpoint import Endpoint


class Stay:
    """What a try holds at its endpoint: a place, a key, and the breaker's leave. Let go of once."""

    __slots__ = ("endpoint", "key", "turn")

    def __init__(self, endpoint: Endpoint, key: int | None, turn: Turn) -> None:
        self.endpoint = endpoint
        self.key = key
        self.turn: Turn | None = turn

    def note(self, outcome: Outcome) -> None:
        """Tell the breaker what the try came to."""
        breaker, now = self.endpoint.breaker, trio.current_time()
        turn = self.turn or breaker.take(now, by_force=True)
        assert turn is not None
        breaker.record(turn, outcome, now)
        self.turn = None

    def leave(self) -> None:
        """Give back what is held. A try that was cancelled says nothing about its endpoint."""
        if self.turn is not None:
            self.endpoint.breaker.release(self.turn)
            self.turn = None
        self.endpoint.keys.give_back(self.key)
        self.endpoint.slots.give_back()
