"""The deadlines on every kind of answer, by route and by request, and what the log says of the one that fired."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import DONE, OK_STREAM, Script, Visit, chunk, content
from tests.way.test_clocks import ROLE, WORD, mute, streams

JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"


def event(**value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


NOTHING_YET = {
    "/v1/chat/completions": [ROLE, event(choices=[]), event(choices=[{"index": 0, "delta": {"content": ""}}])],
    "/v1/completions": [event(choices=[{"index": 0, "text": ""}])],
    "/v1/responses": [
        event(type="response.created"),
        event(type="keepalive"),
        event(type="response.output_text.delta", delta=""),
    ],
    "/v1/messages": [
        event(type="message_start", message={}),
        event(type="ping"),
        event(type="content_block_start", content_block={"type": "text", "text": ""}),
        event(type="content_block_delta", delta={"type": "text_delta", "text": ""}),
    ],
    "/v1/embeddings": [],
}
"""Events that are no content, by path."""
SOMETHING = {
    "/v1/chat/completions": WORD,
    "/v1/completions": event(choices=[{"index": 0, "text": "a"}]),
    "/v1/responses": event(type="response.output_text.delta", delta="a"),
    "/v1/messages": event(type="content_block_delta", delta={"type": "text_delta", "text": "a"}),
    "/v1/embeddings": event(anything="else"),
}


def pieces(*steps: bytes | float) -> Script:
    """An origin that sends bytes as they are, with pauses, and then is silent."""

    async def origin(visit: Visit) -> None:
        await visit.read_request()
        for step in steps:
            if isinstance(step, bytes):
                await visit.send(step)
            else:
                await trio.sleep(step)

    return origin


def ended_by(house: HouseUnderTest) -> tuple[str, str | None, str | None]:
    """Outcome, code and deadline of the one request that was logged."""
    (line,) = house.log.exchanges
    return line["outcome"], line.get("code"), line.get("deadline")


@pytest.mark.parametrize("path", NOTHING_YET)
async def test_what_is_no_content_does_not_stop_the_clock_of_first_content(
    path: str, autojump_clock: trio.testing.MockClock
) -> None:
    steps: list[bytes | float] = [chunk(b": a comment\n\n")]
    for _ in range(10):
        for each in [*NOTHING_YET[path], b": and another\n\n"]:
            steps += [0.5, chunk(each)]
    async with open_house(pieces(OK_STREAM, *steps), deadlines__first_content_s=4, deadlines__idle_s=3) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path=path)
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(4)
        assert b"upstream_first_content_timeout" in answer.body or b"sent no content in time" in answer.body
        client.leave()
    assert ended_by(house) == ("failed", "upstream_first_content_timeout", "first_content")


@pytest.mark.parametrize("path", SOMETHING)
async def test_idle_counts_from_the_last_event(path: str, autojump_clock: trio.testing.MockClock) -> None:
    script = pieces(OK_STREAM, 4.0, chunk(SOMETHING[path]), 2.0, chunk(SOMETHING[path]), 1.0, chunk(b": x\n\n"))
    async with open_house(script, deadlines__idle_s=3, deadlines__first_content_s=5) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path=path)
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(9)
        assert answer.body.startswith(SOMETHING[path] * 2) and not answer.is_complete
        client.leave()
    assert ended_by(house) == ("failed", "upstream_idle_timeout", "idle")


async def test_idle_begins_with_the_first_event(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(250.0, WORD, DONE), deadlines__idle_s=3) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.is_complete and answer.body.endswith(WORD + DONE)


async def test_a_plain_answer_without_a_byte_of_body_is_late(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(pieces(JSON_HEAD), deadlines__first_content_s=20, deadlines__idle_s=5) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(b'{"model":"m"}', "/v1/embeddings")
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(20)
        client.leave()
    assert answer.status == 504 and answer.is_complete
    assert ended_by(house) == ("failed", "upstream_first_content_timeout", "first_content")


@pytest.mark.parametrize("first_content_s", [5, 600])
async def test_a_plain_answer_that_stops_in_the_middle_is_cut(
    first_content_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    script = pieces(JSON_HEAD, 4.0, b"{", 4.0, b'"a"')
    async with open_house(script, deadlines__first_content_s=first_content_s, deadlines__idle_s=5) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(b'{"model":"m"}')
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(13)
        client.leave()
    assert answer.status == 200 and answer.body == b'{"a"' and not answer.is_complete
    assert ended_by(house) == ("failed", "upstream_idle_timeout", "idle")


async def test_the_whole_time_ends_a_plain_answer(autojump_clock: trio.testing.MockClock) -> None:
    slow: list[bytes | float] = [1.0, b"x"] * 50
    async with open_house(pieces(JSON_HEAD, *slow), deadlines__total_s=7.5) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(b'{"model":"m"}')
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(7.5)
        client.leave()
    assert answer.body == b"x" * 7 and not answer.is_complete
    assert ended_by(house) == ("failed", "upstream_total_timeout", "total")


async def test_no_connection_in_time_is_a_504(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    once = tmp_path / "trioproxy.toml"
    once.write_text('[[route]]\nmodels = ["*"]\nretry = { tries = 1 }\n')
    async with open_house(mute, file=once, deadlines__connect_s=3) as house:
        house.origin.is_unreachable = True
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        assert answer.status == 504 and trio.current_time() - start == pytest.approx(3)
        client.leave()
    assert ended_by(house) == ("failed", "upstream_connect_timeout", "connect")


async def test_no_head_in_time_is_told_to_the_log(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, deadlines__head_s=3) as house:
        client = house.connect()
        await client.post()
        await client.answer()
        client.leave()
    assert ended_by(house) == ("failed", "upstream_head_timeout", "head")


async def test_a_request_that_no_clock_ended_says_nothing_of_clocks(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(WORD, DONE)) as house:
        client = house.connect()
        await client.post()
        await client.answer()
        client.leave()
    assert "deadline" not in house.log.exchanges[0]


async def test_a_held_body_that_is_being_taken_leaves_the_origin_time_for_its_head(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def takes_its_time(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit.received:
            await visit._read()
        for _ in range(5):
            await trio.sleep(4)
            await visit._read()
        await visit.read_request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    body = b'{"model":"m","x":"' + b"x" * 400_000 + b'"}'
    async with open_house(takes_its_time, lockstep=True, deadlines__head_s=10) as house:
        client = house.connect()
        await client.post(body, "/v1/embeddings")
        answer = await client.answer()
        client.leave()
    assert (answer.status, answer.body) == (200, b"{}")


async def test_an_upload_that_the_client_does_not_go_on_with_ends_with_the_whole_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(mute, deadlines__total_s=20, server__body_idle_s=1000) as house:
        client = house.connect()
        start = trio.current_time()
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ncontent-length: 6\r\n\r\nab")
        answer = await client.answer()
        assert answer.status == 504 and trio.current_time() - start == pytest.approx(20)
        client.leave()
    assert ended_by(house) == ("failed", "upstream_total_timeout", "total")


@pytest.mark.parametrize(
    ("path", "head"), [("/v1/files", ""), ("/v1/embeddings", "content-type: application/json\r\n")]
)
async def test_a_body_that_stops_coming_is_a_408(path: str, head: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, server__body_idle_s=3) as house:
        client = house.connect()
        start = trio.current_time()
        await client.send(f"POST {path} HTTP/1.1\r\nhost: proxy\r\n{head}content-length: 6\r\n\r\nab".encode())
        answer = await client.answer()
        assert answer.status == 408 and trio.current_time() - start == pytest.approx(3)
        client.leave()
    assert ended_by(house) == ("failed", "request_timeout", "body")


@pytest.mark.parametrize(("stalls_s", "ends"), [(9, 17), (15, 23)])
async def test_the_time_that_a_slow_client_takes_is_added_to_the_origins_silence(
    stalls_s: float, ends: float, autojump_clock: trio.testing.MockClock
) -> None:
    comments: list[bytes | float] = [1.0, b": one\n\n", 1.0, b": two\n\n"]
    async with open_house(
        streams(WORD, *comments), lockstep=True, deadlines__idle_s=10, stream__heartbeat_s=1000
    ) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        await client.read_some()
        await trio.sleep(stalls_s)  # ": one" waits to be sent since 1 s, ": two" to be handed over since 2 s
        rest = await client.read_raw()
        assert trio.current_time() - start == pytest.approx(ends)
        assert b": two\n\n" in rest and b"upstream_idle_timeout" in rest
        client.leave()


async def test_content_that_came_in_time_is_not_late_because_the_client_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = streams(ROLE, 1.0, ROLE, 1.0, WORD, DONE)
    async with open_house(script, lockstep=True, deadlines__first_content_s=5) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(9)
        rest = b""
        while b"[DONE]" not in rest and b"timeout" not in rest:
            rest += await client.read_some()
        assert b"timeout" not in rest
        await trio.sleep(1)
        client.leave()
    assert house.log.exchanges[0]["outcome"] == "finished"


async def test_a_client_that_takes_no_byte_is_told_apart_in_the_log(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(*[WORD] * 9), lockstep=True, deadlines__client_stall_s=7) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(20)
        client.leave()
    line = house.log.exchanges[0]
    assert (line["outcome"], line["reason"], line["deadline"]) == ("cancelled", "client_stalled", "client_stall")


async def test_the_whole_time_is_named_also_where_it_broke_a_send(autojump_clock: trio.testing.MockClock) -> None:
    flags: dict[str, Any] = {"deadlines__client_stall_s": 1000, "deadlines__total_s": 50}
    async with open_house(streams(*[WORD] * 9), lockstep=True, **flags) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(100)
        client.leave()
    assert house.log.exchanges[0]["deadline"] == "total"


async def test_the_final_event_of_a_named_dialect_ends_a_lingering_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    end = event(type="response.completed")
    async with open_house(streams(SOMETHING["/v1/responses"], 1.0, end)) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(path="/v1/responses")
        answer = await client.answer()
        assert answer.is_complete and trio.current_time() - start < 1.1
        client.leave()


# Per request


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", b'{"model":"m"}'), ("/v1/files", b"x")])
@pytest.mark.parametrize(("wish", "ends"), [("2500", 2.5), ("0002500", 2.5), ("60000", 30), ("9" * 18, 30)])
async def test_a_request_may_shorten_its_whole_time(
    path: str, body: bytes, wish: str, ends: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, deadlines__total_s=30) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(body, path, headers=f"x-trioproxy-deadline-ms: {wish}\r\n")
        answer = await client.answer()
        assert answer.status == 504 and trio.current_time() - start == pytest.approx(ends)
        client.leave()
    assert ended_by(house) == ("failed", "upstream_total_timeout", "total")


async def test_it_counts_from_accept_and_holds_for_the_body_too(autojump_clock: trio.testing.MockClock) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: proxy\r\ncontent-length: 13\r\nx-trioproxy-deadline-ms: 5000\r\n\r\n"
    async with open_house(mute) as house:
        for arrives in (3, *[30] * 8):  # both ends of it, the body's and the request's, fire at once, in any order
            client = house.connect()
            start = trio.current_time()
            await client.send(head)
            with trio.move_on_after(arrives):
                answer = await client.answer()
            if arrives < 5:
                await client.send(b'{"model":"m"}')
                answer = await client.answer()
            assert trio.current_time() - start == pytest.approx(5)
            assert answer.status == (504 if arrives < 5 else 408)
            client.leave()
    assert {line["deadline"] for line in house.log.exchanges} == {"total"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
@pytest.mark.parametrize(
    "wish", ["0", "-1", "1.5", "1e3", "soon", "", "1 2", "٣", "9" * 19, "5\r\nx-trioproxy-deadline-ms: 5"]
)
async def test_a_wish_that_cannot_be_read_is_refused(
    path: str, wish: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.post(b'{"model":"m"}', path, headers=f"x-trioproxy-deadline-ms: {wish}\r\n")
        answer = await client.answer()
        client.leave()
        assert not house.origin.visits
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_body", "x-trioproxy-deadline-ms")


async def test_the_origin_does_not_hear_of_it(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[bytes] = []

    async def listens(visit: Visit) -> None:
        asked.append(await visit.read_request())
        await visit.send(OK_STREAM + chunk(WORD + DONE))

    async with open_house(listens) as house:
        client = house.connect()
        await client.post(headers="x-trioproxy-deadline-ms: 5000\r\n")
        await client.answer()
        client.leave()
    assert b"x-trioproxy" not in asked[0]


# Per route

ROUTES = """
[deadlines]
total_s = 50
head_s = 40

