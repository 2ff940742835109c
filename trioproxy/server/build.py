"""The one place where the rooms are wired together, from a configuration."""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from math import inf
from secrets import token_bytes
from time import time
from typing import Any, Final

import trio

from trioproxy.config import Canary as CanarySection
from trioproxy.config import Config, Deadlines, Key, Route, Stream, Upstream, is_loopback, split_bind
from trioproxy.config.schema import Tls
from trioproxy.hub.hub import Hub, HubBounds
from trioproxy.hub.replicas import Replicas
from trioproxy.policy.breaker import State
from trioproxy.policy.budget import RetryBudget
from trioproxy.policy.canary import Canary, CanaryRules
from trioproxy.policy.catalog import Catalog, Shelf
from trioproxy.policy.error_class import ErrorClass
from trioproxy.policy.hedge import Hedge, HedgeRules
from trioproxy.policy.plan import Strategy
from trioproxy.policy.retry import RetryRules
from trioproxy.policy.routing import Routes
from trioproxy.relay.call import Timing
from trioproxy.server import backpressure
from trioproxy.server.board import Board
from trioproxy.server.connection import Limits
from trioproxy.server.gate import gate_of, spent, virtual_keys
from trioproxy.server.listener import Listener
from trioproxy.server.upstreams import told
from trioproxy.state.limits import LimitStore
from trioproxy.state.limits_memory import MemoryLimits
from trioproxy.state.streams import StreamStore
from trioproxy.telemetry.access_log import AccessLog, send_structlog_to
from trioproxy.telemetry.load import Load, open_descriptors, resident_bytes
from trioproxy.telemetry.metrics import OPENED, RELEASED, Family, Metrics, state, states
from trioproxy.telemetry.record import Record
from trioproxy.telemetry.tally import Tally
from trioproxy.telemetry.task_tree import task_tree
from trioproxy.telemetry.tracer import Tracer
from trioproxy.upstream.connect import OpenTcp, open_tcp
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.health import HealthCheck, watch_health
from trioproxy.upstream.model_list import ModelLists
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.reachability import Reachability
from trioproxy.upstream.shadow import Shadows
from trioproxy.upstream.way import CanaryTarget, ShadowTarget, Target, Way
from trioproxy.web.admission import Admission
from trioproxy.web.app import ProxyApp
from trioproxy.web.connection import render_crash
from trioproxy.web.service import Service, Sharing
from trioproxy.web.visitors import Visitors
from trioproxy.wire.live_table import told_as_text

SLOW_QUESTIONS: Final = frozenset({"streams", "spent"})
"""Those that `House.answer_slowly` answers."""


