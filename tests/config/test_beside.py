"""Hedge, canary and shadow: defaults and rules of their keys. What shows only beside the upstreams is in test_fit."""

import pytest
from pydantic import ValidationError

from trioproxy.config import Canary, Hedge, Route, Shadow


def route_with(**keys: object) -> Route:
    return Route.model_validate({"models": ["a"], **keys})


def refusals(**keys: object) -> dict[str, str]:
    """What is said at which key."""
    with pytest.raises(ValidationError) as caught:
        route_with(**keys)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_all_of_it_is_off_by_default() -> None:
    route = route_with()
    assert (route.hedge, route.canary, route.shadow) == (None, None, None)
    assert (route.aggregate, route.batch_fallback, route.continue_after_cut) == (False, False, False)


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Canary(upstream="x").model_dump() == {
        "upstream": "x",
        "model": None,
        "share": 0.01,
        "max_share": 0.5,
        "step_s": 60,
        "min_requests": 50,
        "max_errors": 0.02,
        "max_slower": 1.5,
    }
    assert Shadow(upstream="x").model_dump() == {"upstream": "x", "model": None, "share": 0.1, "max_concurrent": 10}
    assert Hedge(after="p95").budget == 0.1


def test_a_hedge_says_in_one_way_how_late_is_late() -> None:
    assert route_with(hedge={"after_s": 2}).hedge == Hedge(after_s=2.0)
    assert route_with(hedge={"after": "p95"}).hedge == Hedge(after="p95")
    for given, found in (({}, "neither"), ({"after_s": 2, "after": "p95"}, "both"), ({"budget": 0.5}, "neither")):
        said = refusals(hedge=given)["hedge"]
        assert f'does not say how late, expected after_s = SECONDS or after = "p95", got {found}' in said


@pytest.mark.parametrize(
    ("key", "value"), [("after_s", 0), ("after", "p99"), ("after", 2.0), ("budget", 1.1), ("budget", -0.1)]
)
def test_what_is_no_hedge_is_refused_at_its_key(key: str, value: object) -> None:
    assert list(refusals(hedge={"after_s": 1, key: value} if key == "budget" else {key: value})) == [f"hedge.{key}"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("upstream", 5, "valid string"),
        ("model", "gpt-*", "a model, such as"),
        ("share", 0, "a share above 0, up to 1"),
        ("share", 1.1, "a share above 0, up to 1"),
        ("max_share", 0, "a share above 0, up to 1"),
        ("max_share", float("nan"), "a share above 0, up to 1"),
        ("step_s", 0, "seconds > 0"),
        ("min_requests", 0, "a number > 0"),
        ("max_errors", -0.1, "a share from 0 to 1"),
        ("max_slower", 0.9, "a number >= 1"),
        ("max_slower", float("inf"), "a number >= 1"),
        ("max_slower", "2", "a number >= 1"),
    ],
)
def test_what_is_no_canary_is_refused_at_its_key(key: str, value: object, expected: str) -> None:
    said = refusals(canary={"upstream": "x", key: value})
    assert list(said) == [f"canary.{key}"] and expected in said[f"canary.{key}"]


def test_a_canarys_share_only_grows() -> None:
    for share, most in ((0.2, 0.2), (1, 1), (0.001, 0.002)):
        canary = route_with(canary={"upstream": "x", "share": share, "max_share": most}).canary
        assert canary is not None and (canary.share, canary.max_share) == (share, most)
    for given in ({"share": 0.6}, {"share": 0.6, "max_share": 0.5}):
        said = refusals(canary={"upstream": "x", **given})["canary.max_share"]
        assert "is below the first step, expected a share from 0.6 (the canary's share) to 1, got 0.5" in said


@pytest.mark.parametrize(
    ("key", "value"), [("share", 2), ("max_concurrent", 0), ("model", ""), ("model", "m?"), ("upstream", None)]
)
def test_what_is_no_shadow_is_refused_at_its_key(key: str, value: object) -> None:
    assert list(refusals(shadow={"upstream": "x", key: value})) == [f"shadow.{key}"]


def test_a_shadow_may_be_off() -> None:
    assert route_with(shadow={"upstream": "x", "share": 0}).shadow == Shadow(upstream="x", share=0.0)


@pytest.mark.parametrize("key", ["canary", "shadow"])
def test_both_need_an_upstream(key: str) -> None:
    assert list(refusals(**{key: {}})) == [f"{key}.upstream"]


@pytest.mark.parametrize("key", ["aggregate", "batch_fallback", "continue_after_cut"])
def test_the_others_are_on_or_off(key: str) -> None:
    assert getattr(route_with(**{key: True}), key) is True
    assert list(refusals(**{key: 1})) == [key]
