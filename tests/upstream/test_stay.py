"""What one try holds at its endpoint, and that it is given back."""

import trio

from trioproxy.policy.breaker import Outcome, State
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.stay import Stay

OWN = b"authorization"


def endpoint() -> Endpoint:
    keys = [(OWN, b"Bearer one"), (OWN, b"Bearer two")]
    return Endpoint("name", "http://origin.test/v1", pool=Pool(), connect_s=5, keys=keys, max_concurrent=2)


async def enter(at: Endpoint) -> Stay:
    await at.slots.take()
    now = trio.current_time()
    turn = at.breaker.take(now, by_force=True)
    assert turn is not None
    return Stay(at, at.keys.take(now), turn)


async def test_leaving_gives_back_the_place_and_the_key() -> None:
    at = endpoint()
    first, second = await enter(at), await enter(at)
    assert (first.key, second.key, at.slots.taken) == (0, 1, 2)
    assert at.slots.has_room is False
    second.leave()
    assert (at.slots.taken, at.slots.has_room) == (1, True)
    assert at.keys.take(trio.current_time()) == 1  # the one that nobody holds


async def test_a_fault_counts_and_so_does_one_behind_the_head(autojump_clock: trio.testing.MockClock) -> None:
    at = endpoint()
    for _ in range(at.breaker.rules.failures):
        stay = await enter(at)
        stay.note(Outcome.NEUTRAL)
        stay.note(Outcome.FAULT)
        stay.leave()
    assert at.breaker.state(trio.current_time()) is State.OPEN


async def test_a_probe_that_is_cancelled_lets_the_next_one_in(autojump_clock: trio.testing.MockClock) -> None:
    at = endpoint()
    for _ in range(at.breaker.rules.failures):
        stay = await enter(at)
        stay.note(Outcome.FAULT)
        stay.leave()
    await trio.sleep(at.breaker.rules.eject_s)
    probe = await enter(at)
    assert not at.breaker.allow(trio.current_time())
    probe.leave()
    assert at.breaker.allow(trio.current_time())
