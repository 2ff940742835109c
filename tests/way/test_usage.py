"""Stories of what answers took: read from what origins say, and asked for where the client does not ask."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, HouseUnderTest
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import PLAIN, STREAM, Both, Plays, Step, Ways, ask, opened, route, status
from tests.way.test_bridges import whole
from tests.way.test_clocks import ROLE
from tests.way.test_continuing import CONTINUED, dies, text
from tests.way.test_hedging import HEDGED, after
from trioproxy.relay.copier import LAST_BYTES

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TALK = b'{"model":"m","messages":[{"role":"user","content":"?"}],"stream":true}'
ASKS = 'usage = "ask"'
FIGURES = b'{"prompt_tokens":30,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":10}}'
TELLS = b'data: {"id":"x","choices":[],"usage":' + FIGURES + b"}\n\n"
ALONE = [content("Rain"), content(" on tin."), content("", '"stop"')]
TOLD = [event.replace(b"}\n\n", b',"usage":null}\n\n') for event in ALONE] + [TELLS]
WITHOUT = b"".join(ALONE) + DONE
WITH = b"".join(TOLD) + DONE


def stream(*events: bytes, end: bytes = DONE) -> bytes:
    return OK_STREAM + b"".join(map(chunk, [*events, end])) + LAST_CHUNK


def sent(plays: Plays, number: int = 0) -> dict[str, Any]:
    """The body of a request."""
    value: dict[str, Any] = json.loads(plays.got[number].partition(b"\r\n\r\n")[2])
    return value


def tokens(line: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    return line.get("input_tokens"), line.get("cached_tokens"), line.get("output_tokens")


def counted(house: HouseUnderTest) -> dict[tuple[str, str], float]:
    """The metric's samples."""
    families = house.house.metrics.families()
    (samples,) = [samples for name, _, _, samples in families if name == "trioproxy_tokens"]
    return {(labels["upstream"], labels["kind"]): value for _, labels, value in samples}


FULL = (30, 10, 7)


# What is told


async def test_what_a_client_asked_for_passes_and_is_kept(ways: Ways, clock: trio.testing.MockClock) -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    plays = Plays(stream(*TOLD))
    async with opened(ways(a=ASKS), plays) as house:
        answer = await ask(house, body, CHAT)
    assert counted(house) == {("a", "input"): 30, ("a", "cached"): 10, ("a", "output"): 7}
    assert (answer.body, plays.got[0].endswith(body)) == (WITH, True)
    (line,) = house.log.exchanges
    assert (tokens(line), line["events"]) == (FULL, 5)
    assert "estimated" not in line and "cost_usd" not in line


async def test_a_stream_without_figures_has_none(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(stream(*ALONE))
    async with opened(ways(), plays) as house:
        answer = await ask(house, TALK, CHAT)
    assert counted(house) == {}
    assert (answer.body, plays.got[0].endswith(TALK), tokens(house.log.exchanges[0])) == (WITHOUT, True, (None,) * 3)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (b'{"prompt_tokens":-3,"completion_tokens":7}', (None, None, None)),
        (b'{"prompt_tokens":3,"completion_tokens":1e12}', (None, None, None)),
        (b'{"prompt_tokens":3}', (None, None, None)),
        (b'{"prompt_tokens":3,"completion_tokens":7}', (3, None, 7)),
    ],
)
async def test_figures_that_cannot_be_are_none(
    figures: bytes, told: tuple[object, ...], ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(), stream(*ALONE, TELLS.replace(FIGURES, figures))) as house:
        await ask(house, TALK, CHAT)
    assert tokens(house.log.exchanges[0]) == told


async def test_a_stream_that_was_cut_has_told_nothing(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), dies(ROLE, content("Rain"))) as house:
        await ask(house, TALK, CHAT)
    assert tokens(house.log.exchanges[0]) == (None, None, None)


async def test_a_long_response_tells_it_at_its_end(ways: Ways, clock: trio.testing.MockClock) -> None:
    usage = {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 7}
    response = {"output": ["word " * 40_000], "usage": usage, "user": None}
    end = (
        b"event: response.completed\ndata: %b\n\n"
        % json.dumps({"type": "response.completed", "response": response}).encode()
    )
    delta = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"word "}\n\n'
    async with opened(ways(), stream(delta, end[:100_000], end[100_000:], end=b"")) as house:
        answer = await ask(house, b'{"model":"m","stream":true}', RESPONSES)
    assert (answer.is_complete, answer.body, tokens(house.log.exchanges[0])) == (True, delta + end, FULL)


async def test_a_message_tells_it_in_two_events(ways: Ways, clock: trio.testing.MockClock) -> None:
    def named(kind: str, **more: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    started = {"input_tokens": 15, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 1}
    events = [
        named("message_start", message={"usage": started}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7}),
    ]
    anthropic = 'dialect = "anthropic"'
    async with opened(ways(a=anthropic), stream(*events, end=named("message_stop"))) as house:
        await ask(house, b'{"model":"m","stream":true}', MESSAGES)
    assert tokens(house.log.exchanges[0]) == FULL


USAGE: dict[str, Any] = json.loads(FIGURES)


