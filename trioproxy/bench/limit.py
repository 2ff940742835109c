"""Whether a measurement was limited by who measured: the generator's processes, or a machine without time left.

Pure but for `machine_times`, which reads Linux's /proc/stat; elsewhere nothing is said of the machine.
"""

from pathlib import Path
from typing import NamedTuple

from trioproxy.bench.figures import Figures

BUSY = 0.85
"""The share of a core from which on a process of one thread has no more to give."""
IDLE = 0.05
LATE_S = 0.01
LATE_SHARE = 0.25
"""A generator is late if it serves one timer in a hundred later than both: this, and this share of the median gap."""


class MachineTimes(NamedTuple):
    """All cores' time since the start of the machine, in its ticks."""

    all: int
    idle: int

    def idle_share(self, since: "MachineTimes") -> float | None:
        """Which share of the time since then no core had anything to do; None if there was no time."""
        ticks = self.all - since.all
        return (self.idle - since.idle) / ticks if ticks > 0 else None


def machine_times(path: Path = Path("/proc/stat")) -> MachineTimes | None:
    """Now; None where that is not known."""
    try:
        numbers = [int(number) for number in path.read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return MachineTimes(sum(numbers), sum(numbers[3:5])) if len(numbers) == 8 else None


def limits(figures: Figures, idle_share: float | None) -> list[str]:
    """What a reader has to know before believing the figures; empty: the service was the limit, or its clients were."""
    said = []
    busiest = max(figures.busy, default=0.0)
    late_s = figures.late.percentile(99)
    usual_gap_s = figures.gap.percentile(50) or 0.0
    if busiest >= BUSY:
        said.append(f"a process of the generator used {busiest:.0%} of a core: it was the limit; try more --processes")
    if idle_share is not None and idle_share < IDLE:
        said.append("the machine had no time left: generator and service, if they share it, slowed each other")
    elif late_s is not None and late_s > max(LATE_S, LATE_SHARE * usual_gap_s) and busiest < BUSY:
        said.append(
            f"the generator itself was up to {1000 * late_s:.0f} ms late (p99): so may times be that it measured"
        )
    return said
