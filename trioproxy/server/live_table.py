"""The live table of all workers, which the supervisor keeps while somebody watches it.

While there is a watcher the workers are asked several times a second; what has changed is written once, whoever reads
it. A watcher is told from there where it is: it has no queue. One that comes too late for what is kept gets the whole
table anew, and what nobody watches costs nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import time
from typing import Any, Final, Protocol

import trio

from trioproxy.wire.live_table import (
    HEARTBEAT,
    EndedRow,
    Row,
    Told,
    change_event,
    lost_row,
    snapshot_event,
    table,
    told_from,
)

LOOK_EVERY_S: Final = 0.25
HEARTBEAT_S: Final = 15.0
MAX_CHANGES: Final = 64
MAX_CHANGES_BYTES: Final = 8 * 1024 * 1024
LINGER_S: Final = 15.0
"""How long it is kept when nobody watches it: a browser that has lost its connection is back in a few seconds."""


class Asked(Protocol):
    """A worker."""

    slot: int

    async def ask(self, what: str, **said: Any) -> Any:
        """What it answers, None if it does not."""
        ...


class _Known:
    """What is known of one worker's requests: its rows as they were told last, and the last one that had ended."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.last: int | None = None


class LiveTable:
    """`workers` gives those there are at the moment.

    Attributes:
        number: the last change's. It goes on where an earlier process's numbers are all smaller, so that who comes back
            with one of these is not taken for somebody who knows the present table.
    """

    def __init__(self, workers: Callable[[], Sequence[Asked]], wall_clock: Callable[[], float] = time) -> None:
        self._workers = workers
        self.number = int(wall_clock() * 1000)
        self._known: dict[Asked, _Known] = {}
        self._changes: deque[bytes] = deque()  # the last of them is change `number`
        self._changes_bytes = 0
        self._snapshot: bytes | None = None
        self._watchers = 0
        self._wanted = trio.Event()
        self._left_at = 0.0
        self._has_looked = False
        self._news = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Ask while somebody watches, until cancelled; belongs in the process's nursery."""
        while True:
            await self._wanted.wait()
            while self._watchers or trio.current_time() < self._left_at + LINGER_S:
                began = trio.current_time()
                await self._look()
                await trio.sleep_until(began + LOOK_EVERY_S)
            self._forget()

    async def rows(self) -> bytes:
        """The whole table as JSON. Asks the workers unless it is known."""
        if self._has_looked:
            return table(self._all_rows(), self.number)
        told = await self._ask(lambda worker: None)
        return table([_placed(row, worker.slot) for worker, one in told for row in one.rows], self.number)

    @contextmanager
    def watched(self, after: int | None) -> Iterator["Watch"]:
        """Somebody watches, who has got everything up to number `after`; None: nothing."""
        self._watchers += 1
        self._wanted.set()
        try:
            yield Watch(self, after)
        finally:
            self._watchers -= 1
            self._left_at = trio.current_time()

    async def wait_news(self) -> None:
        """Wait until there may be something to tell."""
        await self._news.park()

    def told_since(self, after: int | None) -> bytes:
        """What happened since change `after`, as events; the whole table where that is not known. Empty: nothing, or
        nothing is known yet."""
        if not self._has_looked:
            return b""
        missed = None if after is None else self.number - after
        if missed is None or not 0 <= missed <= len(self._changes):
            if self._snapshot is None:
                self._snapshot = snapshot_event(self._all_rows(), self.number)
            return self._snapshot
        return b"".join([self._changes[-at] for at in range(missed, 0, -1)])

    async def _look(self) -> None:
        """Ask all workers, and take up what they say. If cancelled, nothing was taken up."""
        told = await self._ask(lambda worker: self._known[worker].last if worker in self._known else None)
        present = set(self._workers())
        changed: list[Row] = []
        gone: list[EndedRow] = []
        for worker in [one for one in self._known if one not in present]:
            gone += map(lost_row, self._known.pop(worker).rows.values())
        for worker, one in told:
            if worker in present:  # else its last word is what it said before
                self._take(self._known.setdefault(worker, _Known()), worker.slot, one, changed, gone)
        if not self._has_looked:
            # What there was before is not known: who has seen that gets the whole table, and no change.
            self._has_looked = True
            self.number += 1
            self._news.unpark_all()
        elif changed or gone:
            self._publish(changed, gone)

    async def _ask(self, after: Callable[[Asked], int | None]) -> list[tuple[Asked, Told]]:
        """What those say who answer in time."""
        told: list[tuple[Asked, Told]] = []

        async def ask_one(worker: Asked) -> None:
            said = await worker.ask("streams", after=after(worker))
            if said is not None:
                told.append((worker, told_from(said)))

        async with trio.open_nursery() as nursery:
            for worker in self._workers():
                nursery.start_soon(partial(ask_one, worker))
        return told

    @staticmethod
    def _take(known: _Known, slot: int, told: Told, changed: list[Row], gone: list[EndedRow]) -> None:
        """Take up what one worker told. A row of which nothing was said any more ended too long ago for its last word
        to be kept."""
        before, known.rows, known.last = known.rows, {}, told.last
        for row in told.rows:
            known.rows[row.id] = _placed(row, slot)
            old = before.pop(row.id, None)
            if old is None or row.differs(old):
                changed.append(row)
        for ended in told.ended:
            ended.worker = slot
            before.pop(ended.id, None)
            gone.append(ended)
        gone += map(lost_row, before.values())

    def _publish(self, changed: Sequence[Row], gone: Sequence[EndedRow]) -> None:
        self.number += 1
        self._snapshot = None
        event = change_event(changed, gone, self.number)
        self._changes.append(event)
        self._changes_bytes += len(event)
        while len(self._changes) > MAX_CHANGES or self._changes_bytes > MAX_CHANGES_BYTES:
            self._changes_bytes -= len(self._changes.popleft())
        self._news.unpark_all()

    def _forget(self) -> None:
        self._wanted = trio.Event()
        self._has_looked = False
        self._known.clear()
        self._changes.clear()
        self._changes_bytes = 0
        self._snapshot = None

    def _all_rows(self) -> list[Row]:
        return [row for known in self._known.values() for row in known.rows.values()]


class Watch:
    """One watcher's place."""

    def __init__(self, of: LiveTable, after: int | None) -> None:
        self._table = of
        self._after = after

    async def next(self) -> bytes:
        """What it has not got yet, as events; a comment where there is nothing for a while. If cancelled, nothing is
        lost."""
        with trio.move_on_after(HEARTBEAT_S):
            while not (told := self._table.told_since(self._after)):
                await self._table.wait_news()
            self._after = self._table.number
            return told
        return HEARTBEAT


def _placed(row: Row, slot: int) -> Row:
    row.worker = slot
    return row
