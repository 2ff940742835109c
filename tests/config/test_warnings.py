"""Warnings: what is allowed and hardly meant."""

from datetime import UTC, datetime

import pytest

from trioproxy.config import Config, Key, hash_of, warnings


def given(*routes: dict[str, object], **upstream: object) -> list[str]:
    return warnings(Config.model_validate({"upstream": [{"base_url": "http://a", **upstream}], "route": list(routes)}))


def test_there_is_nothing_to_say_of_what_is_as_it_should_be() -> None:
    assert given() == []
    assert given({"models": ["gpt-4o", "gpt-4*"]}, {"models": ["gpt-*"]}, {"models": ["*"]}) == []
    assert given(max_concurrent=5, max_waiting=5) == given(max_concurrent=5) == []


def test_a_glob_behind_one_that_covers_it_is_never_reached() -> None:
    assert given({"models": ["o1", "gpt-*"]}, {"models": ["o3", "gpt-4*", "o1"]}) == [
        'route[1].models[1]: "gpt-4*" is never reached, route[0].models[1] = "gpt-*" comes before it',
        'route[1].models[2]: "o1" is never reached, route[0].models[0] = "o1" comes before it',
    ]


def test_globs_of_one_route_are_in_nobodys_way() -> None:
    assert given({"models": ["*", "a"]}) == []


def test_a_bound_on_those_who_wait_needs_one_on_those_who_do_not() -> None:
    assert given(max_waiting=5) == ["upstream[0].max_waiting: means nothing without max_concurrent, nobody ever waits"]


def test_what_belongs_to_a_health_check_needs_one() -> None:
    assert given(health="/health", health_interval_s=5) == []
    assert given(health="chat", health_model="m", health_interval_s=5) == []
    model = 'upstream[0].health_model: means nothing without health = "chat", no model is ever asked'
    assert given(health_model="m", health_interval_s=5) == [
        model,
        "upstream[0].health_interval_s: means nothing without health, nothing is ever checked",
    ]
    assert given(health="/health", health_model="m") == [model]


def test_a_hedge_needs_two_targets_and_a_budget() -> None:
    two, hedge = [{"upstream": "a"}, {"upstream": "a", "model": "n"}], {"after_s": 1}
    assert given({"models": ["m"], "targets": two, "hedge": hedge}) == []
    alone = "route[0].hedge: means nothing with a single target, there is no other for a second try"
    assert given({"models": ["m"], "targets": two[:1], "hedge": hedge}) == [alone]
    assert given({"models": ["m"], "hedge": hedge}) == [alone]
    assert given({"models": ["m"], "targets": two, "hedge": {**hedge, "budget": 0}}) == [
        "route[0].hedge: is off with budget = 0"
    ]


def test_a_shadow_without_a_share_is_off() -> None:
    assert given({"models": ["m"], "shadow": {"upstream": "a"}}) == []
    assert given({"models": ["m"], "shadow": {"upstream": "a", "share": 0}}) == [
        "route[0].shadow: is off with share = 0"
    ]


@pytest.mark.parametrize("key", ["aggregate", "batch_fallback", "continue_after_cut"])
def test_what_is_done_with_streams_needs_a_target_that_can_stream(key: str) -> None:
    upstreams = [{"base_url": "http://a", "streams": False}, {"base_url": "http://b"}]

    def told(*targets: str) -> list[str]:
        route = {"models": ["m"], key: True} | (
            {"targets": [{"upstream": name} for name in targets]} if targets else {}
        )
        return warnings(Config.model_validate({"upstream": upstreams, "route": [route, {"models": ["n"]}]}))

    assert told() == told("b") == told("a", "b") == []
    assert told("a") == told("a", "a") == [f"route[0].{key}: means nothing, none of its targets can stream"]


def test_a_number_of_events_needs_a_time_to_wait_for_them() -> None:
    def told(**stream: object) -> list[str]:
        return warnings(Config.model_validate({"upstream": [{"base_url": "http://a"}], "stream": stream}))

    assert told(coalesce_ms=5, coalesce_events=5) == told(coalesce_ms=5) == []
    assert told(coalesce_events=100) == [
        "stream.coalesce_events: means nothing without coalesce_ms, no event ever waits"
    ]


def test_a_lease_needs_others_who_notice() -> None:
    def told(**state: object) -> list[str]:
        return warnings(Config.model_validate({"upstream": [{"base_url": "http://a"}], "state": state}))

    assert told(url="redis://a", lease_s=5) == told(url="memory:") == []
    assert told(lease_s=15) == [
        "state.lease_s: means nothing without Redis, there is no other replica that could notice"
    ]


