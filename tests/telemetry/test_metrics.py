"""What is counted, how several workers' figures become one, and what Prometheus reads.

Run as a program, it says what counting one exchange costs: `python -m tests.telemetry.test_metrics`.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trioproxy.errors import CancelReason, Deadline
from trioproxy.policy.limits import Kind
from trioproxy.telemetry.exchange import Exchange, Trying
from trioproxy.telemetry.metrics import OPENED, RELEASED, Family, Merged, Metrics, counts, state, states
from trioproxy.telemetry.record import Record
from trioproxy.wire.usage import Usage

Sample = tuple[str, tuple[tuple[str, str], ...]]


def exchange(**changes: Any) -> Record:
    """A stream that went well."""
    fields: dict[str, Any] = {
        "request_id": "req_1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "accepted": 10.0,
        "endpoint": "chat",
        "stream": True,
        "upstream": "one",
        "attempts": 1,
        "tries": [Trying("one", result="200")],
        "head_at": 10.1,
        "first_content_at": 10.25,
        "ended": 12.0,
    }
    return Exchange(**(fields | changes)).close(12.0)


def over_the_link(metrics: Metrics, *more: Family) -> list[Family]:
    """What the supervisor gets: it went through JSON."""
    families: list[Family] = json.loads(json.dumps([*metrics.families(), *more]))
    return families


def read(text: bytes) -> dict[Sample, float]:
    """Every sample, as Prometheus reads it; none may be there twice."""
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def shown(workers: Iterable[tuple[str, list[Family]]] = (), own: Iterable[Family] = ()) -> dict[Sample, float]:
    return read(Merged().render(workers, own))


def at(figures: dict[Sample, float], name: str, **labels: str) -> float | None:
    return figures.get((f"trioproxy_{name}", tuple(sorted(labels.items()))))


def counted(*exchanges: Record) -> Metrics:
    metrics = Metrics()
    for one in exchanges:
        metrics.exchange(one)
    return metrics


def test_a_stream_that_went_well_is_counted_once_in_each_family() -> None:
    figures = shown([("0", over_the_link(counted(exchange())))])
    assert at(figures, "requests_total", endpoint="chat", upstream="one", outcome="finished") == 1
    assert at(figures, "stream_end_total", reason="finished") == 1
    assert at(figures, "attempts_total", upstream="one", result="answered") == 1
    assert at(figures, "time_to_first_content_seconds_count") == 1
    assert at(figures, "time_to_first_content_seconds_sum") == pytest.approx(0.25)
    assert at(figures, "time_to_first_content_seconds_bucket", le="0.1") == 0
    assert at(figures, "time_to_first_content_seconds_bucket", le="0.3") == 1
    assert at(figures, "cancel_seconds_count") == 0
    assert not [name for name, _ in figures if name.endswith("_created")]


def test_tokens_are_counted_by_the_upstreams_own_figures() -> None:
    one, two = exchange(usage=Usage(30, 7, 10)), exchange(usage=Usage(5, 1), is_estimated=True)
    figures = shown([("0", over_the_link(counted(one, two, exchange(is_estimated=True, cost=9))))])
    assert at(figures, "tokens_total", upstream="one", kind="input") == 35
    assert at(figures, "tokens_total", upstream="one", kind="cached") == 10
    assert at(figures, "tokens_total", upstream="one", kind="output") == 8
    metrics = Metrics()
    metrics.production(one)
    assert at(shown([("0", over_the_link(metrics))]), "tokens_total", upstream="one", kind="input") == 30


def test_what_went_wrong_is_counted_by_its_reason() -> None:
    late = exchange(
        tries=[Trying("two", result="503"), Trying("one", result="upstream_head_timeout")],
        head_at=None,
        first_content_at=None,
        outcome="failed",
        code="upstream_head_timeout",
        deadline=Deadline.HEAD,
    )
    gone = exchange(outcome="cancelled", reason=CancelReason.CLIENT_GONE.value, gone_at=11.5)
    refused = exchange(
        stream=False, upstream=None, attempts=0, tries=[], head_at=None, first_content_at=None, outcome="failed"
    )
    metrics = counted(late, gone, refused)
    metrics.shed("lag")
    figures = shown([("0", over_the_link(metrics))])
    assert at(figures, "stream_end_total", reason="upstream_head_timeout") == 1
    assert at(figures, "attempts_total", upstream="one", result="upstream_head_timeout") == 1
    assert at(figures, "attempts_total", upstream="two", result="answered") == 1
    assert at(figures, "deadline_total", deadline="head") == 1
    assert at(figures, "stream_end_total", reason="client_gone") == 1
    assert at(figures, "cancel_seconds_sum") == pytest.approx(0.5)
    assert at(figures, "requests_total", endpoint="chat", upstream="none", outcome="failed") == 1
    assert at(figures, "shed_total", reason="lag") == 1


def test_the_first_refusal_by_a_limit_is_a_rise() -> None:
    metrics = Metrics()
    before = shown([("0", over_the_link(metrics))])
    metrics.limited(Kind.BUDGETS)
    after = shown([("0", over_the_link(metrics))])
    assert [at(figures, "limited_total", kind="budgets") for figures in (before, after)] == [0, 1]


def test_counters_and_histograms_of_workers_are_summed_and_states_are_each_their_own() -> None:
    families = [
        over_the_link(counted(*[exchange()] * number), state("trioproxy_tasks", "Tasks.", number))
        for number in (1, 2, 4)
    ]
    figures = shown([(str(number), one) for number, one in enumerate(families)])
    assert at(figures, "requests_total", endpoint="chat", upstream="one", outcome="finished") == 7
    assert at(figures, "time_to_first_content_seconds_count") == 7
    assert at(figures, "time_to_first_content_seconds_bucket", le="+Inf") == 7
    assert at(figures, "time_to_first_content_seconds_sum") == pytest.approx(7 * 0.25)
    assert [at(figures, "tasks", worker=worker) for worker in ("0", "1", "2")] == [1, 2, 4]
    assert at(figures, "tasks") is None


def test_what_ended_workers_counted_stays_and_their_states_do_not() -> None:
    merged = Merged()
    tasks = state("trioproxy_tasks", "Tasks.", 5)
    for _ in range(2):
        merged.keep(over_the_link(counted(exchange()), tasks))
    figures = read(merged.render([]))
    assert at(figures, "requests_total", endpoint="chat", upstream="one", outcome="finished") == 2
    assert not [name for name, _ in figures if name == "trioproxy_tasks"]
    figures = read(merged.render([("0", over_the_link(counted(exchange()), tasks))]))
    assert at(figures, "requests_total", endpoint="chat", upstream="one", outcome="finished") == 3
    assert at(figures, "tasks", worker="0") == 5


def test_of_a_worker_that_was_killed_nothing_stays_open() -> None:
    merged = Merged()
    opened = states(OPENED, "What was opened.", {"requests": 5.0, "attempts": 7.0}, "resource", "counter")
    released = states(RELEASED, "What was released.", {"requests": 2.0, "attempts": 7.0}, "resource", "counter")
    merged.keep(over_the_link(Metrics(), opened, released))
    figures = read(merged.render([("1", over_the_link(Metrics(), opened, released))]))
    assert [at(figures, f"{word}_total", resource="requests") for word in ("opened", "released")] == [10, 7]
    assert [at(figures, f"{word}_total", resource="attempts") for word in ("opened", "released")] == [14, 14]


def test_looking_changes_nothing() -> None:
    merged = Merged()
    merged.keep(over_the_link(counted(exchange())))
    told = [("0", over_the_link(counted(exchange())))]
    assert merged.render(told) == merged.render(told)


def test_one_that_does_not_answer_counts_on_without_its_states() -> None:
    families = over_the_link(counted(exchange()), state("trioproxy_tasks", "Tasks.", 5))
    names = [family[0] for family in counts(families)]
    assert "trioproxy_requests" in names and "trioproxy_tasks" not in names


def test_the_supervisor_s_own_have_no_worker() -> None:
    own = [state("trioproxy_workers", "Workers.", 2), state("trioproxy_reloads", "Reloads.", 3, "counter")]
    figures = shown([("0", [])], own)
    assert at(figures, "workers") == 2
    assert at(figures, "reloads_total") == 3


def test_labels_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    figures = shown([("0", [states("trioproxy_odd", 'Says\n"odd" \\ things.', {odd: 1.0}, "kind")])])
    assert at(figures, "odd", kind=odd, worker="0") == 1


def test_types_are_told() -> None:
    text = Merged().render([("0", over_the_link(counted(exchange())))], [state("trioproxy_workers", "Workers.", 1)])
    kinds = {family.name: family.type for family in text_string_to_metric_families(text.decode())}
    assert kinds["trioproxy_requests"] == "counter"
    assert kinds["trioproxy_workers"] == "gauge"
    assert kinds["trioproxy_time_to_first_content_seconds"] == "histogram"


def cost_s(times: int = 20_000) -> float:
    """What counting one exchange takes; 40 µs is the bound."""
    metrics, one = Metrics(), exchange(gone_at=11.5, outcome="cancelled", reason="client_gone", deadline=Deadline.TOTAL)
    start = time.perf_counter()
    for _ in range(times):
        metrics.exchange(one)
    return (time.perf_counter() - start) / times


if __name__ == "__main__":
    print(f"{1e6 * cost_s():.1f} µs")
