"""The generator's processes: real ones, on a real socket."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trioproxy.bench.demo_upstream import serve
from trioproxy.bench.generator import Plan
from trioproxy.bench.http_client import Url
from trioproxy.bench.processes import GeneratorFailed, Progress, measure

ROOT = str(Path(__file__).resolve().parents[2])
ENVIRON = {**os.environ, "PYTHONPATH": ROOT}


def children() -> set[int]:
    """The processes below this one."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@contextmanager
def no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


async def test_processes_share_the_clients_and_their_figures_are_one() -> None:
    told: list[Progress] = []
    with no_child_left():
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve)
            plan = Plan(Url("http", "127.0.0.1", port, "/v1"), "m-n5-i1-t0", "Hello", True, 5, 1.0)
            figures = await measure(plan, 2, ENVIRON, told.append)
            nursery.cancel_scope.cancel()
    assert (figures.failed, figures.under_way <= 5, len(figures.busy)) == (0, True, 2)
    assert figures.finished > 20
    assert figures.tokens >= 5 * figures.finished
    assert figures.seconds == pytest.approx(1.0, abs=0.5)
    assert len(told) >= 2
    assert told[-1].finished <= figures.finished


async def test_there_are_no_more_processes_than_clients() -> None:
    plan = Plan(Url("http", "127.0.0.1", 1, "/v1"), "m", "Hello", True, 1, 0.3)
    figures = await measure(plan, 4, ENVIRON, lambda progress: None)
    assert len(figures.busy) == 1
    assert set(figures.errors) == {"cannot connect"}


async def test_a_process_that_does_not_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan(Url("http", "127.0.0.1", 1, "/v1"), "m", "Hello", True, 2, 5.0)
    with no_child_left(), pytest.RaisesGroup(GeneratorFailed):
        await measure(plan, 2, {**ENVIRON, "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}, lambda progress: None)
    capfd.readouterr()


async def test_a_key_is_not_among_a_process_s_arguments() -> None:
    plan = Plan(Url("http", "127.0.0.1", 1, "/v1"), "m", "Hello", True, 1, 30.0, "sk-secret")
    before, seen = children(), b""

    def look(progress: Progress) -> None:
        nonlocal seen
        for pid in children() - before:
            seen += b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        scope.cancel()

    with no_child_left(), trio.CancelScope() as scope:
        await measure(plan, 1, ENVIRON, look)
    assert b"trioproxy.bench.generator" in seen
    assert b"sk-secret" not in seen


async def test_who_is_cancelled_leaves_no_process() -> None:
    plan = Plan(Url("http", "127.0.0.1", 1, "/v1"), "m", "Hello", True, 2, 600.0)
    with no_child_left():
        with trio.move_on_after(1.5) as scope:
            await measure(plan, 2, ENVIRON, lambda progress: None)
        assert scope.cancelled_caught
