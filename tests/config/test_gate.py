"""Keys, limits, prices and origins: the rules of their values, and that nothing shows a key."""

import pickle
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.config import Config, Cors, Gate, Key, KeyLimits, Price, hash_of, picodollars
from trioproxy.config.gate import STATE_KINDS
from trioproxy.config.secrets import Surroundings
from trioproxy.policy.limits import Kind

SECRET = "tpk_" + "s" * 43
HASH = hash_of(SECRET)


def key_with(**keys: object) -> Key:
    return Key.model_validate({"name": "team-a", "hash": HASH, **keys})


def limits(**keys: object) -> KeyLimits:
    return KeyLimits.model_validate(keys)


def refusal(section: type[Any], **keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        section.model_validate({"name": "team-a", "hash": HASH, **keys} if section is Key else keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


def test_the_hash_is_that_of_the_secret() -> None:
    assert hash_of("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_needs_a_name_and_a_hash_and_may_then_use_everything() -> None:
    key = key_with()
    assert (key.models, key.upstreams, key.expires, key.revoked) == ((), (), None, None)
    assert not key.limits.are_set and not key.limits.has_money
    for missing in ({"name": "a"}, {"hash": HASH}):
        with pytest.raises(ValidationError):
            Key.model_validate(missing)


@pytest.mark.parametrize("name", ["a", "Team.A_1-x", "0", "a" * 64])
def test_a_name_can_stand_in_logs_and_metrics(name: str) -> None:
    assert key_with(name=name).name == name


@pytest.mark.parametrize("name", ["", "*", "-a", ".a", "a b", "a\n", "ä", "a" * 65, 5, None])
def test_other_names_are_refused(name: object) -> None:
    assert "is not a key's name" in refusal(Key, name=name)


def test_a_secret_in_the_place_of_a_name_or_hash_is_refused_and_never_said() -> None:
    for field in ("name", "hash"):
        said = refusal(Key, **{field: SECRET})
        assert "secret" in said and SECRET not in said and "s" * 10 not in said


@pytest.mark.parametrize(
    "value", ["", HASH[7:], HASH.upper(), HASH[:-1], HASH + "0", HASH + "\n", "md5:" + "0" * 32, 5]
)
def test_a_hash_that_is_none_is_refused_and_never_said(value: object) -> None:
    said = refusal(Key, hash=value)
    assert "is not a hash" in said and (value in ("", 5) or str(value) not in said)


def test_a_key_does_not_show_its_hash() -> None:
    assert HASH not in repr(key_with()) and "team-a" in repr(key_with())


def test_a_list_that_names_nothing_is_refused_because_left_out_it_means_all() -> None:
    for field in ("models", "upstreams"):
        assert "left out it means all" in refusal(Key, **{field: []})
        assert getattr(key_with(**{field: ["a", "b*"]}), field) == ("a", "b*")
        assert refusal(Key, **{field: [5]}) and refusal(Key, **{field: "a"})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
        ("2027-01-31 18:00:00.5", datetime(2027, 1, 31, 18, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_and_a_date_its_beginning_as_text_and_as_toml_has_it(typed: str, meant: datetime) -> None:
    for text in (f'"{typed}"', typed):
        key = key_with(**tomllib.loads(f"expires = {text}\nrevoked = {text}"))
        assert key.expires == key.revoked == meant
        assert key.expires is not None and key.expires.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["18:00:00", '""', '"soon"', '"2027-02-30"', "5", "true", "0001-01-01T00:00:00+02:00", "[2027-01-31]"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert "is not a time" in refusal(Key, **tomllib.loads(f"expires = {text}"))


def test_money_is_as_it_was_typed() -> None:
    for typed in (0.1, "0.1", Decimal("0.1"), "0.100"):
        given = limits(usd_per_day=typed).usd_per_day
        assert given is not None and given == Decimal("0.1") and picodollars(given) == 10**11
    assert limits(usd_per_month=1_000_000).usd_per_month == 10**6
    assert limits(usd_per_month=0.000001).usd_per_month == Decimal("0.000001")


@pytest.mark.parametrize(
    "value",
    [0, 0.0, "0", -1, "-1", 1_000_000.1, 10**400, 0.0000001, "0.0000001", float("nan"), float("inf"), True, "1e3", "",
     " 1", "1_0", "٣", [], Decimal("nan"), Decimal("1E+999999")],
)  # fmt: skip
def test_what_is_no_money_is_refused(value: object) -> None:
    assert "expected dollars > 0, at most 1000000, with at most 6 decimals" in refusal(KeyLimits, usd_per_day=value)


@given(st.integers(min_value=1, max_value=10**12))
def test_every_sum_with_six_decimals_is_exact_also_as_a_float_of_toml(micros: int) -> None:
    text = f"{micros // 10**6}.{micros % 10**6:06d}"
    for typed in (text, tomllib.loads(f"x = {text}")["x"]):
        given = limits(usd_per_day=typed).usd_per_day
        assert given is not None and picodollars(given) == micros * 10**6


@given(st.text(max_size=20) | st.floats() | st.integers() | st.booleans() | st.none())
def test_no_value_breaks_the_reading_of_limits(value: object) -> None:
    for field in KeyLimits.model_fields:
        try:
            KeyLimits.model_validate({field: value})
        except ValidationError:
            pass


@pytest.mark.parametrize("field", ["tpm", "tokens_per_day", "tokens_per_month"])
def test_tokens_are_whole_numbers_up_to_a_quadrillion(field: str) -> None:
    assert getattr(limits(**{field: 10**15}), field) == 10**15
    for wrong in (0, -1, 10**15 + 1, 1.0, True, "5"):
        assert "expected a number from 1 to 1000000000000000" in refusal(KeyLimits, **{field: wrong})


@pytest.mark.parametrize("field", ["rpm", "streams"])
def test_requests_and_streams_are_counts(field: str) -> None:
    assert getattr(limits(**{field: 1}), field) == 1
    for wrong in (0, 1.5, 1_000_001):
        assert "a number > 0" in refusal(KeyLimits, **{field: wrong})


def test_limits_know_whether_there_are_any() -> None:
    assert limits(rpm=1).are_set and not limits(rpm=1).has_money
    assert limits(usd_per_month=1).has_money and limits(usd_per_day=1).has_money


def test_what_is_open_when_state_is_lost_is_said_for_all_or_by_kind() -> None:
    assert Gate().open_kinds == Gate(on_state_loss="open").open_kinds == set(STATE_KINDS) == set(Kind)
    assert Gate(on_state_loss="closed").open_kinds == frozenset()
    assert Gate(on_state_loss={"budgets": "closed", "tokens": "open"}).open_kinds == {"requests", "tokens", "streams"}
    for wrong in ("Open", "", 5, {"budget": "closed"}, {"budgets": "shut"}, {"budgets": 1}, ["open"]):
        assert "on_state_loss" not in refusal(Gate, on_state_loss=wrong)
    assert 'expected "budgets", got "budget"' in refusal(Gate, on_state_loss={"budget": "closed"})


def test_a_plugin_is_a_function_in_a_module() -> None:
    assert Gate(plugin="our.rules:look_at").plugin == "our.rules:look_at"
    for wrong in ("our_rules", "our_rules:", ":look", "a:b:c", "a b:c", "1a:b", "a.:b", "", 5):
        assert "is not the name of a function" in refusal(Gate, plugin=wrong)


def test_a_keys_file_starts_at_the_folder_of_the_configuration() -> None:
    around = Surroundings({}, Path("/etc/proxy"))
    assert Gate.model_validate({}, context=around).keys_file == Path("/etc/proxy/keys.toml")
    assert Gate.model_validate({"keys_file": "a/b.toml"}, context=around).keys_file == Path("/etc/proxy/a/b.toml")
    assert Gate.model_validate({"keys_file": "/b.toml"}, context=around).keys_file == Path("/b.toml")
    for wrong in ("", ".", "a\0b", 5):
        assert "is not a path" in refusal(Gate, keys_file=wrong)


def test_a_keys_file_is_named_only_if_it_is_another_than_the_default() -> None:
    around = Surroundings({}, Path("/etc/proxy"))
    for file, is_named in (("keys.toml", False), ("/etc/proxy/keys.toml", False), ("other.toml", True)):
        assert Gate.model_validate({"keys_file": file}, context=around).names_keys_file is is_named
    assert not Gate().names_keys_file


def test_a_price_has_two_sides_and_may_be_nothing() -> None:
    price = Price.model_validate({"model": "gpt-*", "input": 0.15, "output": "0.6"})
    assert (price.input, price.output, price.cached) == (Decimal("0.15"), Decimal("0.6"), None)
    assert Price(model="m", input=Decimal(0), output=Decimal(0), cached=Decimal(0)).cached == 0
    for wrong in ({"input": 1}, {"output": 1}, {"input": -1, "output": 1}, {"input": 1, "output": 0.0000001}):
        assert refusal(Price, model="m", **wrong)
    assert "a model, or a glob" in refusal(Price, model="", input=1, output=1)


@pytest.mark.parametrize(
    ("typed", "origin"),
    [
        ("https://a.example", "https://a.example"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_as_browsers_write_it(typed: str, origin: str) -> None:
    assert Cors.model_validate({"origins": [typed]}).origins == (origin,)


@pytest.mark.parametrize(
    "wrong",
    [
        "*",
        "null",
        "https://*.a",
        "a.example",
        "https://a/",
        "https://a/x",
        "https://u@a",
        "ftp://a",
        "https://a?",
        "",
        5,
    ],
)
def test_what_is_no_origin_is_refused(wrong: object) -> None:
    assert "HTTPS://HOST[:PORT]" in refusal(Cors, origins=[wrong]).replace("https", "HTTPS")


def test_a_configuration_with_a_gate_can_be_handed_to_another_process() -> None:
    config = Config.model_validate(
        {
            "upstream": [{"base_url": "http://a"}],
            "key": [{"name": "a", "hash": HASH, "expires": "2027-01-31", "limits": {"usd_per_day": 0.1}}],
            "gate": {"keys_file": "other.toml", "on_state_loss": {"budgets": "closed"}},
            "price": [{"model": "m", "input": 1, "output": 2}],
            "route": [{"models": ["m"], "params": {"force": {"a": [1, {"b": 2.5}]}}}],
        }
    )
    again = pickle.loads(pickle.dumps(config))
    assert again == config and again.gate.names_keys_file