class House:
    """Everything that serves, put together and not started."""

    def __init__(
        self,
        config: Config,
        log: AccessLog,
        *,
        open_tcp: OpenTcp = open_tcp,
        store: StreamStore | None = None,
        limits: LimitStore | None = None,
        keys: Sequence[Key] | None = None,
        token_secret: bytes | None = None,
        tracer: Tracer | None = None,
        wall_clock: Callable[[], float] = time,
        admin: str | None = None,
    ) -> None:
        """`store` is where all replicas look for streams; None: there is no other. `limits` is where limits are
        counted; None: in this process's memory, and nowhere else. `keys` are the virtual keys; None: those of the
        configuration, if any. `token_secret` is that of all workers; None: one of its own. `tracer` is who makes spans;
        None: nobody does. `admin` is where the admin address really is, whose pages may come; None:
        as configured. Raises OSError."""
        self.config = config
        self.log = log
        self.tracer = tracer
        send_structlog_to(log)
        self.pool = Pool()
        self.attempts = Tally()
        self.endpoints = {
            upstream.name: endpoint_of(upstream, self.pool, self.attempts, config.deadlines.connect_s, open_tcp)
            for upstream in config.upstream
        }
        timings = _timings(config)
        self.load = Load(max_lag_s=config.server.max_lag_s, max_memory_bytes=config.server.max_memory_bytes)
        self.metrics = Metrics()
        self.shadows = Shadows(self._note_shadow, self._guard)
        self.hub = Hub(self._guard, _hub_bounds(config))
        self.replicas = None if store is None else Replicas(self.hub, store)
        everywhere = [Target(endpoint) for endpoint in self.endpoints.values()]
        of_routes = [_way(route, self.endpoints, everywhere) for route in config.route]
        self.canaries = {place: way.canary for place, way in enumerate(of_routes) if way.canary is not None}
        ways = Routes([(one.models, way) for one, way in zip(config.route, of_routes, strict=True)], Way(everywhere))
        dispatcher = Dispatcher(list(self.endpoints.values()), ways, self.shadows)
        self.limits = MemoryLimits(None, wall_clock=wall_clock) if limits is None else limits
        self.gate = gate_of(config, self.limits, self.metrics, ways, wall_clock)
        self.take_keys(keys if keys is not None else config.key or None)
        self.service = Service(
            gate=self.gate,
            wall_clock=wall_clock,
            dispatcher=dispatcher,
            reachability=Reachability(list(self.endpoints.values())),
            catalog=_catalog(config),
            passes_list=len(config.upstream) == 1 and not config.route,
            model_lists=ModelLists(list(self.endpoints.values())),
            timing=timings.general,
            timings=timings,
            sharing=_sharing(config),
            hub=self.hub,
            replicas=self.replicas,
            sees_all=store is not None or config.server.workers == 1,
            admission=Admission(max_streams=config.server.max_streams, load=self.load, metrics=self.metrics),
            log=log,
            metrics=self.metrics,
            max_body_bytes=config.server.max_body_bytes,
            max_upload_bytes=config.server.max_upload_bytes,
            trusted_proxies=tuple(ip_network(network) for network in config.server.trusted_proxies),
            token_secret=(token_secret or token_bytes(32)) if _have_keys(config) else None,
            visitors=_visitors(config, config.admin.bind if admin is None else admin),
            tracer=tracer,
        )
        self.board = Board(self.service.live, self.service.produced, self.service.recent)
        self.app = ProxyApp(self.service)
        self.listener = Listener(
            self.app,
            limits_of(config),
            render_crash=render_crash,
            tls=_own_tls(config.server.tls) if config.server.tls is not None else None,
        )

    def keepers(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs beside the requests for as long as the process serves; belongs in its nursery. A bug in what only
        some requests need does not end the others."""
        beside: list[Callable[[], Awaitable[None]]] = [self.shadows.run, self.hub.run]
        if self.replicas is not None:
            beside += [self.replicas.run, self.replicas.keep_store]
        beside += [
            partial(watch_health, self.endpoints[upstream.name], check)
            for upstream in self.config.upstream
            if (check := _health_check(upstream)) is not None
        ]
        return [self.pool.reap, self.load.watch, *(partial(self._guard, run) for run in beside)]

    async def keep_accounts(self) -> None:
        """Keep the limits' store, until cancelled. It has to outlive all requests: they are settled when they end."""
        await self._guard(self.limits.run)

    def take_keys(self, keys: Sequence[Key] | None) -> None:
        """Put other virtual keys in force; None: there are none, and clients' own credentials go through."""
        self.gate.take_keys(virtual_keys(keys))

    async def _guard(self, run: Callable[[], Awaitable[None]]) -> None:
        await self.listener.barrier.run_job(run)

    def _note_shadow(self, record: Record) -> None:
        self.log.put("shadow", record.line())
        self.metrics.shadow(record)

    def answer(self, what: str, **said: Any) -> Any:
        """Answer a question of the supervisor's that needs no time: "alive", "metrics", "upstreams", "backpressure",
        "resources", "stream" (`id`) or "stop" (`id`, `reason`)."""
        match what:
            case "alive":
                return True
            case "metrics":
                return list(self._families())
            case "upstreams":
                return told(self.endpoints, self.canaries, trio.current_time())
            case "backpressure":
                return backpressure.told(self.hub)
            case "stream":
                return self.board.shown(said["id"])
            case "stop":
                return self.board.stop(said["id"], said["reason"])
            case _:
                return self._resources()

    async def answer_slowly(self, what: str, **said: Any) -> Any:
        """Answer one that may take its time: "streams" (`after`, see `board`), or "spent": what the limits of all keys
        and of everything come to. If cancelled, nothing has happened."""
        if what == "streams":
            return told_as_text(await self.board.told(said["after"]))
        return await spent(self.gate)

    def _tallies(self) -> dict[str, Tally]:
        return {
            "client_connections": self.listener.tally,
            "requests": self.service.requests,
            "permits": self.service.admission.permits,
            "attempts": self.attempts,
            "productions": self.hub.producers,
            "upstream_connections": self.pool.connections,
        }

    def _resources(self) -> dict[str, Any]:
        tallies = self._tallies()
        return {
            "open": {name: tally.open for name, tally in tallies.items()},
            "opened": {name: tally.opened for name, tally in tallies.items()},
            "released": {name: tally.released for name, tally in tallies.items()},
            "idle_upstream_connections": self.pool.idle_connections,
            "file_descriptors": open_descriptors(),
            "memory_bytes": resident_bytes(),
            "lag_s": round(self.load.lag_s, 4),
            "crashes": self.listener.barrier.crashes,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "task_tree": task_tree(),
        }

    def _families(self) -> Iterator[Family]:
        tallies = self._tallies()
        yield from self.metrics.families()
        opened = {name: float(tally.opened) for name, tally in tallies.items()}
        released = {name: float(tally.released) for name, tally in tallies.items()}
        yield states(OPENED, "What was opened, by kind.", opened, "resource", "counter")
        yield states(RELEASED, "What was released again, by kind.", released, "resource", "counter")
        streams = {name: float(one.slots.taken) for name, one in self.endpoints.items()}
        now = trio.current_time()
        breakers = {name: float(one.breaker.state(now) is not State.CLOSED) for name, one in self.endpoints.items()}
        yield states("trioproxy_breaker_open", "Upstreams that are left alone for now.", breakers, "upstream")
        yield states("trioproxy_streams_open", "Answers of upstreams that are being relayed.", streams, "upstream")
        yield from backpressure.families(self.hub)
        yield state("trioproxy_event_loop_lag_seconds", "How late the event loop was lately.", self.load.lag_s)
        yield state("trioproxy_resident_memory_bytes", "Resident memory.", self.load.memory_bytes)
        yield state("trioproxy_tasks", "Tasks that are alive.", trio.lowlevel.current_statistics().tasks_living)
        yield state("trioproxy_crashes", "Crashes that were caught.", self.listener.barrier.crashes, "counter")
        yield state("trioproxy_log_lines_dropped", "Log lines that were lost.", self.log.dropped, "counter")
        spans = 0 if self.tracer is None else self.tracer.dropped
        yield state("trioproxy_spans_dropped", "Spans that were lost.", spans, "counter")


def _have_keys(config: Config) -> bool:
    """Whether a request without a key of its client's can be answered: some upstream has one of its own."""
    return any(upstream.api_key for upstream in config.upstream)


def _visitors(config: Config, admin: str) -> Visitors:
    """Who may come to the data address. Pages of the admin address are our own."""
    are_local = [is_loopback(split_bind(bind)[0]) for bind in config.server.bind]
    hosts = frozenset(host.rstrip(".") for host in config.server.hosts)
    origins = [*config.cors.origins, *_admin_origins(admin, hosts)]
    return Visitors(
        is_local=all(are_local),
        is_partly_local=any(are_local),
        hosts=hosts,
        origins=frozenset(origin.encode("ascii") for origin in origins),
        has_cors=bool(config.cors.origins),
    )


def _admin_origins(bind: str, hosts: Iterable[str]) -> list[str]:
    """The origins of pages that the admin address serves, as far as they can be told from its bind."""
    if bind == "off":
        return []
    host, port = split_bind(bind)
    names = [host.lower(), *hosts, *(("localhost", "127.0.0.1", "::1") if is_loopback(host) else ())]
    written = [f"[{name}]" if ":" in name else name for name in names]
    return [f"http://{name}" if port == 80 else f"http://{name}:{port}" for name in written]


def _hub_bounds(config: Config) -> HubBounds:
    hub = config.hub
    return HubBounds(
        max_events=hub.max_events,
        max_bytes=hub.max_bytes,
        max_total_bytes=hub.max_total_bytes,
        max_streams=hub.max_streams,
        max_per_caller=hub.max_per_caller,
        retain_s=hub.retain_s,
        resume_max_s=hub.resume_max_s,
    )


def _sharing(config: Config) -> Routes[Sharing]:
    """What each route says of sharing and resuming."""
    routes = [(route.models, Sharing(route.share, route.resume_s, route.linger_s)) for route in config.route]
    return Routes(routes, Sharing())


def limits_of(config: Config) -> Limits:
    """What clients' connections may take."""
    return Limits(
        max_connections=config.server.max_connections,
        max_header_bytes=config.server.max_header_bytes,
        header_s=config.server.header_s,
        body_idle_s=config.server.body_idle_s,
        keep_alive_s=config.server.keep_alive_s,
        client_stall_s=config.deadlines.client_stall_s,
        keeps_half_open=config.server.half_close == "keep",
    )


def _own_tls(tls: Tls) -> ssl.SSLContext:
    """How the data address speaks TLS. Raises OSError if the files are not what they were when they were checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.cert, tls.key)
    return context


def _timings(config: Config) -> Routes[Timing]:
    """The clocks of each route, and those of all other requests."""
    routes = [(route.models, route.deadlines.over(config.deadlines)) for route in config.route]
    return Routes(
        [(models, _timing(deadlines, config.stream)) for models, deadlines in routes],
        _timing(config.deadlines, config.stream),
    )


def _timing(deadlines: Deadlines, stream: Stream) -> Timing:
    early = stream.commit_before_head_s
    return Timing(
        connect_s=deadlines.connect_s,
        head_s=deadlines.head_s,
        first_content_s=deadlines.first_content_s,
        idle_s=deadlines.idle_s,
        total_s=deadlines.total_s,
        client_stall_s=deadlines.client_stall_s,
        heartbeat_s=stream.heartbeat_s,
        commit_after_s=stream.commit_after_s,
        commit_before_head_s=inf if early is None else early,
        is_strict=stream.end == "strict",
        coalesce_s=(stream.coalesce_ms or 0.0) / 1000,
        coalesce_events=stream.coalesce_events,
    )


def _tls(upstream: Upstream) -> ssl.SSLContext | None:
    """Whom to trust; loading the usual authorities takes long, so only where TLS is spoken."""
    if not upstream.base_url.startswith("https:"):
        return None
    return ssl.create_default_context(cafile=upstream.ca_file)


def endpoint_of(
    upstream: Upstream, pool: Pool, attempts: Tally, connect_s: float, open_tcp: OpenTcp = open_tcp
) -> Endpoint:
    """An upstream, ready for use. Raises OSError if its `ca_file` is not what it was when it was checked."""
    is_anthropic = upstream.dialect == "anthropic"
    keys = [key.get_secret_value().encode("ascii") for key in upstream.api_key]
    return Endpoint(
        upstream.name,
        upstream.base_url,
        pool=pool,
        attempts=attempts,
        connect_s=connect_s,
        headers=[
            (name.lower().encode("ascii"), value.get_secret_value().encode("latin-1"))
            for name, value in upstream.headers.items()
        ],
        keys=[(b"x-api-key", key) if is_anthropic else (b"authorization", b"Bearer " + key) for key in keys],
        is_anthropic=is_anthropic,
        max_concurrent=upstream.max_concurrent,
        max_waiting=upstream.max_waiting,
        streams=upstream.streams,
        asks_usage=upstream.usage == "ask",
        tls=_tls(upstream),
        proxy=upstream.proxy.get_secret_value() if upstream.proxy else None,
        open_tcp=open_tcp,
    )


def _health_check(upstream: Upstream) -> HealthCheck | None:
    if upstream.health is None:
        return None
    if upstream.health == "chat":
        return HealthCheck(upstream.health_interval_s, model=upstream.health_model)
    return HealthCheck(upstream.health_interval_s, path=upstream.health)


def _way(route: Route, endpoints: Mapping[str, Endpoint], everywhere: list[Target]) -> Way:
    retry, hedge, canary, shadow = route.retry, route.hedge, route.canary, route.shadow
    return Way(
        targets=[Target(endpoints[one.upstream], one.model, one.weight) for one in route.targets] or everywhere,
        strategy=Strategy(route.strategy),
        sticky=route.sticky,
        rules=RetryRules(
            tries=retry.tries,
            max_wait_s=retry.max_wait_s,
            statuses=retry.all_statuses,
            repeat_sent=retry.repeat_sent,
        ),
        budget=RetryBudget(retry.budget),
        fallback={kind: models for kind in ErrorClass if (models := getattr(route.fallback, kind.value))},
        hedge=Hedge(HedgeRules(hedge.after_s, 95 if hedge.after == "p95" else None, hedge.budget)) if hedge else None,
        canary=_canary(canary, endpoints) if canary else None,
        shadow=ShadowTarget(Target(endpoints[shadow.upstream], shadow.model), shadow.share, shadow.max_concurrent)
        if shadow
        else None,
        aggregates=route.aggregate,
        falls_back_to_batch=route.batch_fallback,
        continues=route.continue_after_cut,
    )


def _canary(canary: CanarySection, endpoints: Mapping[str, Endpoint]) -> CanaryTarget:
    rules = CanaryRules(
        share=canary.share,
        max_share=canary.max_share,
        step_s=canary.step_s,
        min_requests=canary.min_requests,
        max_errors=canary.max_errors,
        max_slower=canary.max_slower,
    )
    return CanaryTarget(Target(endpoints[canary.upstream], canary.model), Canary(rules))


def _catalog(config: Config) -> Catalog:
    """Which models are listed."""
    names = [upstream.name for upstream in config.upstream]
    everywhere = Shelf(names[0], names)
    shelves = [
        (
            route.models,
            Shelf(route.targets[0].upstream, [one.upstream for one in route.targets if one.model is None])
            if route.targets
            else everywhere,
        )
        for route in config.route
    ]
    return Catalog(shelves, everywhere)
