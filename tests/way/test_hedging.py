"""Stories of a second try beside one that is slow: first content wins, the loser is gone before the winner is shown."""

import pytest
import trio
import trio.testing

from tests.harness.house import CHAT
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content
from tests.harness.plays import OK, STREAM, WORD, Both, Plays, Ways, ask, ask_stream, opened, route, status
from tests.way.test_clocks import ROLE

HEDGED = route("hedge = { after_s = 1, budget = 1 }")
OTHER = OK_STREAM + chunk(content("other")) + chunk(DONE) + LAST_CHUNK


def after(seconds: float, *pieces: bytes) -> Script:
    """An origin that is silent for so long before each piece."""

    async def script(visit: Visit) -> None:
        for piece in pieces:
            await trio.sleep(seconds)
            await visit.send(piece)

    return script


async def test_one_that_is_quick_enough_runs_alone(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(after(0.9, STREAM), OTHER)
    async with opened(ways(HEDGED), both.a, both.b) as house:
        answer = await ask_stream(house)
    assert (answer.body, len(both.b.got)) == (WORD + DONE, 0)
    assert "hedged" not in house.log.exchanges[0]


async def test_a_second_one_answers_where_the_first_is_slow(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(HEDGED), after(8, STREAM), OTHER) as house:
        answer = await ask_stream(house)
        assert trio.current_time() < 1.1
    assert (answer.status, answer.is_complete, answer.body) == (200, True, content("other") + DONE)
    assert (answer.headers["x-trioproxy-upstream"], answer.headers["x-trioproxy-attempts"]) == ("b", "2")
    (line,) = house.log.exchanges
    assert line["tries"] == ["a hedge_lost", "b 200"]
    assert (line["hedged"], line["upstream"], line["outcome"]) == (True, "b", "finished")


async def test_a_first_one_that_has_only_a_head_is_slow(ways: Ways, clock: trio.testing.MockClock) -> None:
    """A role is no content."""
    async with opened(ways(HEDGED), OK_STREAM + chunk(ROLE), OTHER) as house:
        answer = await ask_stream(house)
    assert answer.body == content("other") + DONE
    assert house.log.exchanges[0]["tries"] == ["a hedge_lost", "b 200"]


async def test_the_first_one_wins_if_its_content_comes_first(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(HEDGED), after(1.5, STREAM), after(9, OTHER)) as house:
        answer = await ask_stream(house)
    assert (answer.body, answer.headers["x-trioproxy-upstream"]) == (WORD + DONE, "a")
    assert house.log.exchanges[0]["tries"] == ["a 200", "b hedge_lost"]


async def test_the_loser_is_gone_before_the_winner_is_shown(ways: Ways, clock: trio.testing.MockClock) -> None:
    """Its origin sees the connection end no later than the client sees the first byte."""
    both = Both(Plays(OK_STREAM + chunk(ROLE)), OTHER)
    async with opened(ways(HEDGED), both.a, both.b) as house:
        client = house.connect()
        await client.post(CHAT)
        await client.read_some()
        lost = next(visit for visit in house.origin.visits if visit.host == "a")
        await trio.testing.wait_all_tasks_blocked()
        assert lost.closed == trio.current_time()
        client.leave()


@pytest.mark.parametrize("failure", [status(500), status(400), status(429, fields="retry-after: 9\r\n")])
async def test_an_error_that_comes_first_does_not_win(
    failure: bytes, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(HEDGED), after(5, STREAM), failure) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (200, WORD + DONE)
    assert house.log.exchanges[0]["tries"][0] == "a 200"


async def test_an_error_of_the_first_leaves_the_second_running(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(HEDGED), after(2, status(500)), after(4, OTHER)) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (200, content("other") + DONE)
    assert house.log.exchanges[0]["tries"] == ["a 500", "b 200"]


async def test_a_stream_that_breaks_in_front_of_its_content_loses(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(ROLE))
        await trio.sleep(2)
        visit.cut()

    async with opened(ways(HEDGED), breaks, after(4, OTHER)) as house:
        answer = await ask_stream(house)
    assert answer.body == content("other") + DONE
    assert house.log.exchanges[0]["tries"] == ["a upstream_truncated", "b 200"]


async def test_an_error_as_the_first_event_loses(ways: Ways, clock: trio.testing.MockClock) -> None:
    error = OK_STREAM + chunk(b'data: {"error":{"message":"no","code":429}}\n\n')
    async with opened(ways(HEDGED), after(2, error), after(4, OTHER)) as house:
        answer = await ask_stream(house)
    assert answer.body == content("other") + DONE


async def test_where_both_fail_an_answer_is_told(ways: Ways, clock: trio.testing.MockClock) -> None:
    hedged = route("hedge = { after_s = 1, budget = 1 }", "retry = { tries = 2 }")
    async with opened(ways(hedged), after(3, status(503, b"its words")), after(1, status(400, b"no"))) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (503, b"its words")


async def test_both_tries_count_among_those_that_are_allowed(ways: Ways, clock: trio.testing.MockClock) -> None:
    hedged = route("hedge = { after_s = 1, budget = 1 }", "retry = { tries = 3 }")
    both = Both(after(2, status(503)), after(1, status(503)))
    async with opened(ways(hedged), both.a, both.b) as house:
        assert (await ask_stream(house)).status == 503
    assert len(both.a.got) + len(both.b.got) == 3


async def test_with_one_try_nothing_is_hedged(ways: Ways, clock: trio.testing.MockClock) -> None:
    hedged = route("hedge = { after_s = 1, budget = 1 }", "retry = { tries = 1 }")
    both = Both(after(3, STREAM), OTHER)
    async with opened(ways(hedged), both.a, both.b) as house:
        assert (await ask_stream(house)).body == WORD + DONE
    assert not both.b.got


async def test_the_budget_bounds_how_many_are_hedged(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(after(2, STREAM), OTHER)
    async with opened(ways(route("hedge = { after_s = 1, budget = 0.25 }")), both.a, both.b) as house:
        bodies = [(await ask_stream(house)).body for _ in range(12)]
    assert bodies.count(content("other") + DONE) == 3
    assert (len(both.a.got), len(both.b.got)) == (12, 3)


async def test_late_is_what_the_route_s_own_requests_say(ways: Ways, clock: trio.testing.MockClock) -> None:
    """With p95 nothing is hedged until it is known how long first content takes."""
    both = Both(Plays(*[after(0.2, STREAM)] * 30, after(8, STREAM)), OTHER)
    async with opened(ways(route('hedge = { after = "p95", budget = 1 }')), both.a, both.b) as house:
        for _ in range(30):
            await ask_stream(house)
        assert not both.b.got
        began = trio.current_time()
        answer = await ask_stream(house)
        assert trio.current_time() - began == pytest.approx(0.2, abs=0.05)
    assert answer.body == content("other") + DONE


async def test_what_is_no_stream_is_not_hedged(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(after(3, OK), OK)
    async with opened(ways(HEDGED), both.a, both.b) as house:
        answer = await ask(house, b'{"model":"m"}', "/v1/chat/completions")
    assert (answer.status, len(both.b.got)) == (200, 0)


async def test_without_another_target_nothing_is_hedged(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(after(3, STREAM))
    async with opened(ways(HEDGED, a=""), plays) as house:
        assert (await ask_stream(house)).body == WORD + DONE
    assert len(plays.got) == 1


async def test_no_content_in_time_is_a_fault_of_both(ways: Ways, clock: trio.testing.MockClock) -> None:
    hedged = route("hedge = { after_s = 1, budget = 1 }", "retry = { tries = 2 }")
    mute = OK_STREAM + chunk(ROLE)
    async with opened(ways(hedged), mute, mute, deadlines__first_content_s=5, stream__commit_after_s=60) as house:
        answer = await ask_stream(house)
        assert trio.current_time() == pytest.approx(6, abs=0.1)
    assert (answer.status, house.log.exchanges[0]["code"]) == (504, "upstream_first_content_timeout")


async def test_the_client_gets_its_head_and_heartbeats_while_both_think(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    slow = after(30, OK_STREAM + chunk(ROLE), chunk(WORD) + chunk(DONE) + LAST_CHUNK)
    flags = {"stream__commit_after_s": 5, "stream__heartbeat_s": 7}
    async with opened(ways(HEDGED), OK_STREAM + chunk(ROLE), slow, **flags) as house:
        answer = await ask_stream(house)
    # The head 5 s behind that of the first try, then a comment every 7 s, until content comes at 61 s.
    assert answer.times[:3] == pytest.approx([5, 12, 19], abs=0.1)
    assert answer.body.replace(b": keep-alive\n\n", b"") == ROLE + WORD + DONE
    assert answer.is_complete


async def test_a_client_that_leaves_ends_both(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(HEDGED), OK_STREAM + chunk(ROLE), OK_STREAM + chunk(ROLE)) as house:
        client = house.connect()
        await client.post(CHAT)
        await trio.sleep(3)
        client.leave()
        await trio.sleep(0.1)
        assert house.origin.still_open == 0
        (line,) = house.log.exchanges
        assert (line["outcome"], sorted(line["tries"])) == ("cancelled", ["a cancelled", "b cancelled"])


async def test_one_that_breaks_before_its_content_is_tried_elsewhere_as_without_a_hedge(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(ROLE))
        await trio.sleep(0.5)
        visit.cut()

    for routes in (HEDGED, ""):
        async with opened(ways(routes), breaks, OTHER) as house:
            answer = await ask_stream(house)
        assert (answer.status, answer.body) == (200, content("other") + DONE)


async def test_streams_made_of_whole_answers_are_hedged_too(ways: Ways, clock: trio.testing.MockClock) -> None:
    message = b'{"role":"assistant","content":"word"}'
    whole = b'{"object":"chat.completion","choices":[{"index":0,"message":%b,"finish_reason":"stop"}]}' % message
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole)
    for slow_s, hedged in ((0.5, None), (5, True)):
        file = ways(HEDGED, a="streams = false", b="streams = false")
        async with opened(file, after(slow_s, head + whole), head + whole) as house:
            answer = await ask_stream(house)
        assert (answer.status, b'"word"' in answer.body, answer.body.endswith(DONE)) == (200, True, True)
        assert house.log.exchanges[0].get("hedged") is hedged


async def test_of_a_compressed_stream_the_head_wins(ways: Ways, clock: trio.testing.MockClock) -> None:
    packed = OK_STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + chunk(b"zzz") + LAST_CHUNK
    async with opened(ways(HEDGED), after(1.5, packed), after(9, OTHER)) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body, answer.is_complete) == (200, b"zzz", True)
    assert house.log.exchanges[0]["tries"] == ["a 200", "b hedge_lost"]
