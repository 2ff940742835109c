"""Upstreams: defaults and rules of their keys. What shows only beside the routes is in test_fit."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from trioproxy.config import Config, Secret, Upstream

URL = "https://api.openai.com/v1"


def upstream_with(**keys: object) -> Upstream:
    return Config.model_validate({"upstream": [{"base_url": URL, **keys}]}).upstream[0]


def refusal(**keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        upstream_with(**keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("url", "kept", "name"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1", "api.openai.com"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1", "api.openai.com"),
        ("http://localhost:8000", "http://localhost:8000", "localhost"),
        ("http://[::1]:8000//", "http://[::1]:8000", "::1"),
    ],
)
def test_a_base_url_loses_its_trailing_slash_and_gives_the_name(url: str, kept: str, name: str) -> None:
    upstream = Upstream(base_url=url)
    assert (upstream.base_url, upstream.name) == (kept, name)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com",
        "localhost:8000/v1",
        "ftp://a/",
        "https://",
        "https:///v1",
        "https:a",
        "http://a:0",
        "//a/v1",
        "https://a:x/",
        "https://a:99999/",
        "https://a?b",
        "https://a/?",
        "https://a#",
        "https://u:p@a/",
        "https://@a",
        "https://a b",
        "https://a\n",
        "https://ä",
        "https://[::1",
        "https://1.2.3/",
        "http://[a]/",
        5,
        ["https://a"],
    ],
)
def test_what_is_not_a_base_url_is_refused(url: object) -> None:
    assert 'expected a URL such as "https://api.openai.com/v1"' in refusal(base_url=url)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä", "-a", "x" * 254, 5])
def test_an_upstreams_name_can_stand_in_a_header(name: object) -> None:
    assert "is not a name" in refusal(name=name)
    assert upstream_with(name="my-origin_1").name == "my-origin_1"


def test_a_headers_value_is_kept_but_not_printed() -> None:
    upstream = upstream_with(headers={"Anthropic-Version": "2023-06-01"})
    assert upstream.headers["Anthropic-Version"].get_secret_value() == "2023-06-01"
    assert "2023-06-01" not in repr(upstream)


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\r\nb", "Host", "content-LENGTH", "Transfer-Encoding", "TE"])
def test_a_header_that_cannot_be_set_is_refused(name: str) -> None:
    assert "header" in refusal(headers={name: "x"})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "a\x7f", " a", "a ", "ä", 5, True, ["a"]])
def test_a_headers_value_that_cannot_be_sent_is_refused(value: object) -> None:
    assert "expected printable ASCII" in refusal(headers={"x-a": value})


def test_two_headers_that_differ_only_in_case_are_refused() -> None:
    assert "names a header twice" in refusal(headers={"X-A": "1", "x-a": "2"})


def test_a_proxy_keeps_its_password_to_itself() -> None:
    proxy = upstream_with(proxy="http://me:pa55@proxy.example:3128/").proxy
    assert proxy is not None and proxy.get_secret_value() == "http://me:pa55@proxy.example:3128"
    assert str(proxy) == "http://me:***@proxy.example:3128"
    assert str(upstream_with(proxy="http://token@p:1").proxy) == "http://***@p:1"
    assert str(upstream_with(proxy="http://p:1").proxy) == "http://p:1"


@pytest.mark.parametrize(
    "url", ["", "p:1", "https://p:1", "socks5://p:1", "http://p", "http://p:1/x", "http://p:1?a", 5]
)
def test_what_is_not_a_proxy_is_refused(url: object) -> None:
    assert "expected a URL of the form" in refusal(proxy=url)


def test_a_ca_file_must_hold_certificates(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "text.pem").write_text("hello")
    assert "holds no certificates" in refusal(ca_file=str(tmp_path / "empty.pem"))
    assert "holds no certificates" in refusal(ca_file=str(tmp_path / "text.pem"))
    assert "cannot be read (No such file" in refusal(ca_file=str(tmp_path / "none.pem"))
    assert "expected the path of a PEM file" in refusal(ca_file=str(tmp_path))
    for wrong in ("", "a\0b", 5):
        assert "is not a path" in refusal(ca_file=wrong)


def test_a_secret_may_be_given_to_a_model_directly() -> None:
    upstream = Upstream(base_url=URL, api_key=(Secret("sk-1", "env:A"),), proxy=Secret("http://p:1", "http://p:1"))
    assert upstream.api_key == (Secret("sk-1", "env:A"),) and upstream.proxy is not None
    assert upstream_with(api_key=Secret("sk-1", "env:A")).api_key == upstream.api_key


def test_an_upstream_may_have_several_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "sk-a")
    monkeypatch.setenv("B", "sk-b")
    given = upstream_with(api_key=["env:A", "env:B"])
    assert [key.get_secret_value() for key in given.api_key] == ["sk-a", "sk-b"] and given.holds_secrets
    assert upstream_with(api_key="env:A").api_key == given.api_key[:1]
    assert not upstream_with().holds_secrets and upstream_with(headers={"a": "b"}).holds_secrets
    assert "is empty" in refusal(api_key=[])
    assert "names a key twice" in refusal(api_key=["env:A", "env:A"])
    assert "must not be written here" in refusal(api_key=["env:A", 5])


def test_an_upstream_may_have_bounds() -> None:
    bounded = upstream_with(max_concurrent=1, max_waiting=0)
    assert (bounded.max_concurrent, bounded.max_waiting) == (1, 0)
    assert "expected a number > 0" in refusal(max_concurrent=0)
    assert "expected a number >= 0" in refusal(max_waiting=-1)


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models?limit=1", "/a%20b"])
def test_health_is_a_path_of_the_host(path: str) -> None:
    assert upstream_with(health=path, health_interval_s=1).health == path


@pytest.mark.parametrize(
    "health", ["", "health", "//other/", "/a b", "/a#b", "/\n", "/ä", "Chat", "http://a/", True, 5]
)
def test_what_is_no_health_check_is_refused(health: object) -> None:
    assert 'expected a path that begins with one "/" (such as "/health"), or "chat"' in refusal(health=health)


def test_health_by_a_chat_needs_a_model() -> None:
    assert upstream_with(health="chat", health_model="m").health_model == "m"
    with pytest.raises(ValidationError) as caught:
        upstream_with(health="chat")
    [error] = caught.value.errors()
    assert error["loc"] == ("upstream", 0, "health_model")
    assert 'is missing beside health = "chat", expected the model that is asked, got nothing' in error["msg"]
    assert "is a glob" in refusal(health="chat", health_model="gpt-*")
    assert "is missing" not in refusal(health="chats")


def test_an_upstream_that_cannot_stream_says_so() -> None:
    assert upstream_with(streams=False).streams is False
    assert refusal(streams="no") and refusal(health_interval_s=0)
