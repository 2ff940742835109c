"""A histogram as Prometheus wants it."""

import pytest

from trioproxy.telemetry.distribution import Distribution


def shown(distribution: Distribution) -> dict[str, float]:
    return {labels.get("le", name): value for name, labels, value in distribution.samples("x", {"kind": "y"})}


def test_each_bound_counts_all_that_is_below_it() -> None:
    one = Distribution((0.1, 1.0))
    for figure in (0.1, 0.2, 1.0, 7.0):
        one.note(figure)
    assert shown(one) == {"0.1": 1, "1.0": 3, "+Inf": 4, "x_count": 4, "x_sum": pytest.approx(8.3)}
    assert all(labels["kind"] == "y" for _, labels, _ in one.samples("x", {"kind": "y"}))


def test_what_was_counted_elsewhere_is_added() -> None:
    one = Distribution((0.1, 1.0))
    one.note(0.05)
    one.add((2, 0, 1), 9.5)
    assert shown(one) == {"0.1": 3, "1.0": 3, "+Inf": 4, "x_count": 4, "x_sum": pytest.approx(9.55)}
