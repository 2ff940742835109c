"""Problems as operators read them: keys as they are typed, and no key of a client in any of them."""

import pytest
from pydantic import ValidationError

from trioproxy.config import Config, KeyLimits
from trioproxy.config.problems import LISTED, annotations, bare, dotted_path, place_in, told, unknown

SECRET = "tpk_" + "s" * 43


def said(tree: dict[str, object]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"upstream": [{"base_url": "http://a"}], **tree})
    return [f"{dotted_path(place_in(one))}: {told(one, place_in(one))}" for one in caught.value.errors() if one["loc"]]


def test_the_sections_that_are_lists_are_known() -> None:
    assert set(LISTED) == {"upstream", "route", "key", "price"}


def test_every_key_has_its_dotted_name_also_in_a_table_of_a_section() -> None:
    known = {dotted: path for dotted, path, _ in annotations()}
    assert known["gate.on_state_loss"] == ("gate", "on_state_loss")
    assert known["upstream.base_url"] == ("upstream", 0, "base_url")
    assert {f"gate.limits.{name}" for name in KeyLimits.model_fields} <= known.keys()
    assert {"server.tls.cert", "key.limits.rpm", "route.bounds.depth", "price.model"} <= known.keys()


def test_a_place_is_as_it_is_typed() -> None:
    assert dotted_path(("route", 0, "targets", 1, "model")) == "route[0].targets[1].model"
    assert dotted_path(("a b",)) == '"a b"'
    assert bare("x" * 81).endswith("…") and bare(SECRET) == "(not shown)"


def test_a_key_that_is_not_known_is_named_with_what_it_may_have_been() -> None:
    assert unknown("rmp", ["rpm", "tpm"], "key") == 'is not a known key, expected "rpm", got "rmp"'
    assert unknown("x", ["rpm", "tpm"], "key") == 'is not a known key, expected one of rpm, tpm, got "x"'
    assert said({"gate": {"limits": {"rmp": 1}}}) == ['gate.limits.rmp: is not a known key, expected "rpm", got "rmp"']


@pytest.mark.parametrize(
    "tree",
    [
        {"key": [{"name": SECRET, "hash": SECRET}]},
        {"key": [{"name": "a", "hash": SECRET.upper(), SECRET: 1}]},
        {"key": [{"name": "a", "hash": "sha256:" + "0a" * 33, "models": SECRET, "expires": SECRET}]},
        {"key": SECRET},
        {"key": [SECRET]},
        {SECRET: 1},
        {"gate": {"plugin": SECRET + "!", "limits": SECRET}},
    ],
)
def test_no_key_of_a_client_is_in_any_problem(tree: dict[str, object]) -> None:
    problems = said(tree)
    assert problems and not any("sss" in one.lower() or "0a0a" in one for one in problems), problems