@pytest.mark.parametrize("size", [100, LAST_BYTES, 5 * LAST_BYTES])
async def test_a_whole_answer_tells_it(size: int, ways: Ways, clock: trio.testing.MockClock) -> None:
    """However it comes: with its head, later, or too long to be kept."""
    answers = whole({"object": "list", "data": ["x" * size], "usage": USAGE})
    told = Answer()

    async def later(visit: Visit) -> None:
        await visit.send(answers[:90])
        for at in range(90, len(answers), 30_000):
            await trio.sleep(1)
            await visit.send(answers[at : at + 30_000])

    for step in (answers, later):
        async with opened(ways(), step) as house:
            told = await ask(house, b'{"model":"m"}', CHAT)
        assert told.is_complete and answers.endswith(told.body)
        assert tokens(house.log.exchanges[0]) == FULL
        async with opened(ways(), step) as house:
            await ask(house)
        assert tokens(house.log.exchanges[0]) == (30, None, 0), "embeddings"


async def test_errors_and_compressed_answers_tell_nothing(ways: Ways, clock: trio.testing.MockClock) -> None:
    value = {"usage": USAGE}
    for step in (status(400, json.dumps(value).encode()), whole(value, "content-encoding: gzip\r\n")):
        async with opened(ways(), step) as house:
            await ask(house, b'{"model":"m"}', CHAT)
        assert tokens(house.log.exchanges[0]) == (None, None, None)


async def test_an_answer_that_tells_of_an_older_request_is_not_counted_again(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    usage = {"input_tokens": 30, "output_tokens": 7}
    end = b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":%b}}\n\n'
    for step in (whole({"usage": usage}), stream(end % json.dumps(usage).encode(), end=b"")):
        async with opened(ways(), step) as house:
            answer = await ask(house, path="/v1/responses/resp_1?stream=true", method="GET")
        assert (answer.status, tokens(house.log.exchanges[0])) == (200, (None, None, None))


async def test_it_is_known_of_answers_that_are_made_into_another_form(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    chat = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
    async with opened(ways(a="streams = false"), whole(chat)) as house:
        answer = await ask(house, TALK, CHAT)
    assert (b"usage" in answer.body, tokens(house.log.exchanges[0])) == (False, FULL)
    async with opened(ways(route("aggregate = true"), a=ASKS, b=""), stream(*TOLD)) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
    assert (json.loads(answer.body)["usage"], tokens(house.log.exchanges[0])) == (USAGE, FULL)


# What is asked for in the client's place


async def test_what_the_client_did_not_ask_for_is_asked_for_and_not_shown(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    plays = Plays(stream(*TOLD))
    async with opened(ways(a=ASKS), plays) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, answer.body) == (True, WITHOUT)
    assert plays.got[0].endswith(TALK[:-1] + b',"stream_options":{"include_usage":true}}')
    (line,) = house.log.exchanges
    assert (tokens(line), line["events"], line["outcome"]) == (FULL, 4, "finished")


async def test_the_client_s_own_options_stay(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(stream(*TOLD))
    async with opened(ways(a=ASKS), plays) as house:
        answer = await ask(house, b'{"model":"m","stream_options":{ "x":1 },"stream":true}', CHAT)
    assert answer.body == WITHOUT
    assert plays.got[0].endswith(b'{"model":"m","stream_options":{ "x":1 ,"include_usage":true},"stream":true}')


async def test_legacy_completions_are_asked_too_and_others_are_not(ways: Ways, clock: trio.testing.MockClock) -> None:
    for path, is_asked in (("/v1/completions", True), (CHAT, True), (RESPONSES, False), ("/v1/embeddings", False)):
        plays = Plays(stream(*TOLD))
        async with opened(ways(a=ASKS), plays) as house:
            await ask(house, TALK, path)
            await ask(house, PLAIN, path)
        assert ("stream_options" in sent(plays)) is is_asked
        assert "stream_options" not in sent(plays, 1), "a whole answer tells it anyway"


async def test_only_the_upstream_that_is_to_be_asked_is_asked(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(status(503)), Plays(stream(*TOLD)))
    async with opened(ways(a=ASKS, b=""), both.a, both.b) as house:
        answer = await ask(house, TALK, CHAT)
    assert ("stream_options" in sent(both.a), "stream_options" in sent(both.b)) == (True, False)
    assert answer.body == WITH, "what an origin says unasked is its client's"


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_it_is_not_shown_however_it_comes(size: int, ways: Ways, clock: trio.testing.MockClock) -> None:
    async def in_pieces(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        for at in range(0, len(WITH), size):
            await visit.send(chunk(WITH[at : at + size]))
            await trio.testing.wait_all_tasks_blocked()
        await visit.send(LAST_CHUNK)

    async with opened(ways(a=ASKS), in_pieces) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, answer.body, tokens(house.log.exchanges[0])) == (True, WITHOUT, FULL)


async def test_an_event_is_shown_as_soon_as_it_is_whole(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a=ASKS), after(5, OK_STREAM, *map(chunk, [*TOLD, DONE]), LAST_CHUNK)) as house:
        answer = await ask(house, TALK, CHAT)
    assert [round(at) for at in answer.times] == [10, 15, 20, 30]
    assert answer.pieces == [*ALONE, DONE]


async def test_a_heartbeat_may_stand_where_half_an_event_is_held(ways: Ways, clock: trio.testing.MockClock) -> None:
    half = chunk(TOLD[0] + TOLD[1][:20])
    steps = after(10, OK_STREAM + half, chunk(TOLD[1][20:40]), chunk(TOLD[1][40:] + TELLS + DONE) + LAST_CHUNK)
    async with opened(ways(a=ASKS), steps, stream__heartbeat_s=6) as house:
        answer = await ask(house, TALK, CHAT)
    assert answer.body == ALONE[0] + b": keep-alive\n\n" * 3 + ALONE[1] + DONE


async def test_what_comes_with_the_terminal_is_shown_as_ever(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a=ASKS), stream(*TOLD, end=DONE + b"data: more")) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, answer.body) == (True, WITHOUT + b"data: more")


