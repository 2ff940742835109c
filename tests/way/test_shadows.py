"""Stories of shadows: copies of requests that are measured, and that no client ever feels."""

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Visit, chunk
from tests.harness.plays import (
    OK,
    PLAIN,
    STREAM,
    WORD,
    Both,
    Plays,
    Step,
    Ways,
    ask,
    ask_stream,
    cut,
    opened,
    route,
    status,
)
from tests.way.test_clocks import ROLE

A = '[[route]]\nmodels = ["*"]\ntargets = [{ upstream = "a" }]\n'
SHADOWED = A + 'shadow = { upstream = "b", share = 1 }\n'


def copies(house: HouseUnderTest) -> list[dict[str, object]]:
    return [line for line in house.log.lines if line["event"] == "shadow"]


async def test_a_copy_is_sent_and_measured(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def slowly(visit: Visit) -> None:
        await trio.sleep(1)
        await visit.send(OK_STREAM + chunk(ROLE))
        await trio.sleep(1)
        await visit.send(chunk(WORD) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    both = Both(STREAM, slowly)
    async with opened(ways(SHADOWED), both.a, both.b) as house:
        answer = await ask_stream(house, headers="x-request-id: mine\r\n")
        assert trio.current_time() < 0.1
        await trio.sleep(3)
        (copy,) = copies(house)
    assert (answer.status, answer.headers["x-trioproxy-attempts"]) == (200, "1")
    assert (copy["request_id"], copy["upstream"], copy["status"], copy["outcome"]) == ("mine", "b", 200, "finished")
    assert (copy["head_ms"], copy["first_content_ms"], copy["total_ms"]) == pytest.approx((1000, 2000, 2000), abs=1)
    assert copy["bytes_out"] == len(ROLE + WORD + b"data: [DONE]\n\n")
    assert both.a.got[0].partition(b"\r\n\r\n")[2] == both.b.got[0].partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("step", [status(500), cut, OK_STREAM + chunk(ROLE) + LAST_CHUNK, b""])
async def test_whatever_becomes_of_it_no_client_feels_it(step: Step, ways: Ways, clock: trio.testing.MockClock) -> None:
    file = ways(route('targets = [{ upstream = "b" }]', models="b") + SHADOWED + "deadlines = { total_s = 5 }\n")
    both = Both(STREAM, Plays(*[step] * 8, STREAM))
    async with opened(file, both.a, both.b) as house:
        answers = [await ask_stream(house) for _ in range(8)]
        await trio.sleep(6)
        # It does not count against the upstream's breaker either.
        assert (await ask(house, b'{"model":"b","stream":true}', "/v1/chat/completions")).status == 200
        assert {answer.body for answer in answers} == {WORD + b"data: [DONE]\n\n"}
        assert len(copies(house)) == 8


async def test_a_share_is_copied(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(OK, OK)
    async with opened(ways(A + 'shadow = { upstream = "b", share = 0.25 }\n'), both.a, both.b) as house:
        numbers = iter([i / 100 for i in range(100)])
        house.house.service.dispatcher.draw = lambda: next(numbers)
        for _ in range(100):
            await ask(house)
    assert (len(both.a.got), len(both.b.got)) == (100, 25)


async def test_only_so_many_are_under_way_at_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(OK, b"")
    file = ways(SHADOWED.replace("share = 1", "share = 1, max_concurrent = 2") + "deadlines = { total_s = 5 }\n")
    async with opened(file, both.a, both.b) as house:
        for _ in range(6):
            assert (await ask(house)).status == 200
        assert house.house.shadows.left_out == 4
        await trio.sleep(6)
        assert [copy["code"] for copy in copies(house)] == ["upstream_total_timeout"] * 2
        await ask(house)
        assert len(both.b.got) == 3


async def test_only_so_many_bytes_are_held(
    ways: Ways, clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trioproxy.upstream.shadow.MAX_HELD_BYTES", 2 * len(PLAIN))
    both = Both(OK, b"")
    async with opened(ways(SHADOWED + "deadlines = { total_s = 5 }\n"), both.a, both.b) as house:
        for _ in range(5):
            await ask(house)
        assert house.house.shadows.left_out == 3


async def test_a_copy_goes_on_when_the_client_has_left(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def later(visit: Visit) -> None:
        await trio.sleep(2)
        await visit.send(OK)

    async with opened(ways(SHADOWED), b"", later) as house:
        client = house.connect()
        await client.post(PLAIN, "/v1/embeddings")
        await trio.sleep(1)
        client.leave()
        await trio.sleep(2)
        assert [copy["outcome"] for copy in copies(house)] == ["finished"]


async def test_a_drain_ends_the_copies(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(SHADOWED), STREAM, OK_STREAM + chunk(WORD)) as house:
        assert (await ask_stream(house)).status == 200
        await trio.sleep(1)
        house.house.shadows.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert [(copy["outcome"], copy["reason"]) for copy in copies(house)] == [("cancelled", "drain")]
        assert (await ask_stream(house)).status == 200
        assert len(copies(house)) == 1


async def test_an_origin_that_stays_behind_its_terminal_does_not_keep_a_copy(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(SHADOWED), STREAM, OK_STREAM + chunk(WORD) + chunk(b"data: [DONE]\n\n")) as house:
        await ask_stream(house)
        await trio.sleep(0.1)
        assert [copy["outcome"] for copy in copies(house)] == ["finished"]


async def test_copies_are_counted(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(SHADOWED), OK, status(500)) as house:
        await ask(house)
        await trio.sleep(1)
        families = {name: samples for name, _, _, samples in house.house.answer("metrics")}
        assert families["trioproxy_shadow"] == [
            ("trioproxy_shadow_total", {"upstream": "b", "outcome": "finished"}, 1.0)
        ]
