"""The record of a request: what its log line says, and what goes on with what it has started."""

from typing import Any

import pytest

from trioproxy.policy.limits import PICO
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.usage import Usage


def line(**changes: Any) -> dict[str, Any]:
    return Exchange("req_1", "POST", "/v1/chat/completions", 10.0, **changes).close(12.0).line()


def test_tokens_are_told_as_the_upstream_did() -> None:
    told = line(usage=Usage(30, 7, 10))
    assert (told["input_tokens"], told["cached_tokens"], told["output_tokens"]) == (30, 10, 7)
    told = line(usage=Usage(0, 0))
    assert (told["input_tokens"], told["output_tokens"], "cached_tokens" in told) == (0, 0, False)


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (123_450_000, "0.00012345"),
        (2 * PICO, "2"),
        (10**20 + PICO // 2, "100000000.5"),
    ],
)
def test_a_cost_is_told_in_dollars_exactly(cost: int, shown: str) -> None:
    assert line(cost=cost)["cost_usd"] == shown


def test_what_is_not_known_is_not_told() -> None:
    names = {"key", "input_tokens", "cached_tokens", "output_tokens", "estimated", "cost_usd"}
    assert not names & line().keys()
    assert line(is_estimated=True, cost=5, key="team-a") | {"estimated": True, "key": "team-a"} == line(
        is_estimated=True, cost=5, key="team-a"
    )


def test_what_a_request_has_started_is_its_key_s_and_has_figures_of_its_own() -> None:
    one = Exchange("req_1", "POST", "/x", 10.0, key="team-a", model="m", usage=Usage(3, 4), cost=5, is_estimated=True)
    begun = one.beginning(12.0)
    assert (begun.key, begun.model, begun.accepted) == ("team-a", "m", 12.0)
    assert (begun.usage, begun.cost, begun.is_estimated) == (None, None, False)
