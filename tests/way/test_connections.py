"""A client's connection: kept, shared by many requests in order, and always watched for its end."""

import json

import pytest
import trio

from tests.harness.house import CHAT, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content

WORD = content("word")
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

CHAT_PATH = "/v1/chat/completions"


async def echo_models(visit: Visit) -> None:
    """Answers each request with the number of its turn."""
    for number in range(1000):
        request = await visit.read_request()
        body = b'{"n":%d,"bytes":%d}' % (number, len(request))
        await visit.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )


async def streams_for_ever(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    while True:
        await visit.send(chunk(WORD))
        await trio.sleep(1)


async def mute(visit: Visit) -> None:
    await visit.read_request()


def post(body: bytes = b'{"model":"m"}', path: str = "/v1/embeddings", extra: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: proxy\r\n{extra}content-length: {len(body)}\r\n\r\n".encode() + body


async def test_many_requests_on_one_connection_use_one_connection_to_the_origin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        for number in range(50):
            await client.send(post())
            answer = await client.answer()
            assert json.loads(answer.body)["n"] == number
        assert len(house.origin.visits) == 1
        client.leave()


async def test_requests_in_one_breath_are_answered_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        await client.send(b"".join(post(b'{"model":"%b"}' % (b"m" * number)) for number in range(20)))
        data = b""
        while data.count(b'"bytes":') < 20:
            data += await client.read_some()
        sizes = [int(part.split(b"}")[0]) for part in data.split(b'"bytes":')[1:]]
        assert len(sizes) == 20 and sizes == sorted(sizes) and len(set(sizes)) > 15
        client.leave()


async def test_the_client_leaving_is_seen_behind_bytes_of_a_next_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(streams_for_ever) as house:
        client = house.connect()
        await client.post()
        await client.send(post() + b"POST /v1/embed")
        await client.read_some()
        await trio.sleep(3.5)
        left = trio.current_time()
        client.leave()
        await trio.sleep(2)
        closed = house.origin.visits[0].closed
        assert closed is not None and closed - left <= 1  # the origin's script looks up once a second
    assert house.log.exchanges[0]["reason"] == "client_gone"


@pytest.mark.parametrize("waiting_s", [0, 3])
async def test_the_client_leaving_is_seen_before_the_head(
    waiting_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.post()
        await trio.sleep(waiting_s + 0.1)
        client.leave()
        await trio.sleep(0.1)
        assert house.origin.still_open == 0


async def test_an_idle_connection_is_closed_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models, server__keep_alive_s=75) as house:
        client = house.connect()
        await client.send(post())
        await client.answer()
        start = trio.current_time()
        assert await client.read_raw() == b""
        assert trio.current_time() - start == pytest.approx(75)


@pytest.mark.parametrize("last", ["connection: close\r\n", ""])
async def test_a_client_that_wants_the_connection_closed_gets_it_closed(
    last: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        request = post(extra=last) if last else post().replace(b"HTTP/1.1", b"HTTP/1.0")
        await client.send(request)
        data = await client.read_raw()
        assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"}") and b"connection: close" in data.lower()


async def test_http_2_is_neither_upgraded_to_nor_taken(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        upgrade = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        await client.send(f"GET /healthz HTTP/1.1\r\nhost: proxy\r\n{upgrade}\r\n".encode())
        assert (await client.answer("GET")).status == 200
        client.leave()
        client = house.connect()
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.read_raw()).startswith(b"HTTP/1.1 505")


REFUSED = [
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70000 + b"\r\n\r\n", 431, "headers_too_large"),
    (b"NONSENSE\r\n\r\n", 400, "invalid_body"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_body"),
    (b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400, "invalid_body"),
    (
        b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_body",
    ),
    (b"POST /v1/files HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "invalid_body"),
]


@pytest.mark.parametrize(("request_bytes", "status", "code"), REFUSED)
async def test_a_request_that_cannot_be_read_is_refused_before_anything_is_forwarded(
    request_bytes: bytes, status: int, code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        await client.send(request_bytes)
        answer = await client.answer("GET")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
        assert answer.headers["x-request-id"] and answer.headers["connection"] == "close"
        assert house.origin.visits == []
        client.leave()
    assert sum(line["event"] == "request refused" for line in house.log.lines) == 1


async def test_a_body_that_turns_to_nonsense_ends_the_request_and_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(mute) as house:
        client = house.connect()
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await trio.sleep(1)
        await client.send(b"nonsense\r\n")
        data = await client.read_raw()
        assert data.startswith(b"HTTP/1.1 400")
        await trio.sleep(1)
        assert house.origin.still_open == 0


async def test_nonsense_behind_an_early_answer_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models) as house:
        for path in (b"/nowhere", b"/v1/chat/completions"):
            client = house.connect()
            await client.send(b"PUT %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n" % path)
            data = await client.read_raw()
            assert data.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        client = house.connect()
        await client.send(post())
        assert (await client.answer()).status == 200
        client.leave()


async def test_an_early_refusal_is_readable_though_the_client_still_sends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(echo_models, server__max_body_bytes=1000) as house:
        client = house.connect()
        await client.send(post(b"x" * 500_000, CHAT_PATH)[:5000])
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")
        await client.send(b"y" * 100_000)  # read away, not answered with a reset
        assert await client.read_some() == b""
        client.leave()


async def test_a_body_without_a_length_is_bounded_too(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models, server__max_body_bytes=1000) as house:
        client = house.connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + chunk(b"x" * 600) + chunk(b"x" * 600))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")
        client.leave()


async def test_a_body_that_never_comes_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models, deadlines__total_s=20) as house:
        client = house.connect()
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (408, "request_timeout")
        client.leave()


async def test_a_client_that_asks_first_is_told_to_go_on(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models) as house:
        client = house.connect()
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        await client.send(head)
        assert (await client.read_some()).startswith(b"HTTP/1.1 100")
        await client.send(b"{}")
        assert (await client.answer()).status == 200
        client.leave()


async def test_a_large_piece_goes_out_in_small_ones(autojump_clock: trio.testing.MockClock) -> None:
    async def large(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)

    async with open_house(large, lockstep=True) as house:
        client = house.connect()
        await client.post()
        sizes, total = [], 0
        while total < 100_000:
            data = await client.read_some()
            sizes.append(len(data))
            total += len(data)
        assert max(sizes) <= 16384
        client.leave()


async def test_a_crash_ends_one_request_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(echo_models) as house:
        dispatcher = house.house.service.dispatcher
        house.house.service.dispatcher = None  # type: ignore[assignment]
        client = house.connect()
        await client.send(post(path="/v1/messages"))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["type"]) == (500, "error")
        assert answer.headers["x-request-id"] in json.loads(answer.body)["error"]["message"]
        assert b"NoneType" not in answer.body and b"Traceback" not in answer.body
        crash = next(line for line in house.log.lines if line["event"] == "request crashed")
        assert "NoneType" in crash["exception"] and house.crashes == 1
        house.house.service.dispatcher = dispatcher
        await client.send(post())
        assert (await client.answer()).status == 200
        client.leave()
        house.house.listener.barrier.crashes = 0
    assert len(house.log.exchanges) == 2


