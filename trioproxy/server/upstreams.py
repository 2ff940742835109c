"""What operators see of the upstreams: what one worker tells of them, and what the supervisor makes of all workers'
words. No secret is in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from trioproxy.config import Config, Upstream
from trioproxy.policy.breaker import State
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.way import CanaryTarget

_BADNESS = [state.value for state in (State.CLOSED, State.HALF_OPEN, State.OPEN)]

Told = dict[str, dict[str, Any]]
"""What one worker tells: by the upstream's name, by the figure's name."""


def told(endpoints: Mapping[str, Endpoint], canaries: Mapping[int, CanaryTarget], now: float) -> Told:
    """What a worker tells of its upstreams; `canaries` are those of the routes by their place in the configuration.
    `now` is trio's clock."""
    return {name: _told(endpoint, canaries, now) for name, endpoint in endpoints.items()}


def _told(endpoint: Endpoint, canaries: Mapping[int, CanaryTarget], now: float) -> dict[str, Any]:
    until = endpoint.breaker.eject_until
    first_content_s = endpoint.first_content.value(now)
    return {
        "breaker": endpoint.breaker.state(now).value,
        "ejected_s": 0.0 if until is None else round(max(until - now, 0.0), 1),
        "healthy": endpoint.health.is_healthy,
        "in_flight": endpoint.slots.taken,
        "waiting": endpoint.slots.waiting,
        "first_content_s": None if first_content_s is None else round(first_content_s, 4),
        "usable_keys": endpoint.keys.usable(now),
        "canaries": [
            {"route": route, "target": canary.target.name, "share": round(canary.state.share, 4)}
            for route, canary in canaries.items()
            if canary.target.endpoint is endpoint
        ],
    }


def merged(config: Config, current: Sequence[tuple[int, int, Told]], older: Sequence[Told]) -> list[dict[str, Any]]:
    """The upstreams of the configuration in force, in its order; see `_merged`.

    `current` is what its workers told, each with its slot and process id. `older` is what those told that drain after
    a reload: their requests count, but nothing else, because another configuration may stand behind it.
    """
    return [
        _merged(
            upstream,
            [(slot, pid, one[upstream.name]) for slot, pid, one in current if upstream.name in one],
            [one[upstream.name] for one in older if upstream.name in one],
        )
        for upstream in config.upstream
    ]


def _merged(
    upstream: Upstream, current: Sequence[tuple[int, int, dict[str, Any]]], older: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One upstream. Each worker finds out for itself, so the worst of them counts: the breaker that is open for
    longest, the slowest first content, the fewest keys. None where no worker answers, or what is not known."""
    by_worker = [one for _, _, one in current]
    worst = max(by_worker, key=lambda one: (_BADNESS.index(one["breaker"]), one["ejected_s"]), default=None)
    speeds = [one["first_content_s"] for one in by_worker if one["first_content_s"] is not None]
    return {
        "name": upstream.name,
        "base_url": upstream.base_url,
        "dialect": upstream.dialect,
        "breaker": worst and worst["breaker"],
        "ejected_s": worst and worst["ejected_s"],
        "healthy": all(one["healthy"] for one in by_worker) if upstream.health and by_worker else None,
        "in_flight": sum(one["in_flight"] for one in [*by_worker, *older]),
        "waiting": sum(one["waiting"] for one in [*by_worker, *older]),
        "first_content_s": max(speeds, default=None),
        "keys": {
            "total": len(upstream.api_key),
            "usable": min((one["usable_keys"] for one in by_worker), default=None),
        },
        "canaries": _canaries([one["canaries"] for one in by_worker]),
        "workers": [{"worker": slot, "pid": pid, **one} for slot, pid, one in sorted(current, key=lambda one: one[:2])],
    }


def _canaries(by_worker: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The routes' canaries here: all workers have the same, each with a share of its own, and get as many requests."""
    return [
        {**same[0], "share": round(sum(one["share"] for one in same) / len(same), 4)}
        for same in zip(*by_worker, strict=True)
    ]
