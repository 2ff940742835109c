"""Budgets of one worker survive its death: at most the last second is lost, and nothing is counted twice."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.loopback.processes import START_S, Running, until
from tests.loopback.spender import RESERVED, SPENT, UNDER_WAY
from trioproxy.policy.account import Entry
from trioproxy.policy.period import day_of, month_of
from trioproxy.state.budget_file import BudgetFile

ROOT = Path(__file__).resolve().parents[2]
LOST_S = 1.0


@contextmanager
def spending(path: Path, limit: int) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback.spender", str(path), str(limit)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    spender = Running(process)
    try:
        yield spender
    finally:
        spender.kill()


def told(spender: Running) -> list[tuple[float, int, int]]:
    """What it said: when, settled, reserved."""
    lines = [line.split() for line in spender.out if line[:1].isdigit()]
    return [(float(at), int(settled), int(reserved)) for at, settled, reserved in lines]


def sums(path: Path, wall_s: float) -> list[int]:
    """What is in the file: alice's tokens of the month, and everybody's money of the day."""
    entries: list[Entry] = [("alice", "tokens", month_of(wall_s)), ("*", "money", day_of(wall_s))]

    async def read() -> list[int]:
        book = BudgetFile(path)
        found = await book.read(entries)
        book.close_nowait()
        return [found[entry] for entry in entries]

    return trio.run(read)


@pytest.fixture
def wall_s() -> float:
    """A moment that lies in the same day as the whole test."""
    while 86_400 - (now := time.time()) % 86_400 < 60:
        time.sleep(1)
    return now


def test_of_a_process_that_is_killed_in_the_middle_of_a_load_at_most_a_second_is_lost(
    tmp_path: Path, wall_s: float
) -> None:
    path = tmp_path / "state.db"
    before = 0
    for _ in range(3):
        with spending(path, 10**9) as spender:
            until(lambda: len(told(spender)) > 30, "a load of more than a second", START_S)
            spender.process.kill()
            killed_at = time.monotonic()
            spender.wait()
        spoken = told(spender)
        certain = max((settled for at, settled, _ in spoken if at < killed_at - LOST_S), default=0)
        assert certain > 0
        # Behind the last line it may have gone on for a moment.
        most = spoken[-1][1] + SPENT * UNDER_WAY * 200 + RESERVED * UNDER_WAY
        tokens, money = sums(path, wall_s)
        assert tokens == money, "both were written at once"
        assert before + certain <= tokens <= before + most
        assert all(reserved <= RESERVED * UNDER_WAY for _, _, reserved in spoken)
        before = tokens


def test_a_budget_goes_on_where_it_was_and_ends_at_its_limit(tmp_path: Path, wall_s: float) -> None:
    path, limit = tmp_path / "state.db", 20_000
    with spending(path, limit) as spender:
        until(lambda: bool(told(spender)) and told(spender)[-1][1] > limit / 4, "a part of the budget", START_S)
        time.sleep(LOST_S)
        at_the_kill = told(spender)[-1][1]
        spender.process.kill()
        spender.wait()
    rests = []
    for _ in range(2):
        with spending(path, limit) as spender:
            last = spender.wait_for_text("empty", START_S)
            assert spender.wait() == 0
            rests.append(int(last.split()[1]))
    assert at_the_kill < limit
    assert rests[0] <= limit and rests[1] <= RESERVED
    assert limit - RESERVED < sums(path, wall_s)[0] <= limit
