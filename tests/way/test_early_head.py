"""`commit_before_head_s`: a head and heartbeats for a client whose origin has not answered yet, and how that ends."""

import json
from typing import Any

import pytest
import trio

from tests.harness.house import open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content
from tests.way.test_clocks import mute
from trioproxy.errors import CancelReason

WORD = content("word")
BEAT = b": keep-alive\n\n"
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]
EARLY: dict[str, Any] = {"stream__commit_before_head_s": 5, "stream__heartbeat_s": 15}


def answers_after(wait_s: float, *pieces: bytes) -> Script:
    async def origin(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(wait_s)
        for piece in pieces:
            await visit.send(piece)

    return origin


def plain(status: bytes, body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


def told(body: bytes) -> dict[str, object]:
    """What the one event behind the heartbeats says of the error."""
    value = json.loads(body.replace(BEAT, b"").removeprefix(b"event: error\n").removeprefix(b"data: "))
    inner = value.get("error", value)
    assert isinstance(inner, dict)
    return inner


@pytest.mark.parametrize("path", PATHS)
async def test_the_head_goes_out_with_a_heartbeat_and_the_stream_follows(
    path: str, autojump_clock: trio.testing.MockClock
) -> None:
    script = answers_after(40, OK_STREAM, chunk(WORD + b"event: message_stop\n" + DONE), LAST_CHUNK)
    async with open_house(script, **EARLY) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path=path)
        answer = await client.answer()
        client.leave()
    assert answer.status == 200 and answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform" and answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"].startswith("req_") and answer.headers["x-trioproxy-upstream"] == "origin"
    assert answer.body.startswith(BEAT * 3 + WORD)
    assert [round(moment - start) for moment in answer.times[:4]] == [5, 20, 35, 40]
    line = house.log.exchanges[0]
    assert (line["status"], line["heartbeats"], line["upstream_request_id"]) == (200, 3, "req_origin")
    assert line["head_ms"] == 40_000


async def test_the_stream_ends_as_honestly_as_any(autojump_clock: trio.testing.MockClock) -> None:
    for last, is_complete in ((DONE, True), (b"", False)):
        async with open_house(answers_after(9, OK_STREAM, chunk(WORD + last), LAST_CHUNK), **EARLY) as house:
            client = house.connect()
            await client.post()
            answer = await client.answer()
            client.leave()
        assert answer.is_complete is is_complete and answer.body.startswith(BEAT + WORD)
        assert (b"upstream_truncated" in answer.body) is not is_complete


async def test_heartbeats_go_on_in_step_across_the_origins_head(autojump_clock: trio.testing.MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(12)
        await visit.send(OK_STREAM)
        await trio.sleep(30)
        await visit.send(chunk(WORD + DONE) + LAST_CHUNK)

    async with open_house(thinks, **EARLY) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert [round(moment - start) for moment in answer.times] == [5, 20, 35, 42]


async def test_an_old_go_client_gets_its_own_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers_after(9, OK_STREAM, chunk(WORD + DONE)), **EARLY) as house:
        client = house.connect()
        await client.post(headers="user-agent: OpenAI/Go 1.2.3\r\n")
        answer = await client.answer()
        client.leave()
    assert answer.body == b":\n" + WORD + DONE


async def test_an_origin_that_is_quicker_keeps_its_status(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers_after(4, plain(b"429 Slow", b'{"error":{}}')), **EARLY) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.body) == (429, b'{"error":{}}')


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("flags", "code", "deadline"),
    [
        ({"deadlines__head_s": 9}, "upstream_head_timeout", "head"),
        ({"deadlines__total_s": 9}, "upstream_total_timeout", "total"),
    ],
)
async def test_a_deadline_is_told_in_band(
    path: str, flags: dict[str, Any], code: str, deadline: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, **EARLY, **flags) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path=path)
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(9)
        assert house.origin.still_open == 0
        client.leave()
    error = told(answer.body)
    assert answer.status == 200 and not answer.is_complete and error["message"]
    assert error.get("code", code) == code
    line = house.log.exchanges[0]
    assert (line["outcome"], line["code"], line["deadline"]) == ("failed", code, deadline)


