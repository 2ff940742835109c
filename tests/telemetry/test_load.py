"""How busy the process is, in virtual time."""

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from trioproxy.telemetry import load
from trioproxy.telemetry.load import Load, open_descriptors, resident_bytes


async def test_lateness_is_seen_and_forgotten_within_about_a_second(autojump_clock: trio.testing.MockClock) -> None:
    watched = Load(max_lag_s=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watch)
        await trio.sleep(1.05)
        assert watched.lag_s == pytest.approx(0) and watched.excess() is None
        autojump_clock.jump(2)  # as if the event loop had been busy
        await trio.sleep(0.01)
        assert watched.lag_s == pytest.approx(2, abs=0.1) and watched.excess() == "lag"
        await trio.sleep(1)
        assert watched.lag_s < 0.3 and watched.excess() is None
        nursery.cancel_scope.cancel()


async def test_memory_is_looked_at_every_second(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    watched = Load(max_memory_bytes=1 << 40)
    assert watched.memory_bytes > 1 << 20
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watch)
        monkeypatch.setattr(load, "resident_bytes", lambda: 1 << 41)
        await trio.sleep(0.5)
        assert watched.excess() is None
        await trio.sleep(0.6)
        assert watched.excess() == "memory"
        nursery.cancel_scope.cancel()


def test_without_limits_there_is_always_room() -> None:
    watched = Load()
    watched.lag_s, watched.memory_bytes = 100.0, 1 << 50
    assert watched.excess() is None


def test_figures_are_the_system_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = open_descriptors()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert open_descriptors() == before + 1
    os.close(descriptor)
    monkeypatch.setattr(load, "_STATM", tmp_path / "none")
    assert resident_bytes() == 0


def test_a_process_without_a_descriptor_to_look_with_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert open_descriptors() == 0
