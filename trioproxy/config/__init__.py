"""What was given: the schema, loading, secrets. Pure of trio; the only door to pydantic and to the environment."""

from trioproxy.config.beside import Canary, Hedge, Shadow
from trioproxy.config.gate import Cors, Gate, Key, KeyLimits, Price, hash_of, picodollars
from trioproxy.config.hub import Hub, State
from trioproxy.config.keys_file import keys_in, keys_of, read_keys_file
from trioproxy.config.load import chosen_file, environment_with, load, show
from trioproxy.config.named import NamedModel, named_models, not_listed
from trioproxy.config.proven import has_proven, proven
from trioproxy.config.route import Deadlines, Fallback, Retry, Route, Target
from trioproxy.config.rules import Bounds, Params
from trioproxy.config.schema import (
    Admin,
    Config,
    Drain,
    Server,
    Stream,
)
from trioproxy.config.secrets import Secret, Wrong, resolve
from trioproxy.config.section import is_loopback, split_bind
from trioproxy.config.telemetry import Telemetry
from trioproxy.config.upstream import Upstream
from trioproxy.config.warnings import warnings

__all__ = [
    "Admin",
    "Bounds",
    "Canary",
    "Config",
    "Cors",
    "Deadlines",
    "Drain",
    "Fallback",
    "Gate",
    "Hedge",
    "Hub",
    "Key",
    "KeyLimits",
    "NamedModel",
    "Params",
    "Price",
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
    "hash_of",
    "is_loopback",
    "keys_in",
    "keys_of",
    "load",
    "named_models",
    "not_listed",
    "picodollars",
    "proven",
    "read_keys_file",
    "resolve",
    "show",
    "split_bind",
    "warnings",
]
