"""What one try holds at its endpoint, and that it is given back."""

import pytest
import trio
import trio.testing

from trioproxy.policy.breaker import Outcome, State
from trioproxy.policy.canary import Canary, CanaryRules
from trioproxy.policy.hedge import Hedge, HedgeRules
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.stay import Stay

OWN = b"authorization"


def endpoint() -> Endpoint:
    keys = [(OWN, b"Bearer one"), (OWN, b"Bearer two")]
    return Endpoint("name", "http://origin.test/v1", pool=Pool(), connect_s=5, keys=keys, max_concurrent=2)


async def enter(
    at: Endpoint, *, canary: Canary | None = None, is_canary: bool = False, hedge: Hedge | None = None
) -> Stay:
    await at.slots.take()
    now = trio.current_time()
    turn = at.breaker.take(now, by_force=True)
    assert turn is not None
    return Stay(at, at.keys.take(now), turn, canary=canary, is_canary=is_canary, hedge=hedge)


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


async def test_its_first_content_is_noted_once_and_means_that_it_went_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    at, hedge = endpoint(), Hedge(HedgeRules(percentile=95))
    stay = await enter(at, hedge=hedge)
    await trio.sleep(2)
    for _ in range(3):
        stay.note_first_content(trio.current_time())
        await trio.sleep(1)
    assert [*hedge._newest] == [pytest.approx(2)]
    assert at.first_content.value(trio.current_time()) == pytest.approx(2)
    assert at.breaker._window.counts(trio.current_time()) == (1, 0)
    stay.leave()


async def test_a_probe_s_first_content_closes_the_breaker(autojump_clock: trio.testing.MockClock) -> None:
    at = endpoint()
    for _ in range(at.breaker.rules.failures):
        stay = await enter(at)
        stay.note(Outcome.FAULT)
        stay.leave()
    await trio.sleep(at.breaker.rules.eject_s)
    stay = await enter(at)
    stay.note_first_content(trio.current_time())
    assert at.breaker.state(trio.current_time()) is State.CLOSED
    stay.leave()


@pytest.mark.parametrize("is_canary", [True, False])
@pytest.mark.parametrize(
    ("outcomes", "has_content", "figures"),
    [
        ([], False, (0, 0, 0)),
        ([], True, (1, 0, 1)),
        ([(Outcome.OK, None)], False, (1, 0, 0)),
        ([(Outcome.NEUTRAL, None)], False, (1, 0, 0)),
        ([(Outcome.NEUTRAL, True)], False, (1, 1, 0)),
        ([(Outcome.FAULT, None)], False, (1, 1, 0)),
        ([(Outcome.FAULT, None)], True, (1, 1, 1)),
        ([(Outcome.FAULT, None), (Outcome.OK, None)], False, (1, 1, 0)),
    ],
)
async def test_what_it_came_to_counts_once_in_a_canary_s_comparison_when_it_is_over(
    is_canary: bool,
    outcomes: list[tuple[Outcome, bool | None]],
    has_content: bool,
    figures: tuple[int, int, int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    canary = Canary(CanaryRules())
    stay = await enter(endpoint(), canary=canary, is_canary=is_canary)
    ours, others = canary._canary, canary._others
    if has_content:
        stay.note_first_content(trio.current_time())
    for outcome, is_error in outcomes:
        stay.note(outcome, is_error=is_error)
    assert (ours.answers, others.answers) == (0, 0)
    stay.leave()
    side, other = (ours, others) if is_canary else (others, ours)
    assert (side.answers, side.errors, side.times) == figures
    assert other.answers == 0
