"""How many requests an endpoint may have under way at once, and who waits for room: first come, first served, and only
so many."""

import trio

from trioproxy.errors import Overloaded


class Slots:
    """The places of one endpoint. Without a number there is no bound.

    A place is taken with `take` and given back, synchronously, with `give_back`, once.
    """

    def __init__(self, places: int | None, max_waiting: int = 0) -> None:
        self._free = None if places is None else trio.Semaphore(places)
        self._max_waiting = max_waiting
        self.taken = 0

    @property
    def has_room(self) -> bool:
        """Whether a request would get a place at once."""
        return self._free is None or self._free.value > 0

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return 0 if self._free is None else self._free.statistics().tasks_waiting

    @property
    def may_wait(self) -> bool:
        """Whether a request would get a place, now or later."""
        return self._free is None or self.has_room or self.waiting < self._max_waiting

    async def take(self) -> None:
        """Take a place; waits behind those who came before. Raises Overloaded if too many wait already. If cancelled,
        none was taken."""
        if self._free is not None:
            if not self.may_wait:
                raise Overloaded("Too many requests wait for this upstream; send the request again in a moment.")
            await self._free.acquire()
        self.taken += 1

    def give_back(self) -> None:
        """Give a place back; whoever waits longest gets it."""
        self.taken -= 1
        if self._free is not None:
            self._free.release()
