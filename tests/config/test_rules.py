"""Bounds and parameters of a route: what may be bounded and changed."""

import tomllib

import pytest
from pydantic import ValidationError

from trioproxy.config import Bounds, Params
from trioproxy.config.rules import KEPT_PARAMETERS


def params(**keys: object) -> Params:
    return Params.model_validate(keys)


def refusal(**keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        params(**keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


def test_all_is_off_until_it_is_set() -> None:
    assert set(Bounds().model_dump().values()) == {None}
    assert Params() == params(force={}, default={}, drop=[])


@pytest.mark.parametrize("field", list(Bounds.model_fields))
def test_a_bound_is_a_number_above_zero(field: str) -> None:
    assert getattr(Bounds.model_validate({field: 1}), field) == 1
    for wrong in (0, -1, 1.5, True, "1"):
        with pytest.raises(ValidationError):
            Bounds.model_validate({field: wrong})


def test_a_parameter_may_have_every_value_of_json() -> None:
    force = tomllib.loads('a = 1\nb = 0.5\nc = true\nd = "x"\ne = [1, [2], { f = "g" }]\n[h]\ni.j = 1\n')
    assert params(force=force).force == params(default=force).default == force


@pytest.mark.parametrize(
    "text", ["2027-01-31", "07:32:00", "[1, 2027-01-31T00:00:00Z]", "{ b = nan }", "inf", f"{2**64}"]
)
def test_what_json_does_not_have_is_refused(text: str) -> None:
    assert "is not a parameter's value" in refusal(force=tomllib.loads(f"a = {text}"))


@pytest.mark.parametrize("name", KEPT_PARAMETERS)
def test_what_a_request_is_about_is_never_changed(name: str) -> None:
    for wrong in ({"force": {name: 1}}, {"default": {name: 1}}, {"drop": [name]}):
        assert f'is never changed, expected none of model, stream, messages, input, prompt, got "{name}"' in refusal(
            **wrong
        )


def test_of_a_parameter_one_thing_is_said() -> None:
    for wrong in (
        {"force": {"a": 1}, "drop": ["a"]},
        {"force": {"a": 1}, "default": {"a": 2}},
        {"default": {"a": 1}, "drop": ["b", "a"]},
        {"drop": ["a", "a"]},
    ):
        assert 'name a parameter twice, expected each once in force, default and drop, got "a"' in refusal(**wrong)
    assert params(force={"a": 1}, default={"b": 2}, drop=["c"]).drop == ("c",)


def test_a_parameter_has_a_name() -> None:
    for wrong in ({"drop": [""]}, {"drop": [5]}, {"drop": ["a" * 101]}, {"force": {"": 1}}):
        assert "is not a parameter" in refusal(**wrong)
    assert refusal(force=5) and refusal(drop="a")
