"""The catalog: what routes name, and what upstreams list behind globs; each model once, and only where it would go."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.catalog import Catalog, Shelf
from trioproxy.policy.routing import Routes

EVERYWHERE = Shelf("a", ["a", "b"])
A, B, NONE = Shelf("a", ["a"]), Shelf("b", ["b"]), Shelf("a", [])


def lists(**models: str) -> dict[str, dict[str, str]]:
    """Lists of upstreams by name, from words; an entry tells whose it is."""
    return {name: {model: f"{model}@{name}" for model in words.split()} for name, words in models.items()}


def names(catalog: Catalog, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [model for model, _, _ in catalog.fill(found)]


def test_without_routes_every_upstream_s_models_are_listed_in_file_order() -> None:
    catalog = Catalog([], EVERYWHERE)
    assert catalog.sources == ["a", "b"]
    assert catalog.fill(lists(b="y z", a="x y")) == [("x", "a", "x@a"), ("y", "a", "y@a"), ("z", "b", "z@b")]


def test_what_routes_name_comes_first_whoever_lists_it() -> None:
    catalog = Catalog([(["x*", "named"], A), (["alias", "named"], B)], EVERYWHERE)
    assert names(catalog, lists(a="x1 named", b="other")) == ["named", "alias", "x1", "other"]
    assert catalog.fill({}) == [("named", "a", None), ("alias", "b", None)]


def test_a_named_model_has_the_entry_of_the_first_target_that_lists_it() -> None:
    catalog = Catalog([(["m"], EVERYWHERE), (["n"], B)], EVERYWHERE)
    assert catalog.fill(lists(a="n", b="m n"))[:2] == [("m", "b", "m@b"), ("n", "b", "n@b")]


def test_an_alias_is_not_what_an_upstream_lists_under_that_name() -> None:
    catalog = Catalog([(["m"], NONE)], EVERYWHERE)
    assert catalog.fill(lists(a="m")) == [("m", "a", None)]


def test_a_glob_is_filled_by_its_own_targets_only() -> None:
    catalog = Catalog([(["gpt-*"], A), (["*"], B)], EVERYWHERE)
    assert names(catalog, lists(a="gpt-4 llama", b="gpt-5 llama-2")) == ["gpt-4", "llama-2"]


def test_a_model_is_on_the_shelf_of_the_first_route_that_fits() -> None:
    catalog = Catalog([(["gpt-*"], B), (["gpt-4*"], A)], EVERYWHERE)
    assert names(catalog, lists(a="gpt-4 llama", b="")) == ["llama"], "gpt-4 is asked for at b, which has none"


def test_a_target_that_renames_fills_nothing() -> None:
    catalog = Catalog([(["gpt-*"], NONE)], EVERYWHERE)
    assert names(catalog, lists(a="gpt-4 llama", b="")) == ["llama"]


@pytest.mark.parametrize("glob", ["*", "**"])
def test_where_a_route_takes_everything_nobody_else_is_asked(glob: str) -> None:
    assert Catalog([(["x"], A), ([glob], A)], EVERYWHERE).sources == ["a"]
    assert Catalog([(["x", "?*"], B)], EVERYWHERE).sources == ["b", "a"]


GLOBS = st.lists(st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=3), max_size=4)
SHELVES = st.sampled_from([A, B, NONE, EVERYWHERE])
LISTS = st.fixed_dictionaries({name: st.lists(st.text("ab", min_size=1, max_size=3), max_size=6) for name in "ab"})


@given(GLOBS, st.lists(SHELVES, min_size=4, max_size=4), LISTS)
def test_what_is_listed_is_what_can_be_asked_for(
    routes: list[list[str]], shelves: list[Shelf], listed: dict[str, list[str]]
) -> None:
    pairs = list(zip(routes, shelves, strict=False))
    catalog = Catalog(pairs, EVERYWHERE)
    found = catalog.fill({name: dict.fromkeys(models, name) for name, models in listed.items()})
    where = Routes(pairs, EVERYWHERE)
    named = {glob for globs in routes for glob in globs if not set(glob) & set("*?")}
    models = [model for model, _, _ in found]
    assert len(models) == len(set(models))
    assert set(models) == named | {
        model for name, some in listed.items() for model in some if name in where.find(model).sources
    }
    for model, source, entry in found:
        assert source in (where.find(model).sources if entry else [where.find(model).owner])
