"""`[hub]` and `[state]`: defaults and rules of their keys."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.config import Config, Hub, Secret, State, load, show
from trioproxy.config.secrets import Surroundings

UPSTREAM = {"base_url": "http://a"}
REDIS = '"redis://[[user]:password@]host[:port][/database]", or rediss:// for TLS'


def state(url: object, **environ: str) -> State:
    around = Surroundings(environ, Path("/nonexistent"))
    return Config.model_validate({"upstream": [UPSTREAM], "state": {"url": url}}, context=around).state


def refusal(url: object, **environ: str) -> str:
    with pytest.raises(ValidationError) as caught:
        state(url, **environ)
    return "\n".join(error["msg"] for error in caught.value.errors())


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = Config.model_validate({"upstream": [UPSTREAM]})
    assert config.hub.model_dump() == {
        "max_events": 10_000,
        "max_bytes": 4 * 1024**2,
        "max_total_bytes": 256 * 1024**2,
        "max_streams": 1_000,
        "max_per_caller": 100,
        "retain_s": 60,
        "resume_max_s": 300,
    }
    assert (config.state.url.get_secret_value(), config.state.is_shared) == ("memory:", False)
    assert config.state.lease_s == 15


def test_a_stream_that_has_ended_may_be_forgotten_at_once() -> None:
    assert Hub(retain_s=0).retain_s == 0
    for wrong in ({"retain_s": -1}, {"resume_max_s": 0}, {"max_events": 0}, {"max_bytes": 0}, {"max_streams": 0.5}):
        with pytest.raises(ValidationError):
            Hub.model_validate(wrong)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache", "redis://cache"),
        ("redis://127.0.0.1:6380/2", "redis://127.0.0.1:6380/2"),
        ("rediss://[::1]:6380/", "rediss://[::1]:6380/"),
        ("redis://:pa55@cache/1", "redis://:***@cache/1"),
        ("rediss://me:pa%2F55@cache:1", "rediss://me:***@cache:1"),
        ("redis://me@cache", "redis://***@cache"),
    ],
)
def test_a_redis_url_keeps_its_password_to_itself(url: str, shown: str) -> None:
    found = state(url)
    assert (found.url.get_secret_value(), str(found.url), found.is_shared) == (url, shown, True)


def test_a_redis_url_may_be_behind_a_reference_which_alone_is_shown() -> None:
    found = state("env:STATE", STATE="redis://:pa55@cache")
    assert (found.url.get_secret_value(), str(found.url)) == ("redis://:pa55@cache", "env:STATE")
    assert "names a variable that is not set" in refusal("env:STATE")


def test_nothing_else_is_behind_a_reference() -> None:
    for value in ("memory:", "pa55", "http://pa55", "redis://pa55:x", "redis://cache/pa55", "env:pa55"):
        said = refusal("env:STATE", STATE=value)
        assert f"expected {REDIS}" in said and "pa55" not in said


@pytest.mark.parametrize(
    "url",
    [
        *("", "memory", "Memory:", "redis", "redis:", "redis:pa55", "redis://", "redis://:pa55@", "redis:///1"),
        *("redis://a:0", "redis://a:99999", "redis://a:pa55", "redis://a/pa55", "redis://a/1/2", "redis://a/123456"),
        *("redis://:pa?55@a", "redis://:pa#55@a", "redis://:pa/55@a", "redis://a b", "redis://ä", "unix:///tmp/a"),
        *("http://a", "//a", 5, None, True, ["redis://a"]),
    ],
)
def test_what_is_no_place_for_a_state_is_refused_and_not_shown(url: object) -> None:
    said = refusal(url)
    assert REDIS in said and "pa55" not in said


@given(st.text(), st.booleans())
def test_no_text_crashes_it(text: str, has_scheme: bool) -> None:
    try:
        found = state(f"redis://{text}" if has_scheme else text)
    except ValidationError:
        return
    assert found.is_shared or text == "memory:"


def test_the_url_is_never_printed_and_comes_from_file_environment_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text('[[upstream]]\nbase_url = "http://a"\n[state]\nurl = "redis://:pa55@cache"\n')
    assert '[state]\nurl = "redis://:***@cache"\nlease_s = 15.0\n' in show(load(file, environ={}))
    config = load(file, environ={"TRIOPROXY_STATE__URL": "env:STATE", "STATE": "rediss://:pa55@other"})
    assert config.state.url == Secret("rediss://:pa55@other", "env:STATE")
    assert 'url = "env:STATE (set)"\n' in show(config) and "pa55" not in repr(config)
    assert load(file, environ={}, flags={"state.url": "memory:"}).state.url == State().url
    (tmp_path / "url").write_text("redis://cache\n")
    assert load(file, environ={}, flags={"state.url": "file:url"}).state.url.get_secret_value() == "redis://cache"
