"""Whether there is room for one more request. New work is shed, at once and cheaply; what runs is never touched."""

from contextlib import AsyncExitStack

from trioproxy.errors import Overloaded
from trioproxy.telemetry.load import Load
from trioproxy.telemetry.metrics import Metrics
from trioproxy.telemetry.tally import Tally


class Admission:
    """Holds the bound on requests under way. `permits` counts those that were let in."""

    def __init__(self, *, max_streams: int, load: Load, metrics: Metrics) -> None:
        self.permits = Tally()
        self._max_streams = max_streams
        self._load = load
        self._metrics = metrics

    def admit(self, stack: AsyncExitStack) -> None:
        """Let a request in, until `stack` is left. Raises Overloaded."""
        reason = "streams" if self.permits.open >= self._max_streams else self._load.excess()
        if reason is not None:
            self._metrics.shed(reason)
            raise Overloaded("This server has too much to do; send the request again in a moment.")
        self.permits.open_one()
        stack.callback(self.permits.release_one)
