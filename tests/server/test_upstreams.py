"""What operators see of the upstreams: one worker's figures, and what becomes of several workers'."""

from typing import Any

import trio
import trio.testing

from trioproxy.config import load
from trioproxy.policy.breaker import Outcome
from trioproxy.policy.canary import Canary, CanaryRules
from trioproxy.server.upstreams import merged, told
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.way import CanaryTarget, Target

KEYS = [(b"authorization", b"Bearer sk-one"), (b"authorization", b"Bearer sk-two")]


def endpoint() -> Endpoint:
    return Endpoint("paid", "http://origin/v1", pool=Pool(), connect_s=5, keys=KEYS, max_concurrent=1, max_waiting=5)


def fail_often(endpoint: Endpoint, now: float) -> None:
    for _ in range(endpoint.breaker.rules.failures):
        turn = endpoint.breaker.take(now)
        assert turn is not None
        endpoint.breaker.record(turn, Outcome.FAULT, now)


async def test_a_worker_tells_what_its_upstreams_do(autojump_clock: trio.testing.MockClock) -> None:
    paid = endpoint()
    assert told({"paid": paid}, {}, 0.0)["paid"] == {
        "breaker": "closed",
        "ejected_s": 0.0,
        "healthy": True,
        "in_flight": 0,
        "waiting": 0,
        "first_content_s": None,
        "usable_keys": 2,
        "canaries": [],
    }
    paid.first_content.note(0.25, 0.0)
    paid.keys.note(0, 401, None, 0.0)
    for _ in range(2):
        paid.health.note(False)
    fail_often(paid, 0.0)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(paid.slots.take)
        await trio.testing.wait_all_tasks_blocked()
        figures = told({"paid": paid}, {}, 2.0)["paid"]
        assert (figures["in_flight"], figures["waiting"]) == (1, 2)
        assert (figures["first_content_s"], figures["usable_keys"]) == (0.25, 1)
        assert (figures["breaker"], figures["ejected_s"], figures["healthy"]) == ("open", 3.0, False)
        for _ in range(3):
            paid.slots.give_back()
    figures = told({"paid": paid}, {}, 6.0)["paid"]
    assert (figures["breaker"], figures["ejected_s"], figures["waiting"]) == ("half_open", 0.0, 0)


def of_worker(**other: Any) -> dict[str, Any]:
    return {
        "breaker": "closed",
        "ejected_s": 0.0,
        "healthy": True,
        "in_flight": 1,
        "waiting": 2,
        "first_content_s": 0.5,
        "usable_keys": 2,
        "canaries": [],
        **other,
    }


FLAGS = {"upstream.base_url": "http://origin/v1", "upstream.name": "paid", "upstream.api_key": ["env:ONE", "env:TWO"]}
CONFIG = load(flags=FLAGS, environ={"ONE": "sk-one", "TWO": "sk-two"}, reads_file=False)


def test_of_what_workers_differ_in_the_worst_is_shown_and_requests_are_added() -> None:
    open_for_long = of_worker(breaker="open", ejected_s=9.0, usable_keys=1)
    half_open = of_worker(breaker="half_open", first_content_s=None)
    slow = of_worker(first_content_s=0.75)
    current = [(1, 11, {"paid": half_open}), (0, 10, {"paid": open_for_long}), (2, 12, {"paid": slow}), (3, 13, {})]
    [paid] = merged(CONFIG, current, [{"paid": of_worker(breaker="open", ejected_s=99.0)}, {"gone": of_worker()}])
    assert {key: value for key, value in paid.items() if key != "workers"} == {
        "name": "paid",
        "base_url": "http://origin/v1",
        "dialect": "openai",
        "breaker": "open",
        "ejected_s": 9.0,
        "healthy": None,
        "in_flight": 4,
        "waiting": 8,
        "first_content_s": 0.75,
        "keys": {"total": 2, "usable": 1},
        "canaries": [],
    }
    assert [(one["worker"], one["pid"], one["breaker"]) for one in paid["workers"]] == [
        (0, 10, "open"),
        (1, 11, "half_open"),
        (2, 12, "closed"),
    ]


async def test_a_worker_tells_the_canaries_of_an_upstream(autojump_clock: trio.testing.MockClock) -> None:
    paid, other = endpoint(), endpoint()
    canaries = {
        1: CanaryTarget(Target(paid), Canary(CanaryRules(share=0.02))),
        3: CanaryTarget(Target(paid, "new"), Canary(CanaryRules(share=0.123456))),
        4: CanaryTarget(Target(other), Canary(CanaryRules())),
    }
    assert told({"paid": paid}, canaries, 0.0)["paid"]["canaries"] == [
        {"route": 1, "target": "paid", "share": 0.02},
        {"route": 3, "target": "paid/new", "share": 0.1235},
    ]


def test_a_canary_s_share_is_that_of_all_workers_together() -> None:
    def with_share(share: float) -> dict[str, Any]:
        return {"paid": of_worker(canaries=[{"route": 2, "target": "paid/new", "share": share}])}

    [paid] = merged(CONFIG, [(0, 1, with_share(0.02)), (1, 2, with_share(0.01))], [with_share(0.5)])
    assert paid["canaries"] == [{"route": 2, "target": "paid/new", "share": 0.015}]


def test_one_worker_to_which_it_is_ill_is_enough() -> None:
    checked = load(flags={**FLAGS, "upstream.health": "/health"}, environ={"ONE": "1", "TWO": "2"}, reads_file=False)
    well, ill = {"paid": of_worker()}, {"paid": of_worker(healthy=False)}
    assert merged(checked, [(0, 1, well), (1, 2, well)], [ill])[0]["healthy"] is True
    assert merged(checked, [(0, 1, well), (1, 2, ill)], [])[0]["healthy"] is False


def test_without_any_worker_s_word_nothing_is_claimed() -> None:
    [paid] = merged(CONFIG, [], [])
    assert (paid["breaker"], paid["ejected_s"], paid["healthy"], paid["first_content_s"]) == (None, None, None, None)
    assert (paid["in_flight"], paid["keys"], paid["workers"]) == (0, {"total": 2, "usable": None}, [])
