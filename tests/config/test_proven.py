"""Which key was proven, said without saying the key."""

import pytest

from trioproxy.config import Config, Secret, has_proven, load, proven

KEY = Secret("sk-one", "env:ONE")


@pytest.fixture
def config() -> Config:
    flags = {
        "upstream.base_url": "http://origin/v1",
        "upstream.name": "paid",
        "upstream.api_key": ["env:ONE", "env:TWO"],
    }
    return load(flags=flags, environ={"ONE": "sk-one", "TWO": "sk-two"}, reads_file=False)


def test_a_configuration_has_the_key_that_was_proven_and_no_other(config: Config) -> None:
    assert has_proven(config, proven("paid", KEY))
    assert has_proven(config, proven("paid", Secret("sk-two", "file:elsewhere")))
    assert not has_proven(config, proven("paid", Secret("sk-three", "env:ONE")))
    assert not has_proven(config, proven("free", KEY))


def test_what_is_said_holds_no_key_and_is_new_each_time() -> None:
    one, other = proven("paid", KEY), proven("paid", KEY)
    assert one != other
    assert "sk-one" not in one and one.isascii() and one.isprintable()


@pytest.mark.parametrize(
    "said", ["", "paid", "paid 0 0", "paid  ", "\xff \xff \xff", "paid " + "0" * 32 + " " + "é" * 64]
)
def test_what_cannot_be_read_proves_nothing(config: Config, said: str) -> None:
    assert not has_proven(config, said)
