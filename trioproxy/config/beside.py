"""What a route does beside its targets: `hedge`, `canary` and `shadow`. The keys, their defaults and rules."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from trioproxy.config.secrets import Wrong, got
from trioproxy.config.section import Count, Model, Seconds, Section, Share, SomeShare, Times


def _from_first_step(value: float, info: ValidationInfo) -> float:
    first = info.data.get("share")
    if first is not None and value < first:
        raise Wrong("is below the first step", f"a share from {first:g} (the canary's share) to 1", got(value))
    return value


class Hedge(Section):
    """`hedge` of a route: a second try beside one whose first content is late."""

    after_s: Seconds | None = Field(default=None, description="How late that is, in seconds.")
    after: Literal["p95"] | None = Field(
        default=None, description="Or: later than 95 of 100 requests of this route lately."
    )
    budget: Share = Field(default=0.1, description="How many hedges there may be, as a share of all requests.")

    @model_validator(mode="after")
    def _has_one_delay(self) -> "Hedge":
        if (self.after_s is None) == (self.after is None):
            found = "neither" if self.after is None else "both"
            raise Wrong("does not say how late", 'after_s = SECONDS or after = "p95"', found)
        return self


class Canary(Section):
    """`canary` of a route: an upstream that gets a growing share of its requests, as long as it is no worse."""

    upstream: str = Field(description="The upstream's name.")
    model: Model | None = Field(default=None, description="What the model is called there; by default the same.")
    share: SomeShare = Field(default=0.01, description="Its share of the requests in the first step.")
    # Behind share, because the rule sees only the fields before it.
    max_share: Annotated[SomeShare, AfterValidator(_from_first_step)] = Field(
        default=0.5, validate_default=True, description="Its largest share."
    )
    step_s: Seconds = Field(default=60.0, description="How long a step lasts at least, in seconds.")
    min_requests: Count = Field(default=50, description="How many requests of its own a step needs to be judged.")
    max_errors: Share = Field(default=0.02, description="How far its rate of errors may be above that of the others.")
    max_slower: Times = Field(
        default=1.5, description="Its mean time to first content may be as many times that of the others."
    )


class Shadow(Section):
    """`shadow` of a route: an upstream that gets copies of requests. Its answers are measured, and go nowhere."""

    upstream: str = Field(description="The upstream's name.")
    model: Model | None = Field(default=None, description="What the model is called there; by default the same.")
    share: Share = Field(default=0.1, description="How many requests are copied, as a share of all; 0 is none.")
    max_concurrent: Count = Field(
        default=10, description="Copies under way at once, per worker; further requests are not copied."
    )
