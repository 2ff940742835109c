"""The metrics: counted by each worker, merged by the supervisor, shown as Prometheus reads them. The only door to
prometheus_client.

Counting is made from the exchange, once, when it is over; what is a state (open connections, lag) is looked at when
somebody asks. Label values come from closed sets or from the configuration, never from a client.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from trioproxy.policy.limits import PICO
from trioproxy.telemetry.exchange import Exchange

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""A metric's name, what it says, its type, and its samples: name, labels, value. What goes over the link as JSON."""

_Series = tuple[str, str, tuple[tuple[str, str], ...]]
"""A sample's identity: the metric's name, its own, its labels."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STREAM_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1200)  # 1 ms to 20 min
_CANCEL_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class Metrics:
    """One worker's counters. An exchange costs a few microseconds: label children are kept."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests that ended.", "endpoint", "upstream", "outcome")
        self._stream_ends = self._counter("stream_end", "Streams that ended, by how.", "reason")
        self._attempts = self._counter("attempts", "Tries at an upstream.", "upstream", "result")
        self._tokens = self._counter("tokens", "Tokens, by the upstreams' own figures.", "upstream", "kind")
        self._deadlines = self._counter("deadline", "Requests that a deadline ended.", "deadline")
        self._shadows = self._counter("shadow", "Copies of requests that ended.", "upstream", "outcome")
        self._limited = self._counter("limited", "Requests refused by a limit of their key, or of all.", "kind")
        self._uncounted = self._counter("uncounted", "Limits not kept for a request, as the state was gone.", "kind")
        self._unsettled = self._counter("unsettled", "Requests whose accounts stay as they were estimated.")
        self._costs: dict[str, int] = defaultdict(int)
        self._shed = self._counter("shed", "Requests refused because of overload.", "reason")
        self._first_content = self._histogram(
            "time_to_first_content_seconds", "From accept to a stream's first content.", _STREAM_BUCKETS_S
        )
        self._cancel = self._histogram(
            "cancel_seconds", "From the client's leaving to everything of its request being closed.", _CANCEL_BUCKETS_S
        )
        self._children: dict[tuple[Any, ...], Any] = {}

    def exchange(self, exchange: Exchange) -> None:
        """Count one exchange, when it is over."""
        upstream = exchange.upstream or "none"
        self._of(self._requests, exchange.endpoint, upstream, exchange.outcome).inc()
        if exchange.stream:
            self._of(self._stream_ends, exchange.code or exchange.reason or exchange.outcome).inc()
        self.production(exchange)
        if exchange.deadline is not None:
            self._of(self._deadlines, exchange.deadline).inc()
        if exchange.first_content_at is not None:
            self._first_content.observe(exchange.first_content_at - exchange.accepted)
        if exchange.gone_at is not None and exchange.ended is not None:
            self._cancel.observe(exchange.ended - exchange.gone_at)

    def limited(self, kind: str) -> None:
        """Count a request that a limit refused."""
        self._of(self._limited, kind).inc()

    def uncounted(self, kind: str) -> None:
        """Count a limit that was not kept for a request, as the state was gone."""
        self._of(self._uncounted, kind).inc()

    def unsettled(self) -> None:
        """Count a request whose accounts stay as they were estimated."""
        self._unsettled.inc()

    def shed(self, reason: str) -> None:
        """Count a request that was refused because of overload."""
        self._of(self._shed, reason).inc()

    def production(self, exchange: Exchange) -> None:
        """Count what asking the upstreams came to; for a stream with several readers that is one thing."""
        for tried, result in exchange.tries:
            self._of(self._attempts, tried, "answered" if result.isdigit() else result).inc()
        if exchange.usage is not None:
            upstream, usage = exchange.upstream or "none", exchange.usage
            self._of(self._tokens, upstream, "input").inc(usage.input)
            self._of(self._tokens, upstream, "cached").inc(usage.cached)
            self._of(self._tokens, upstream, "output").inc(usage.output)
        if exchange.cost:
            self._costs[exchange.key or "none"] += exchange.cost

    def shadow(self, record: Exchange) -> None:
        """Count a copy of a request, when it is over."""
        self._of(self._shadows, record.upstream or "none", record.outcome).inc()

    def families(self) -> Iterator[Family]:
        """Everything counted so far."""
        for metric in self._registry.collect():
            samples = [(one.name, dict(one.labels), one.value) for one in metric.samples if not _is_birth(one.name)]
            yield metric.name, metric.documentation, metric.type, samples
        # Summed as whole numbers, and only shown as others.
        costs = {name: cost / PICO for name, cost in self._costs.items()}
        yield states("trioproxy_cost_usd", "Dollars that requests came to, by their key.", costs, "key", "counter")

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"trioproxy_{name}", says, labels, registry=self._registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"trioproxy_{name}", says, buckets=buckets, registry=self._registry)

    def _of(self, metric: MetricWrapperBase, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child


def states(name: str, says: str, values: Mapping[str, float], label: str, kind: str = "gauge") -> Family:
    """A family of one label, from a state: its value for each of the label's values."""
    suffix = "_total" if kind == "counter" else ""
    return name, says, kind, [(name + suffix, {label: key}, value) for key, value in values.items()]


def state(name: str, says: str, value: float, kind: str = "gauge") -> Family:
    """A family of one sample."""
    return name, says, kind, [(name + ("_total" if kind == "counter" else ""), {}, value)]


def counts(families: Iterable[Family]) -> list[Family]:
    """Those that only grow: a state is true for the moment, but what was counted stays counted."""
    return [family for family in families if family[2] != "gauge"]


class Merged:
    """The sum of what several workers counted. What ended workers counted stays in it, or counters would fall."""

    def __init__(self) -> None:
        self._ended: dict[_Series, float] = defaultdict(float)
        self._kinds: dict[str, tuple[str, str]] = {}

    def keep(self, families: Iterable[Family]) -> None:
        """Keep the counters of a worker that has ended."""
        for name, says, kind, samples in counts(families):
            self._kinds[name] = (says, kind)
            for sample, labels, value in samples:
                self._ended[name, sample, tuple(labels.items())] += value

    def render(self, workers: Iterable[tuple[str, Iterable[Family]]], own: Iterable[Family] = ()) -> bytes:
        """The text for Prometheus: counters are summed, each worker's gauges get its name as the label `worker`.
        `own` are the supervisor's."""
        kinds, sums = dict(self._kinds), self._ended.copy()
        labelled = [({"worker": worker}, families) for worker, families in workers]
        for extra, families in [*labelled, ({}, own)]:
            for name, says, kind, samples in families:
                kinds[name] = (says, kind)
                for sample, labels, value in samples:
                    shown = {**labels, **extra} if kind == "gauge" else labels
                    sums[name, sample, tuple(shown.items())] += value
        metrics = {name: Metric(name, says, kind) for name, (says, kind) in sorted(kinds.items())}
        for (name, sample, pairs), value in sums.items():
            metrics[name].add_sample(sample, dict(pairs), value)
        return generate_latest(_Fixed(metrics.values()))


class _Fixed(CollectorRegistry):
    """A registry of metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__()
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _is_birth(sample: str) -> bool:
    """Whether a sample tells when a metric began, which a sum over workers cannot."""
    return sample.endswith("_created")
