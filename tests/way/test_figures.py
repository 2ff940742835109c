"""What a client is told of how its own request went: fields of the head, and a comment inside the stream."""

import re

import pytest
import trio

from tests.harness.house import CHAT, Answer, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import OK, Plays, Ways, ask, ask_stream, cut, opened, route

WANTED = "x-trioproxy-timing: 1\r\n"
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":40}}\n\n'
WORDS = [content("a"), content("b"), USAGE]
MESSAGES = [
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n',
]
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
RESPONSES = [
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"b"}\n\n',
]
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'


def streams(*events: bytes, size: int = 10_000, wait_s: float = 2) -> Plays:
    """An origin that is asked, waits, and sends events with a second before each of them, cut at every `size` bytes."""

    async def stream(visit: Visit) -> None:
        await trio.sleep(wait_s)
        await visit.send(OK_STREAM)
        for event in events:
            await trio.sleep(1)
            for at in range(0, len(event), size):
                await visit.send(chunk(event[at : at + size]))
        await visit.send(LAST_CHUNK)

    return Plays(stream)


async def asked(house: HouseUnderTest, path: str = "/v1/chat/completions", headers: str = WANTED) -> Answer:
    answer = await ask(house, CHAT, path, headers)
    assert answer.is_complete
    return answer


@pytest.mark.parametrize(
    ("path", "before", "terminal", "told"),
    [
        ("chat/completions", WORDS, DONE, b": first_content=3.000 events=4 tokens_per_s=13.3 longest_gap=1.000\n\n"),
        ("completions", WORDS[:2], DONE, b": first_content=3.000 events=3 longest_gap=1.000\n\n"),
        ("messages", MESSAGES, STOP, b": first_content=4.000 events=3 longest_gap=1.000\n\n"),
        ("responses", RESPONSES, COMPLETED, b": first_content=3.000 events=3 longest_gap=1.000\n\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_stream_tells_before_its_terminal_event_how_it_went(
    path: str, before: list[bytes], terminal: bytes, told: bytes, size: int, clock: trio.testing.MockClock
) -> None:
    async with open_house(streams(*before, terminal, size=size)) as house:
        answer = await asked(house, f"/v1/{path}")
        assert answer.body == b"".join(before) + told + terminal
        plain = await asked(house, f"/v1/{path}", "")
        assert plain.body == b"".join(before) + terminal


async def test_the_origin_is_not_told_of_the_wish(clock: trio.testing.MockClock) -> None:
    origin = streams(*WORDS, DONE)
    async with open_house(origin) as house:
        await asked(house)
    assert origin.field(b"x-trioproxy-timing") == []


async def test_behind_an_id_nothing_is_told(clock: trio.testing.MockClock) -> None:
    events = [content("a"), b"id: 7\n" + content("b"), DONE]
    async with open_house(streams(*events)) as house:
        assert (await asked(house)).body == b"".join(events)


async def test_a_client_that_dies_of_a_comment_block_gets_a_line(clock: trio.testing.MockClock) -> None:
    async with open_house(streams(content("a"), DONE)) as house:
        answer = await asked(house, headers=WANTED + "user-agent: OpenAI/Go 1.2.3\r\n")
    assert answer.body == content("a") + b": first_content=3.000 events=2 longest_gap=1.000\n" + DONE


async def test_a_stream_that_breaks_off_tells_nothing(clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(content("a") + b"data: [DO"))
        await trio.sleep(1)
        visit.cut()

    async with open_house(Plays(breaks)) as house:
        answer = await ask(house, CHAT, "/v1/chat/completions", WANTED)
    assert not answer.is_complete
    assert answer.body.startswith(content("a") + b"data: [DO\n\n" + b'data: {"error"')


@pytest.mark.parametrize("wanted", ["", WANTED])
async def test_usage_that_only_we_asked_for_is_still_kept_back(
    wanted: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(a='usage = "ask"'), streams(*WORDS, DONE)) as house:
        answer = await asked(house, headers=wanted)
    told = b": first_content=3.000 events=3 tokens_per_s=13.3 longest_gap=1.000\n\n" if wanted else b""
    assert answer.body == content("a") + content("b") + told + DONE


async def test_a_stream_that_goes_on_elsewhere_tells_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(content("One ")))
        await trio.sleep(1)
        visit.cut()

    talk = b'{"model":"m","messages":[{"role":"user","content":"?"}],"stream":true}'
    async with opened(ways(route("continue_after_cut = true")), Plays(breaks), streams(content("two"), DONE)) as house:
        answer = await ask(house, talk, "/v1/chat/completions", WANTED)
    assert answer.is_complete
    assert answer.body.endswith(b": first_content=0.000 events=3 longest_gap=1.000\n\n" + DONE)
    assert answer.body.count(b"longest_gap") == 1


@pytest.mark.parametrize(("ids", "count"), [("", 1), ("?ids", 0)])
async def test_each_reader_of_a_shared_stream_is_told_its_own_unless_events_have_ids(
    ids: str, count: int, clock: trio.testing.MockClock
) -> None:
    answers: dict[str, Answer] = {}

    async def read(house: HouseUnderTest, name: str, headers: str) -> None:
        answers[name] = await ask_stream(house, f"authorization: Bearer x\r\n{headers}")

    async with open_house(streams(content("a"), content("b"), DONE)) as house, trio.open_nursery() as nursery:
        share = "x-trioproxy-share: auto\r\nx-trioproxy-resume: 9\r\n"
        nursery.start_soon(read, house, "told", share + WANTED)
        nursery.start_soon(read, house, "plain", share)
        await trio.sleep(4.5)
        (stream,) = house.house.hub.streams
        path, headers = f"/v1/streams/{stream.id}{ids}", f"authorization: Bearer x\r\n{WANTED}"
        late = await ask(house, b"", path, headers, method="GET")
    assert {one.headers["server-timing"] for one in answers.values()} == {"head;dur=3000.0"}
    assert late.headers["server-timing"] == "head;dur=0.0"
    assert b"longest_gap" not in answers["plain"].body
    told = b": first_content=3.000 events=3 longest_gap=1.000\n\n"
    assert answers["told"].body == content("a") + content("b") + told + DONE
    assert late.body.count(b": first_content=0.000 events=3 longest_gap=1.000\n\n") == count
    assert late.body.count(b"longest_gap") == count


async def test_a_reader_s_head_tells_its_own_time_alone(clock: trio.testing.MockClock) -> None:
    async with open_house(streams(content("a"), DONE)) as house:
        client = house.connect()
        await client.post(headers="authorization: Bearer x\r\nx-trioproxy-share: a\r\nconnection: close\r\n")
        raw = await client.read_raw()
        client.leave()
    assert re.findall(rb"server-timing: (.*?)\r\n", raw) == [b"head;dur=3000.0"]


async def test_a_head_tells_how_long_it_took(clock: trio.testing.MockClock) -> None:
    async def late(visit: Visit) -> None:
        await trio.sleep(0.25)
        await visit.send(OK)

    async with open_house(Plays(late)) as house:
        plain = await ask(house)
    assert plain.headers["server-timing"] == "total;dur=250.0"
    async with open_house(streams(content("a"), DONE, wait_s=0.5)) as house:
        stream = await ask_stream(house)
    assert stream.headers["server-timing"] == "connect;dur=0.0, head;dur=500.0"


async def test_a_whole_answer_tells_all_of_it_and_an_origin_s_own_stays(clock: trio.testing.MockClock) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver-timing: db;dur=5\r\n\r\n{}"
    async with open_house(Plays(head)) as house:
        client = house.connect()
        await client.post(b'{"model":"m"}', "/v1/embeddings", "connection: close\r\n")
        raw = await client.read_raw()
        client.leave()
    assert re.findall(rb"server-timing: (.*?)\r\n", raw) == [
        b"db;dur=5",
        b"connect;dur=0.0, head;dur=0.0",
        b"total;dur=0.0",
    ]


async def test_an_answer_that_is_folded_tells_its_total(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(route("aggregate = true")), streams(content("a"), content("b", '"stop"'), DONE)) as house:
        answer = await ask(house, b'{"model":"m","messages":[]}', "/v1/chat/completions", WANTED)
    assert answer.status == 200
    assert answer.headers["server-timing"] == "total;dur=5000.0"
    assert b"longest_gap" not in answer.body


async def test_another_wish_is_refused(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(cut)) as house:
        assert (await ask(house, CHAT, "/v1/chat/completions", "x-trioproxy-timing: yes\r\n")).status == 400
