"""What every request needs and no request owns. Put together by `server/build`, kept by the app."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from trioproxy.errors import CancelReason
from trioproxy.policy.catalog import Catalog
from trioproxy.policy.routing import Routes
from trioproxy.relay.call import Lifetime, Timing
from trioproxy.telemetry.access_log import AccessLog
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.metrics import Metrics
from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.model_list import ModelLists
from trioproxy.upstream.reachability import Reachability
from trioproxy.web.admission import Admission


@dataclass(kw_only=True)
class Desk:
    """What the connection class needs on any address.

    Attributes:
        timing: the clocks of a request.
        live: the requests under way; `requests` counts them.
        trusted_proxies: the networks of load balancers whose word is taken for a client's address.
    """

    timing: Timing = field(default_factory=Timing)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    live: set[Lifetime] = field(default_factory=set)
    requests: Tally = field(default_factory=Tally)

    def begin(self, lifetime: Lifetime) -> None:
        """A request is under way."""
        self.live.add(lifetime)
        self.requests.open_one()

    def end(self, lifetime: Lifetime, exchange: Exchange) -> None:
        """A request is over."""
        self.live.discard(lifetime)
        self.requests.release_one()


@dataclass(kw_only=True)
class Service(Desk):
    """The parts behind the data address's routes.

    Attributes:
        dispatcher: knows the upstreams, and the way of each model through them.
        timings: the clocks of a request, by its model.
        reachability: whether the upstream can be reached at all, for `/readyz`.
        catalog: which models are listed; None: the only upstream's own list passes. `model_lists` are the upstreams'.
        admission: whether there is room for one more request.
        log, metrics: where exchanges go.
        max_body_bytes, max_upload_bytes: bounds of bodies that are held, and that are streamed through.
        is_draining: no new work; `/readyz` says so.
    """

    dispatcher: Dispatcher
    timings: Routes[Timing]
    reachability: Reachability
    catalog: Catalog | None
    model_lists: ModelLists
    admission: Admission
    log: AccessLog
    metrics: Metrics
    max_body_bytes: int
    max_upload_bytes: int
    is_draining: bool = False

    def end(self, lifetime: Lifetime, exchange: Exchange) -> None:
        """A request is over: it is logged and counted, once."""
        super().end(lifetime, exchange)
        self.log.exchange(exchange)
        self.metrics.exchange(exchange)

    def stop_all(self, reason: CancelReason) -> None:
        """End every request that is under way: each client is told, then its connection ends."""
        for lifetime in list(self.live):
            lifetime.stop(reason)
