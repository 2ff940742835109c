"""Nothing lies: an answer ends cleanly only if the origin's did and its dialect's terminal was seen."""

import json

import pytest
import trio

from tests.harness.house import open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content
from trioproxy.net.tcp import close_nowait

WORD = content("word")
STOP = content("", '"stop"')
RESPONSE_WORD = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n'
RESPONSE_END = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'
MESSAGE_WORD = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'
MESSAGE_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"

# path, what the origin sends, whether it ends its answer properly, whether the client may see a clean end
ENDINGS = [
    (CHAT, WORD + DONE, True, True),
    (CHAT, WORD + DONE, False, True),
    (CHAT, WORD + STOP, True, True),
    (CHAT, WORD + STOP, False, False),
    (CHAT, WORD, True, False),
    (CHAT, WORD, False, False),
    (CHAT, WORD + b"data: [DONE]\n", True, True),
    (CHAT, WORD + b"data: [DO", True, False),
    (CHAT, WORD + DONE.replace(b"\n", b"\r\n"), True, True),
    (CHAT, WORD.replace(b"\n", b"\r") + DONE.replace(b"\n", b"\r"), True, True),
    (CHAT, WORD + content("[DONE]"), True, False),
    (CHAT, b"data: half an eve", True, False),
    ("/v1/completions", WORD + DONE, True, True),
    ("/v1/completions", WORD, True, False),
    (RESPONSES, RESPONSE_WORD + RESPONSE_END, True, True),
    (RESPONSES, RESPONSE_WORD + RESPONSE_END, False, True),
    (RESPONSES, RESPONSE_WORD, True, False),
    (RESPONSES, RESPONSE_WORD, False, False),
    (MESSAGES, MESSAGE_WORD + MESSAGE_END, True, True),
    (MESSAGES, MESSAGE_WORD, True, False),
    (MESSAGES, MESSAGE_WORD, False, False),
    ("/v1/threads/t/runs", b"event: thread.run.created\ndata: {}\n\n", True, True),
    ("/v1/threads/t/runs", b"event: thread.run.created\ndata: {}\n\n", False, False),
]


def says(data: bytes, ends: bool) -> Script:
    async def origin(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(data))
        if ends:
            await visit.send(LAST_CHUNK)
        else:
            await trio.sleep(0.01)
            visit.cut()

    return origin


@pytest.mark.parametrize(("path", "data", "ends", "may_be_clean"), ENDINGS)
async def test_the_end_is_clean_only_if_it_is_honest(
    path: str, data: bytes, ends: bool, may_be_clean: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(says(data, ends)) as house:
        client = house.connect()
        await client.post(path=path)
        answer = await client.answer()
        client.leave()
    if not answer.body.startswith(data):  # it became a status: nothing of it was an event
        assert answer.status == 502 and json.loads(answer.body)["error"]["code"] == "upstream_truncated"
        return
    assert answer.is_complete is may_be_clean
    added = answer.body.removeprefix(data)
    if may_be_clean:
        assert added == b""
    else:
        assert b"upstream_truncated" in added or path == MESSAGES
        assert b"[DONE]" not in added
        assert added.endswith(b"\n\n")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_the_error_event_has_the_streams_own_line_ending(
    line_end: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    data = WORD.replace(b"\n", line_end)
    async with open_house(says(data, ends=False)) as house:
        client = house.connect()
        await client.post()
        added = (await client.answer()).body.removeprefix(data)
        client.leave()
    assert added.startswith(b"data: {") and added.endswith(line_end * 2)
    assert added.replace(line_end, b"").count(b"\n") + added.replace(line_end, b"").count(b"\r") == 0


async def test_an_event_cut_in_the_middle_is_ended_before_the_error(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(says(WORD + b'data: {"choi', ends=False)) as house:
        client = house.connect()
        await client.post()
        body = (await client.answer()).body
        client.leave()
    assert body.startswith(WORD + b'data: {"choi\n\ndata: {"error"')


async def test_each_dialect_has_its_own_error_event(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(says(MESSAGE_WORD, ends=False)) as house:
        client = house.connect()
        await client.post(path=MESSAGES)
        added = (await client.answer()).body.removeprefix(MESSAGE_WORD)
        client.leave()
    assert added.startswith(b"event: error\ndata: ")
    assert json.loads(added.partition(b"data: ")[2])["type"] == "error"
    async with open_house(says(RESPONSE_WORD, ends=False)) as house:
        client = house.connect()
        await client.post(path=RESPONSES)
        added = (await client.answer()).body.removeprefix(RESPONSE_WORD)
        client.leave()
    assert added.startswith(b"event: error\ndata: ")
    assert json.loads(added.partition(b"data: ")[2])["code"] == "upstream_truncated"


async def test_lenient_lets_a_stream_without_a_terminal_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(says(WORD, ends=True), stream__end="lenient") as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.is_complete and answer.body == WORD
    assert house.log.exchanges[0]["ended_without_terminal"] is True


async def test_done_ends_the_answer_at_once_though_the_origin_lingers(autojump_clock: trio.testing.MockClock) -> None:
    async def lingers(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(WORD) + chunk(DONE))

    async with open_house(lingers) as house:
        client = house.connect()
        await client.post()
        start = trio.current_time()
        answer = await client.answer()
        assert answer.is_complete and answer.body == WORD + DONE
        assert trio.current_time() - start < 0.1
        await trio.sleep(0.2)
        assert house.origin.still_open == 0  # it had its 50 ms
        client.leave()


async def test_an_origin_that_ends_right_behind_done_keeps_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def two_answers(visit: Visit) -> None:
        for _ in range(2):
            await visit.read_request()
            await visit.send(OK_STREAM + chunk(WORD + DONE))
            await trio.sleep(0.02)
            await visit.send(LAST_CHUNK)

    async with open_house(two_answers) as house:
        client = house.connect()
        for _ in range(2):
            await client.post()
            assert (await client.answer()).is_complete
            await trio.sleep(1)
        assert len(house.origin.visits) == 1
        client.leave()


async def test_what_comes_right_behind_a_named_terminal_still_passes(autojump_clock: trio.testing.MockClock) -> None:
    async def says_more(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(RESPONSE_WORD + RESPONSE_END))
        await trio.sleep(0.02)
        await visit.send(chunk(DONE) + LAST_CHUNK)

    async with open_house(says_more) as house:
        client = house.connect()
        await client.post(path=RESPONSES)
        answer = await client.answer()
        client.leave()
    assert answer.is_complete and answer.body == RESPONSE_WORD + RESPONSE_END + DONE


async def test_a_whole_answer_that_breaks_off_is_never_complete(autojump_clock: trio.testing.MockClock) -> None:
    async def breaks_off(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await trio.sleep(1)
        visit.cut()

    async with open_house(breaks_off) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.status == 200 and not answer.is_complete and answer.body == b"{"
    assert house.log.exchanges[0]["code"] == "upstream_truncated"


async def test_an_http_1_0_client_gets_a_reset_where_only_the_end_of_file_would_tell(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[bool] = []

    def spy(stream: trio.abc.Stream, *, reset: bool = False) -> None:
        resets.append(reset)
        close_nowait(stream, reset=reset)

    monkeypatch.setattr("trioproxy.server.connection.close_nowait", spy)
    async with open_house(says(WORD, ends=False)) as house:
        client = house.connect()
        body = b'{"model":"m","stream":true}'
        head = f"POST {CHAT} HTTP/1.0\r\nhost: proxy\r\ncontent-length: {len(body)}\r\n\r\n"
        await client.send(head.encode() + body)
        await client.read_raw()
        client.leave()
    assert resets[0] is True
