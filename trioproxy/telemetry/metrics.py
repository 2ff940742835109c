"""The metrics: counted by each worker, merged by the supervisor, shown as Prometheus reads them. The only door to
prometheus_client.

Counting is made from the exchange, once, when it is over; what is a state (open connections, lag) is looked at when
somebody asks. Label values come from closed sets or from the configuration, never from a client.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from trioproxy.policy.limits import PICO, Kind
from trioproxy.telemetry.distribution import Distribution
from trioproxy.telemetry.gaps import BOUNDS_S
from trioproxy.telemetry.record import Record
from trioproxy.wire.usage import Usage

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""A metric's name, what it says, its type, and its samples: name, labels, value. What goes over the link as JSON."""

_Series = tuple[str, str, tuple[tuple[str, str], ...]]
"""A sample's identity: the metric's name, its own, its labels."""

OPENED: Final = "trioproxy_opened"
RELEASED: Final = "trioproxy_released"
"""Two counters by `resource`: the difference is what is open."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OVERHEAD_BOUNDS_S = (0.0001, 0.0003, *BOUNDS_S)
_CANCEL_BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

# The names, labels and bounds of OpenTelemetry's GenAI conventions, as Prometheus writes them.
# Source: OpenTelemetry semantic conventions, "Generative AI metrics".
_OPERATIONS: Final = {
    "chat": "chat",
    "stream_ws": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""An endpoint → what the conventions call that operation; others have no name there."""
_DURATION_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_PER_TOKEN_BOUNDS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS_BOUNDS = tuple(float(4**power) for power in range(14))


_USAGE_SAYS: Final = "Tokens of a request, by the upstreams' own figures."


