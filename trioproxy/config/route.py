"""`[deadlines]`, and `[[route]]`: what holds for some models. The keys, their defaults and rules.

What only shows when routes and upstreams are seen together (a name that is none, a loop) is in `fit`.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from trioproxy.config.beside import Canary, Hedge, Shadow
from trioproxy.config.rules import Bounds, Params
from trioproxy.config.secrets import Wrong, got, header_name
from trioproxy.config.section import (
    MAX_MODEL_CHARACTERS,
    Model,
    Seconds,
    SecondsFromZero,
    Section,
    Share,
    Weight,
)

MAX_TRIES: Final = 20

_MODEL = 'a model, or a glob such as "gpt-4*"'
_STICKY = '"", "header:NAME", "prompt_cache_key" or "user"'
_STATUS = 'a status from 400 to 599, "4xx" or "5xx"'


def _glob(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong("is not text", _MODEL, got(value))
    if not 0 < len(value) <= MAX_MODEL_CHARACTERS:
        raise Wrong("is empty or too long", _MODEL, got(value))
    return value


def _some_models(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise Wrong("is empty", f"at least one: {_MODEL}", "no model")
    return value


def _some_targets(value: object) -> object:
    if isinstance(value, (list, tuple)) and not value:
        raise Wrong("is empty", "at least one target; left out it means all upstreams", "no target")
    return value


def _sticky(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong("is not text", _STICKY, got(value))
    if value in ("", "prompt_cache_key", "user"):
        return value
    kind, colon, name = value.partition(":")
    if kind != "header" or not colon:
        raise Wrong("is not what requests can be told apart by", _STICKY, got(value))
    return f"header:{header_name(name).lower()}"


def _tries(value: object) -> int:
    expected = f"a number from 1 (no second try) to {MAX_TRIES}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("is not a whole number", expected, got(value))
    if not 1 <= value <= MAX_TRIES:
        raise Wrong("is out of range", expected, got(value))
    return value


def _status(value: object) -> int | str:
    if value in ("4xx", "5xx") or (isinstance(value, int) and 400 <= value <= 599):
        return value
    raise Wrong("is not a status of a failure", _STATUS, got(value))


Glob = Annotated[str, BeforeValidator(_glob)]
Models = tuple[Model, ...]
Status = Annotated[int | str, BeforeValidator(_status)]


class Deadlines(Section):
    """`[deadlines]`: how long each part of a request may take."""

    connect_s: Seconds = Field(default=5.0, description="Time to connect to the upstream, TLS included, in seconds.")
    head_s: Seconds = Field(default=600.0, description="Time until the upstream's status and headers, in seconds.")
    first_content_s: Seconds = Field(default=600.0, description="Time until a stream's first content, in seconds.")
    idle_s: Seconds = Field(default=300.0, description="Longest gap between two events of a stream, in seconds.")
    total_s: Seconds = Field(default=3600.0, description="Longest life of a whole request, in seconds.")
    client_stall_s: Seconds = Field(default=30.0, description="How long a client may leave bytes unread, in seconds.")


class RouteDeadlines(Section):
    """`deadlines` of a route: those that differ from `[deadlines]`."""

    connect_s: Seconds | None = Field(default=None, description="Time to connect to the upstream, in seconds.")
    head_s: Seconds | None = Field(default=None, description="Time until the upstream's status, in seconds.")
    first_content_s: Seconds | None = Field(default=None, description="Time until the first content, in seconds.")
    idle_s: Seconds | None = Field(default=None, description="Longest gap between two events, in seconds.")
    total_s: Seconds | None = Field(default=None, description="Longest life of a whole request, in seconds.")
    client_stall_s: Seconds | None = Field(
        default=None, description="How long a client may leave bytes of its answer unread, in seconds."
    )

    def over(self, general: Deadlines) -> Deadlines:
        """These deadlines, and the general ones where nothing is said here."""
        return general.model_copy(update=self.model_dump(exclude_none=True))


class Target(Section):
    """One of `targets` of a route: an upstream, and what the model is called there."""

    upstream: str = Field(description="The upstream's name.")
    model: Model | None = Field(default=None, description="What the model is called there; by default the same.")
    weight: Weight = Field(default=1.0, description="Its share of the requests when the strategy is weighted.")


class Retry(Section):
    """`retry` of a route: when a request that failed is tried again."""

    tries: Annotated[int, BeforeValidator(_tries)] = Field(
        default=3, description="How often a request is tried in all; 1 is no second try."
    )
    max_wait_s: SecondsFromZero = Field(
        default=2.0, description="Longest wait before a try, also if the upstream asks for more, in seconds."
    )
    budget: Share = Field(default=0.2, description="How many retries there may be, as a share of all requests.")
    statuses: tuple[Status, ...] = Field(
        default=(408, 409, 429, "5xx"), strict=False, description="The upstream's statuses that are tried again."
    )
    repeat_sent: bool = Field(
        default=False, description="May a request be sent again that the upstream may have begun to work on."
    )

    @property
    def all_statuses(self) -> frozenset[int]:
        """The statuses one by one."""
        listed: set[int] = set()
        for status in self.statuses:
            first = int(str(status)[0]) * 100
            listed |= {status} if isinstance(status, int) else set(range(first, first + 100))
        return frozenset(listed)


class Fallback(Section):
    """`fallback` of a route: the models that are asked instead, in this order, each by its own route."""

    context_length: Models = Field(default=(), strict=False, description="When the prompt is too long for the model.")
    content_filter: Models = Field(default=(), strict=False, description="When the upstream refuses the content.")
    rate_limit: Models = Field(default=(), strict=False, description="When no target is within its limits.")
    outage: Models = Field(default=(), strict=False, description="When no target can be reached, or all fail.")


class Route(Section):
    """`[[route]]`: what holds for some models. The first that matches counts."""

    models: Annotated[tuple[Glob, ...], AfterValidator(_some_models)] = Field(
        strict=False, description="The models, as globs of * and ?; upper and lower case differ."
    )
    targets: Annotated[tuple[Target, ...], BeforeValidator(_some_targets)] = Field(
        default=(), strict=False, description="Where its requests go; by default to all upstreams in file order."
    )
    strategy: Literal["ordered", "weighted", "least_busy", "fastest"] = Field(
        default="ordered", description="Which target comes first; the others are tried after it."
    )
    sticky: Annotated[str, BeforeValidator(_sticky)] = Field(
        default="", description="What keeps requests at one target: header:NAME, prompt_cache_key or user."
    )
    retry: Retry = Field(default=Retry(), description="When a request that failed is tried again.")
    fallback: Fallback = Field(default=Fallback(), description="The models that are asked instead.")
    hedge: Hedge | None = Field(
        default=None, description="A second try beside one whose first content is late; off by default."
    )
    canary: Canary | None = Field(
        default=None, description="An upstream that gets a growing share of the requests; off by default."
    )
    shadow: Shadow | None = Field(
        default=None, description="An upstream that gets copies of requests, to be measured; off by default."
    )
    aggregate: bool = Field(
        default=False, description="Whether an upstream streams also for clients that do not, and the answer is folded."
    )
    batch_fallback: bool = Field(
        default=False, description="Whether a stream that failed before content is at last asked for as a whole."
    )
    continue_after_cut: bool = Field(
        default=False, description="Whether another target goes on with a text that was cut, from where it is."
    )
    share: bool = Field(
        default=False, description="Whether requests of the same caller that ask for the same share one stream."
    )
    resume_s: SecondsFromZero = Field(
        default=0.0, description="How long a stream goes on for a client that is gone and may come back, in seconds."
    )
    linger_s: SecondsFromZero = Field(
        default=0.0, description="How long a shared stream goes on when its last reader is gone, in seconds."
    )
    bounds: Bounds | None = Field(default=None, description="What its requests may hold; off by default.")
    params: Params | None = Field(default=None, description="What is changed in its requests; off by default.")
    deadlines: RouteDeadlines = Field(
        default=RouteDeadlines(), description="Any keys of [deadlines]; the others come from there."
    )