async def test_going_down_is_told_in_band(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, **EARLY) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        house.house.service.stop_all(CancelReason.DRAIN)
        rest = await client.read_raw()
        assert house.origin.still_open == 0
        client.leave()
    assert b'"draining"' in rest and b"0\r\n\r\n" not in rest


ENVELOPE = (
    b'{\n  "error": {\n    "message": "slow down",\n    "type": "tokens",\n    "param": null, "code": "rate"\n  }\n}'
)
REFUSALS = [
    (plain(b"429 Slow", ENVELOPE), ("slow down", "tokens", "rate")),
    (plain(b"400 Bad", b'{"error":"no such thing"}'), ("no such thing", "invalid_request_error", None)),
    (plain(b"400 Bad", b'{"message":"bare","type":"T","code":7}'), ("bare", "T", None)),
    (plain(b"503 Busy", b"<h1>Busy</h1>", b"text/html"), ("status 503", "server_error", None)),
    (plain(b"500 Broken", b""), ("status 500", "server_error", None)),
    (b"HTTP/1.1 502 Bad\r\ncontent-length: 100\r\n\r\n{", ("status 502", "server_error", None)),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("answered", "words"), REFUSALS)
async def test_an_origins_error_becomes_the_error_event(
    path: str, answered: bytes, words: tuple[str, str, str | None], autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers_after(9, answered), **EARLY) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path=path)
        answer = await client.answer()
        assert trio.current_time() - start < 15
        client.leave()
    error = told(answer.body)
    message, kind, code = words
    assert answer.status == 200 and not answer.is_complete and message in str(error["message"])
    if path.endswith("completions"):
        assert (error["type"], error["code"]) == (kind, code or "upstream_error_in_stream")
    line = house.log.exchanges[0]
    assert (line["status"], line["outcome"], line["code"]) == (200, "failed", "upstream_error_in_stream")


@pytest.mark.parametrize(
    "answered",
    [
        plain(b"200 OK", b'{"choices":[]}'),
        plain(b"302 Found", b""),
        b"HTTP/1.1 204 None\r\n\r\n",
        OK_STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),
        b"not HTTP at all\r\n\r\n",
    ],
)
async def test_what_is_no_stream_cannot_follow_its_head(
    answered: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers_after(9, answered), **EARLY) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert told(answer.body)["code"] == "upstream_protocol_error" and not answer.is_complete


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b'{"model":"m"}'),
        ("/v1/chat/completions", b'{"model":"m","stream":false}'),
        ("/v1/embeddings", b'{"model":"m","stream":true}'),
        ("/v1/audio/speech", b'{"model":"m","stream":true}'),
    ],
)
async def test_nobody_else_gets_an_early_head(path: str, body: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers_after(60, plain(b"404 Not", b"{}")), **EARLY) as house:
        client = house.connect()
        await client.post(body, path)
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.body) == (404, b"{}")


async def test_it_is_off_by_default(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(answers_after(500, plain(b"404 Not", b"{}"))) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.body) == (404, b"{}")


@pytest.mark.parametrize("when", [2, 9])
async def test_a_client_that_leaves_meanwhile_frees_the_origin_at_once(
    when: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, **EARLY) as house:
        client = house.connect()
        await client.post()
        await trio.sleep(when)
        left = trio.current_time()
        client.leave()
        await trio.sleep(1)
        assert house.origin.visits[0].closed == left
    assert house.log.exchanges[0]["reason"] == "client_gone"


async def test_a_connection_that_cannot_be_opened_is_told_in_band(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, **EARLY, deadlines__connect_s=9) as house:
        house.origin.is_unreachable = True
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert told(answer.body)["code"] == "upstream_connect_timeout" and not answer.is_complete


async def test_the_origin_is_free_before_the_client_has_heard_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, lockstep=True, **EARLY, deadlines__total_s=9) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        await client.read_some()
        await trio.sleep(10)
        closed = house.origin.visits[0].closed
        assert closed is not None and closed - start == pytest.approx(9)
        client.leave()
