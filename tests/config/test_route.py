"""Routes: defaults and rules of their keys. What shows only beside the upstreams is in test_fit."""

import pytest
from pydantic import ValidationError

from trioproxy.config.route import Deadlines, Fallback, Retry, Route, RouteDeadlines, Target


def route_with(**keys: object) -> Route:
    return Route.model_validate({"models": ["a"], **keys})


def refusal(**keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        route_with(**keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


def test_the_defaults_are_those_of_the_documentation() -> None:
    route = route_with()
    assert (route.targets, route.strategy, route.sticky) == ((), "ordered", "")
    assert (route.share, route.resume_s, route.linger_s) == (False, 0, 0)
    assert route.retry.model_dump() == {
        "tries": 3,
        "max_wait_s": 2,
        "budget": 0.2,
        "statuses": (408, 409, 429, "5xx"),
        "repeat_sent": False,
    }
    assert route.fallback.model_dump() == dict.fromkeys(
        ("context_length", "content_filter", "rate_limit", "outage"), ()
    )
    assert (route.retry, route.fallback, route.deadlines) == (Retry(), Fallback(), RouteDeadlines())


def test_deadlines_of_a_route_stand_over_the_general_ones() -> None:
    assert RouteDeadlines(total_s=7.0).over(Deadlines(idle_s=5.0)) == Deadlines(idle_s=5.0, total_s=7.0)


def test_a_target_is_an_upstream_with_a_model_and_a_weight() -> None:
    targets = route_with(targets=[{"upstream": "x"}, {"upstream": "y", "model": "m", "weight": 0}]).targets
    assert targets == (Target(upstream="x"), Target(upstream="y", model="m", weight=0.0))
    assert (targets[0].model, targets[0].weight) == (None, 1)
    for wrong in ({}, {"upstream": 5}, {"upstream": "x", "weight": -1}, {"upstream": "x", "model": "gpt-*"}, "x"):
        assert refusal(targets=[wrong])
    assert "at least one target" in refusal(targets=[])


@pytest.mark.parametrize("sticky", ["", "prompt_cache_key", "user", "header:x-session"])
def test_requests_are_told_apart_by_one_thing(sticky: str) -> None:
    assert route_with(sticky=sticky).sticky == sticky


def test_a_headers_name_is_kept_in_lower_case() -> None:
    assert route_with(sticky="header:X-Session").sticky == "header:x-session"


@pytest.mark.parametrize("sticky", ["header", "header:", "header:a b", "header:Host", "Header:a", "users", "user:x", 5])
def test_anything_else_is_refused(sticky: object) -> None:
    assert refusal(sticky=sticky)


def test_statuses_are_listed_one_by_one() -> None:
    assert Retry().all_statuses == {408, 409, 429, *range(500, 600)}
    assert Retry(statuses=("4xx",)).all_statuses == set(range(400, 500))
    assert Retry(statuses=(599, 400, 400)).all_statuses == {400, 599}
    assert Retry(statuses=()).all_statuses == frozenset()


@pytest.mark.parametrize("status", [399, 600, "3xx", "500", "5XX", True, 429.0, None])
def test_what_is_no_status_of_a_failure_is_refused(status: object) -> None:
    assert "is not a status of a failure" in refusal(retry={"statuses": [status]})


def test_streams_are_shared_or_not_and_go_on_for_seconds() -> None:
    route = route_with(share=True, resume_s=60, linger_s=0.5)
    assert (route.share, route.resume_s, route.linger_s) == (True, 60, 0.5)
    for wrong in ({"share": 1}, {"share": "auto"}, {"resume_s": -1}, {"resume_s": True}, {"linger_s": "5"}):
        assert refusal(**wrong)


def test_tries_have_bounds() -> None:
    assert [route_with(retry={"tries": tries}).retry.tries for tries in (1, 20)] == [1, 20]
    for wrong in (0, -1, 21, 1.5, True, "3"):
        assert "expected a number from 1" in refusal(retry={"tries": wrong})


def test_the_rest_of_a_retry_is_judged_too() -> None:
    assert route_with(retry={"max_wait_s": 0, "budget": 1, "repeat_sent": True}).retry.repeat_sent
    for wrong in ({"max_wait_s": -1}, {"budget": 1.1}, {"repeat_sent": 1}, {"try": 1}):
        assert refusal(retry=wrong)


@pytest.mark.parametrize("kind", ["context_length", "content_filter", "rate_limit", "outage"])
def test_a_fallback_is_a_list_of_models_and_no_globs(kind: str) -> None:
    assert getattr(route_with(fallback={kind: ["b", "c"]}).fallback, kind) == ("b", "c")
    for wrong in ("b", ["b*"], ["?"], [""], ["x" * 201], [5]):
        assert refusal(fallback={kind: wrong})
