"""What operators see of the virtual keys."""

from datetime import UTC, datetime
from decimal import Decimal

from trioproxy.config import Key, KeyLimits, hash_of, load
from trioproxy.server.keys_told import told_keys

CONFIG = load(flags={"upstream.base_url": "http://origin/v1", "gate.limits.streams": 50}, environ={}, reads_file=False)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def key(name: str, **more: object) -> Key:
    return Key.model_validate({"name": name, "hash": hash_of(name), **more})


def test_a_key_is_told_without_its_hash() -> None:
    limits = KeyLimits(streams=3, usd_per_month=Decimal("12.50"))
    given = key("team-a", models=["gpt-*"], upstreams=["paid"], expires="2027-01-31", limits=limits)
    told = told_keys(CONFIG, (given,), {"team-a": {"streams": 1, "usd_per_month": "0.01"}, "*": {"streams": 2}}, 0.0)
    assert told == {
        "keys": [
            {
                "name": "team-a",
                "state": "active",
                "expires": "2027-01-31T00:00:00Z",
                "models": ["gpt-*"],
                "upstreams": ["paid"],
                "limits": {"streams": 3, "usd_per_month": "12.50"},
                "spent": {"streams": 1, "usd_per_month": "0.01"},
            }
        ],
        "everything": {"limits": {"streams": 50}, "spent": {"streams": 2}},
    }
    assert "hash" not in str(told) and hash_of("team-a")[:20] not in str(told)


def test_whether_a_key_is_good_now() -> None:
    keys = (
        key("good", expires="2026-06-02", revoked="2026-06-02"),
        key("old", expires="2026-06-01"),
        key("taken-back", revoked="2026-06-01"),
        key("both", expires="2026-01-01", revoked="2026-01-01"),
    )
    told = told_keys(CONFIG, keys, {}, NOW.timestamp())
    assert [one["state"] for one in told["keys"]] == ["active", "expired", "revoked", "revoked"]


def test_without_keys_there_are_none() -> None:
    assert told_keys(CONFIG, None, {}, 0.0)["keys"] == []
