"""What operators see of streams that several clients read: what one worker tells of its hub, and what the supervisor
makes of all workers' words."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from trioproxy.hub.hub import Hub
from trioproxy.policy.replay import Slow
from trioproxy.telemetry.metrics import Family, state, states

_NOW = ("live", "kept", "readers", "held_bytes")
_DEEPEST = frozenset({"deepest_events", "deepest_bytes"})

Told = dict[str, Any]
"""What one worker tells. Of this moment: how many streams are `live`, how many have ended and are `kept`, how many
`readers` there are, the `held_bytes` of all logs. And since its start by `policies`: see `policy.replay.Counts`."""


def told(hub: Hub) -> Told:
    """What a worker tells of its hub."""
    streams = hub.streams
    live = sum(stream.is_live for stream in streams)
    return {
        "live": live,
        "kept": len(streams) - live,
        "readers": sum(stream.readers for stream in streams),
        "held_bytes": hub.held_bytes,
        "policies": {
            slow.value: {**asdict(counts), "waited_s": round(counts.waited_s, 3)} for slow, counts in hub.counts.items()
        },
    }


def merged(workers: Sequence[tuple[int, int, Told]]) -> dict[str, Any]:
    """All workers together, each given with its slot and process id, and each for itself: sums, but of the deepest
    backlogs the deepest."""
    words = [one for _, _, one in workers]
    return {
        **{name: sum(one[name] for one in words) for name in _NOW},
        "policies": {slow.value: _merged([one["policies"][slow.value] for one in words]) for slow in Slow},
        "workers": [{"worker": slot, "pid": pid, **one} for slot, pid, one in sorted(workers, key=lambda one: one[:2])],
    }


def _merged(counts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = counts[0] if counts else ()
    return {
        name: max(one[name] for one in counts) if name in _DEEPEST else round(sum(one[name] for one in counts), 3)
        for name in names
    }


def families(hub: Hub) -> Iterator[Family]:
    """The same for Prometheus."""
    words = told(hub)
    dropped = {name: float(counts["dropped"]) for name, counts in words["policies"].items()}
    yield state("trioproxy_subscribers", "Clients that read a shared or resumable stream.", words["readers"])
    yield states(
        "trioproxy_dropped_events", "Events that slow readers went on without.", dropped, "policy", kind="counter"
    )
    yield state("trioproxy_hub_bytes", "Bytes kept of shared and resumable streams.", words["held_bytes"])
    yield state("trioproxy_streams_kept", "Streams that have ended and can still be read.", words["kept"])
