"""What was given: the schema, loading, secrets. Pure of trio; the only door to pydantic and to the environment."""

from trioproxy.config.load import environment_with, load, show
from trioproxy.config.schema import (
    Admin,
    Config,
    Deadlines,
    Drain,
    Server,
    Stream,
    Telemetry,
    Upstream,
    is_loopback,
    split_bind,
)
from trioproxy.config.secrets import Secret, Wrong, resolve

__all__ = [
    "Admin",
    "Config",
    "Deadlines",
    "Drain",
    "Secret",
    "Server",
    "Stream",
    "Telemetry",
    "Upstream",
    "Wrong",
    "environment_with",
    "is_loopback",
    "load",
    "resolve",
    "show",
    "split_bind",
]
