"""The load generator on the demo upstream, in virtual time: what it counts is what was there."""

import json

import pytest
import trio
import trio.testing

from tests.harness.demo import DEMO, open_demo
from trioproxy.bench.demo_upstream import State
from trioproxy.bench.figures import Figures
from trioproxy.bench.generator import Plan, generate

Clock = trio.testing.MockClock


async def generated(model: str, *, streams: bool = True, clients: int = 4, seconds: float = 10.0) -> Figures:
    """What was measured, once nothing of it is left."""
    figures = Figures()
    async with open_demo() as (connect, state):
        await generate(Plan(DEMO, model, "Hello", streams, clients, seconds), figures, connect)
        await trio.sleep(1)
        assert state.shown() | {"requests": 0, "aborted": 0} == State().shown()
        assert state.requests == figures.finished + figures.failed + figures.under_way
        assert state.aborted >= figures.under_way
    return figures


async def test_figures_are_those_of_the_origin(autojump_clock: Clock) -> None:
    figures = await generated("m-n11-i100-t200")
    assert figures.seconds == pytest.approx(10.0)
    # 1.2 s each, one after the other, by clients that began 0, 1/4, 1/2 and 3/4 s after the start
    assert (figures.finished, figures.failed, figures.under_way) == (8 + 8 + 7 + 7, 0, 4)
    assert figures.first_content.percentile(99) == pytest.approx(0.2, rel=0.01)
    assert figures.gap.percentile(50) == pytest.approx(0.1, rel=0.01)
    assert figures.gap.percentile(100) == pytest.approx(0.1, rel=0.01)
    assert figures.total.percentile(50) == pytest.approx(1.2, rel=0.01)
    assert figures.rate.percentile(50) == pytest.approx(0.1, rel=0.01)
    assert figures.tokens >= 11 * figures.finished
    assert figures.gap.count >= 10 * figures.finished


async def test_whole_answers_have_no_gaps_and_the_origin_s_tokens(autojump_clock: Clock) -> None:
    figures = await generated("m-n11-i100-t200", streams=False)
    assert (figures.finished, figures.under_way) == (30, 4)
    assert (figures.gap.count, figures.rate.count) == (0, 0)
    assert figures.tokens == 11 * 30
    assert figures.total.percentile(50) == figures.first_content.percentile(50) == pytest.approx(1.2, rel=0.01)


async def test_a_service_that_refuses_is_not_flooded(autojump_clock: Clock) -> None:
    figures = await generated("m-e503", clients=1)
    assert figures.errors == {"HTTP 503 overloaded": figures.failed}
    assert 90 <= figures.failed <= 101


async def test_a_stream_that_goes_silent_is_under_way_at_the_end(autojump_clock: Clock) -> None:
    figures = await generated("m-silent5-i10-t0")
    assert (figures.finished, figures.failed, figures.under_way) == (0, 0, 4)
    assert figures.tokens == 20


async def test_a_plan_goes_by_json_and_does_not_show_its_key() -> None:
    plan = Plan(DEMO, "m", "Hello", True, 3, 5.0, "sk-secret")
    assert Plan.loaded(json.loads(json.dumps(plan.dumped()))) == plan
    assert "sk-secret" not in repr(plan)
