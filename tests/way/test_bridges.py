"""Stories of streams made from whole answers, and of whole answers made from streams."""

import json

import pytest
import trio
import trio.testing

from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import (
    OK,
    STREAM,
    WORD,
    Both,
    Plays,
    Step,
    Ways,
    ask,
    ask_stream,
    code,
    cut,
    opened,
    route,
    status,
)
from tests.way.test_clocks import ROLE

CHAT = "/v1/chat/completions"
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Rain on tin."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
NO_STREAMS = "streams = false"


def whole(value: object = WHOLE, fields: str = "") -> bytes:
    body = json.dumps(value).encode()
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{fields}\r\n".encode()
        + body
    )


def asked(request: bytes) -> dict[str, object]:
    """The body of a request."""
    value = json.loads(request.partition(b"\r\n\r\n")[2])
    assert isinstance(value, dict)
    return value


def read(body: bytes) -> list[dict[str, object]]:
    """The events of a chat stream, whose terminal is there."""
    *events, done = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert done == b"[DONE]"
    return [json.loads(event) for event in events]


# A stream made from a whole answer


async def test_a_stream_is_made_from_a_whole_answer(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(whole(fields="x-request-id: theirs\r\n"))
    async with opened(ways(a=NO_STREAMS), plays) as house:
        answer = await ask(house, b'{"model":"m","messages":[ ],"stream": true,"stream_options":{"x":1}}', CHAT)
    assert (answer.status, answer.is_complete) == (200, True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"] == "theirs"
    assert "content-length" not in answer.headers
    events = read(answer.body)
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)  # type: ignore[index]
    assert text == "Rain on tin."
    assert plays.got[0].endswith(b'{"model":"m","messages":[ ],"stream": false,"stream_options":null}')
    (line,) = house.log.exchanges
    assert (line["outcome"], line["stream"], line["events"] > 1, "first_content_ms" in line) == (
        "finished",
        True,
        True,
        True,
    )


async def test_usage_comes_if_it_was_asked_for(ways: Ways, clock: trio.testing.MockClock) -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    async with opened(ways(a=NO_STREAMS), whole()) as house:
        with_usage = read((await ask(house, body, CHAT)).body)
        without = read((await ask_stream(house)).body)
    assert with_usage[-1]["usage"] == WHOLE["usage"]
    assert not any(event.get("usage") for event in without)


async def test_who_wants_no_stream_is_served_as_it_is(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(whole())
    async with opened(ways(a=NO_STREAMS), plays) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
    assert (answer.body, plays.got[0].endswith(b'{"model":"m"}')) == (json.dumps(WHOLE).encode(), True)


@pytest.mark.parametrize("number", [400, 429, 500])
async def test_an_error_of_one_that_cannot_stream_is_a_status(
    number: int, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(a=NO_STREAMS), status(number, b"its words")) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (number, b"its words")


@pytest.mark.parametrize("body", [b"[]", b"no json", b'{"id":1}'])
async def test_an_answer_that_no_stream_can_be_made_of_is_a_502(
    body: bytes, ways: Ways, clock: trio.testing.MockClock
) -> None:
    answers = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with opened(ways(a=NO_STREAMS), answers) as house:
        answer = await ask_stream(house)
    assert (answer.status, code(answer)) == (502, "upstream_protocol_error")


async def test_half_a_whole_answer_makes_no_stream(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(whole()[:-20])
        await trio.sleep(1)
        visit.cut()

    async with opened(ways(a=NO_STREAMS), breaks) as house:
        answer = await ask_stream(house)
    assert answer.status == 502
    assert code(answer) == "upstream_truncated"
    async with opened(ways(a=NO_STREAMS, b=""), breaks, STREAM) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (200, WORD + DONE), "nobody has seen anything of it: another one is asked"


async def test_a_whole_answer_that_takes_too_long_is_told(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a=NO_STREAMS), whole()[:-20], deadlines__first_content_s=5) as house:
        answer = await ask_stream(house)
        assert trio.current_time() == pytest.approx(5, abs=0.1)
    assert (answer.status, code(answer)) == (504, "upstream_first_content_timeout")


async def test_the_client_is_kept_company_while_a_whole_answer_is_made(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async def later(visit: Visit) -> None:
        await trio.sleep(20)
        await visit.send(whole())

    async with opened(ways(a=NO_STREAMS), later, stream__commit_before_head_s=3, stream__heartbeat_s=5) as house:
        answer = await ask_stream(house)
    assert answer.times[:3] == pytest.approx([3, 8, 13], abs=0.1)
    assert answer.is_complete


# A whole answer made from a stream

AGGREGATED = route("aggregate = true")


def streamed(*texts: str, usage: bool = True) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        value = {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    events = [event({"role": "assistant", "content": ""}), *[event({"content": text}) for text in texts]]
    events.append(event({}, "stop"))
    if usage:
        events.append(b"data: " + json.dumps({**base, "choices": [], "usage": WHOLE["usage"]}).encode() + b"\n\n")
    return OK_STREAM + b"".join(map(chunk, [*events, DONE])) + LAST_CHUNK


async def test_a_whole_answer_is_made_from_a_stream(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(streamed("Rain ", "on ", "tin."))
    async with opened(ways(AGGREGATED, a=""), plays) as house:
        answer = await ask(house, b'{"model":"m","messages":[ ]}', CHAT, "accept-encoding: gzip\r\n")
    assert (answer.status, answer.is_complete, answer.headers["content-type"]) == (200, True, "application/json")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert json.loads(answer.body) == WHOLE
    assert asked(plays.got[0]) == {
        "model": "m",
        "messages": [],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert plays.field(b"accept-encoding") == [b"identity"]
    (line,) = house.log.exchanges
    assert (line["stream"], line["aggregated"], line["outcome"]) == (False, True, "finished")


async def test_who_wants_a_stream_gets_the_origin_s(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(AGGREGATED, a=""), STREAM) as house:
        assert (await ask_stream(house)).body == WORD + DONE


async def test_an_origin_that_does_not_stream_all_the_same_passes(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(AGGREGATED, a=""), whole()) as house:
        assert (await ask(house, b'{"model":"m"}', CHAT)).body == json.dumps(WHOLE).encode()


async def test_what_is_no_generation_is_asked_as_it_is(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(OK)
    async with opened(ways(AGGREGATED, a=""), plays) as house:
        await ask(house)
    assert plays.got[0].endswith(b'{"model":"m"}')


@pytest.mark.parametrize("end", [b"cut", LAST_CHUNK, chunk(b'data: {"error":{"message":"no"}}\n\n') + LAST_CHUNK])
async def test_a_stream_that_breaks_off_never_makes_an_answer(
    end: bytes, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(ROLE) + chunk(WORD))
        await trio.sleep(1)
        if end == b"cut":
            visit.cut()
        else:
            await visit.send(end)

    both = Both(breaks, streamed("x"))
    async with opened(ways(AGGREGATED), both.a, both.b) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
    assert (answer.status, answer.is_complete) == (502, True)
    assert "error" in json.loads(answer.body)
    assert not both.b.got  # there was content: it was worked at, and paid for


async def test_before_content_another_one_makes_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(ROLE))
        await trio.sleep(1)
        visit.cut()

    async with opened(ways(AGGREGATED), breaks, streamed("Rain on tin.")) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
    assert (answer.status, json.loads(answer.body)) == (200, WHOLE)
    assert answer.headers["x-trioproxy-attempts"] == "2"


async def test_an_error_in_the_stream_is_a_status(ways: Ways, clock: trio.testing.MockClock) -> None:
    error = b'{"error":{"message":"slow down","code":429}}'
    async with opened(ways(AGGREGATED, a=""), OK_STREAM + chunk(b"data: " + error + b"\n\n") + LAST_CHUNK) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
    assert (answer.status, answer.body) == (429, error)


async def test_it_has_the_deadlines_of_a_stream(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(AGGREGATED, a=""), OK_STREAM + chunk(WORD), deadlines__idle_s=4) as house:
        answer = await ask(house, b'{"model":"m"}', CHAT)
        assert trio.current_time() == pytest.approx(4, abs=0.1)
    assert (answer.status, code(answer)) == (504, "upstream_idle_timeout")


async def test_it_has_the_cancel_of_a_stream(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(AGGREGATED, a=""), OK_STREAM + chunk(WORD)) as house:
        client = house.connect()
        await client.post(b'{"model":"m"}', CHAT)
        await trio.sleep(1)
        client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert house.origin.still_open == 0


# A stream that failed, asked for once more as a whole

BATCH = route('targets = [{ upstream = "a" }]', "batch_fallback = true")


def unless_streaming(step: Step) -> Plays:
    """An origin that does this step for each request that wants a stream, and answers all others."""
    plays = Plays()

    async def script(visit: Visit) -> None:
        if b'"stream":true' not in plays.got[-1]:
            await visit.send(whole())
        elif isinstance(step, bytes):
            await visit.send(step)
        else:
            await step(visit)

    plays.__init__(script)  # type: ignore[misc]
    return plays


NO_STREAMING_HERE = b'{"error":{"message":"Verify your organization to stream.","param":"stream"}}'


@pytest.mark.parametrize(
    "step",
    [
        cut,
        status(500),
        status(503),
        status(400, NO_STREAMING_HERE),
        OK_STREAM + chunk(ROLE) + LAST_CHUNK,
        OK_STREAM + chunk(b'data: {"error":{"message":"no","code":500}}\n\n') + LAST_CHUNK,
    ],
)
async def test_a_stream_that_failed_before_content_is_asked_for_as_a_whole(
    step: Step, ways: Ways, clock: trio.testing.MockClock
) -> None:
    plays = unless_streaming(step)
    async with opened(ways(BATCH, a=""), plays) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.is_complete) == (200, True)
    assert len(read(answer.body)) > 1
    assert [asked(request)["stream"] for request in plays.got] == [True, False]
    assert house.log.exchanges[0]["batch_fallback"] is True


@pytest.mark.parametrize("step", [status(401), status(404), status(429), status(400)])
async def test_what_a_whole_answer_would_not_better_passes(
    step: bytes, ways: Ways, clock: trio.testing.MockClock
) -> None:
    plays = unless_streaming(step)
    async with opened(ways(BATCH, a=""), plays) as house:
        answer = await ask_stream(house)
    assert answer.status in (400, 401, 404, 429)
    assert len(plays.got) == 1


async def test_other_models_come_first(ways: Ways, clock: trio.testing.MockClock) -> None:
    routes = route(
        'targets = [{ upstream = "a" }]', "batch_fallback = true", 'fallback = { outage = ["n"] }', models="m"
    )
    routes += route('targets = [{ upstream = "b" }]', models="n")
    both = Both(unless_streaming(status(500)), STREAM)
    async with opened(ways(routes), both.a, both.b) as house:
        assert (await ask_stream(house)).body == WORD + DONE
    assert [len(both.a.got), len(both.b.got)] == [1, 1]


async def test_it_is_asked_for_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(status(500, b"first"), status(500, b"last"))
    async with opened(ways(BATCH, a=""), plays) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body, len(plays.got)) == (500, b"last", 2)


async def test_a_stream_that_broke_behind_content_is_told(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = unless_streaming(OK_STREAM + chunk(content("word")) + LAST_CHUNK)
    async with opened(ways(BATCH, a=""), plays) as house:
        answer = await ask_stream(house)
    assert (answer.is_complete, b"upstream_truncated" in answer.body, len(plays.got)) == (False, True, 1)
