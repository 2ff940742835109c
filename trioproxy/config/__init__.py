"""What was given: the schema, loading, secrets. Pure of trio; the only door to pydantic and to the environment."""

from trioproxy.config.load import load, show
from trioproxy.config.schema import Config, Deadlines, Drain, Server, Stream, Telemetry, Upstream, split_bind
from trioproxy.config.secrets import Secret, Wrong, resolve

__all__ = [
    "Config",
    "Deadlines",
    "Drain",
    "Secret",
    "Server",
    "Stream",
    "Telemetry",
    "Upstream",
    "Wrong",
    "load",
    "resolve",
    "show",
    "split_bind",
]
