from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import InvalidKey
from trioproxy.gate.keys import Identity, VirtualKey, VirtualKeys
from trioproxy.policy.routing import Routes

SECRET = b"tpk_" + b"a" * 43
OTHER = b"tpk_" + b"b" * 43


def key(name: str = "one", secret: bytes = SECRET, **more: object) -> VirtualKey:
    return VirtualKey(name=name, digest=sha256(secret).digest(), **more)  # type: ignore[arg-type]


def test_a_key_is_found_by_its_secret_alone() -> None:
    keys = VirtualKeys([key(), key("other", OTHER)])
    assert keys.find(SECRET, 0).name == "one"
    assert keys.find(OTHER, 0).name == "other"


@given(st.binary(max_size=80) | st.from_regex(rb"tpk_[A-Za-z0-9_-]{40,46}"))
def test_no_other_bytes_are_a_key(shown: bytes) -> None:
    if shown == SECRET:
        return
    with pytest.raises(InvalidKey):
        VirtualKeys([key()]).find(shown, 0)


def test_a_key_is_good_until_the_moment_at_which_it_expires_or_was_revoked() -> None:
    keys = VirtualKeys([key(expires=100.0), key("other", OTHER, revoked=50.0)])
    assert keys.find(SECRET, 99.9).name == "one"
    with pytest.raises(InvalidKey, match="expired"):
        keys.find(SECRET, 100.0)
    assert keys.find(OTHER, 49.0).name == "other"
    with pytest.raises(InvalidKey, match="revoked"):
        keys.find(OTHER, 50.0)


def test_a_caller_stays_the_same_when_the_secret_is_changed_and_goes_with_the_key() -> None:
    before, after = key(), key(secret=OTHER)
    assert before.caller == after.caller != key("other").caller
    assert VirtualKeys([after]).find_caller(before.caller, 0) is after
    with pytest.raises(InvalidKey):
        VirtualKeys([]).find_caller(before.caller, 0)
    with pytest.raises(InvalidKey):
        VirtualKeys([key(revoked=0.0)]).find_caller(before.caller, 0)


@pytest.mark.parametrize(
    ("globs", "bound_to", "model", "may"),
    [
        (None, None, "m", True),
        (None, None, None, True),
        (["m*"], None, "m1", True),
        (["m*"], None, "x", False),
        (["m*"], None, None, False),
        (["m*"], "m1", "m1", True),
        (["m*"], "m1", "m2", False),
        (["m*"], "x", "x", False),
        (None, "m1", "m1", True),
        (None, "m1", None, False),
    ],
)
def test_only_the_models_of_key_and_token_may_be_asked_for(
    globs: list[str] | None, bound_to: str | None, model: str | None, may: bool
) -> None:
    models = None if globs is None else Routes([(globs, True)], False)
    assert Identity(key(models=models), model=bound_to).may_ask(model) is may
