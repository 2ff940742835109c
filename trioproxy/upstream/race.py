"""A hedge: two tries side by side, of which the first with content wins. Called by `course`.

First content wins, never the fastest error: a try that fails while the other one runs just leaves the race. The loser
is cancelled, and its connection closed, before the winner is returned.
"""

from collections.abc import Awaitable, Callable

import trio

from trioproxy.errors import CancelReason, ProxyError, UpstreamFault
from trioproxy.upstream.attempt import Attempt

Ask = Callable[[], Awaitable[Attempt]]
"""Opens an attempt and waits for its first content; may raise a ProxyError. If cancelled, nothing is held."""


class Race:
    """One race. `is_decided`: a try has won, and whoever is cancelled now has lost."""

    def __init__(self) -> None:
        self._winner: Attempt | None = None
        self._failure: Attempt | ProxyError | None = None
        self._over = trio.Event()  # looked at while only the first one runs

    @property
    def is_decided(self) -> bool:
        return self._winner is not None

    async def run(self, first: Ask, second: Callable[[], Ask | None], delay_s: float) -> Attempt:
        """The attempt that won. If all failed: the last answer that is an error, else raises the last fault, else what
        we lacked to ask anybody.

        `second` is asked after `delay_s` seconds for what runs beside the first; None for nothing. If cancelled,
        nothing is held.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_one, first, nursery.cancel_scope)
                with trio.move_on_after(delay_s):
                    await self._over.wait()
                if not self._over.is_set() and (other := second()) is not None:
                    nursery.start_soon(self._run_one, other, nursery.cancel_scope)
        except BaseException:
            self._let_go(self._winner)
            self._let_go(self._failure)
            raise
        winner, failure = self._winner, self._failure
        if winner is not None:
            self._let_go(failure)
            return winner
        if isinstance(failure, Attempt):
            return failure
        assert failure is not None
        try:
            raise failure
        finally:  # its traceback holds this frame: a ring, unless this frame lets go of it
            self._failure = None
            del failure

    async def _run_one(self, ask: Ask, everyone: trio.CancelScope) -> None:
        try:
            attempt = await ask()
        except ProxyError as fault:
            self._fail(fault.with_traceback(None))
        else:
            if attempt.status >= 400 or self._winner is not None:
                self._fail(attempt)
            else:
                self._winner = attempt
                everyone.cancel(reason=CancelReason.HEDGE_LOST.value)
        self._over.set()

    def _fail(self, failure: Attempt | ProxyError) -> None:
        if _tells(failure) < _tells(self._failure):
            return
        self._let_go(self._failure)
        self._failure = failure

    @staticmethod
    def _let_go(held: Attempt | ProxyError | None) -> None:
        if isinstance(held, Attempt):
            held.close()


def _tells(failure: Attempt | ProxyError | None) -> int:
    """How much a failure tells: an answer more than a fault, and that more than our own lack of a place or a key."""
    if isinstance(failure, Attempt):
        return 3
    return 2 if isinstance(failure, UpstreamFault) else int(failure is not None)
