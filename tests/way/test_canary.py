"""Stories of a canary: an upstream that gets a growing share of a route's requests, as long as it is no worse."""

from random import Random

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import OK_STREAM, Visit, chunk
from tests.harness.plays import OK, PLAIN, STREAM, WORD, Both, Plays, Step, Ways, ask, ask_stream, opened, route, status
from tests.way.test_hedging import after

A = '[[route]]\nmodels = ["*"]\ntargets = [{ upstream = "a" }]\n'


def canary(*more: str, share: float = 0.25, max_share: float = 0.5) -> str:
    keys = ", ".join(['upstream = "b"', f"share = {share}", f"max_share = {max_share}", "min_requests = 10", *more])
    return A + f"canary = {{ {keys} }}\n"


def draws(house: HouseUnderTest) -> None:
    house.house.service.dispatcher.draw = Random(7).random


def steps(house: HouseUnderTest) -> list[tuple[float, float]]:
    return [(line["old"], line["new"]) for line in house.log.lines if line["event"] == "canary step"]


async def played(house: HouseUnderTest, requests: int) -> int:
    """How many of some requests, one a second, the canary answered."""
    draws(house)
    answers = []
    for _ in range(requests):
        answers.append(await ask(house))
        await trio.sleep(1)
    assert {answer.status for answer in answers} == {200}
    return sum(answer.headers["x-trioproxy-upstream"] == "b" for answer in answers)


async def test_it_gets_its_share_and_no_more(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(canary(max_share=0.25)), OK, OK) as house:
        assert 220 <= await played(house, 1000) <= 280


async def test_one_that_is_as_good_rises_to_its_bound(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(canary(share=0.1, max_share=0.5)), OK, OK) as house:
        await played(house, 1000)
        assert steps(house) == [(0.1, 0.2), (0.2, 0.4), (0.4, 0.5)]
        assert all(line["reason"] for line in house.log.lines if line["event"] == "canary step")


async def test_one_that_fails_gets_nothing_any_more_and_no_client_feels_it(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    both = Both(OK, status(500))
    async with opened(ways(canary()), both.a, both.b) as house:
        assert await played(house, 200) == 0
        assert steps(house) == [(0.25, 0.0)]
    assert len(both.b.got) <= 20


async def test_one_that_is_slow_goes_down(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(canary("step_s = 100")), after(0.1, STREAM), after(1, STREAM)) as house:
        draws(house)
        for _ in range(600):
            assert (await ask_stream(house)).status == 200
        assert steps(house)[0] == (0.25, 0.0)


async def test_a_canary_that_dies_behind_content_is_found_out(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(WORD))
        await trio.sleep(0.1)
        visit.cut()

    both = Both(STREAM, dies)
    async with opened(ways(canary()), both.a, both.b) as house:
        draws(house)
        for _ in range(200):
            await ask_stream(house)
            await trio.sleep(1)
        assert steps(house) == [(0.25, 0.0)]
    assert len(both.b.got) <= 20


async def test_who_sticks_stays_with_the_canary_or_without_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    file = ways(canary(max_share=0.25) + 'sticky = "header:x-session"\n')
    async with opened(file, OK, OK) as house:
        draws(house)
        seen = {}
        for session in range(40):
            names = {
                (await ask(house, headers=f"x-session: {session}\r\n")).headers["x-trioproxy-upstream"]
                for _ in range(3)
            }
            assert len(names) == 1
            seen[session] = names.pop()
    assert 3 <= list(seen.values()).count("b") <= 18


async def test_it_is_asked_for_its_own_model(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(OK, OK)
    async with opened(ways(canary('model = "next"', share=1.0, max_share=1.0)), both.a, both.b) as house:
        await ask(house)
    assert b'{"model":"next"}' in both.b.got[0]


@pytest.mark.parametrize("step", [status(401), status(404)])
async def test_an_error_of_a_canary_that_is_not_listed_passes_and_counts(
    step: Step, ways: Ways, clock: trio.testing.MockClock
) -> None:
    both = Both(Plays(OK), Plays(step))
    async with opened(ways(canary()), both.a, both.b) as house:
        draws(house)
        for _ in range(100):
            await ask(house)
            await trio.sleep(1)
        assert steps(house) == [(0.25, 0.0)]


@pytest.mark.parametrize(("path", "asked"), [("/v1/messages", "b"), ("/v1/chat/completions", "cd")])
async def test_a_request_in_a_dialect_that_a_canary_or_a_shadow_does_not_speak_goes_to_neither(
    path: str, asked: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK)

    beside = ('canary = { upstream = "c", share = 1, max_share = 1 }', 'shadow = { upstream = "d", share = 1 }')
    file = ways(
        route('targets = [{ upstream = "a" }, { upstream = "b" }]', *beside),
        a="",
        b='dialect = "anthropic"',
        c="",
        d="",
    )
    async with open_house(script, file=file) as house:
        assert (await ask(house, PLAIN, path)).status == 200
        await trio.sleep(1)
        assert sorted(house.origin.asked) == [*asked]


async def test_one_that_loses_every_race_is_slow(ways: Ways, clock: trio.testing.MockClock) -> None:
    """The clients are answered by the others meanwhile; the canary gets less and less all the same."""
    hedged = canary("step_s = 100", share=0.5, max_share=0.5) + "hedge = { after_s = 1, budget = 1 }\n"
    async with opened(ways(hedged), after(0.1, STREAM), after(9, STREAM)) as house:
        draws(house)
        for _ in range(200):
            assert (await ask_stream(house)).status == 200
        assert steps(house)[0] == (0.5, 0.0)
