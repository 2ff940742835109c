"""What operators see of the virtual keys: who may do what, until when, and what was used of it. Neither secrets nor
their hashes are in it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from trioproxy.config import Config, Key, KeyLimits
from trioproxy.policy.limits import EVERYTHING


def told_keys(config: Config, keys: tuple[Key, ...] | None, spent: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The keys in their order, and the limits of everything; `spent` is what a worker told (see `gate.spent`), `now` is
    in seconds since 1970. Of a key that `spent` does not name nothing is limited, or nothing is known."""
    return {
        "keys": [
            {
                "name": key.name,
                "state": _state(key, now),
                "expires": None if key.expires is None else key.expires.isoformat().replace("+00:00", "Z"),
                "models": list(key.models),
                "upstreams": list(key.upstreams),
                "limits": _limits(key.limits),
                "spent": spent.get(key.name, {}),
            }
            for key in keys or ()
        ],
        "everything": {"limits": _limits(config.gate.limits), "spent": spent.get(EVERYTHING, {})},
    }


def _state(key: Key, now: float) -> str:
    if key.revoked is not None and now >= key.revoked.timestamp():
        return "revoked"
    if key.expires is not None and now >= key.expires.timestamp():
        return "expired"
    return "active"


def _limits(limits: KeyLimits) -> dict[str, int | str]:
    """As they were typed; money as text, so that it stays exact."""
    return {
        name: format(value, "f") if isinstance(value, Decimal) else value for name, value in limits if value is not None
    }
