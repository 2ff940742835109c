"""The book in a file keeps what was added to it, and says so when it cannot."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.harness.limit_stores import DAY_S, NOON, WallClock, granted, key, refused
from trioproxy.policy.account import Entry
from trioproxy.policy.limits import Demand, Kind, Limits
from trioproxy.state.budget_book import BudgetBook, MemoryBook
from trioproxy.state.budget_file import BudgetFile
from trioproxy.state.limits import LimitsUnavailable
from trioproxy.state.limits_memory import WRITE_S, MemoryLimits

TOKENS: Entry = ("alice", "tokens", "2026-11-21")
MONEY: Entry = ("alice", "money", "2026-11")
OTHER: Entry = ("*", "tokens", "2026-11-21")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def book(path: Path) -> AsyncIterator[BudgetFile]:
    book = BudgetFile(path, wall_clock=WallClock())
    yield book
    book.close_nowait()


def content(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def add_to_sums(book: BudgetBook) -> None:
    assert await book.read([TOKENS, MONEY]) == {TOKENS: 0, MONEY: 0}
    assert await book.read([]) == {} == await book.add({})
    assert await book.add({TOKENS: 5, MONEY: 10**18 + 1}) == {TOKENS: 5, MONEY: 10**18 + 1}
    assert await book.add({TOKENS: -7, OTHER: 1}) == {TOKENS: -2, OTHER: 1}
    assert await book.read([OTHER, TOKENS, MONEY]) == {OTHER: 1, TOKENS: -2, MONEY: 10**18 + 1}


async def test_every_book_adds(book: BudgetFile) -> None:
    await add_to_sums(book)
    await add_to_sums(MemoryBook())


async def test_what_was_added_is_there_when_it_is_opened_again(book: BudgetFile, path: Path) -> None:
    await book.add({TOKENS: 5, MONEY: 7})
    book.close_nowait()
    again = BudgetFile(path, wall_clock=WallClock())
    assert await again.add({TOKENS: 1}) == {TOKENS: 6}
    assert await again.read([MONEY]) == {MONEY: 7}
    again.close_nowait()


async def test_all_is_added_or_nothing(book: BudgetFile, path: Path) -> None:
    await book.add({TOKENS: 5})
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE INSERT ON spent WHEN new.unit = 'money' BEGIN SELECT raise(FAIL, 'no'); END"
        )
        with pytest.raises(LimitsUnavailable, match="no"):
            await book.add({TOKENS: 1, OTHER: 1, MONEY: 1})
        other.execute("DROP TRIGGER no")
        other.commit()
    assert await book.read([TOKENS, OTHER, MONEY]) == {TOKENS: 5, OTHER: 0, MONEY: 0}
    assert await book.add({TOKENS: 1, MONEY: 1}) == {TOKENS: 6, MONEY: 1}


async def test_sums_stop_where_they_would_become_inexact(book: BudgetFile) -> None:
    await book.add({MONEY: 2**61})
    assert await book.add({MONEY: 10**30}) == {MONEY: 2**62}
    assert await book.add({MONEY: 1}) == {MONEY: 2**62}
    assert await book.add({MONEY: -1}) == {MONEY: 2**62 - 1}


async def test_processes_that_share_it_add_to_each_others_and_hear_of_it(book: BudgetFile, path: Path) -> None:
    other = BudgetFile(path, wall_clock=WallClock())
    await book.add({TOKENS: 1})
    await other.add({TOKENS: 2})
    assert await book.has_news() and await other.has_news()
    assert not await book.has_news() and not await other.has_news()
    await book.add({TOKENS: 4})
    assert not await book.has_news() and await other.has_news()
    assert await other.read([TOKENS]) == {TOKENS: 7}

    async def add_often(book: BudgetFile) -> None:
        for _ in range(50):
            await book.add({TOKENS: 1, MONEY: 1})

    async with trio.open_nursery() as nursery:
        for one in (book, other, book, other):
            nursery.start_soon(add_often, one)
    assert await book.read([TOKENS, MONEY]) == {TOKENS: 207, MONEY: 200}
    other.close_nowait()


async def test_it_is_its_owners_alone(book: BudgetFile, path: Path) -> None:
    before = os.umask(0)
    try:
        await book.add({TOKENS: 1})
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


async def test_old_sums_are_deleted_when_it_is_opened(path: Path) -> None:
    entries: list[Entry] = [
        ("alice", "tokens", period) for period in ("2026-08-31", "2026-08", "2026-09-01", "2026-09", "2026-11")
    ]
    for wall_s in (NOON, NOON + 4000 * DAY_S, 0.0, NOON):
        # A date that has jumped for a while has nothing deleted that is needed when it is right again.
        book = BudgetFile(path, wall_clock=WallClock(wall_s))
        await book.open()
        if wall_s == NOON:
            found = await book.read(entries)
            await book.add({entry: 1 for entry, used in found.items() if not used})
        book.close_nowait()
    assert list(found.values()) == [0, 0, 1, 1, 1]


async def test_one_that_is_not_asked_makes_no_file(path: Path) -> None:
    BudgetFile(path).close_nowait()
    assert [*path.parent.iterdir()] == []


class TestUnusable:
    """What is wrong with it is said, and it is used as soon as it can be."""

    async def check(self, book: BudgetFile, words: str) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [
            book.open,
            book.has_news,
            lambda: book.read([TOKENS]),
            lambda: book.add({TOKENS: 1}),
        ]
        for call in calls:
            with pytest.raises(LimitsUnavailable, match=words) as caught:
                await call()
            assert caught.value.kinds == {Kind.BUDGETS}
            assert "state.db" in str(caught.value)

    async def test_a_file_that_is_no_database(self, book: BudgetFile, path: Path) -> None:
        overwrite(path, b"# these are notes\n" * 100)
        await self.check(book, "not a database")
        assert content(path).startswith(b"# these are notes\n")
        overwrite(path, b"")
        assert await book.add({TOKENS: 1}) == {TOKENS: 1}

    async def test_a_database_of_something_else(self, book: BudgetFile, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE spent (cups INTEGER)")
        before = content(path)
        await self.check(book, "of something else")
        assert content(path) == before

    async def test_a_newer_schema(self, book: BudgetFile, path: Path) -> None:
        await book.open()
        book.close_nowait()
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version = 7")
        await self.check(BudgetFile(path), "newer version of trioproxy .its schema is 7")

    async def test_a_file_with_a_broken_page(self, book: BudgetFile, path: Path) -> None:
        await book.add({(f"key-{number}", "tokens", "2026-11"): 1 for number in range(500)})
        book.close_nowait()
        whole = content(path)
        overwrite(path, whole[:4096] + b"\xff" * (len(whole) - 4096))
        broken = BudgetFile(path)
        await self.check(broken, "malformed")
        overwrite(path, whole)
        assert await broken.read([("key-7", "tokens", "2026-11")]) == {("key-7", "tokens", "2026-11"): 1}
        broken.close_nowait()

    async def test_a_file_that_was_broken_while_it_was_open_and_then_removed(
        self, book: BudgetFile, path: Path
    ) -> None:
        await book.add({TOKENS: 5})
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE spent")
        with pytest.raises(LimitsUnavailable, match="no such table"):
            await book.read([TOKENS])
        await self.check(book, "no such table")
        for file in path.parent.iterdir():
            file.unlink()
        assert await book.add({TOKENS: 1}) == {TOKENS: 1}

    async def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        book = BudgetFile(tmp_path / "data" / "state.db")
        await self.check(book, "No such file")
        (tmp_path / "data").mkdir()
        await book.open()
        book.close_nowait()

    async def test_one_that_was_closed(self, book: BudgetFile) -> None:
        await book.open()
        book.close_nowait()
        await self.check(book, "closed")


class TestThread:
    async def test_the_event_loop_is_never_held_up(self, book: BudgetFile, path: Path) -> None:
        """Another process holds the file for a while; meanwhile everything else goes on."""
        await book.open()
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.4, other.execute, ["COMMIT"])
            timer.start()
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    await trio.sleep(0.01)
                    turns += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(turn)
                start = time.monotonic()
                assert await book.add({TOKENS: 1}) == {TOKENS: 1}
                assert time.monotonic() - start > 0.3
                nursery.cancel_scope.cancel()
            assert turns > 10
            timer.join()

    async def test_a_call_that_was_begun_is_done_though_it_is_cancelled(self, book: BudgetFile) -> None:
        await book.open()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(book.add, {TOKENS: 1})
                await trio.testing.wait_all_tasks_blocked(0.0)
                scope.cancel()
        with trio.CancelScope() as scope:
            scope.cancel()
            await book.add({TOKENS: 10})
        assert await book.read([TOKENS]) == {TOKENS: 1}

    async def test_closing_does_not_disturb_a_call_that_is_under_way(self, path: Path) -> None:
        book = BudgetFile(path, wall_clock=WallClock())
        await book.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(book.add, {(f"key-{number}", "tokens", "2026-11"): 1 for number in range(5000)})
            await trio.testing.wait_all_tasks_blocked(0.0)
            book.close_nowait()
        assert book._connection is None
        again = BudgetFile(path, wall_clock=WallClock())
        assert await again.read([("key-4999", "tokens", "2026-11")]) == {("key-4999", "tokens", "2026-11"): 1}
        again.close_nowait()


async def test_the_limits_of_one_worker_are_kept_in_it(path: Path) -> None:
    """An old and a new worker, one behind the other and both at once for a while."""
    scopes, wall = key(Limits(tokens_per_day=100)), WallClock()
    async with trio.open_nursery() as nursery:
        old = MemoryLimits(BudgetFile(path, wall_clock=wall), wall_clock=wall)
        nursery.start_soon(old.run)
        grant = await granted(old, scopes, Demand(tokens=60))
        await trio.sleep(WRITE_S + 0.3)
        async with trio.open_nursery() as inner:
            new = MemoryLimits(BudgetFile(path, wall_clock=wall), wall_clock=wall)
            inner.start_soon(new.run)
            await refused(new, scopes, Demand(tokens=41))
            await old.settle(grant, 10, 0)
            with trio.fail_after(5):
                while await new.spent(scopes) != {"alice": {"tokens_per_day": 10}}:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            await granted(new, scopes, Demand(tokens=90))
            inner.cancel_scope.cancel()
        with trio.fail_after(5):
            while await old.spent(scopes) != {"alice": {"tokens_per_day": 100}}:  # noqa: ASYNC110
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]
