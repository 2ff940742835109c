"""What one try holds at its endpoint: a place, a key, the breaker's leave. Taken by `course`, kept by the attempt.

What the try came to is told once it is known: to the breaker at once, to a canary's comparison when the try is over.
"""

import trio

from trioproxy.policy.breaker import Outcome, Turn
from trioproxy.policy.canary import Canary
from trioproxy.policy.hedge import Hedge
from trioproxy.upstream.endpoint import Endpoint


class Stay:
    """What a try holds at its endpoint: a place, a key, and the breaker's leave. Let go of once.

    Attributes:
        canary: the comparison that the try counts in, if any; `is_canary` says on which side.
        hedge: learns how long first contents take.
    """

    __slots__ = ("_first_content_s", "_is_error", "_turn", "canary", "endpoint", "hedge", "is_canary", "key", "started")

    def __init__(
        self,
        endpoint: Endpoint,
        key: int | None,
        turn: Turn,
        *,
        canary: Canary | None = None,
        is_canary: bool = False,
        hedge: Hedge | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.key = key
        self.canary = canary
        self.is_canary = is_canary
        self.hedge = hedge
        self.started = trio.current_time()
        self._turn: Turn | None = turn
        self._is_error: bool | None = None
        self._first_content_s: float | None = None

    def note(self, outcome: Outcome, *, is_error: bool | None = None) -> None:
        """Tell the breaker what the try came to. A fault may follow when it went well at first."""
        breaker, now = self.endpoint.breaker, trio.current_time()
        turn = self._turn or breaker.take(now, by_force=True)
        assert turn is not None
        breaker.record(turn, outcome, now)
        self._turn = None
        self._is_error = self._is_error or (outcome is Outcome.FAULT if is_error is None else is_error)

    def note_first_content(self, now: float) -> None:
        """The first content is here: the try went well, so far. Only the first time counts."""
        if self._first_content_s is None:
            self._first_content_s = now - self.started
            self.endpoint.first_content.note(self._first_content_s, now)
            if self.hedge is not None:
                self.hedge.note(self._first_content_s)
            self.note(Outcome.OK)

    def leave(self) -> None:
        """Give back what is held. A try that was cancelled before it came to anything says nothing about its
        endpoint."""
        if self._turn is not None:
            self.endpoint.breaker.release(self._turn)
            self._turn = None
        if self.canary is not None and self._is_error is not None:
            self.canary.note(is_canary=self.is_canary, is_error=self._is_error, first_content_s=self._first_content_s)
        self.endpoint.keys.give_back(self.key)
        self.endpoint.slots.give_back()


def outcome_of(status: int) -> Outcome:
    """What a status says of an endpoint."""
    if status < 400:
        return Outcome.OK
    return Outcome.FAULT if status >= 500 else Outcome.NEUTRAL
