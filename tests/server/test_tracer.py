"""The tracer is made as it is configured, and what it needs is asked for by name."""

import sys

import pytest

from trioproxy.config import Config
from trioproxy.server.tracer import tracer_of


def config(**telemetry: object) -> Config:
    return Config.model_validate({"upstream": [{"base_url": "http://127.0.0.1:1/v1"}], "telemetry": telemetry})


def test_without_a_collector_there_is_none() -> None:
    assert tracer_of(config()) is None


def test_with_one_there_is_a_tracer_that_is_not_started() -> None:
    tracer = tracer_of(config(otlp_endpoint="http://127.0.0.1:4318"))
    assert tracer is not None and tracer.dropped == 0
    tracer.stop()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trioproxy.telemetry.tracing", None)
    with pytest.raises(OSError, match=r"install trioproxy\[otel\]"):
        tracer_of(config(otlp_endpoint="http://127.0.0.1:4318"))
