"""The book of budgets in a file: SQLite, in a worker thread and never on the event loop.

What was added is there when the call returns: a process may be killed then (WAL; after a loss of power the last may be
missing, but the file is sound). Several processes may have it open. Its journal lies beside it, in `-wal` and `-shm`.

    spent(scope, unit, period, used)    one row for each sum; unit is "tokens" or "money" (picodollars)

Sums older than two months are deleted when it is opened.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio

from trioproxy.policy.account import Entry
from trioproxy.policy.limits import Kind
from trioproxy.policy.period import month_of, months_before
from trioproxy.state.budget_book import Sums
from trioproxy.state.limits import LimitsUnavailable

T = TypeVar("T")

_KEPT_MONTHS: Final = 2
_BUSY_S: Final = 2.0
"""How long to wait for another process that writes."""
_OURS: Final = 0x54525042
"""What SQLite calls an application's id: "TRPB"."""
_VERSION: Final = 1
_MOST: Final = 2**62
"""A sum stops there, at 4.6 million dollars: SQLite counts no further than to 2^63, and then inexactly."""

_CREATE: Final = """
CREATE TABLE spent (
    scope TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (scope, unit, period)
) WITHOUT ROWID
"""
_ADD: Final = f"""
INSERT INTO spent VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET used = max(min(used + excluded.used, {_MOST}), -{_MOST}) RETURNING used
"""
_READ: Final = "SELECT used FROM spent WHERE scope = ? AND unit = ? AND period = ?"


class BudgetFile:
    """The book in the file at `path`, which is made, for its owner alone, if it is not there; its folder has to be.

    A file that cannot be used is opened anew at the next call.
    """

    def __init__(self, path: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None
        self._seen = 0  # SQLite's number for the state of the file, when news were last asked for
        self._is_over = False

    async def open(self) -> None:
        await self._do(lambda connection: None)

    async def add(self, amounts: Sums) -> dict[Entry, int]:
        def add(connection: sqlite3.Connection) -> dict[Entry, int]:
            with _transaction(connection):
                return {entry: _add(connection, entry, amount) for entry, amount in amounts.items()}

        return await self._do(add)

    async def read(self, entries: Collection[Entry]) -> dict[Entry, int]:
        def read(connection: sqlite3.Connection) -> dict[Entry, int]:
            rows = {entry: connection.execute(_READ, entry).fetchall() for entry in entries}
            return {entry: row[0][0] if row else 0 for entry, row in rows.items()}

        return await self._do(read)

    async def has_news(self) -> bool:
        def look(connection: sqlite3.Connection) -> bool:
            before, self._seen = self._seen, _pragma(connection, "data_version")
            return self._seen != before

        return await self._do(look)

    def close_nowait(self) -> None:
        self._is_over = True
        if not self._one_at_a_time.borrowed_tokens:
            self._close()

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file, in a thread. Raises LimitsUnavailable. If cancelled, it has not begun: one that
        has is waited for."""
        try:
            if self._is_over:
                raise sqlite3.ProgrammingError("it is closed")
            return await trio.to_thread.run_sync(self._work, work, limiter=self._one_at_a_time)
        except (sqlite3.Error, OSError) as error:
            raise LimitsUnavailable(
                f"The state file {self._path} cannot be used: {error}", frozenset({Kind.BUDGETS})
            ) from error
        finally:
            if self._is_over and not self._one_at_a_time.borrowed_tokens:
                self._close()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the thread does. Only one does."""
        if self._connection is None:
            self._connection = _connect(self._path, self._wall_clock())
        try:
            return work(self._connection)
        except sqlite3.Error:
            self._close()
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(path: Path, wall_s: float) -> sqlite3.Connection:
    """Open a file and make it ready. Raises sqlite3.Error and OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # SQLite would let everybody read it
    except FileExistsError:
        pass
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        is_new = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        if not is_new and _pragma(connection, "application_id") != _OURS:
            raise sqlite3.DatabaseError("it is the database of something else")
        if (version := _pragma(connection, "user_version")) > _VERSION:
            raise sqlite3.DatabaseError(
                f"it was written by a newer version of trioproxy (its schema is {version}, known is {_VERSION})"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        with _transaction(connection):
            if _pragma(connection, "user_version") == 0:
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA application_id = {_OURS}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            _delete_old(connection, wall_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _delete_old(connection: sqlite3.Connection, wall_s: float) -> None:
    """Delete what is older than two months, counted from the newest sum if the date has jumped ahead of that."""
    [[newest]] = connection.execute("SELECT max(period) FROM spent").fetchall()
    month = min(month_of(wall_s), (newest or month_of(wall_s))[: len("2026-11")])
    connection.execute("DELETE FROM spent WHERE period < ?", [months_before(month, _KEPT_MONTHS)])


def _add(connection: sqlite3.Connection, entry: Entry, amount: int) -> int:
    """Add to a sum; how it stands then."""
    [[used]] = connection.execute(_ADD, (*entry, max(min(amount, _MOST), -_MOST))).fetchall()
    assert isinstance(used, int)
    return used


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    [[value]] = connection.execute(f"PRAGMA {name}").fetchall()
    assert isinstance(value, int)
    return value
