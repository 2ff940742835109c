"""What was given: the schema, loading, secrets. Pure of trio; the only door to pydantic and to the environment."""

from trioproxy.config.beside import Canary, Hedge, Shadow
from trioproxy.config.hub import Hub, State
from trioproxy.config.load import chosen_file, environment_with, load, show
from trioproxy.config.named import NamedModel, named_models, not_listed
from trioproxy.config.proven import has_proven, proven
from trioproxy.config.route import Deadlines, Fallback, Retry, Route, Target
from trioproxy.config.schema import (
    Admin,
    Config,
    Drain,
    Server,
    Stream,
    Telemetry,
    is_loopback,
    split_bind,
)
from trioproxy.config.secrets import Secret, Wrong, resolve
from trioproxy.config.upstream import Upstream
from trioproxy.config.warnings import warnings

__all__ = [
    "Admin",
    "Canary",
    "Config",
    "Deadlines",
    "Drain",
    "Fallback",
    "Hedge",
    "Hub",
    "NamedModel",
    "Retry",
    "Route",
    "Secret",
    "Server",
    "Shadow",
    "State",
    "Stream",
    "Target",
    "Telemetry",
    "Upstream",
    "Wrong",
    "chosen_file",
    "environment_with",
    "has_proven",
    "is_loopback",
    "load",
    "named_models",
    "not_listed",
    "proven",
    "resolve",
    "show",
    "split_bind",
    "warnings",
]
