"""Whether an endpoint that is asked at regular times is well. PURE.

    healthy      ok        → healthy
    healthy      not ok    → healthy      unhealthy, if the check before was not ok either
    unhealthy    not ok    → unhealthy
    unhealthy    ok        → healthy

What this does not know: how it is asked (`upstream/health` does), and what requests came to (`breaker` does).
"""

FAILURES = 2


class Health:
    """The health of one endpoint. One that was never asked is healthy.

    It takes two failures in a row to be unhealthy and one success to be healthy again, because the two errors do not
    cost the same. To leave out an endpoint that works may cost requests, all of them if it is the last one, and a
    single check fails easily: a lost packet, a connection that was closed just then. To use one that does not work
    costs a try that another endpoint makes good, and its breaker soon knows.
    """

    def __init__(self) -> None:
        self.is_healthy = True
        self._failures = 0  # in a row

    def note(self, ok: bool) -> bool:
        """What a check came to. Returns whether that changed `is_healthy`."""
        self._failures = 0 if ok else self._failures + 1
        was_healthy = self.is_healthy
        self.is_healthy = ok or (was_healthy and self._failures < FAILURES)
        return self.is_healthy is not was_healthy
