"""Stories of active health checks: who fails them is left out, also the last one, and comes back by itself."""

import json

import trio
import trio.testing

from tests.harness.origin import Visit
from tests.harness.plays import OK, Both, Plays, Step, Ways, ask, code, opened, route, status

CHECKED = 'health = "/health"\nhealth_interval_s = 1'
BAD = status(503)


class Checked(Plays):
    """An origin whose health checks have a script of their own: `healthy` says what they get."""

    def __init__(self, step: Step = OK) -> None:
        super().__init__(step)
        self.is_healthy = True
        self.checks: list[bytes] = []

    async def __call__(self, visit: Visit) -> None:
        while True:
            request = await visit.read_request()
            if b"GET /health" in request or b'"max_tokens": 1' in request:
                self.checks.append(request)
                await visit.send(OK if self.is_healthy else BAD)
            else:
                self.got.append(request)
                await visit.send(OK)


async def test_one_that_fails_its_checks_gets_no_request_and_comes_back(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    a = Checked()
    async with opened(ways(a=CHECKED, b=""), a, OK) as house:
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "a"
        a.is_healthy = False
        await trio.sleep(3)
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "b"
        a.is_healthy = True
        await trio.sleep(2)
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "a"
        told = [line for line in house.log.lines if str(line["event"]).startswith("upstream ")]
    assert [line["event"] for line in told] == ["upstream unhealthy", "upstream healthy again"]
    assert "503" in told[0]["reason"]


async def test_the_only_one_is_left_out_too(ways: Ways, clock: trio.testing.MockClock) -> None:
    """Other than what is counted from clients' requests, a check is asked for: it is believed."""
    a = Checked()
    async with opened(ways(a=CHECKED), a) as house:
        a.is_healthy = False
        await trio.sleep(3)
        answer = await ask(house)
        assert (answer.status, code(answer), answer.headers["retry-after"]) == (503, "no_healthy_upstream", "1")
        assert not a.got
        a.is_healthy = True
        await trio.sleep(2)
        assert (await ask(house)).status == 200


async def test_another_model_may_help(ways: Ways, clock: trio.testing.MockClock) -> None:
    routes = route('targets = [{ upstream = "a" }]', 'fallback = { outage = ["other"] }', models="m")
    routes += route('targets = [{ upstream = "b" }]', models="other")
    a = Checked()
    async with opened(ways(routes, a=CHECKED, b=""), a, OK) as house:
        a.is_healthy = False
        await trio.sleep(3)
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "b"


async def test_one_that_is_not_checked_is_healthy(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(status(500))
    async with opened(ways(a=""), plays) as house:
        for _ in range(20):
            assert (await ask(house)).status == 500
    assert len(plays.got) == 20


async def test_a_chat_shows_that_it_works(ways: Ways, clock: trio.testing.MockClock) -> None:
    a = Checked()
    async with opened(ways(a='health = "chat"\nhealth_model = "small"\nhealth_interval_s = 1'), a) as house:
        await trio.sleep(0.5)
        assert (await ask(house)).status == 200
    head, _, body = a.checks[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions ")
    assert json.loads(body)["model"] == "small"


async def test_readiness_says_so(ways: Ways, clock: trio.testing.MockClock) -> None:
    a = Checked()
    async with opened(ways(a=CHECKED), a) as house:
        assert (await ask(house, path="/readyz", method="GET")).status == 200
        a.is_healthy = False
        await trio.sleep(3)
        answer = await ask(house, path="/readyz", method="GET")
    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "no_healthy_upstream")


async def test_the_rest_shares_the_requests(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Checked(), OK)
    assert isinstance(both.a, Checked)
    async with opened(ways(route('strategy = "weighted"'), a=CHECKED, b=""), both.a, both.b) as house:
        both.a.is_healthy = False
        await trio.sleep(3)
        for _ in range(20):
            assert (await ask(house)).status == 200
    assert (len(both.a.got), len(both.b.got)) == (0, 20)