def test_no_bound_of_the_hub_is_beyond_another() -> None:
    def told(**hub: object) -> list[str]:
        return warnings(Config.model_validate({"upstream": [{"base_url": "http://a"}], "hub": hub}))

    assert told(max_bytes=5, max_total_bytes=5, max_streams=5, max_per_caller=5) == told(max_streams=5) == []
    assert told(max_bytes=6, max_total_bytes=5, max_streams=5, max_per_caller=6) == [
        "hub.max_bytes: one stream may hold more than max_total_bytes, which then allows no other beside it",
        "hub.max_per_caller: means nothing above max_streams",
    ]


def test_of_two_times_without_a_reader_the_longer_one_counts() -> None:
    assert given({"models": ["m"], "resume_s": 5, "linger_s": 6}, {"models": ["n"], "linger_s": 5}) == []
    assert given({"models": ["m"], "resume_s": 5, "linger_s": 5}) == [
        "route[0].linger_s: means nothing beside resume_s, which is no shorter"
    ]


def test_weights_count_for_one_strategy_only() -> None:
    targets = [{"upstream": "a", "weight": 2}]
    assert given({"models": ["m"], "targets": targets, "strategy": "weighted"}) == []
    assert given({"models": ["m"], "targets": [{"upstream": "a"}]}) == []
    assert given({"models": ["m"], "targets": targets}) == [
        'route[0].targets: their weight counts only with strategy = "weighted"'
    ]


def key(name: str = "a", **keys: object) -> dict[str, object]:
    return {"name": name, "hash": hash_of(name), **keys}


def of_gate(**sections: object) -> list[str]:
    config = Config.model_validate({"upstream": [{"base_url": "http://a"}], **sections})
    return warnings(config, [Key.model_validate(key("b", expires="2026-01-01"))], now=datetime(2025, 1, 1, tzinfo=UTC))


def test_a_key_that_has_expired_lets_nobody_in_wherever_it_stands() -> None:
    expired, revoked = key(expires="2025-01-01"), key("r", expires="2024-01-01", revoked="2024-01-01")
    assert of_gate(key=[expired, revoked, key("c", expires="2025-01-02")]) == [
        'key[0].expires: key "a" has expired, nobody is let in by it'
    ]
    config = Config.model_validate({"upstream": [{"base_url": "http://a"}]})
    keys = [Key.model_validate(key("b")), Key.model_validate(expired)]
    assert warnings(config, keys) == ['keys.toml: key[1].expires: key "a" has expired, nobody is let in by it']


def test_a_limit_of_money_needs_prices() -> None:
    limits = {"usd_per_month": 5}
    assert of_gate(key=[key(limits=limits)], gate={"limits": limits}) == [
        'key[0].limits: money is limited and there is no [[price]], key "a" can use no model',
        "gate.limits: money is limited and there is no [[price]], nobody can use any model",
    ]
    assert of_gate(key=[key(limits=limits)], price=[{"model": "m", "input": 1, "output": 1}]) == []


def test_a_price_behind_one_that_covers_it_is_never_reached() -> None:
    prices = [{"model": model, "input": 1, "output": 1} for model in ("gpt-*", "o1", "gpt-4o")]
    assert of_gate(price=prices) == [
        'price[2].model: "gpt-4o" is never reached, price[0].model = "gpt-*" comes before it'
    ]


def test_what_means_nothing_at_the_gate_is_told() -> None:
    assert of_gate(gate={"plugin_s": 2}) == ["gate.plugin_s: means nothing without plugin"]
    assert of_gate(gate={"plugin_s": 2, "plugin": "a:b"}, server={"hosts": ["h"]}) == []
    assert of_gate(server={"hosts": ["h"], "bind": ["0.0.0.0:80"]}) == [
        "server.hosts: means nothing without an address of loopback, the others answer to any name"
    ]
    assert given(usage="ask") == []
    assert given(usage="ask", dialect="anthropic") == [
        "upstream[0].usage: means nothing with this dialect, whose streams always tell their usage"
    ]


def test_headers_for_a_collector_need_one() -> None:
    def told(**telemetry: object) -> list[str]:
        return warnings(Config.model_validate({"upstream": [{"base_url": "http://a"}], "telemetry": telemetry}))

    assert told(otlp_endpoint="http://a:4318", otlp_headers={"x-key": "k"}) == told() == []
    assert told(otlp_headers={"x-key": "k"}) == [
        "telemetry.otlp_headers: means nothing without otlp_endpoint, nobody is sent anything"
    ]
