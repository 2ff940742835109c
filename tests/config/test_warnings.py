"""Warnings: what is allowed and hardly meant."""

from trioproxy.config import Config, warnings


def given(*routes: dict[str, object], **upstream: object) -> list[str]:
    return warnings(Config.model_validate({"upstream": [{"base_url": "http://a", **upstream}], "route": list(routes)}))


def test_there_is_nothing_to_say_of_what_is_as_it_should_be() -> None:
    assert given() == []
    assert given({"models": ["gpt-4o", "gpt-4*"]}, {"models": ["gpt-*"]}, {"models": ["*"]}) == []
    assert given(max_concurrent=5, max_waiting=5) == given(max_concurrent=5) == []


def test_a_glob_behind_one_that_covers_it_is_never_reached() -> None:
    assert given({"models": ["o1", "gpt-*"]}, {"models": ["o3", "gpt-4*", "o1"]}) == [
        'route[1].models[1]: "gpt-4*" is never reached, route[0].models[1] = "gpt-*" comes before it',
        'route[1].models[2]: "o1" is never reached, route[0].models[0] = "o1" comes before it',
    ]


def test_globs_of_one_route_are_in_nobodys_way() -> None:
    assert given({"models": ["*", "a"]}) == []


def test_a_bound_on_those_who_wait_needs_one_on_those_who_do_not() -> None:
    assert given(max_waiting=5) == ["upstream[0].max_waiting: means nothing without max_concurrent, nobody ever waits"]


def test_weights_count_for_one_strategy_only() -> None:
    targets = [{"upstream": "a", "weight": 2}]
    assert given({"models": ["m"], "targets": targets, "strategy": "weighted"}) == []
    assert given({"models": ["m"], "targets": [{"upstream": "a"}]}) == []
    assert given({"models": ["m"], "targets": targets}) == [
        'route[0].targets: their weight counts only with strategy = "weighted"'
    ]
