"""What a route says: where its requests may go, in which order, and what becomes of those that fail. `course` walks
along it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trioproxy.policy.breaker import usable
from trioproxy.policy.budget import RetryBudget
from trioproxy.policy.canary import Canary
from trioproxy.policy.error_class import ErrorClass
from trioproxy.policy.hedge import Hedge
from trioproxy.policy.plan import Candidate, Strategy, arrange
from trioproxy.policy.retry import RetryRules
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
class CanaryTarget:
    """A target that gets a share of the requests, and how it does."""

    target: Target
    state: Canary


@dataclass(slots=True)
class ShadowTarget:
    """A target that gets copies of a share of the requests; `under_way` counts those at this moment."""

    target: Target
    share: float
    max_concurrent: int
    under_way: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """What a route says of its requests: where they may go, in which order, and what becomes of those that fail.

    `sticky` is "", "header:NAME" or a top-level field of the body; `fallback` names models that are asked instead.
    `aggregates`: whole answers are folded from streams; `falls_back_to_batch`: a stream that failed is asked for once
    more as a whole answer; `continues`: a stream that was cut is gone on with elsewhere.
    """

    targets: Sequence[Target]
    strategy: Strategy = Strategy.ORDERED
    sticky: str = ""
    rules: RetryRules = field(default_factory=RetryRules)
    budget: RetryBudget = field(default_factory=RetryBudget)
    fallback: Mapping[ErrorClass, Sequence[str]] = field(default_factory=dict)
    hedge: Hedge | None = None
    canary: CanaryTarget | None = None
    shadow: ShadowTarget | None = None
    aggregates: bool = False
    falls_back_to_batch: bool = False
    continues: bool = False

    def targets_for(self, dialect: Dialect) -> Sequence[Target]:
        """Those that serve requests of a dialect; all, if none says that it does."""
        is_messages = dialect is Dialect.MESSAGES
        return [one for one in self.targets if one.endpoint.is_anthropic is is_messages] or self.targets

    def is_like_others(self, target: Target, dialect: Dialect) -> bool:
        """Whether a canary or a shadow speaks what those speak that serve requests of a dialect; else it gets none."""
        return target.endpoint.is_anthropic in {one.endpoint.is_anthropic for one in self.targets_for(dialect)}


def arranged(
    targets: Sequence[Target],
    strategy: Strategy,
    *,
    first: int | None,
    draw: Callable[[], float],
    sticky: str | None,
    now: float,
) -> list[int]:
    """The indexes of the targets that may be tried now, in the order in which they are: healthy, let in by their
    breakers, with a key. Who has room goes before those where one would have to wait, and these before those where too
    many do; the target `first`, a canary that was drawn, before all. `now` is trio's clock."""
    healthy = [index for index, one in enumerate(targets) if one.endpoint.health.is_healthy]
    lets_in = usable([targets[index].endpoint.breaker for index in healthy], now)
    may_enter = {index for index, is_in in zip(healthy, lets_in, strict=True) if is_in}
    candidates = [
        Candidate(
            name=one.name,
            weight=one.weight,
            in_flight=one.endpoint.slots.taken,
            first_content_s=one.endpoint.first_content.value(now),
            is_usable=index in may_enter and one.endpoint.has_key(now),
        )
        for index, one in enumerate(targets)
    ]
    order = arrange(candidates, strategy, draw=draw, sticky=sticky)
    slots = [one.endpoint.slots for one in targets]
    return sorted(order, key=lambda index: (index != first, not slots[index].has_room, not slots[index].may_wait))
