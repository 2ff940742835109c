"""Routes: the first that matches wins; globs are compared with a plain reading of what they mean."""

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.routing import MAX_KEPT_MODELS, MAX_MODEL_CHARACTERS, Routes


def matches(glob: str, model: str) -> bool:
    return Routes([([glob], True)], False).find(model)


def means(glob: str, model: str) -> bool:
    """What a glob means, by its words."""
    if not glob:
        return not model
    if glob[0] == "*":
        return any(means(glob[1:], model[at:]) for at in range(len(model) + 1))
    return bool(model) and glob[0] in ("?", model[0]) and means(glob[1:], model[1:])


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("gpt-4o", ["gpt-4o"], ["gpt-4o-mini", "GPT-4o", "xgpt-4o", "gpt-4o\n", ""]),
        ("gpt-4*", ["gpt-4", "gpt-4o", "gpt-4\n"], ["gpt-3", "Gpt-4"]),
        ("*-mini", ["-mini", "gpt-4o-mini", "a-mini-mini"], ["mini", "gpt-mini-x"]),
        ("o?", ["o1", "o3", "oö"], ["o", "o10"]),
        ("*", ["", "anything", "a/b:c\n"], []),
        ("a*b*c", ["abc", "a-b-b-c", "abcbc"], ["ab", "acb", "abcd"]),
        ("org/model:[free]", ["org/model:[free]"], ["org/model:f"]),
        ("a.b+|c", ["a.b+|c"], ["axb+|c", "c"]),
    ],
)
def test_a_glob_matches_whole_names(glob: str, yes: list[str], no: list[str]) -> None:
    assert all(matches(glob, model) for model in yes)
    assert not any(matches(glob, model) for model in no)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_glob_means_what_its_words_say(glob: str, model: str) -> None:
    assert matches(glob, model) == means(glob, model)


def test_the_first_route_that_matches_wins_and_the_rest_is_general() -> None:
    routes = Routes([(["o1", "o3*"], 1), (["o*"], 2)], 0)
    assert [routes.find(model) for model in ("o1", "o3-mini", "o2", "gpt", "", None)] == [1, 1, 2, 0, 0, 0]
    assert Routes([], 7).find("o1") == 7


def test_a_name_is_looked_at_once_and_only_so_many_are_kept() -> None:
    routes = Routes([(["m1*"], 1)], 0)
    for _ in range(2):
        assert [routes.find(f"m{number}") for number in (1, 2, 11)] == [1, 0, 1]
    assert routes._look_up.cache_info()[:2] == (3, 3)
    for number in range(3 * MAX_KEPT_MODELS):
        routes.find(str(number))
    assert routes._look_up.cache_info().currsize == MAX_KEPT_MODELS


def test_no_name_makes_a_look_expensive() -> None:
    routes = Routes([(["*a" * 40 + "*b"], 1)], 0)
    start = perf_counter()
    assert routes.find("a" * MAX_MODEL_CHARACTERS) == 0
    assert perf_counter() - start < 0.1
    assert Routes([(["*"], 1)], 0).find("a" * (MAX_MODEL_CHARACTERS + 1)) == 0
