"""Stories of streams that are cut behind content, and gone on with by another upstream."""

import json

import pytest
import trio
import trio.testing

from tests.harness.house import Answer
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import PLAIN, Both, Plays, Step, Ways, ask, opened, route, status
from tests.way.test_clocks import ROLE

TALK = b'{"model":"m","messages":[{"role":"user","content":"?"}],"stream":true}'
PATH = "/v1/chat/completions"
CONTINUED = route("continue_after_cut = true", "retry = { tries = 3 }")
REST = ROLE + content(" on tin.") + content("", '"stop"') + DONE
GOES_ON = OK_STREAM + chunk(REST) + LAST_CHUNK


def dies(*events: bytes) -> Step:
    """An origin that sends these events and cuts the connection a second later."""

    async def script(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        for event in events:
            await visit.send(chunk(event))
        await trio.sleep(1)
        visit.cut()

    return script


def text(answer: Answer) -> str:
    """What a client reads of a chat stream."""
    lines = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if b'"error"' not in line]
    assert sum("role" in delta for delta in deltas) <= 1
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_another_one_goes_on_from_the_text_so_far(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(ROLE, content("Rain")), GOES_ON)
    async with opened(ways(CONTINUED), both.a, both.b) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.status, answer.is_complete, text(answer)) == (200, True, "Rain on tin.")
    assert answer.body.count(DONE) == 1
    assert answer.headers["x-trioproxy-continue"] == "after-cut"
    sent = json.loads(both.b.got[0].partition(b"\r\n\r\n")[2])
    assert sent["messages"] == [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Rain"}]
    (line,) = house.log.exchanges
    assert (line["outcome"], line["continued"], line["tries"]) == ("finished", 1, ["a 200", "b 200"])
    assert line["first_content_ms"] < 10
    assert line["events"] == 6


@pytest.mark.parametrize("half", [b"data: {", b'data: {"choices":[{"index":0,"delta":{"content":"lost"}}]}\n', b"\n"])
async def test_half_an_event_is_never_shown(half: bytes, ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(CONTINUED), dies(content("Rain"), half), GOES_ON) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, text(answer)) == (True, "Rain on tin.")


async def test_also_one_that_falls_silent_or_ends_without_an_end(ways: Ways, clock: trio.testing.MockClock) -> None:
    silent = OK_STREAM + chunk(content("Rain"))
    for first in (silent, silent + LAST_CHUNK):
        async with opened(ways(CONTINUED), first, GOES_ON, deadlines__idle_s=5) as house:
            answer = await ask(house, TALK, PATH)
        assert (answer.is_complete, text(answer)) == (True, "Rain on tin.")


async def test_an_error_event_is_gone_on_from_and_not_shown(ways: Ways, clock: trio.testing.MockClock) -> None:
    error = b'data: {"error":{"message":"the machine is gone"}}\n\n'
    async with opened(ways(CONTINUED), dies(content("Rain"), error), GOES_ON) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, text(answer), b"error" in answer.body) == (True, "Rain on tin.", False)


async def test_an_error_event_behind_which_the_origin_lingers_is_not_waited_for(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    lingers = OK_STREAM + chunk(content("Rain") + b'data: {"error":{"message":"gone"}}\n\n')
    for tail in (b"", chunk(DONE)):
        async with opened(ways(CONTINUED), lingers + tail, GOES_ON) as house:
            answer = await ask(house, TALK, PATH)
            assert trio.current_time() % 10 < 1
        assert (answer.is_complete, text(answer)) == (True, "Rain on tin.")


async def test_it_goes_on_more_than_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(dies(content("Rain")), GOES_ON), dies(ROLE, content(" still")))
    async with opened(ways(CONTINUED), both.a, both.b) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, text(answer)) == (True, "Rain still on tin.")
    assert house.log.exchanges[0]["continued"] == 2


async def test_never_more_often_than_there_are_tries(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(content("a")), dies(content("b")))
    async with opened(ways(CONTINUED), both.a, both.b) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, text(answer)) == (False, "aba")
    assert b"upstream_truncated" in answer.body
    assert len(both.a.got) + len(both.b.got) == 3


@pytest.mark.parametrize("second", [status(400), status(500), OK_STREAM + LAST_CHUNK, b"garbage\r\n\r\n"])
async def test_who_cannot_go_on_leaves_the_cut_as_it_was(
    second: bytes, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(CONTINUED), Plays(dies(content("Rain")), second), second) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, text(answer)) == (False, "Rain")
    assert b"upstream_truncated" in answer.body
    assert house.log.exchanges[0]["code"] == "upstream_truncated"


