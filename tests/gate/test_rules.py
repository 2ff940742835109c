import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import RequestRefused
from trioproxy.gate.rules import RequestRules
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.measures import Bounds

BODY = b'{ "model":"m", "temperature" : 2, "logit_bias":{"1":1},"user":"u" }'


def applied(rules: RequestRules, body: bytes = BODY) -> bytes:
    return rules.apply(JsonObject.parse(body), Dialect.CHAT).body


def test_without_a_rule_every_byte_stays() -> None:
    assert applied(RequestRules()) == BODY


def test_parameters_are_dropped_defaulted_and_forced() -> None:
    rules = RequestRules(
        force={"temperature": b"0"}, default={"user": b'"nobody"', "seed": b"7"}, drop=frozenset({"logit_bias"})
    )
    assert json.loads(applied(rules)) == {"model": "m", "temperature": 0, "user": "u", "seed": 7}
    assert b'"model":"m", "temperature" : 0' in applied(rules)


def test_bounds_judge_what_will_be_sent() -> None:
    bounds = Bounds(max_tokens=10)
    assert applied(RequestRules(bounds, force={"max_tokens": b"10"}), b'{"max_tokens":99}') == b'{"max_tokens":10}'
    with pytest.raises(RequestRefused, match="max_tokens") as caught:
        applied(RequestRules(bounds), b'{"max_tokens":99}')
    assert caught.value.status == 400 and caught.value.param == "max_tokens"


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(), max_size=6), st.sets(st.sampled_from("abcdef")))
def test_what_is_dropped_is_gone_and_nothing_else(members: dict[str, int], drop: set[str]) -> None:
    left = json.loads(applied(RequestRules(drop=frozenset(drop)), json.dumps(members).encode()))
    assert left == {name: value for name, value in members.items() if name not in drop}


@pytest.mark.parametrize("name", ["Model", "MAX_TOKENS", "\u017ftream", "Logit_Bias", "SEED", "User"])
def test_what_is_looked_at_has_one_spelling_only(name: str) -> None:
    rules = RequestRules(force={"seed": b"7"}, default={"user": b"1"}, drop=frozenset({"logit_bias"}))
    with pytest.raises(RequestRefused, match="one spelling"):
        rules.check_spelling(JsonObject.parse(json.dumps({"model": "m", name: 1}).encode()))


def test_other_members_are_spelled_as_they_like() -> None:
    rules = RequestRules(drop=frozenset({"topK"}))
    rules.check_spelling(JsonObject.parse(b'{"model":"m","topK":1,"X":1,"x":2,"Temperature":3}'))
