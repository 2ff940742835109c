"""Who was the limit: said where it was the generator or the machine, and nowhere else."""

from pathlib import Path

import pytest

from trioproxy.bench.figures import Figures
from trioproxy.bench.limit import MachineTimes, limits, machine_times


def figures(busy: float = 0.2, late_s: float = 0.001, gap_s: float = 0.02) -> Figures:
    made = Figures(busy=[0.1, busy])
    for _ in range(100):
        made.late.note(late_s)
        made.gap.note(gap_s)
    return made


@pytest.mark.parametrize("idle", [None, 0.5])
def test_nothing_is_said_of_a_generator_with_time_to_spare(idle: float | None) -> None:
    assert limits(figures(), idle) == []
    assert limits(Figures(), idle) == []


def test_a_process_without_time_to_spare_was_the_limit() -> None:
    (said,) = limits(figures(busy=0.97, late_s=0.5), 0.5)
    assert said == "a process of the generator used 97% of a core: it was the limit; try more --processes"


def test_a_machine_without_time_to_spare_is_named() -> None:
    (said,) = limits(figures(late_s=0.5), 0.01)
    assert said.startswith("the machine had no time left")
    assert len(limits(figures(busy=0.97), 0.01)) == 2


def test_a_late_generator_says_how_late() -> None:
    (said,) = limits(figures(late_s=0.03), 0.5)
    assert "30 ms late" in said
    assert limits(figures(late_s=0.03, gap_s=1.0), 0.5) == []


def test_the_machine_s_times_are_read(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1 1 1\n")
    after.write_text("cpu  50 0 50 90 10 0 0 0 9 9\ncpu0 1 1 1\n")
    first, second = machine_times(before), machine_times(after)
    assert first == MachineTimes(100, 80) and second == MachineTimes(200, 100)
    assert second.idle_share(first) == pytest.approx(0.2)
    assert first.idle_share(first) is None


@pytest.mark.parametrize("text", ["", "cpu 1 2", "cpu a b c d e f g h"])
def test_a_machine_that_does_not_tell_is_not_spoken_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert machine_times(tmp_path / "stat") is None
    assert machine_times(tmp_path / "none") is None
