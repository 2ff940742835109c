"""What does not fit together: names, targets and loops, in trees that may be wrong elsewhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config import Secret
from trioproxy.config.fit import misfits

A, B = {"base_url": "http://a/v1"}, {"base_url": "http://b/v1", "name": "bee"}


def found(upstreams: object, *routes: object) -> list[str]:
    """Each problem as its place and text."""
    tree = {"upstream": upstreams, "route": list(routes)}
    return [".".join(map(str, place)) + f": {wrong}" for place, wrong in misfits(tree)]


def route(models: object, fallback: object = None, **keys: object) -> dict[str, Any]:
    return {"models": models, "fallback": fallback or {}, **keys}


def test_names_that_differ_are_no_problem() -> None:
    assert found([A, B]) == []


@pytest.mark.parametrize("second", [A, {**B, "name": "a"}, {"base_url": "HTTPS://A:1/x"}])
def test_a_name_is_taken_also_if_it_is_the_default(second: dict[str, str]) -> None:
    expected = "a name of its own (upstream[0] has this one)"
    assert found([A, B, second]) == [f'upstream.2.name: is taken, expected {expected}, got "a"']


def test_a_target_names_an_upstream() -> None:
    assert found([A, B], route(["m"], targets=[{"upstream": "a"}, {"upstream": "bee"}])) == []
    assert found([A, B], route(["m"]), route(["m"], targets=[{"upstream": "a"}, {"upstream": "be"}])) == [
        'route.1.targets.1.upstream: is not a known upstream, expected "bee", got "be"'
    ]
    assert found([A, B], route(["m"], targets=[{"upstream": "xyz"}])) == [
        'route.0.targets.0.upstream: is not a known upstream, expected one of a, bee, got "xyz"'
    ]


@pytest.mark.parametrize("url", ["//sk-key", "https://a@sk-key", "https://sk-key?", "https://sk-key#", "sk-key"])
def test_no_part_of_a_url_that_is_refused_is_shown(url: str) -> None:
    assert found([{"base_url": url}] * 2, route(["m"], targets=[{"upstream": "xyz"}])) == []


def test_a_target_is_not_blamed_while_an_upstreams_name_is_wrong() -> None:
    for wrong in ({"base_url": 5}, {"base_url": "http://[", "dialect": "x"}, {**B, "name": 5}, {}, 5):
        assert found([A, wrong], route(["m"], targets=[{"upstream": "xyz"}])) == []


@pytest.mark.parametrize(
    ("weights", "is_good"),
    [([0], False), ([0, 0.0], False), ([0, 1], True), ([0, None], True), ([0, "x"], True), ([""], True)],
)
def test_not_every_weight_is_zero(weights: list[object], is_good: bool) -> None:
    targets = [{"upstream": "a"} if weight is None else {"upstream": "a", "weight": weight} for weight in weights]
    problem = "route.0.targets: weigh nothing, expected at least one weight above 0, got only 0"
    assert found([A], route(["m"], targets=targets)) == ([] if is_good else [problem])


@pytest.mark.parametrize("key", ["canary", "shadow"])
def test_a_canary_and_a_shadow_go_to_upstreams_there_are(key: str) -> None:
    assert found([A, B], route(["m"], targets=[{"upstream": "a"}], **{key: {"upstream": "bee"}})) == []
    assert found([A, B], route(["m"], targets=[{"upstream": "a"}], **{key: {"upstream": "be"}})) == [
        f'route.0.{key}.upstream: is not a known upstream, expected "bee", got "be"'
    ]
    assert found([A, {"name": 5}], route(["m"], **{key: {"upstream": "be"}})) == []


CANARY_IS_TARGET = (
    "route.0.canary.upstream: is a target of this route, expected another upstream, or another model there, got"
)


@pytest.mark.parametrize(
    ("models", "target", "canary", "is_good"),
    [
        (["m"], {"upstream": "a"}, {"upstream": "bee"}, True),
        (["m"], {"upstream": "a"}, {"upstream": "a"}, False),
        (["m"], {"upstream": "a", "model": "x"}, {"upstream": "a"}, True),
        (["m"], {"upstream": "a"}, {"upstream": "a", "model": "x"}, True),
        (["m"], {"upstream": "a", "model": "x"}, {"upstream": "a", "model": "x"}, False),
        (["m"], {"upstream": "a"}, {"upstream": "a", "model": "m"}, False),  # as the client calls it
        (["m*"], {"upstream": "a"}, {"upstream": "a", "model": "m"}, True),
        (["m", "n"], {"upstream": "a"}, {"upstream": "a", "model": "m"}, True),
    ],
)
def test_a_canary_is_no_target_of_its_route(
    models: list[str], target: dict[str, str], canary: dict[str, str], is_good: bool
) -> None:
    problem = f'{CANARY_IS_TARGET} "{canary["upstream"]}"'
    assert found([A, B], route(models, targets=[target], canary=canary)) == ([] if is_good else [problem])


def test_a_route_without_targets_has_all_upstreams_as_such() -> None:
    assert found([A, B], route(["m*"], canary={"upstream": "bee"})) == [f'{CANARY_IS_TARGET} "bee"']
    assert found([A, B], route(["m*"], canary={"upstream": "bee", "model": "x"})) == []


def looped(place: str, *models: str) -> str:
    shown = " → ".join(f'"{model}"' for model in models)
    return f"{place}: is part of a loop, expected fallbacks that come to an end, got {shown}"


def test_fallbacks_that_come_to_an_end_are_no_problem() -> None:
    routes = [route(["a"], {"outage": ["b", "c"], "rate_limit": ["b"]}), route(["b"], {"outage": ["c"]})]
    assert found([A], *routes) == []
    assert found([A], route(["gpt-4o"]), route(["gpt-*"], {"outage": ["gpt-4o"]})) == []  # the first route counts


def test_a_loop_is_named_at_its_last_place() -> None:
    assert found([A], route(["a"], {"outage": ["b"]}), route(["b"], {"rate_limit": ["c", "a"]})) == [
        looped("route.1.fallback.rate_limit.1", "b", "a", "b")
    ]
    assert found(
        [A], route(["a"], {"outage": ["b"]}), route(["b"], {"outage": ["c"]}), route(["c"], {"outage": ["a"]})
    ) == [looped("route.2.fallback.outage.0", "c", "a", "b", "c")]


def test_a_model_that_is_its_own_fallback_is_a_loop() -> None:
    assert found([A], route(["gpt-*", "a"], {"outage": ["a"]})) == [looped("route.0.fallback.outage.0", "a", "a")]


def test_a_glob_may_fall_back_to_a_model_that_fits_it() -> None:
    assert found([A], route(["gpt-*"], {"outage": ["gpt-4o-mini"]})) == []
    assert found([A], route(["a"], {"outage": ["gpt-4o"]}), route(["gpt-*"], {"outage": ["a"]})) == []
    assert found([A], route(["*"], {"outage": ["a"]}), route(["a"], {"outage": ["a"]})) == []  # the first route counts


def test_each_loop_is_named_at_every_place_that_closes_it() -> None:
    routes = [route(["a"], {"outage": ["b"]}), route(["b"], {"outage": ["a"], "rate_limit": ["a"]})]
    routes += [route(["c"], {"outage": ["c"]})]
    assert sorted(found([A], *routes)) == [
        looped("route.1.fallback.outage.0", "b", "a", "b"),
        looped("route.1.fallback.rate_limit.0", "b", "a", "b"),
        looped("route.2.fallback.outage.0", "c", "c"),
    ]


MODELS = st.lists(st.sampled_from("abcd"), max_size=3)


@given(st.lists(MODELS, min_size=4, max_size=4))
def test_without_its_problems_every_way_comes_to_an_end(fallbacks: list[list[str]]) -> None:
    routes = [route([model], {"outage": others}) for model, others in zip("abcd", fallbacks, strict=True)]
    tree = {"upstream": [A], "route": routes}
    for place, _ in misfits(tree):
        assert isinstance(place[1], int) and isinstance(place[4], int)
        routes[place[1]]["fallback"]["outage"][place[4]] = "elsewhere"
    ways = {model: set(each["fallback"]["outage"]) for model, each in zip("abcd", routes, strict=True)}
    reached = {model: others - {"elsewhere"} for model, others in ways.items()}
    for _ in range(4):
        reached = {
            model: set().union(*(ways[other] for other in others)) - {"elsewhere"} for model, others in reached.items()
        }
    assert not any(reached.values())
    if not any(model in each for model, each in zip("abcd", fallbacks, strict=True)) and fallbacks[1:] == [[]] * 3:
        assert misfits(tree) == []


def of_tree(*routes: object, **sections: object) -> list[str]:
    tree = {"upstream": [A], "route": list(routes), **sections}
    return [".".join(map(str, place)) + f": {wrong}" for place, wrong in misfits(tree)]


ONE_WORKER = (
    'needs what all workers know, expected state.url = "redis://HOST:PORT", or server.workers = 1, got "memory:"'
)


@pytest.mark.parametrize(("workers", "shown"), [(2, "2"), ("auto", '"auto"'), (10**30, "a whole number (not shown)")])
def test_workers_share_and_resume_streams_by_redis_only(workers: object, shown: str) -> None:
    routes = (route(["m"], share=True), route(["n"], resume_s=0.5), route(["o"], share=False, resume_s=0, linger_s=5))
    problem = f"{ONE_WORKER} and server.workers = {shown}"
    expected = [f"route.0.share: {problem}", f"route.1.resume_s: {problem}"]
    server = {"workers": workers}
    assert of_tree(*routes, server=server) == of_tree(*routes, server=server, state={"url": "memory:"}) == expected
    for url in ("redis://a", "rediss://a", "env:STATE", Secret("redis://:p@a", "redis://***@a"), 5):
        assert of_tree(*routes, server=server, state={"url": url}) == []
    assert of_tree(*routes, server={"workers": 1}) == of_tree(*routes) == []
    assert of_tree(*routes[2:], server=server) == []


@pytest.mark.parametrize("key", ["resume_s", "linger_s"])
def test_no_stream_goes_on_without_a_reader_beyond_the_hubs_bound(key: str) -> None:
    assert of_tree(route(["m"], **{key: 300})) == of_tree(route(["m"], **{key: 9}), hub={"resume_max_s": 9}) == []
    assert of_tree(route(["m"], **{key: 300.5})) == [
        f"route.0.{key}: is longer than any stream goes on, expected at most hub.resume_max_s = 300.0, got 300.5"
    ]
    assert of_tree(route(["m"], **{key: 10}), hub={"resume_max_s": 9}) == [
        f"route.0.{key}: is longer than any stream goes on, expected at most hub.resume_max_s = 9, got 10"
    ]


JUNK = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["upstream", "x"]), inner),
    max_leaves=5,
)
KEYED = (
    st.dictionaries(st.sampled_from(["models", "targets", "fallback", "canary", "share", "resume_s", "base_url"]), JUNK)
    | JUNK
)


BESIDE = st.dictionaries(st.sampled_from(["workers", "url", "resume_max_s"]), JUNK) | JUNK


@given(KEYED | st.lists(KEYED), KEYED | st.lists(KEYED), BESIDE)
def test_no_tree_crashes_it(upstreams: object, routes: object, beside: object) -> None:
    misfits({"upstream": upstreams, "route": routes, "server": beside, "state": beside, "hub": beside})
