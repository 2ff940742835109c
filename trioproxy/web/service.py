"""What every request needs and no request owns. Put together by `server/build`, kept by the app."""

from dataclasses import dataclass, field

from trioproxy.errors import CancelReason
from trioproxy.relay.call import Lifetime, Timing
from trioproxy.telemetry.access_log import AccessLog
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.reachability import Reachability


@dataclass
class Service:
    """The parts behind the routes.

    Attributes:
        dispatcher: opens attempts at the upstream.
        reachability: whether the upstream can be reached at all, for `/readyz`.
        timing: the clocks of a relay.
        log: where exchanges go.
        max_body_bytes, max_upload_bytes: bounds of bodies that are held, and that are streamed through.
        live: the requests under way.
        is_draining: no new work; `/readyz` says so.
    """

    dispatcher: Dispatcher
    reachability: Reachability
    timing: Timing
    log: AccessLog
    max_body_bytes: int
    max_upload_bytes: int
    live: set[Lifetime] = field(default_factory=set)
    is_draining: bool = False

    def stop_all(self, reason: CancelReason) -> None:
        """End every request that is under way: each client is told, then its connection ends."""
        for lifetime in list(self.live):
            lifetime.stop(reason)