@pytest.mark.parametrize("end", ["", "strict", "lenient"])
async def test_what_a_cut_leaves_of_an_event_is_shown_as_ever(
    end: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    flags: dict[str, Any] = {"stream__end": end} if end else {}
    step: Step = dies(TOLD[0], ALONE[1][:20]) if not end else stream(TOLD[0], end=ALONE[1][:20])
    async with opened(ways(a=ASKS), step, **flags) as house:
        answer = await ask(house, TALK, CHAT)
    assert answer.body.startswith(ALONE[0] + ALONE[1][:20])
    assert (b'"error"' in answer.body, answer.is_complete) == (end != "lenient", end == "lenient")


@pytest.mark.parametrize("options", ["", CONTINUED])
async def test_a_last_event_without_its_blank_line_is_shown(
    options: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    """Also behind nothing but a comment, where all that came waits for the head."""
    for events in ([b": hello\n\n"], [], TOLD):
        async with opened(ways(options, a=ASKS, b=""), stream(*events, end=DONE[:-1])) as house:
            answer = await ask(house, TALK, CHAT)
        shown = ALONE if events == TOLD else events
        assert (answer.is_complete, answer.body) == (True, b"".join(shown) + DONE[:-1])


async def test_an_error_in_the_first_event_is_still_a_status(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a=ASKS), stream(b'data: {"error":{"message":"no","code":429},"usage":null}\n\n')) as house:
        answer = await ask(house, TALK, CHAT)
    assert answer.status == 429


async def test_a_stream_that_is_gone_on_with_tells_of_its_last_part(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(ROLE, TOLD[0]), stream(ROLE, *TOLD[1:]))
    async with opened(ways(CONTINUED, a=ASKS, b=ASKS), both.a, both.b) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, text(answer), b"usage" in answer.body) == (True, "Rain on tin.", False)
    assert sent(both.b)["stream_options"] == {"include_usage": True}
    (line,) = house.log.exchanges
    assert (line["continued"], tokens(line)) == (1, FULL)


async def test_each_part_is_shown_as_its_origin_was_asked(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(dies(ROLE, TOLD[0], TOLD[1][:30]), stream(ROLE, *ALONE[1:]))
    async with opened(ways(CONTINUED, a=ASKS, b=""), both.a, both.b) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, text(answer), b"usage" in answer.body) == (True, "Rain on tin.", False)
    assert "stream_options" not in sent(both.b)


async def test_one_of_two_tries_tells_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(after(8, STREAM), stream(*TOLD))
    async with opened(ways(HEDGED, a="", b=ASKS), both.a, both.b) as house:
        answer = await ask(house, TALK, CHAT)
    assert counted(house) == {("b", "input"): 30, ("b", "cached"): 10, ("b", "output"): 7}
    assert (answer.body, tokens(house.log.exchanges[0])) == (WITHOUT, FULL)


async def test_a_stream_with_several_readers_is_counted_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    headers = "authorization: Bearer me\r\nx-trioproxy-share: auto\r\n"
    answers: list[Answer] = []

    async def read(house: HouseUnderTest) -> None:
        answers.append(await ask(house, TALK, CHAT, headers))

    slowly = after(1, OK_STREAM, *map(chunk, [*TOLD, DONE]), LAST_CHUNK)
    async with opened(ways(a=ASKS), slowly) as house, trio.open_nursery() as nursery:
        nursery.start_soon(read, house)
        nursery.start_soon(read, house)
    assert counted(house) == {("a", "input"): 30, ("a", "cached"): 10, ("a", "output"): 7}
    assert [answer.body for answer in answers] == [WITHOUT, WITHOUT]
    (production,) = [line for line in house.log.lines if line["event"] == "stream"]
    assert (production["readers"], tokens(production)) == (2, FULL)
    assert [tokens(line) for line in house.log.exchanges] == [(None, None, None)] * 2


async def test_events_that_are_joined_are_shown_without_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a=ASKS), stream(*TOLD[:1] * 50, *TOLD), stream__coalesce_ms=50) as house:
        answer = await ask(house, TALK, CHAT)
    assert (answer.is_complete, answer.body) == (True, ALONE[0] * 50 + WITHOUT)
