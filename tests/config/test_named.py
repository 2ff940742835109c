"""Which models routes name in full, and the sentence about one that its upstream has not."""

from collections.abc import Mapping

from trioproxy.config import Config, NamedModel, named_models, not_listed


def named(*routes: Mapping[str, object]) -> list[tuple[str, str, str]]:
    upstreams = [{"base_url": "http://a"}, {"base_url": "http://b"}]
    config = Config.model_validate({"upstream": upstreams, "route": list(routes)})
    return [(one.key, one.upstream, one.model) for one in named_models(config)]


def said(model: str, *listed: str) -> str:
    return str(not_listed(NamedModel("key", "b", model), listed))


def test_without_a_name_in_full_there_is_none() -> None:
    assert named() == named({"models": ["m", "n*"]}) == []  # no target: no upstream is meant
    assert named({"models": ["m*", "?"], "targets": [{"upstream": "a"}]}) == []


def test_a_model_of_a_target_is_named_with_its_place() -> None:
    route = {"models": ["m*"], "targets": [{"upstream": "a"}, {"upstream": "b", "model": "x"}]}
    assert named({"models": ["m"]}, route) == [("route[1].targets[1].model", "b", "x")]


def test_canary_and_shadow_name_models_too() -> None:
    route = {"models": ["m*"], "canary": {"upstream": "a", "model": "x"}, "shadow": {"upstream": "b", "model": "y"}}
    assert named(route) == [("route[0].canary.model", "a", "x"), ("route[0].shadow.model", "b", "y")]


def test_a_target_without_a_model_is_asked_for_those_of_its_route() -> None:
    targets = [{"upstream": "a"}, {"upstream": "b", "model": "x"}, {"upstream": "a", "weight": 2}]
    route = {"models": ["m", "n*", "o"], "targets": targets, "shadow": {"upstream": "b"}}
    assert named(route) == [
        ("route[0].models[0]", "a", "m"),
        ("route[0].models[2]", "a", "o"),
        ("route[0].targets[1].model", "b", "x"),
        ("route[0].models[0]", "b", "m"),
        ("route[0].models[2]", "b", "o"),
    ]


def test_the_nearest_model_is_expected_or_else_some() -> None:
    start = 'is not a model that "b" lists, expected'
    assert said("gpt-4", "gpt-4o", "o1") == f'{start} "gpt-4o", got "gpt-4"'
    assert said("xyz", "gpt-4o", "o1") == f'{start} one of "gpt-4o", "o1", got "xyz"'
    assert said("xyz") == f'{start} a model that it lists (there is none), got "xyz"'
    some = ", ".join(f'"m{number}"' for number in range(8))
    assert said("xyz", *(f"m{number}" for number in range(9))) == f'{start} one of its 9, such as {some}, got "xyz"'


def test_what_an_upstream_lists_cannot_speak_to_the_terminal() -> None:
    assert "\x1b" not in said("xyz", "\x1b[2J") and "\x1b" not in said("\x1b[2I", "\x1b[2J")