[[route]]
models = ["quick-*", "q?"]
deadlines = { head_s = 3 }

[[route]]
models = ["quick-*", "deep*"]
deadlines = { head_s = 600, total_s = 90, connect_s = 2, client_stall_s = 4 }
"""


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    file = tmp_path / "trioproxy.toml"
    file.write_text(ROUTES)
    return file


@pytest.mark.parametrize(
    ("model", "code", "ends"),
    [
        ('"quick-1"', "upstream_head_timeout", 3),
        ('"q1"', "upstream_head_timeout", 3),
        ('"Quick-1"', "upstream_head_timeout", 40),
        ('"deep"', "upstream_total_timeout", 90),
        ("null", "upstream_head_timeout", 40),
        ('"\\u0071uick-1"', "upstream_head_timeout", 3),
    ],
)
async def test_the_first_route_of_a_model_sets_its_deadlines(
    model: str, code: str, ends: float, routes: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, file=routes) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(f'{{"model":{model}}}'.encode())
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(ends)
        client.leave()
    assert json.loads(answer.body)["error"]["code"] == code


async def test_a_request_of_which_nothing_is_read_takes_no_route(
    routes: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, file=routes) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post(b'{"model":"quick-1"}', "/v1/images/generations")
        await client.answer()
        assert trio.current_time() - start == pytest.approx(40)
        client.leave()


async def test_a_route_has_its_own_time_to_connect(routes: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, file=routes) as house:
        house.origin.is_unreachable = True
        for model, each in (("deep", 2), ("other", 5)):
            client = house.connect()
            start = trio.current_time()
            await client.post(f'{{"model":"{model}"}}'.encode())
            await client.answer()
            waits = 0.5 + 1  # between three tries, at most
            assert 3 * each <= trio.current_time() - start < 3 * each + waits
            client.leave()


async def test_a_route_has_its_own_patience_with_a_client(routes: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(*[content("x")] * 9), file=routes, lockstep=True) as house:
        for model, ends in (("deep", 4), ("other", 30)):
            client = house.connect()
            await client.post(f'{{"model":"{model}","stream":true}}'.encode())
            await client.read_some()
            stalled = trio.current_time()
            await trio.sleep(40)
            closed = house.origin.visits[-1].closed
            assert closed is not None and closed - stalled == pytest.approx(ends)
            client.leave()


async def test_a_request_lowers_its_routes_time_and_never_raises_it(
    routes: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute, file=routes) as house:
        for wish, ends in ((70_000, 70), (100_000, 90)):
            client = house.connect()
            start = trio.current_time()
            await client.post(b'{"model":"deep"}', headers=f"x-trioproxy-deadline-ms: {wish}\r\n")
            await client.answer()
            assert trio.current_time() - start == pytest.approx(ends)
            client.leave()
