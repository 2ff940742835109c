"""How busy this process is: how late its event loop is, and how much memory it holds."""

from pathlib import Path
from resource import getpagesize

import trio

_LOOK_EVERY_S = 0.1
_MEMORY_EVERY_LOOKS = 10
_FADING = 0.8
"""What a moment's lateness still counts at the next look: it is forgotten within about a second."""
_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")


class Load:
    """Watches the process. Above a limit (None: there is none) new work is better refused.

    Attributes:
        lag_s: how late the event loop was lately, seconds; the worst counts, and fades.
        memory_bytes: resident memory.
    """

    def __init__(self, *, max_lag_s: float | None = None, max_memory_bytes: int | None = None) -> None:
        self._max_lag_s = max_lag_s
        self._max_memory_bytes = max_memory_bytes
        self.lag_s = 0.0
        self.memory_bytes = resident_bytes()

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        looks = 0
        while True:
            expected = trio.current_time() + _LOOK_EVERY_S
            await trio.sleep_until(expected)
            self.lag_s = max(trio.current_time() - expected, self.lag_s * _FADING)
            looks += 1
            if looks % _MEMORY_EVERY_LOOKS == 0:
                self.memory_bytes = resident_bytes()

    def excess(self) -> str | None:
        """Which limit is passed, "lag" or "memory"; None if there is room for more work."""
        if self._max_lag_s is not None and self.lag_s > self._max_lag_s:
            return "lag"
        if self._max_memory_bytes is not None and self.memory_bytes > self._max_memory_bytes:
            return "memory"
        return None


def resident_bytes() -> int:
    """This process's resident memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * getpagesize()
    except OSError:
        return 0


def open_descriptors() -> int:
    """How many file descriptors this process has open; 0 if it cannot be told, as when none is left to look with."""
    try:
        return sum(1 for _ in _DESCRIPTORS.iterdir())
    except OSError:
        return 0