@dataclass(frozen=True, slots=True)
class _Operation:
    """What the conventions want to know of one kind of operation."""

    duration: Distribution
    first_token: Distribution
    per_token: Distribution
    input: Distribution
    output: Distribution

    def note_usage(self, record: Record, usage: Usage) -> None:
        """Count the tokens of one that told them."""
        self.input.note(usage.input)
        self.output.note(usage.output)
        if usage.output > 1 and record.first_content_at is not None and record.last_event_at is not None:
            self.per_token.note((record.last_event_at - record.first_content_at) / (usage.output - 1))


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
        self._children: dict[tuple[Any, ...], Any] = {}
        self._distributions: list[tuple[str, str, dict[str, str], Distribution]] = []
        self._first_content = self._distribution(
            "trioproxy_time_to_first_content_seconds", "From accept to a stream's first content.", BOUNDS_S
        )
        self._gaps = self._distribution(
            "trioproxy_event_gap_seconds", "Between a stream's events, as they came from the upstream.", BOUNDS_S
        )
        self._overhead = self._distribution(
            "trioproxy_overhead_seconds",
            "Of a request's time what was spent in the proxy, its own waits among it.",
            _OVERHEAD_BOUNDS_S,
        )
        self._cancel = self._distribution(
            "trioproxy_cancel_seconds",
            "From the client's leaving to everything of its request being closed.",
            _CANCEL_BOUNDS_S,
        )
        self._blocked = {"upstream": 0.0, "client": 0.0}
        self._operations = {name: self._gen_ai(name) for name in sorted(set(_OPERATIONS.values()))}
        for kind in Kind:
            self._of(self._limited, kind)  # there from the start, or the first refusal is no rise, and no alert sees it

    def exchange(self, record: Record) -> None:
        """Count one exchange, when it is over."""
        upstream = record.upstream or "none"
        self._of(self._requests, record.endpoint, upstream, record.outcome).inc()
        if record.stream:
            self._of(self._stream_ends, record.code or record.reason or record.outcome).inc()
        self.production(record)
        if record.deadline is not None:
            self._of(self._deadlines, record.deadline).inc()
        if record.first_content_at is not None:
            self._first_content.note(record.first_content_at - record.accepted)
        if record.gone_at is not None:
            self._cancel.note(record.ended - record.gone_at)
        self._overhead.note(record.proxy_s)
        self._blocked["upstream"] += record.upstream_s
        self._blocked["client"] += record.client_s
        if (operation := self._operation(record)) is not None:
            operation.duration.note(record.ended - record.accepted)
            if record.first_content_at is not None:
                operation.first_token.note(record.first_content_at - record.accepted)

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

    def production(self, record: Record) -> None:
        """Count what asking the upstreams came to; for a stream with several readers that is one thing."""
        for one in record.tries:
            self._of(self._attempts, one.upstream, "answered" if one.result.isdigit() else one.result).inc()
        if record.gaps is not None:
            self._gaps.add(record.gaps, record.gaps_s)
        if record.usage is not None:
            upstream, usage = record.upstream or "none", record.usage
            self._of(self._tokens, upstream, "input").inc(usage.input)
            self._of(self._tokens, upstream, "cached").inc(usage.cached)
            self._of(self._tokens, upstream, "output").inc(usage.output)
            if (operation := self._operation(record)) is not None:
                operation.note_usage(record, usage)
        if record.cost:
            self._costs[record.key or "none"] += record.cost

    def shadow(self, record: Record) -> None:
        """Count a copy of a request, when it is over."""
        self._of(self._shadows, record.upstream or "none", record.outcome).inc()

    def families(self) -> Iterator[Family]:
        """Everything counted so far."""
        for metric in self._registry.collect():
            samples = [(one.name, dict(one.labels), one.value) for one in metric.samples if not _is_birth(one.name)]
            yield metric.name, metric.documentation, metric.type, samples
        told: dict[str, Family] = {}
        for name, says, labels, distribution in self._distributions:
            family = told.setdefault(name, (name, says, "histogram", []))
            family[3].extend(distribution.samples(name, labels))
        yield from told.values()
        yield states(
            "trioproxy_blocked_seconds", "For how long requests waited for each side.", self._blocked, "by", "counter"
        )
        # Summed as whole numbers, and only shown as others.
        costs = {name: cost / PICO for name, cost in self._costs.items()}
        yield states("trioproxy_cost_usd", "Dollars that requests came to, by their key.", costs, "key", "counter")

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"trioproxy_{name}", says, labels, registry=self._registry)

    def _distribution(self, name: str, says: str, bounds: tuple[float, ...], **labels: str) -> Distribution:
        distribution = Distribution(bounds)
        self._distributions.append((name, says, labels, distribution))
        return distribution

    def _gen_ai(self, operation: str) -> "_Operation":
        label = {"gen_ai_operation_name": operation}
        return _Operation(
            duration=self._distribution(
                "gen_ai_client_operation_duration_seconds", "How long requests took.", _DURATION_BOUNDS_S, **label
            ),
            first_token=self._distribution(
                "gen_ai_server_time_to_first_token_seconds",
                "From accept to a stream's first content.",
                _FIRST_TOKEN_BOUNDS_S,
                **label,
            ),
            per_token=self._distribution(
                "gen_ai_server_time_per_output_token_seconds",
                "Of streams, between their tokens behind the first.",
                _PER_TOKEN_BOUNDS_S,
                **label,
            ),
            input=self._distribution(
                "gen_ai_client_token_usage", _USAGE_SAYS, _TOKENS_BOUNDS, **label, gen_ai_token_type="input"
            ),
            output=self._distribution(
                "gen_ai_client_token_usage", _USAGE_SAYS, _TOKENS_BOUNDS, **label, gen_ai_token_type="output"
            ),
        )

    def _operation(self, record: Record) -> "_Operation | None":
        name = _OPERATIONS.get(record.endpoint)
        return None if name is None else self._operations[name]

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
        """Keep the counters of a worker that has ended. What it still had open went with it, also if it was killed."""
        for name, says, kind, samples in _all_released(counts(families)):
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


def _all_released(families: list[Family]) -> list[Family]:
    """The same, of a process that is no more: all that it had opened is released."""
    opened = {labels["resource"]: value for name, _, _, all_ in families if name == OPENED for _, labels, value in all_}
    return [
        (name, says, kind, [(sample, labels, opened[labels["resource"]]) for sample, labels, _ in samples])
        if name == RELEASED
        else (name, says, kind, samples)
        for name, says, kind, samples in families
    ]


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
