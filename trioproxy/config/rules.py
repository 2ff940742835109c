"""`bounds` and `params` of a route: what a request may hold, and what is changed in it. The keys and their rules."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from trioproxy.config.secrets import MAX_BYTES, Wrong, got, shortened
from trioproxy.config.section import Count, Section, Size

KEPT_PARAMETERS: Final = ("model", "stream", "messages", "input", "prompt")
"""What a request is about, or how it is answered: never changed by a rule."""
MAX_PARAMETER_CHARACTERS: Final = 100

_JSON = "a value that JSON has (text, a number, true, false, a list or a table)"


def _parameter(name: object) -> str:
    expected = 'the name of a parameter, such as "temperature"'
    if not isinstance(name, str) or not 0 < len(name) <= MAX_PARAMETER_CHARACTERS:
        raise Wrong("is not a parameter", expected, got(name))
    if name in KEPT_PARAMETERS:
        raise Wrong("is never changed", f"none of {', '.join(KEPT_PARAMETERS)}", shortened(name))
    return name


def _parameters(value: object) -> object:
    if not isinstance(value, Mapping):
        return value  # pydantic says that it is no table
    return {_parameter(name): _json(inner) for name, inner in value.items()}


def _json(value: object) -> object:
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int) and abs(value) <= MAX_BYTES:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_json(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(name): _json(inner) for name, inner in value.items()}
    raise Wrong("is not a parameter's value", _JSON, got(value))


Parameter = Annotated[str, BeforeValidator(_parameter)]
Parameters = Annotated[Mapping[str, Any], BeforeValidator(_parameters)]


class Bounds(Section):
    """`bounds` of a route: requests beyond them are refused. All off by default."""

    max_tokens: Count | None = Field(default=None, description="Most tokens that a request may ask for.")
    n: Count | None = Field(default=None, description="Most answers that a request may ask for.")
    messages: Count | None = Field(default=None, description="Most messages in a request.")
    message_bytes: Size | None = Field(default=None, description="Largest message, in bytes.")
    depth: Count | None = Field(default=None, description="How deep a body's lists and tables may be nested.")


class Params(Section):
    """`params` of a route: what is changed in its requests' bodies. All off by default."""

    force: Parameters = Field(default_factory=dict, description="Parameters set in every request.")
    default: Parameters = Field(default_factory=dict, description="Parameters set where the request has none.")
    drop: tuple[Parameter, ...] = Field(default=(), strict=False, description="Parameters taken out of every request.")

    @model_validator(mode="after")
    def _says_one_thing_of_each(self) -> "Params":
        names = [*self.force, *self.default, *self.drop]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Wrong("name a parameter twice", "each once in force, default and drop", shortened(twice))
        return self
