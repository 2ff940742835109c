"""Where the proxy tells about itself, as configured."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from trioproxy.config import Config, show
from trioproxy.config.secrets import Surroundings
from trioproxy.config.telemetry import Telemetry


def telemetry(**keys: object) -> Telemetry:
    return Telemetry.model_validate(keys, context=Surroundings({"TOKEN": "Bearer t0p"}, Path(".")))


def refusal(**keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        telemetry(**keys)
    return "\n".join(error["msg"] for error in caught.value.errors())


def test_an_access_log_needs_a_folder_that_exists(tmp_path: Path) -> None:
    for word in ("-", "off", str(tmp_path / "access.log")):
        assert telemetry(access_log=word).access_log == word
    for wrong in ("", "a\0b", str(tmp_path), str(tmp_path / "no" / "a.log"), "x/" * 5000, False):
        assert "standard output" in refusal(access_log=wrong)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "https://otlp.example/base", "http://[::1]:4318"])
def test_a_collector_is_a_url(url: str) -> None:
    assert telemetry(otlp_endpoint=url).otlp_endpoint == telemetry(otlp_endpoint=f"{url}/").otlp_endpoint == url


@pytest.mark.parametrize(
    "value",
    [
        "",
        "127.0.0.1:4318",
        "grpc://a:4317",
        "http://",
        "http://a:0",
        "http://a/?key=secret",
        "http://user:pw@a",
        4318,
        [],
    ],
)
def test_what_is_no_collector_is_refused_and_never_echoed(value: object) -> None:
    said = refusal(otlp_endpoint=value)
    assert "the URL of a collector" in said and "secret" not in said and "pw" not in said


def test_no_header_of_the_collector_s_is_shown() -> None:
    headers = {"x-team": "s3cret", "Authorization": "env:TOKEN"}
    telemetry = {"otlp_endpoint": "http://a", "otlp_headers": headers}
    around = Surroundings({"TOKEN": "Bearer t0p"}, Path("."))
    config = Config.model_validate({"upstream": [{"base_url": "http://a"}], "telemetry": telemetry}, context=around)
    assert 'otlp_headers = { "x-team" = "***", "Authorization" = "env:TOKEN (set)" }' in show(config)
    assert config.telemetry.otlp_headers["x-team"].get_secret_value() == "s3cret"


def test_the_collector_s_headers_may_be_secrets() -> None:
    config = telemetry(otlp_headers={"Authorization": "env:TOKEN", "X-Team": "a"})
    assert config.otlp_headers["Authorization"].get_secret_value() == "Bearer t0p"
    assert "t0p" not in repr(config)
    assert "in any case" in refusal(otlp_headers={"a": "1", "A": "2"})
    assert "belongs to the connection" in refusal(otlp_headers={"Content-Length": "1"})
