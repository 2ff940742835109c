"""What operators see of shared streams: one worker's figures, and what becomes of several workers'."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from trioproxy.hub.hub import Hub, HubBounds
from trioproxy.hub.live import LiveStream, Outcome
from trioproxy.policy.replay import Slow
from trioproxy.server.backpressure import families, merged, told
from trioproxy.telemetry.exchange import Exchange

NOTHING = {
    "readers": 0,
    "delivered": 0,
    "dropped": 0,
    "overrun": 0,
    "waits": 0,
    "waited_s": 0.0,
    "deepest_events": 0,
    "deepest_bytes": 0,
}


async def unguarded(run: Callable[[], Awaitable[None]]) -> None:
    await run()


def metrics_of(hub: Hub) -> dict[str, float]:
    return {
        name + "".join(labels.values()): value
        for _, _, _, samples in families(hub)
        for name, labels, value in samples
        if value
    }


async def test_a_worker_tells_what_its_hub_holds_and_what_slow_readers_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = Hub(unguarded, HubBounds(max_events=2))
    goes_on = trio.Event()

    async def produce(stream: LiveStream) -> None:
        from_first = stream.subscribed(0, Slow.DROP_OLDEST)
        with from_first as slow, stream.subscribed(0, Slow.ERROR) as quick:
            for number in range(5):
                await stream.publish(b"event %d" % number)
                quick.take(1000)
            assert slow.take(1000).lost == 3
            await goes_on.wait()
        stream.end(Outcome(is_clean=True))

    assert told(hub) == {
        "live": 0,
        "kept": 0,
        "readers": 0,
        "held_bytes": 0,
        "policies": {slow.value: NOTHING for slow in Slow},
    }
    assert metrics_of(hub) == {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await trio.testing.wait_all_tasks_blocked()
        exchange = Exchange("req_1", "POST", "/", 0.0)
        stream = hub.start(produce, exchange, caller="me", share_key=None, linger_s=0.0, client_stall_s=1.0)
        await trio.testing.wait_all_tasks_blocked()
        words = told(hub)
        assert {name: words[name] for name in ("live", "kept", "readers", "held_bytes")} == {
            "live": 1,
            "kept": 0,
            "readers": 2,
            "held_bytes": 14,
        }
        assert words["policies"]["drop-oldest"] == {
            **NOTHING,
            "readers": 1,
            "delivered": 2,
            "dropped": 3,
            "deepest_events": 2,
            "deepest_bytes": 14,
        }
        assert words["policies"]["error"]["delivered"] == 5
        assert metrics_of(hub) == {
            "trioproxy_subscribers": 2,
            "trioproxy_dropped_events_totaldrop-oldest": 3,
            "trioproxy_hub_bytes": 14,
        }
        goes_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not stream.is_live
        nursery.cancel_scope.cancel()


def of_worker(kept: int, **counts: Any) -> dict[str, Any]:
    policies = {slow.value: NOTHING for slow in Slow} | {"block": {**NOTHING, **counts}}
    return {"live": 1, "kept": kept, "readers": 2, "held_bytes": 100, "policies": policies}


def test_workers_figures_are_added_but_for_the_deepest_backlogs() -> None:
    one = of_worker(3, waits=2, waited_s=0.1, deepest_events=7, deepest_bytes=70)
    other = of_worker(4, waits=1, waited_s=0.2, deepest_events=5, deepest_bytes=90, readers=6)
    together = merged([(1, 11, other), (0, 10, one)])
    assert {name: together[name] for name in ("live", "kept", "readers", "held_bytes")} == {
        "live": 2,
        "kept": 7,
        "readers": 4,
        "held_bytes": 200,
    }
    assert together["policies"]["block"] == {
        **NOTHING,
        "readers": 6,
        "waits": 3,
        "waited_s": 0.3,
        "deepest_events": 7,
        "deepest_bytes": 90,
    }
    assert together["policies"]["error"] == NOTHING
    assert [(each["worker"], each["pid"], each["kept"]) for each in together["workers"]] == [(0, 10, 3), (1, 11, 4)]


def test_without_any_worker_s_word_nothing_is_claimed() -> None:
    together = merged([])
    assert (together["live"], together["held_bytes"], together["workers"]) == (0, 0, [])
    assert together["policies"] == {slow.value: {} for slow in Slow}
