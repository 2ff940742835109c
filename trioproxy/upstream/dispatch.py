"""Where requests may go: the endpoints, and for each model the way through some of them. `course` walks along it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import random

from trioproxy.policy.budget import RetryBudget
from trioproxy.policy.error_class import ErrorClass
from trioproxy.policy.plan import Strategy
from trioproxy.policy.retry import RetryRules
from trioproxy.policy.routing import Routes
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.wire.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint of a way, and what the model is called there (None: as the client calls it)."""

    endpoint: Endpoint
    model: str | None = None
    weight: float = 1.0

    @property
    def name(self) -> str:
        """What tells it from the others, in every process the same."""
        return self.endpoint.name if self.model is None else f"{self.endpoint.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Way:
    """What a route says of its requests: where they may go, in which order, and what becomes of those that fail.

    `sticky` is "", "header:NAME" or a top-level field of the body; `fallback` names models that are asked instead.
    """

    targets: Sequence[Target]
    strategy: Strategy = Strategy.ORDERED
    sticky: str = ""
    rules: RetryRules = field(default_factory=RetryRules)
    budget: RetryBudget = field(default_factory=RetryBudget)
    fallback: Mapping[ErrorClass, Sequence[str]] = field(default_factory=dict)

    def targets_for(self, dialect: Dialect) -> Sequence[Target]:
        """Those that serve requests of a dialect; all, if none says that it does."""
        is_messages = dialect is Dialect.MESSAGES
        return [one for one in self.targets if one.endpoint.is_anthropic is is_messages] or self.targets


class Dispatcher:
    """Knows all endpoints and ways. `draw` gives random numbers from 0 up to but not including 1."""

    def __init__(self, endpoints: Sequence[Endpoint], ways: Routes[Way], *, draw: Callable[[], float] = random) -> None:
        self.endpoints = endpoints
        self.ways = ways
        self.draw = draw