NOT_RESUMABLE = {
    "tools open": [content("Rain"), b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]}\n\n'],
    "nothing said": [ROLE],
    "finished": [content("Rain"), content("", '"stop"')],
}


@pytest.mark.parametrize("name", NOT_RESUMABLE)
async def test_what_cannot_be_gone_on_from_is_told(name: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(*NOT_RESUMABLE[name]), GOES_ON)
    async with opened(ways(CONTINUED + ""), both.a, both.b, stream__commit_after_s=0.5) as house:
        answer = await ask(house, TALK, PATH)
    if name == "finished":  # an honest end but for the terminal; the cut is one all the same
        assert not answer.is_complete
    else:
        assert (answer.is_complete, b"upstream_truncated" in answer.body) == (False, True)
    assert not both.b.got


async def test_without_the_route_s_word_nothing_is_gone_on_with(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(content("Rain")), GOES_ON)
    async with opened(ways(), both.a, both.b) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, len(both.b.got)) == (False, 0)
    assert "x-trioproxy-continue" not in answer.headers


async def test_what_breaks_off_nowhere_passes_byte_for_byte(ways: Ways, clock: trio.testing.MockClock) -> None:
    stream = b": hello\n\n" + ROLE + content("Rain") + content("", '"stop"') + b"data: [DONE]\n"
    async with opened(ways(CONTINUED), OK_STREAM + chunk(stream) + LAST_CHUNK) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, answer.body) == (True, stream)


async def test_what_is_no_stream_is_left_alone(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
        await trio.sleep(1)
        visit.cut()

    both = Both(breaks, GOES_ON)
    async with opened(ways(CONTINUED), both.a, both.b) as house:
        answer = await ask(house, PLAIN, "/v1/chat/completions")
    assert (answer.is_complete, len(both.b.got)) == (False, 0)


async def test_heartbeats_bridge_the_seam(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def later(visit: Visit) -> None:
        await trio.sleep(20)
        await visit.send(GOES_ON)

    async with opened(ways(CONTINUED), dies(content("Rain")), later, stream__heartbeat_s=6) as house:
        answer = await ask(house, TALK, PATH)
    assert (text(answer), answer.body.count(b": keep-alive\n\n")) == ("Rain on tin.", 3)


async def test_a_client_that_leaves_at_the_seam_ends_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(CONTINUED), dies(content("Rain")), b"") as house:
        client = house.connect()
        await client.post(TALK)
        await trio.sleep(3)
        client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert house.origin.still_open == 0
        assert house.log.exchanges[0]["outcome"] == "cancelled"


async def test_the_time_for_the_whole_request_goes_on_counting(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(CONTINUED), dies(content("Rain")), b"", deadlines__total_s=9) as house:
        answer = await ask(house, TALK, PATH)
        assert trio.current_time() == pytest.approx(9, abs=0.1)
    assert (answer.is_complete, b"upstream_total_timeout" in answer.body) == (False, True)


MESSAGES_HEAD = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1"}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)


def delta(words: str) -> bytes:
    value = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}
    return b"event: content_block_delta\ndata: " + json.dumps(value).encode() + b"\n\n"


MESSAGES_END = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


async def test_messages_are_gone_on_with_too(ways: Ways, clock: trio.testing.MockClock) -> None:
    second = OK_STREAM + chunk(MESSAGES_HEAD + delta(" on tin.") + MESSAGES_END) + LAST_CHUNK
    both = Both(dies(MESSAGES_HEAD, delta("Rain")), second)
    async with opened(ways(CONTINUED, a='dialect = "anthropic"', b='dialect = "anthropic"'), both.a, both.b) as house:
        answer = await ask(house, TALK, "/v1/messages")
    assert (answer.is_complete, answer.body) == (True, MESSAGES_HEAD + delta("Rain") + delta(" on tin.") + MESSAGES_END)


async def test_the_memory_of_a_text_is_bounded(ways: Ways, clock: trio.testing.MockClock) -> None:
    """Beyond 1 MiB nothing is kept, and nothing gone on from."""
    both = Both(dies(*[content("x" * 60_000)] * 20), GOES_ON)
    async with opened(ways(CONTINUED), both.a, both.b) as house:
        answer = await ask(house, TALK, PATH)
    assert (answer.is_complete, len(text(answer)), len(both.b.got)) == (False, 20 * 60_000, 0)
