"""What does not fit together about keys: names and hashes, upstreams, workers, and a proxy open to everybody."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.config import Config
from trioproxy.config.fit import misfits
from trioproxy.config.fit_keys import apart_workers, misfits_of_keys
from trioproxy.config.secrets import Surroundings, got

UPSTREAMS = [{"base_url": "http://a/v1"}, {"base_url": "http://b/v1", "name": "bee"}]
NOWHERE = Path("/nonexistent")


def found(directory: Path = NOWHERE, /, **sections: Any) -> list[str]:
    tree = {"upstream": UPSTREAMS, **sections}
    return [".".join(map(str, place)) + f": {wrong}" for place, wrong in misfits(tree, directory)]


def key(name: object, hash_: object, **keys: object) -> dict[str, object]:
    return {"name": name, "hash": hash_, **keys}


def test_names_and_hashes_are_each_ones_own_and_a_hash_is_not_said() -> None:
    assert found(key=[key("a", "h1"), key("b", "h2")]) == []
    assert found(key=[key("a", "h1"), key("b", "h2"), key("a", "h1"), key("b", "h4")]) == [
        'key.2.name: is taken, expected a name of its own (key[0] has this one), got "a"',
        'key.3.name: is taken, expected a name of its own (key[1] has this one), got "b"',
        "key.2.hash: is taken, expected a hash of its own (key[0] has this one), got the same (not shown)",
    ]


def test_keys_of_another_file_are_compared_with_the_configurations_own() -> None:
    [(place, wrong)] = misfits_of_keys([key("b", "h2"), key("a", "h3")], [], None, own=[key("a", "h1")])
    assert place == (1, "name")
    assert str(wrong) == 'is taken, expected a name of its own (key[0] of the configuration has this one), got "a"'


def test_a_key_names_upstreams_there_are() -> None:
    assert found(key=[key("a", "h", upstreams=["a", "bee"])]) == []
    assert found(key=[key("a", "h", upstreams=["a", "be"])]) == [
        'key.0.upstreams.1: is not a known upstream, expected "bee", got "be"'
    ]
    assert found(key=[key("a", "h", upstreams=["be"])], upstream=[{"base_url": 5}]) == []


@pytest.mark.parametrize("workers", [2, "auto"])
def test_limits_of_several_workers_need_redis(workers: object) -> None:
    sections: dict[str, Any] = {
        "key": [key("a", "h", limits={"rpm": 5}), key("b", "h2")],
        "gate": {"limits": {"streams": 1}},
    }
    expected = 'expected state.url = "redis://HOST:PORT", or server.workers = 1'
    why = f'needs what all workers know, {expected}, got "memory:" and server.workers = {got(workers)}'
    assert found(**sections, server={"workers": workers}) == [f"key.0.limits: {why}", f"gate.limits: {why}"]
    assert found(**sections, server={"workers": workers}, state={"url": "redis://r"}) == []
    assert found(**sections, server={"workers": 1}) == []
    assert apart_workers(True, "memory:") is None


OWN_KEY = {"api_key": "env:KEY"}
OUTSIDE = {"bind": ["127.0.0.1:80", "0.0.0.0:80"]}


@pytest.mark.parametrize(
    "ours",
    [OWN_KEY, {"headers": {"Authorization": "x"}}, {"headers": {"x-api-key": "x"}}, {"headers": {"API-Key": "x"}}],
)
def test_a_key_of_ours_is_not_lent_to_everybody_by_accident(ours: dict[str, Any]) -> None:
    upstream = [UPSTREAMS[0], {**UPSTREAMS[1], **ours}]
    keys = 'keys for clients ("trioproxy keys create NAME", or [[key]])'
    meant = 'allow_open = true if everybody who reaches "0.0.0.0:80" may use the key of upstream[1]'
    assert found(server=OUTSIDE, upstream=upstream) == [
        f"gate.allow_open: is not set, expected {keys}, or {meant}, got false and no keys"
    ]


def test_a_proxy_may_be_open_if_it_is_meant_or_lends_nothing_or_asks_for_keys(tmp_path: Path) -> None:
    lending: dict[str, Any] = {"server": OUTSIDE, "upstream": [{**UPSTREAMS[0], **OWN_KEY}]}
    assert len(found(**lending)) == len(found(**lending, gate={"allow_open": "yes"})) == 1
    assert len(found(**lending, gate={"keys_file": "keys.toml"})) == 1  # the default, which is not there
    assert found(**lending, gate={"allow_open": True}) == []
    assert found(**lending, key=[key("a", "h")]) == []
    assert found(**lending, gate={"keys_file": "other.toml"}) == []
    assert found(server=OUTSIDE) == found(server=OUTSIDE, upstream=[{**UPSTREAMS[0], "headers": {"x-org": "x"}}]) == []
    assert found(upstream=lending["upstream"], server={"bind": ["[::1]:80", "localhost:80"]}) == []
    assert len(found(tmp_path, **lending)) == 1
    (tmp_path / "keys.toml").touch()
    assert found(tmp_path, **lending) == []


def test_a_configuration_that_is_made_directly_is_held_to_the_same() -> None:
    tree = {"upstream": [{"base_url": "http://a", "headers": {"x-api-key": "x"}}], "server": OUTSIDE}
    with pytest.raises(ValidationError, match="allow_open"):
        Config.model_validate(tree, context=Surroundings({}, Path("nowhere")))


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["0.0.0.0:80", "a", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "hash", "limits", "rpm", "upstreams", "bind", "workers", "keys_file", "api_key"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(_ANYTHING, _ANYTHING, _ANYTHING, _ANYTHING)
def test_no_nonsense_breaks_it(keys: object, gate: object, server: object, upstreams: object) -> None:
    misfits({"key": keys, "gate": gate, "server": server, "upstream": upstreams}, NOWHERE)
