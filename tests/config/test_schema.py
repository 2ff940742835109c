"""The shape of the configuration: defaults, rules of the values, and the example file that shows every key."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trioproxy.config import Bounds, Config, Key, KeyLimits, Params, Price, Secret, Upstream, Wrong, load, split_bind
from trioproxy.config.beside import Canary, Hedge, Shadow
from trioproxy.config.route import Fallback, Retry, Route, RouteDeadlines, Target
from trioproxy.config.section import Section

EXAMPLE = Path(__file__).parents[2] / "conf" / "trioproxy.toml"
URL = "https://api.openai.com/v1"
GIVEN = {
    "OPENAI_API_KEY": "sk-1",
    "GATEWAY_KEY": "g-1",
    "PROXY_ADMIN_KEY": "a-1",
    "OTLP_AUTHORIZATION": "Bearer o-1",
}
"""What the example file refers to."""


def config_with(section: str, **keys: object) -> Config:
    return Config.model_validate({"upstream": [{"base_url": URL}], section: keys})


def upstream_with(**keys: object) -> Upstream:
    return Config.model_validate({"upstream": [{"base_url": URL, **keys}]}).upstream[0]


def refusal(section: str, **keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        upstream_with(**keys) if section == "upstream" else config_with(section, **keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


def sections() -> dict[str, type[Section]]:
    models = {name: field.annotation for name, field in Config.model_fields.items()}
    models |= {"upstream": Upstream, "route": Route, "key": Key, "price": Price}
    return models  # type: ignore[return-value]


def parts_of_a_route() -> dict[str, type[Section]]:
    beside: dict[str, type[Section]] = {"hedge": Hedge, "canary": Canary, "shadow": Shadow}
    return {"targets": Target, "retry": Retry, "fallback": Fallback, "bounds": Bounds, "params": Params, **beside}


def plain(value: object) -> object:
    """A default as the file would say it."""
    if isinstance(value, (Secret, Path)):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def uncommented() -> dict[str, Any]:
    return tomllib.loads(re.sub(r"(?m)^#(?=[^\s#])", "", EXAMPLE.read_text("utf-8")))


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = Config.model_validate({"upstream": [{"base_url": URL}]})
    assert config.server.model_dump() == {
        "bind": ("127.0.0.1:8080",),
        "max_body_bytes": 64 * 1024**2,
        "max_upload_bytes": 1024**3,
        "max_header_bytes": 64 * 1024,
        "keep_alive_s": 75,
        "workers": 1,
        "max_streams": 5_000,
        "max_lag_s": None,
        "max_memory_bytes": None,
        "max_connections": 10_000,
        "header_s": 10,
        "body_idle_s": 30,
        "half_close": "gone",
        "hosts": (),
        "trusted_proxies": (),
        "tls": None,
    }
    assert list(config.deadlines.model_dump().values()) == [5, 600, 600, 300, 3600, 30]
    assert config.stream.model_dump() == {
        "heartbeat_s": 15,
        "commit_after_s": 10,
        "commit_before_head_s": None,
        "end": "strict",
        "coalesce_ms": None,
        "coalesce_events": 100,
    }
    assert (config.route, config.key, config.price, config.cors.origins) == ((), (), (), ())
    assert config.gate.model_dump() == {
        "keys_file": Path("keys.toml"),
        "allow_open": False,
        "on_state_loss": "open",
        "output_tokens": 1_000,
        "plugin": None,
        "plugin_s": 1,
        "limits": dict.fromkeys(KeyLimits.model_fields),
    }
    assert config.state.file == Path("state.db")
    assert (config.drain.delay_s, config.drain.timeout_s) == (0, 30)
    assert config.telemetry.model_dump() == {"access_log": "-", "otlp_endpoint": None, "otlp_headers": {}}
    assert (config.admin.bind, config.admin.key) == ("127.0.0.1:9901", None)
    upstream = config.upstream[0]
    assert (upstream.name, upstream.dialect, dict(upstream.headers)) == ("api.openai.com", "openai", {})
    assert (upstream.api_key, upstream.proxy, upstream.ca_file) == ((), None, None)
    assert (upstream.max_concurrent, upstream.max_waiting) == (None, 100)
    assert (upstream.health, upstream.health_model, upstream.health_interval_s) == (None, None, 10)
    assert (upstream.streams, upstream.usage) == (True, "never")


def test_every_key_has_one_sentence_that_describes_it() -> None:
    models: list[type[Section]] = [
        Config,
        RouteDeadlines,
        KeyLimits,
        *sections().values(),
        *parts_of_a_route().values(),
    ]
    for model in models:
        for key, field in model.model_fields.items():
            assert re.fullmatch(r"[A-Z].+\.", field.description or ""), key
            assert not key.endswith("_s") or "in seconds." in (field.description or ""), key
            assert not key.endswith("_bytes") or "in bytes." in (field.description or ""), key


def test_the_example_file_equals_the_defaults() -> None:
    given_there = tomllib.loads(EXAMPLE.read_text("utf-8"))
    defaults = Config.model_validate({"upstream": [{"base_url": URL}]})
    for section, keys in given_there.items():
        default = getattr(defaults, section).model_dump(exclude_none=True)
        assert keys == {key: plain(value) for key, value in default.items() if value != {}}


def test_the_example_file_shows_every_key_and_no_other() -> None:
    shown = uncommented()
    lists = {section: keys.pop() for section, keys in shown.items() if isinstance(keys, list)}
    assert {section: set(keys) for section, keys in {**shown, **lists}.items()} == {
        section: set(model.model_fields) for section, model in sections().items()
    }
    assert set(shown["gate"]["limits"]) == set(KeyLimits.model_fields)
    route = lists["route"]
    [route["targets"]] = route["targets"]
    route["hedge"]["after"] = "p95"  # it cannot stand beside after_s, so that only a sentence shows it
    for name, model in parts_of_a_route().items():
        assert set(route[name]) == set(model.model_fields)


def test_what_the_example_file_shows_of_a_route_are_the_defaults() -> None:
    shown = uncommented()["route"][0]
    route = Route.model_validate({**shown, "fallback": {}})
    assert (route.strategy, route.sticky, route.retry) == ("ordered", "", Retry())
    assert route.targets[0].weight == 1
    assert not (route.aggregate or route.batch_fallback or route.continue_after_cut)
    assert (route.share, route.resume_s, route.linger_s) == (False, 0, 0)
    assert route.hedge == Hedge(after_s=2.0)
    for beside, kind in ((route.canary, Canary), (route.shadow, Shadow)):
        assert beside is not None and beside == kind(upstream=beside.upstream, model=beside.model)


def test_what_the_example_file_shows_of_an_upstream_are_the_defaults() -> None:
    shown, default = uncommented()["upstream"][0], upstream_with()
    for key in ("max_waiting", "health_interval_s", "streams", "usage"):
        assert shown[key] == getattr(default, key)


def test_each_key_of_the_example_file_has_a_sentence_above_it() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"#?\w+ = ", line):
            assert above.startswith("# ") and above.endswith("."), line


def test_the_example_file_loads_when_everything_in_it_is_taken_into_use(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("proxy.test")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    file = tmp_path / "trioproxy.toml"
    file.write_text(re.sub(r"(?m)^#(?=[^\s#])", "", EXAMPLE.read_text("utf-8")), "utf-8")
    config = load(file, environ=GIVEN)
    upstream = config.upstream[0]
    assert upstream.base_url == URL and upstream.ca_file == tmp_path / "ca.pem"
    assert [key.get_secret_value() for key in upstream.api_key] == ["sk-1"]
    assert upstream.headers["X-Gateway-Key"].get_secret_value() == "g-1"
    assert upstream.name == upstream_with().name and upstream.dialect == upstream_with().dialect


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config_with("drain").drain.timeout_s = 1


@pytest.mark.parametrize("value", ["20", True, None, [20], float("nan"), float("inf"), -1, 0, 10**400, 2e9])
def test_a_time_is_a_number_of_seconds_above_zero(value: object) -> None:
    assert "expected seconds > 0, got " in refusal("deadlines", idle_s=value)


def test_a_time_may_be_written_as_a_whole_number() -> None:
    assert config_with("deadlines", idle_s=20).deadlines.idle_s == 20.0


def test_only_the_drain_may_last_no_time() -> None:
    assert config_with("drain", timeout_s=0).drain.timeout_s == 0
    assert "expected seconds >= 0, got -0.5" in refusal("drain", timeout_s=-0.5)


@pytest.mark.parametrize("value", ["64", True, 1.0, 0, -1, 2**64, pytest.param(16**9000, id="huge")])
def test_a_size_is_a_whole_number_of_bytes_above_zero(value: object) -> None:
    assert "expected bytes > 0, got " in refusal("server", max_body_bytes=value)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:80", "localhost:8080", "[::1]:8080", "[::]:65535", "a_b.c:1"])
def test_an_address_is_a_host_and_a_port(bind: str) -> None:
    host, port = split_bind(config_with("server", bind=[bind]).server.bind[0])
    assert bind in (f"{host}:{port}", f"[{host}]:{port}")


@pytest.mark.parametrize(
    "bind",
    [
        "",
        ":",
        ":80",
        "8080",
        "localhost",
        "localhost:",
        "localhost:x",
        "a:65536",
        "a:-1",
        "a:٣",
        "::1:80",
        "[::1]",
        "[a]:80",
        "[]:80",
        "[::g]:80",
        "1.2.3:80",
        "1.2.3.400:80",
        "*:80",
        "a b:80",
        "http://a:80",
        "-a:80",
        "a:000080",
    ],
)
def test_what_is_not_an_address_is_refused(bind: str) -> None:
    assert 'expected "HOST:PORT"' in refusal("server", bind=[bind])


@pytest.mark.parametrize("bind", ["127.0.0.1:80", [], [80], {"a": 1}, ["a:1", "a:1"]])
def test_addresses_are_a_list_with_each_address_once(bind: object) -> None:
    assert refusal("server", bind=bind)


def test_port_zero_may_be_asked_for_twice() -> None:
    assert len(config_with("server", bind=["127.0.0.1:0", "127.0.0.1:0"]).server.bind) == 2


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_an_address(text: str) -> None:
    try:
        host, port = split_bind(text)
    except Wrong:
        return
    assert host and 0 <= port <= 65535


def test_words_are_taken_from_a_closed_set() -> None:
    assert config_with("stream", end="lenient").stream.end == "lenient"
    assert upstream_with(dialect="anthropic").dialect == "anthropic"
    assert refusal("stream", end="Strict") and refusal("upstream", dialect="openapi")


@pytest.mark.parametrize("value", [0, -1, 1000.5, float("nan"), True, "50", [50]])
def test_events_wait_for_a_part_of_a_second(value: object) -> None:
    assert "expected milliseconds > 0, at most 1000" in refusal("stream", coalesce_ms=value)
    assert [config_with("stream", coalesce_ms=good).stream.coalesce_ms for good in (0.5, 1000)] == [0.5, 1000]


def test_there_is_one_upstream_at_least_and_each_has_a_name_of_its_own() -> None:
    for upstreams, what in (([], "is missing"), ([{"base_url": URL}] * 2, "is taken")):
        with pytest.raises(ValidationError, match=what):
            Config.model_validate({"upstream": upstreams})
    config = Config.model_validate({"upstream": [{"base_url": URL}, {"base_url": URL, "name": "second"}]})
    assert [upstream.name for upstream in config.upstream] == ["api.openai.com", "second"]


def test_a_certificate_and_its_key_must_belong_together(tmp_path: Path) -> None:
    for name in ("own", "other"):
        issued = trustme.CA().issue_cert("proxy.test")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))

    def tls(cert: object, key: object) -> dict[str, object]:
        return {"cert": cert, "key": key}

    own, key, other = (str(tmp_path / name) for name in ("own.pem", "own.key", "other.key"))
    given = config_with("server", tls=tls(own, key)).server.tls
    assert given is not None and given.cert == tmp_path / "own.pem"
    for pair in ((own, other), (own, own), (key, key)):
        assert "the private key that belongs to it" in refusal("server", tls=tls(*pair))
    assert "cannot be read (No such file" in refusal("server", tls=tls(own, str(tmp_path / "none.key")))
    for wrong in ("", "a\0b", 5):
        assert "is not a path" in refusal("server", tls=tls(wrong, key))


def test_a_private_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("proxy.test")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    (tmp_path / "own.key").write_bytes(sealed)
    tls = {"cert": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
    assert "the private key that belongs to it" in refusal("server", tls=tls)


def test_trusted_proxies_are_networks() -> None:
    given = config_with("server", trusted_proxies=["10.0.0.0/8", "192.0.2.1", "fd00::/8"]).server.trusted_proxies
    assert given == ("10.0.0.0/8", "192.0.2.1/32", "fd00::/8")
    for wrong in ("10.0.0.1/8", "localhost", "", "10.0.0.0/33", 5):
        assert 'such as "10.0.0.0/8"' in refusal("server", trusted_proxies=[wrong])


def test_a_route_says_what_differs_and_the_rest_is_general() -> None:
    config = Config.model_validate(
        {
            "upstream": [{"base_url": URL}],
            "deadlines": {"idle_s": 7},
            "route": [{"models": ["o1*"], "deadlines": {"total_s": 7200}}, {"models": ["*"]}],
        }
    )
    first, second = config.route
    assert first.models == ("o1*",)
    assert first.deadlines.over(config.deadlines) == config.deadlines.model_copy(update={"total_s": 7200})
    assert second.deadlines.over(config.deadlines) == config.deadlines


def test_a_route_has_the_keys_of_the_deadlines() -> None:
    assert list(RouteDeadlines.model_fields) == list(Config.model_fields["deadlines"].default.model_dump())


@pytest.mark.parametrize("models", ["o1", [], [5], [""], ["x" * 201], None])
def test_a_route_is_for_one_model_at_least(models: object) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"upstream": [{"base_url": URL}], "route": [{"models": models}]})
