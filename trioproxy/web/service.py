"""What every request needs and no request owns. Put together by `server/build`, kept by the app."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from time import time

import trio

from trioproxy.errors import CancelReason
from trioproxy.gate.gate import Gate
from trioproxy.hub.hub import Hub
from trioproxy.hub.live import LiveStream
from trioproxy.hub.replicas import Replicas
from trioproxy.policy.catalog import Catalog
from trioproxy.policy.routing import Routes
from trioproxy.relay.call import Call, Lifetime, Timing
from trioproxy.relay.shared import Studio
from trioproxy.telemetry.access_log import AccessLog
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.metrics import Metrics
from trioproxy.telemetry.recent import Recent
from trioproxy.telemetry.tally import Tally
from trioproxy.telemetry.tracer import Tracer
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.model_list import ModelLists
from trioproxy.upstream.reachability import Reachability
from trioproxy.web.admission import Admission
from trioproxy.web.visitors import Visitors


@dataclass(kw_only=True)
class Desk:
    """What the connection class needs on any address.

    Attributes:
        timing: the clocks of a request.
        live: the requests under way, each with its record; `requests` counts them.
        trusted_proxies: the networks of load balancers whose word is taken for a client's address.
        visitors: whom it lets in, by what browsers say.
        tracer: who makes spans of its requests, if anybody does.
    """

    timing: Timing = field(default_factory=Timing)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    visitors: Visitors = field(default_factory=Visitors)
    tracer: Tracer | None = None
    live: dict[Lifetime, Exchange] = field(default_factory=dict)
    requests: Tally = field(default_factory=Tally)

    def begin(self, lifetime: Lifetime, exchange: Exchange) -> None:
        """A request is under way."""
        self.live[lifetime] = exchange
        self.requests.open_one()

    def end(self, lifetime: Lifetime, exchange: Exchange) -> None:
        """A request is over."""
        self.live.pop(lifetime, None)
        self.requests.release_one()


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a route says where its request says nothing. See `config/route`."""

    share: bool = False
    resume_s: float = 0.0
    linger_s: float = 0.0


@dataclass(kw_only=True)
class Service(Desk):
    """The parts behind the data address's routes.

    Attributes:
        gate: who may come in, and how much each may use.
        dispatcher: knows the upstreams, and the way of each model through them.
        timings: the clocks of a request, by its model.
        sharing: what a model's route says of sharing and resuming; `hub` keeps such streams, `replicas`
            those of other processes; `sees_all`: there are no others that are not seen.
        reachability: whether the upstream can be reached at all, for `/readyz`.
        catalog: which models are listed; `passes_list`: the only upstream's own list says it all, and is passed on to
            who may see all of it. `model_lists` are the upstreams'.
        admission: whether there is room for one more request.
        log, metrics: where exchanges go; `recent` keeps those that have ended lately.
        produced: of the live ones those that produce a stream which several may read.
        token_secret: what tokens are made with, see `wire/token`; None: there are none. `wall_clock` says until when.
        max_body_bytes, max_upload_bytes: bounds of bodies that are held, and that are streamed through.
        is_draining: no new work; `/readyz` says so.
    """

    gate: Gate
    dispatcher: Dispatcher
    timings: Routes[Timing]
    sharing: Routes[Sharing]
    hub: Hub
    replicas: Replicas | None = None
    sees_all: bool = True
    reachability: Reachability
    catalog: Catalog
    passes_list: bool
    model_lists: ModelLists
    admission: Admission
    log: AccessLog
    metrics: Metrics
    max_body_bytes: int
    max_upload_bytes: int
    recent: Recent = field(default_factory=Recent)
    produced: dict[Lifetime, LiveStream] = field(default_factory=dict)
    token_secret: bytes | None = None
    wall_clock: Callable[[], float] = time
    is_draining: bool = False

    @cached_property
    def studio(self) -> Studio:
        """What sharing takes."""
        return Studio(self.hub, self.dispatcher, self, self.replicas, self.sees_all)

    def end(self, lifetime: Lifetime, exchange: Exchange) -> None:
        """A request is over: it is logged and counted, once."""
        super().end(lifetime, exchange)
        record = exchange.close(trio.current_time())
        self.recent.add(record)
        self.log.exchange(record)
        self.metrics.exchange(record)
        if self.tracer is not None:
            self.tracer.exchange(record)

    async def begin_production(self, call: Call, lifetime: Lifetime, stream: LiveStream) -> None:
        """A stream is produced that several may read. Raises Overloaded, and what the ticket raises."""
        self.admission.admit(lifetime.stack)
        self.live[lifetime] = call.exchange
        self.produced[lifetime] = stream
        lifetime.stack.callback(self._end_production, lifetime, call.exchange, stream)
        if call.ticket is not None:
            await call.ticket.enter(call.exchange, lifetime.stack)

    def _end_production(self, lifetime: Lifetime, exchange: Exchange, stream: LiveStream) -> None:
        """It is over: logged and counted, once; its readers are, by themselves."""
        self.live.pop(lifetime, None)
        self.produced.pop(lifetime, None)
        record = exchange.close(trio.current_time())
        self.recent.add(record, stream.id, stream.joined)
        self.log.put("stream", {"stream_id": stream.id, "readers": stream.joined, **record.line()})
        self.metrics.production(record)
        if self.tracer is not None:
            self.tracer.exchange(record)

    def stop_all(self, reason: CancelReason) -> None:
        """End every request that is under way: each client is told, then its connection ends."""
        for lifetime in list(self.live):
            lifetime.stop(reason)