async def test_half_a_stream_is_cut_when_its_handler_crashes(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(streams_for_ever) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        monkeypatch.setattr("trioproxy.web.body.ClientAnswer.send", None)
        data = await client.read_raw()
        assert not data.endswith(LAST_CHUNK)
        assert house.crashes == 1
        house.house.listener.barrier.crashes = 0


async def test_draining_lets_streams_finish_and_closes_idle_connections(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        for event in (WORD, WORD, DONE):
            await trio.sleep(5)
            await visit.send(chunk(event))
        await visit.send(LAST_CHUNK)

    async with open_house(slow) as house:
        idle, busy, new, silent = house.connect(), house.connect(), house.connect(), house.connect()
        await idle.send(b"GET /healthz HTTP/1.1\r\nhost: proxy\r\n\r\n")
        assert (await idle.answer("GET")).headers.get("connection") is None
        await busy.post(CHAT)
        await trio.sleep(1)
        await house.house.listener.end_after_answers()
        house.house.listener.end_idle()
        assert await idle.read_raw() == b""
        assert trio.current_time() == pytest.approx(1)
        await trio.sleep(0.5)  # its request was on the way when the server was told to go
        await new.send(b"GET /healthz HTTP/1.1\r\nhost: proxy\r\n\r\n")
        told = await new.answer("GET")
        assert (told.status, told.headers["connection"]) == (200, "close")
        assert await silent.read_raw() == b""
        assert trio.current_time() == pytest.approx(2)
        answer = await busy.answer()
        assert answer.is_complete and answer.body.endswith(DONE)
        assert answer.headers.get("connection") == "close"
        await house.house.listener.wait_empty()


async def test_an_answer_that_began_before_the_drain_may_be_followed_by_one_more_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(WORD))
        await trio.sleep(5)
        await visit.send(chunk(DONE) + LAST_CHUNK)

    async with open_house(slow) as house:
        client = house.connect()
        await client.post(CHAT)
        await trio.sleep(1)
        await house.house.listener.end_after_answers()
        house.house.listener.end_idle()
        assert (await client.answer()).is_complete
        await trio.sleep(0.9)
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: proxy\r\n\r\n")
        assert (await client.answer("GET")).headers["connection"] == "close"
        assert await client.read_raw() == b""
