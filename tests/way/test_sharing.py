"""Stories of streams that several clients read, join late and come back to."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Plays, Ways, code, opened, route, status
from tests.way.test_continuing import CONTINUED, GOES_ON, dies, text
from trioproxy.errors import CancelReason

CHAT = b'{"model":"m","messages":[],"stream":true}'
PATH = "/v1/chat/completions"
ME = "authorization: Bearer me\r\n"
SHARED = ME + "x-trioproxy-share: auto\r\n"
RESUMED = ME + "x-trioproxy-resume: 60\r\n"
EVENTS = [content(f"word{number}") for number in range(6)]
WHOLE = b"".join(EVENTS) + DONE


async def slowly(visit: Visit) -> None:
    """An event a second."""
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await visit.send(chunk(event))
        await trio.sleep(1)
    await visit.send(chunk(DONE) + LAST_CHUNK)


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def ask(
    house: HouseUnderTest, headers: str = SHARED, body: bytes = CHAT, *, wait_s: float = 0, leave_s: float | None = None
) -> Answer:
    await trio.sleep(wait_s)
    client = house.connect()
    await client.post(body, PATH, headers)
    answer = Answer()
    if leave_s is not None:
        await trio.sleep(leave_s)
    else:
        answer = await client.answer()
    client.leave()
    return answer


async def get(house: HouseUnderTest, stream: str, headers: str = ME, method: str = "GET") -> Answer:
    client = house.connect()
    await client.send(f"{method} /v1/streams/{stream} HTTP/1.1\r\nhost: proxy\r\n{headers}\r\n".encode())
    answer = await client.answer(method)
    client.leave()
    return answer


async def together(*tasks: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(tasks)

    async def run(index: int, task: Callable[[], Awaitable[Answer]]) -> None:
        answers[index] = await task()

    async with trio.open_nursery() as nursery:
        for index, task in enumerate(tasks):
            nursery.start_soon(run, index, task)
    return [answer for answer in answers if answer is not None]


async def test_who_asks_for_the_same_reads_one_stream(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        answers = await together(
            lambda: ask(house),
            lambda: ask(house, wait_s=2.5),
            lambda: ask(house, wait_s=5.5, body=b'{"stream": true, "messages":[], "model":"m"}'),
        )
        assert [answer.body for answer in answers] == [WHOLE] * 3
        assert all(answer.is_complete for answer in answers)
        assert len({answer.headers["x-trioproxy-stream"] for answer in answers}) == 1
        assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert len(plays.got) == 1
    (line,) = [line for line in house.log.lines if line["event"] == "stream"]
    assert (line["readers"], line["outcome"], line["events"]) == (3, "finished", 7)
    assert [line["outcome"] for line in house.log.exchanges] == ["finished"] * 3


async def test_others_do_not_share(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    other = "authorization: Bearer other\r\nx-trioproxy-share: auto\r\n"
    async with open_house(plays) as house:
        answers = await together(
            lambda: ask(house),
            lambda: ask(house, other),
            lambda: ask(house, "x-trioproxy-share: auto\r\n"),
            lambda: ask(house, body=b'{"model":"m","messages":[1],"stream":true}'),
            lambda: ask(house, ME + "x-trioproxy-share: key\r\n"),
            lambda: ask(house, ME),
        )
    assert [answer.body for answer in answers] == [WHOLE] * 6
    assert len(plays.got) == 6


async def test_the_last_reader_gone_the_origin_is_cancelled(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        await together(lambda: ask(house, leave_s=1.5), lambda: ask(house, leave_s=2.5))
        assert trio.current_time() == 2.5
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.01)
        (line,) = [line for line in house.log.lines if line["event"] == "stream"]
        assert (line["outcome"], line["reason"]) == ("cancelled", "abandoned")
        await trio.sleep(1)
        assert house.origin.visits[0].closed is not None


async def test_a_stream_is_resumed_behind_what_the_client_has(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        client = house.connect()
        await client.post(CHAT, PATH, RESUMED)
        head = await client.read_some()
        stream = head.partition(b"x-trioproxy-stream: ")[2].partition(b"\r\n")[0].decode()
        await trio.sleep(2.5)
        client.leave()
        await trio.sleep(1)
        answer = await get(house, stream + "?after=2")
        assert (answer.status, answer.is_complete, answer.body) == (200, True, b"".join(EVENTS[2:]) + DONE)
        await trio.sleep(30)
        again = await get(house, stream, ME + f"last-event-id: {stream}.5\r\n")
        assert again.body == b"id: %b.6\n" % stream.encode() + EVENTS[5] + b"id: %b.7\n" % stream.encode() + DONE
        assert (await get(house, stream + "?after=7")).status == 204
        strange = await get(house, stream + "?after=1", "authorization: Bearer other\r\n")
        assert (strange.status, code(strange)) == (404, "stream_not_found")
        await trio.sleep(60)
        assert (await get(house, stream)).status == 404
    assert len(plays.got) == 1


async def test_stopping_is_for_everyone(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        stopped: list[Answer] = []

        async def stop() -> Answer:
            await trio.sleep(2.5)
            stream = next(iter(house.house.hub.streams)).id
            return await get(house, stream, method="DELETE")

        answers = await together(lambda: ask(house), lambda: ask(house), stop)
        assert answers[2].status == 204
        for answer in answers[:2]:
            assert (answer.is_complete, b"stream_stopped" in answer.body) == (False, True)
            assert answer.body.startswith(b"".join(EVENTS[:3]))
        assert not stopped
        await trio.sleep(1)
        assert house.origin.visits[0].closed is not None


async def test_an_error_of_the_origin_is_everybodys(clock: trio.testing.MockClock) -> None:
    async def fails(visit: Visit) -> None:
        await trio.sleep(1)
        await visit.send(b"HTTP/1.1 429 No\r\ncontent-length: 9\r\nretry-after: 7\r\n\r\nslow down")

    plays = Plays(fails)
    async with open_house(plays) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=0.5))
        assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(429, "7")] * 2
        await ask(house)
    assert len(plays.got) == 2


async def test_a_cut_is_everybodys(clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(2)
        visit.cut()

    async with open_house(dies) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=1))
        for answer in answers:
            assert (answer.is_complete, b"upstream_truncated" in answer.body) == (False, True)
        assert {line["code"] for line in house.log.exchanges} == {"upstream_truncated"}


def keyed(key: str, caller: str = "me") -> str:
    return f"authorization: Bearer {caller}\r\nx-trioproxy-share: {key}\r\n"


@pytest.mark.parametrize(
    ("bound", "caller"),
    [
        ({"hub__max_streams": 1}, "other"),
        ({"hub__max_per_caller": 1}, "me"),
    ],
)
async def test_a_full_hub_refuses_what_it_would_keep_and_nothing_else(
    bound: dict[str, Any], caller: str, clock: trio.testing.MockClock
) -> None:
    plays = Plays(slowly)
    async with open_house(plays, hub__retain_s=5, **bound) as house:

        async def find_it_full() -> Answer:
            for headers in (keyed("b", caller), f"authorization: Bearer {caller}\r\nx-trioproxy-resume: 5\r\n"):
                refused = await ask(house, headers, wait_s=2)
                assert (refused.status, code(refused), refused.headers["retry-after"]) == (503, "hub_full", "1")
            await ask(house, keyed("a"))  # to join takes no room
            return await ask(house, ME)

        answers = await together(lambda: ask(house, keyed("a")), find_it_full)
        assert [answer.body for answer in answers] == [WHOLE] * 2
        await trio.sleep(5)
        assert (await ask(house, keyed("b", caller))).body == WHOLE
    assert len(plays.got) == 3


async def test_all_streams_together_hold_no_more_than_they_may(clock: trio.testing.MockClock) -> None:
    """Who keeps up gets every event all the same; who comes for an early one is told that it is gone."""
    async with open_house(Plays(slowly), hub__max_total_bytes=200) as house:
        held: list[int] = []

        async def look() -> Answer:
            for _ in range(5):
                await trio.sleep(1)
                held.append(house.house.hub.held_bytes)
            (stream,) = [stream for stream in house.house.hub.streams if stream.share_key]
            return await get(house, f"{stream.id}?after=1")

        answers = await together(lambda: ask(house, keyed("a")), look)
        assert answers[0].body == WHOLE
        assert (answers[1].status, code(answers[1])) == (410, "position_gone")
        assert 100 < max(held) <= 200
        await trio.sleep(70)
        assert house.house.hub.held_bytes == 0


async def test_one_caller_s_streams_leave_room_for_others(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly), hub__max_per_caller=1) as house:
        answers = await together(*[lambda caller=caller: ask(house, keyed("k", caller)) for caller in "abc"])
        assert [answer.body for answer in answers] == [WHOLE] * 3


async def test_who_comes_when_the_start_has_left_gets_a_stream_of_its_own(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, hub__max_events=3) as house:
        answers = await together(
            lambda: ask(house), lambda: ask(house, wait_s=2.5), *[lambda: ask(house, wait_s=3.5)] * 2
        )
        assert [answer.body for answer in answers] == [WHOLE] * 4
        assert [line["readers"] for line in house.log.lines if line["event"] == "stream"] == [2, 2]
    assert plays.times == [0, 3.5]


async def test_the_same_body_at_another_route_asks_for_another_stream(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, stream__end="lenient") as house:

        async def ask_at(path: str, headers: str) -> Answer:
            client = house.connect()
            await client.post(CHAT, path, headers)
            answer = await client.answer()
            client.leave()
            return answer

        for headers in (SHARED, keyed("k")):
            paths = [PATH, "/v1/completions", "/v1/messages", "/v1/responses"]
            await together(*[lambda path=path, headers=headers: ask_at(path, headers) for path in paths])
    assert len({request.split(b" ")[1] for request in plays.got}) == 4
    assert len(plays.got) == 8


async def test_an_ended_stream_is_not_joined(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        for _ in range(2):
            assert (await ask(house)).body == WHOLE
    assert len(plays.got) == 2


async def test_a_stopped_stream_is_not_joined(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:

        async def stop_and_ask() -> Answer:
            await trio.sleep(1.5)
            (stream,) = house.house.hub.streams
            await house.house.service.studio.stop(stream)
            assert not stream.can_be_joined and stream.is_live
            return await ask(house)

        answers = await together(lambda: ask(house), stop_and_ask)
        assert [answer.is_complete for answer in answers] == [False, True]
    assert len(plays.got) == 2


async def test_a_route_lets_all_share_and_the_origin_linger(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with opened(ways(route("share = true", "linger_s = 3"), a=""), plays) as house:
        await ask(house, ME, leave_s=1.5)
        answer = await ask(house, ME, wait_s=2)
        assert (answer.body, len(plays.got)) == (WHOLE, 1)
        await ask(house, "", leave_s=0.5)  # nobody in particular shares with nobody
        await ask(house, ME, leave_s=1.5)
        gone = trio.current_time()
        await trio.sleep(5)
        closed = house.origin.visits[-1].closed
        assert closed is not None and gone + 3 <= closed <= gone + 4  # an origin sees it when it sends the next event
    assert len(plays.got) == 3


async def test_what_is_not_streamed_is_not_shared(clock: trio.testing.MockClock) -> None:
    plays = Plays(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    async with open_house(plays) as house:
        for body in (b'{"model":"m"}', b'{"model":"m","stream":false}'):
            answer = await ask(house, SHARED + "x-trioproxy-resume: 9\r\n", body)
            assert (answer.body, "x-trioproxy-stream" in answer.headers) == (b"{}", False)
        assert not house.house.hub.streams
    assert len(plays.got) == 2


@pytest.mark.parametrize("field", ["share: ", "share: a b", "resume: soon", "resume: -1", "slow: down"])
async def test_a_wish_that_cannot_be_read_is_refused(field: str, clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        answer = await ask(house, f"{ME}x-trioproxy-{field}\r\n")
        assert answer.status == 400
    assert not plays.got


async def test_a_drain_is_told_to_all_readers_once(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:

        async def drain() -> Answer:
            await trio.sleep(2.5)
            house.house.service.stop_all(CancelReason.DRAIN)
            return Answer()

        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=1), drain)
        for answer in answers[:2]:
            assert (answer.is_complete, answer.body.count(b'"draining"')) == (False, 1)
            assert answer.body.startswith(b"".join(EVENTS[:3]) + b"data: ")
        await trio.sleep(0.1)
        assert {line["code"] for line in house.log.lines} == {"draining"}


async def test_each_reader_has_heartbeats_of_its_own_and_no_comment_of_the_origin(
    clock: trio.testing.MockClock,
) -> None:
    async def comments(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(b": hello\n\n" + EVENTS[0]))
        for _ in range(6):
            await trio.sleep(1)
            await visit.send(chunk(b": ping\n\n"))
        await visit.send(chunk(DONE) + LAST_CHUNK)

    async with open_house(Plays(comments), stream__heartbeat_s=2.4) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=3))
        beat = b": keep-alive\n\n"
        assert [answer.body for answer in answers] == [EVENTS[0] + beat * 2 + DONE, EVENTS[0] + beat + DONE]
        assert [round(time, 1) for time in answers[1].times] == [3, 5.4, 6]
        assert sorted(line["heartbeats"] for line in house.log.exchanges) == [1, 2]


async def test_a_head_does_not_wait_for_an_event(clock: trio.testing.MockClock) -> None:
    async def is_silent_for_long(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        await trio.sleep(20)
        await visit.send(chunk(WHOLE) + LAST_CHUNK)

    async with open_house(Plays(is_silent_for_long), stream__commit_after_s=3, stream__heartbeat_s=100) as house:

        async def look_at_the_head(wait_s: float, expected: float) -> Answer:
            await trio.sleep(wait_s)
            client = house.connect()
            await client.post(CHAT, PATH, SHARED)
            assert (await client.read_some()).startswith(b"HTTP/1.1 200 ")
            assert trio.current_time() == expected
            assert (await client.read_raw()).endswith(b"0\r\n\r\n")
            client.leave()
            return Answer()

        await together(lambda: ask(house), lambda: look_at_the_head(0, 3), lambda: look_at_the_head(9, 9))


async def test_a_head_before_the_origin_s_is_for_all_readers(clock: trio.testing.MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await trio.sleep(5)
        await slowly(visit)

    early: dict[str, Any] = {"stream__commit_before_head_s": 1, "stream__heartbeat_s": 2}
    async with open_house(Plays(thinks), **early) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=3.5))
        beat = b": keep-alive\n\n"
        assert [answer.body.replace(beat, b"") for answer in answers] == [WHOLE] * 2
        assert [answer.body.count(beat) for answer in answers] == [2, 0]


async def test_a_try_that_fails_is_nobody_s_business(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), Plays(status(503)), slowly_behind(b"")) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=2))
        assert [answer.body for answer in answers] == [WHOLE] * 2
        assert {(answer.headers["x-trioproxy-upstream"], answer.headers["x-trioproxy-attempts"]) for answer in answers}
        (line,) = [line for line in house.log.lines if line["event"] == "stream"]
        assert line["tries"] == ["a 503", "b 200"]


def slowly_behind(beginning: bytes) -> Plays:
    async def script(visit: Visit) -> None:
        if beginning:
            await visit.send(beginning)
        await slowly(visit)

    return Plays(script)


async def test_a_shared_stream_is_hedged_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def is_silent(visit: Visit) -> None:
        await visit.wait_left()

    hedged = ways(route("hedge = { after_s = 1, budget = 1 }"))
    b = slowly_behind(b"")
    async with opened(hedged, Plays(is_silent), b) as house:
        answers = await together(lambda: ask(house), lambda: ask(house, wait_s=0.5), lambda: ask(house, wait_s=3))
        assert [answer.body for answer in answers] == [WHOLE] * 3
        (line,) = [line for line in house.log.lines if line["event"] == "stream"]
        assert line["tries"] == ["a hedge_lost", "b 200"]
    assert len(b.got) == 1


async def test_a_cut_that_another_origin_goes_on_behind_is_seen_by_no_reader(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    talk = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Weather?"}]}'
    async with opened(ways(CONTINUED), dies(content("Rain")), GOES_ON) as house:
        answers = await together(*[lambda: ask(house, body=talk)] * 2)
        assert [(answer.is_complete, text(answer)) for answer in answers] == [(True, "Rain on tin.")] * 2
        (line,) = [line for line in house.log.lines if line["event"] == "stream"]
        assert line["continued"] == 1


async def test_an_error_that_broke_off_has_no_honest_end(clock: trio.testing.MockClock) -> None:
    async def breaks_off(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"error":'))
        await trio.sleep(1)
        visit.cut()

    async with open_house(Plays(breaks_off)) as house:
        answers = await together(*[lambda: ask(house)] * 2)
        for answer in answers:
            assert (answer.status, answer.body, answer.is_complete) == (500, b'{"error":', False)
        assert {line["outcome"] for line in house.log.exchanges} == {"failed"}


async def test_an_event_too_long_to_be_kept_ends_the_stream(clock: trio.testing.MockClock) -> None:
    async def goes_on_and_on(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(EVENTS[0]) + chunk(b"data: "))
        for _ in range(100):
            await visit.send(chunk(b"x" * 65536))

    async with open_house(Plays(goes_on_and_on)) as house:
        answers = await together(*[lambda: ask(house)] * 2)
        for answer in answers:
            assert answer.body.startswith(EVENTS[0] + b'data: {"error":') and not answer.is_complete
            assert b'"hub_full"' in answer.body and len(answer.body) < 1000
        assert trio.current_time() < 1


async def test_a_compressed_stream_is_passed_as_it_is(clock: trio.testing.MockClock) -> None:
    packed = bytes(range(256)) * 4
    head = OK_STREAM.replace(b"x-request-id", b"content-encoding: gzip\r\nx-request-id")
    plays = Plays(head + chunk(packed) + LAST_CHUNK)
    async with open_house(plays) as house:
        answer = await ask(house)
        assert (answer.body, answer.headers["content-encoding"], answer.is_complete) == (packed, "gzip", True)


async def test_two_permits_are_taken_for_one_reader_and_given_back(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly), server__max_streams=3) as house:

        async def count() -> Answer:
            await trio.sleep(1.5)
            assert house.house.service.admission.permits.open == 3  # two readers and what they read
            refused = await ask(house, ME)
            assert (refused.status, code(refused)) == (503, "overloaded")
            return refused

        await together(lambda: ask(house), lambda: ask(house), count)


async def test_where_there_is_room_for_a_reader_alone_nothing_hangs(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(slowly), server__max_streams=1) as house:
        answer = await ask(house)
        assert (answer.status, code(answer)) == (503, "overloaded")


async def test_a_reader_in_a_hurry_ends_alone(clock: trio.testing.MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await trio.sleep(2)
        await slowly(visit)

    plays = Plays(thinks)
    async with open_house(plays) as house:
        answers = await together(
            lambda: ask(house),
            lambda: ask(house, SHARED + "x-trioproxy-deadline-ms: 1500\r\n"),
            lambda: ask(house, SHARED + "x-trioproxy-deadline-ms: 4500\r\n"),
        )
        assert [answer.status for answer in answers] == [200, 504, 200]
        assert (answers[0].body, answers[0].is_complete) == (WHOLE, True)
        assert code(answers[1]) == "upstream_total_timeout"
        assert answers[2].body.startswith(b"".join(EVENTS[:3]) + b'data: {"error"') and not answers[2].is_complete
    assert len(plays.got) == 1


async def test_who_leaves_before_the_head_is_not_missed(clock: trio.testing.MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await trio.sleep(2)
        await slowly(visit)

    async with open_house(Plays(thinks)) as house:
        answers = await together(lambda: ask(house, leave_s=1), lambda: ask(house, wait_s=0.5))
        assert (answers[1].body, answers[1].is_complete) == (WHOLE, True)
        await ask(house, leave_s=1)
        await trio.sleep(1)
        (_, line) = [line for line in house.log.lines if line["event"] == "stream"]
        assert (line["outcome"], line["reason"], line["readers"]) == ("cancelled", "abandoned", 1)


async def test_nobody_in_particular_may_come_back_but_shares_with_nobody(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        both = "x-trioproxy-share: key\r\nx-trioproxy-resume: 5\r\n"
        answers = await together(lambda: ask(house, both), lambda: ask(house, both))
        assert len({answer.headers["x-trioproxy-stream"] for answer in answers}) == 2
    assert len(plays.got) == 2


async def test_a_stream_goes_on_as_long_as_the_most_patient_of_its_readers_wished(
    clock: trio.testing.MockClock,
) -> None:
    patient = SHARED + "x-trioproxy-resume: 2.5\r\n"
    async with open_house(slowly, hub__resume_max_s=3) as house:
        await together(lambda: ask(house, leave_s=1.5), lambda: ask(house, patient, wait_s=0.5, leave_s=0.5))
        await trio.sleep(2.4)  # it ends at 4
        answer = await ask(house)
        assert answer.body == WHOLE
        (line,) = [line for line in house.log.lines if line["event"] == "stream"]
        assert (line["readers"], line["outcome"]) == (3, "finished")
