"""How many retries all requests may make together. PURE: `now` is an argument.

An origin that is down, or drowning, fails every request. Three tries of each would then be three times the load, at
the worst moment; with a budget of 0.2 it is 1.2 times. The minimum lets a quiet proxy repeat its only request.

At each retry: those of the last `window_s` seconds, itself included, are at most `share` times the requests that came
in these seconds, plus `min_per_s` times `window_s`.

What this does not know: which request is worth a retry (`retry` does). `upstream/course` notes each client's request
once, however often it is tried, and takes from the budget after `retry` has said yes.

Source: the retry budgets of Finagle and Envoy.
"""

import math

_BUCKETS = 10


class RetryBudget:
    """The requests and retries of a window, kept in a few buckets of time: memory does not grow with traffic. The
    oldest bucket lies in the window only in part; its requests do not count any more, its retries still do."""

    __slots__ = ("_bucket", "_bucket_s", "_minimum", "_requests", "_share", "_taken")

    def __init__(self, share: float = 0.2, min_per_s: float = 1.0, window_s: float = 10.0) -> None:
        self._share = share
        self._minimum = min_per_s * window_s
        self._bucket_s = window_s / _BUCKETS
        self._bucket = 0
        # Newest first, the present bucket at the head: those that lie in the window, and those that it reaches into.
        self._requests = [0] * _BUCKETS
        self._taken = [0] * (_BUCKETS + 1)

    def note_request(self, now: float) -> None:
        """A client's request came."""
        self._move(now)
        self._requests[0] += 1

    def take(self, now: float) -> bool:
        """Whether a request may be tried again now. True spends of the budget."""
        self._move(now)
        if sum(self._taken) + 1 > self._share * sum(self._requests) + self._minimum:
            return False
        self._taken[0] += 1
        return True

    def _move(self, now: float) -> None:
        """Let the present bucket be that of `now`; time that goes back is taken as standing still."""
        steps = math.floor(now / self._bucket_s) - self._bucket
        if steps <= 0:
            return
        self._bucket += steps
        new = [0] * min(steps, _BUCKETS + 1)
        for counts in (self._requests, self._taken):
            counts[:] = (new + counts)[: len(counts)]
