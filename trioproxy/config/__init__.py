"""What was given: the schema, loading, secrets. Pure of trio; the only door to pydantic and to the environment."""

from trioproxy.config.load import environment_with, load, show
from trioproxy.config.route import Deadlines, Fallback, Retry, Route, Target
from trioproxy.config.schema import (
    Admin,
    Config,
    Drain,
    Server,
    Stream,
    Telemetry,
    Upstream,
    is_loopback,
    split_bind,
)
from trioproxy.config.secrets import Secret, Wrong, resolve
from trioproxy.config.warnings import warnings

__all__ = [
    "Admin",
    "Config",
    "Deadlines",
    "Drain",
    "Fallback",
    "Retry",
    "Route",
    "Secret",
    "Server",
    "Stream",
    "Target",
    "Telemetry",
    "Upstream",
    "Wrong",
    "environment_with",
    "is_loopback",
    "load",
    "resolve",
    "show",
    "split_bind",
    "warnings",
]
