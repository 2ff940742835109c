"""What HTTP calls ambiguous is refused before anything is forwarded: the corpus of malformed requests, each sent whole,
byte by byte, and behind a good request. And what only looks like it is served."""

import json

import h11
import pytest
import trio

from tests.harness.house import Answer, HouseUnderTest, ListLog, open_house
from tests.harness.malformed import HEADS, MALFORMED, SMUGGLED, Malformed
from tests.harness.origin import LAST_CHUNK, Visit, chunk

GOOD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
GOOD_WITH_BODY = b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"ab") + LAST_CHUNK
UPGRADING = (
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
TO_WEBSOCKET = (
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
MAX_PIECES = 1000
"""In so many pieces a request comes at most; nearly all of the corpus comes byte by byte."""

each_of_the_corpus = pytest.mark.parametrize("bad", MALFORMED, ids=[bad.name for bad in MALFORMED])


async def nobody(visit: Visit) -> None:
    raise AssertionError("the origin was asked")


class Recorder:
    """An origin that keeps the whole requests that it got."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def __call__(self, visit: Visit) -> None:
        while True:
            self.asked.append(await visit.read_request())
            await visit.send(OK)

    @property
    def lines(self) -> list[bytes]:
        return [request.partition(b"\r\n")[0] for request in self.asked]


def answers_in(data: bytes) -> list[Answer]:
    """The answers that follow each other in these bytes, each of them complete."""
    answers = []
    while data:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="POST", target="/", headers=[("host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        answer = Answer()
        while not answer.is_complete:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            else:
                assert isinstance(event, h11.EndOfMessage)
                answer.is_complete = True
        answers.append(answer)
        data = connection.trailing_data[0]
    return answers


async def talk(house: HouseUnderTest, *pieces: bytes) -> list[Answer]:
    """Send pieces on one connection until it is closed, which has to be at once; the answers that came."""
    client = house.connect()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                for piece in pieces:
                    await client.send(piece)
            except trio.BrokenResourceError:
                pass  # refused before everything was sent

        nursery.start_soon(send)
        data = await client.read_raw()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start < 0.1
    await trio.testing.wait_all_tasks_blocked()  # the log line comes after the answer
    client.leave()
    return answers_in(data)


def check_refusal(answer: Answer, bad: Malformed, log: ListLog) -> None:
    """The envelope, the status, the word that the connection is closed, and one log line."""
    error = json.loads(answer.body)["error"]
    assert answer.status == bad.status, error
    assert error["type"] == "invalid_request_error" and error["message"] and error["code"]
    assert answer.headers["connection"] == "close"
    assert ("allow" in answer.headers) is (bad.status == 405)
    refused = [line for line in log.lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert [line["status"] for line in refused] == [bad.status]


@each_of_the_corpus
async def test_it_is_refused_and_the_connection_closed(bad: Malformed, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(nobody) as house:
        [answer] = await talk(house, bad.raw)
        check_refusal(answer, bad, house.log)
        assert house.origin.visits == []
    assert len([line for line in house.log.lines if "status" in line]) == 1


@each_of_the_corpus
async def test_it_is_refused_also_when_it_comes_byte_by_byte(
    bad: Malformed, autojump_clock: trio.testing.MockClock
) -> None:
    size = -(-len(bad.raw) // MAX_PIECES)
    pieces = [bad.raw[start : start + size] for start in range(0, len(bad.raw), size)]
    async with open_house(nobody, lockstep=True) as house:
        [answer] = await talk(house, *pieces)
        check_refusal(answer, bad, house.log)
        assert house.origin.visits == []


@each_of_the_corpus
async def test_it_is_refused_behind_a_good_request(bad: Malformed, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(nobody) as house:
        for good in (GOOD, GOOD_WITH_BODY, UPGRADING, TO_WEBSOCKET):
            first, second = await talk(house, good + bad.raw)
            assert first.status == 200 and "connection" not in first.headers
            check_refusal(second, bad, house.log)
        assert house.origin.visits == []


@pytest.mark.parametrize("bad", [bad for bad in MALFORMED if bad not in HEADS], ids=lambda bad: bad.name)
async def test_an_upload_whose_body_breaks_never_looks_whole_to_the_origin(
    bad: Malformed, autojump_clock: trio.testing.MockClock
) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        head, end, body = bad.raw.replace(b"/v1/chat/completions", b"/v1/files").partition(b"\r\n\r\n")
        [answer] = await talk(house, head + end + chunk(b"first") + body)
        check_refusal(answer, bad, house.log)
    assert origin.asked == []


async def test_a_refusal_says_once_that_the_connection_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(nobody) as house:
        client = house.connect()
        await client.send(MALFORMED[0].raw)
        assert (await client.read_raw()).lower().count(b"connection:") == 1
        client.leave()


async def test_a_body_that_looks_like_a_request_is_never_taken_for_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """CL.0: a route that does not care for a body leaves it where the next request is looked for."""
    origin = Recorder()
    framed = [b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED]
    framed.append(b"Transfer-Encoding: chunked\r\n\r\n" + chunk(SMUGGLED) + LAST_CHUNK)
    lines = [
        b"GET /healthz",
        b"POST /healthz",
        b"PUT /nowhere",
        b"DELETE /v1/messages",
        b"BREW /v1/models",
        b"GET /v1/a",
    ]
    async with open_house(origin) as house:
        for line in lines:
            for rest in framed:
                for cut in (0, len(rest) - 30):
                    client = house.connect()
                    head = line + b" HTTP/1.1\r\nHost: a\r\n"
                    await client.send(head + rest[:cut])
                    await trio.sleep(1)
                    await client.send(rest[cut:] + b"GET /v1/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    await client.read_raw()
                    client.leave()
    assert set(origin.lines) == {b"GET /v1/a HTTP/1.1", b"GET /v1/next HTTP/1.1"}


async def test_an_upgrade_is_ignored_and_what_stands_behind_it_is_the_next_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    origin = Recorder()
    last = b"GET /v1/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with open_house(origin) as house:
        for upgrading in (UPGRADING, TO_WEBSOCKET):
            first, second = await talk(house, upgrading.replace(b"/healthz", b"/v1/a") + last)
            assert (first.status, second.status) == (200, 200)
    assert origin.lines == [b"GET /v1/a HTTP/1.1", b"GET /v1/b HTTP/1.1"] * 2
    assert b"upgrade" not in b"".join(origin.asked).lower()


UNUSUAL = {
    "one empty line first": b"\r\nGET /v1/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "no blank behind the colon": b"GET /v1/a HTTP/1.1\r\nHost:a\r\nConnection:close\r\n\r\n",
    "blanks round a value": b"GET /v1/a HTTP/1.1\r\nHost: \t a \t\r\nConnection:   close\t\r\n\r\n",
    "an empty value": b"GET /v1/a HTTP/1.1\r\nHost: a\r\nX-A:\r\nConnection: close\r\n\r\n",
    "opaque bytes in a value": b"GET /v1/a HTTP/1.1\r\nHost: a\r\nX-A: \xff\xfe\r\nConnection: close\r\n\r\n",
    "names of any letters": b"GET /v1/a HTTP/1.1\r\nhOsT: a\r\nx-!#$%&'*+.^_`|~: b\r\ncONNECTION: Close\r\n\r\n",
    "1.0 without a host": b"GET /v1/a HTTP/1.0\r\n\r\n",
    "a host with its port": b"GET /v1/a HTTP/1.1\r\nHost: my_host.example:8080\r\nConnection: close\r\n\r\n",
    "a host in IPv6": b"GET /v1/a HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n",
    "a length of nothing": b"GET /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a length with zeros": b"GET /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 002\r\nConnection: close\r\n\r\nab",
    "chunked in capitals": (
        b"GET /v1/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tCHUNKED \r\nConnection: close\r\n\r\n" + LAST_CHUNK
    ),
    "extensions and trailers": (
        b"GET /v1/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'00A;a=b ;c="d;\te"\r\n0123456789\r\n0000000000000000 ; x\r\nX-Sum: 1\r\n\r\n'
    ),
}


@pytest.mark.parametrize("raw", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("is_slow", [False, True])
async def test_what_is_unusual_and_clear_is_served(
    raw: bytes, is_slow: bool, autojump_clock: trio.testing.MockClock
) -> None:
    origin = Recorder()
    async with open_house(origin, lockstep=is_slow) as house:
        [answer] = await talk(house, *([raw[at : at + 1] for at in range(len(raw))] if is_slow else [raw]))
        assert (answer.status, answer.body) == (200, b"{}")
    assert origin.lines == [b"GET /v1/a HTTP/1.1"]
    assert b"x-sum" not in origin.asked[0].lower()


async def test_a_line_end_behind_a_body_is_not_a_request(autojump_clock: trio.testing.MockClock) -> None:
    origin = Recorder()
    request = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\n"
    async with open_house(origin) as house:
        client = house.connect()
        for _ in range(3):
            await client.send(request)
            assert (await client.answer()).status == 200
        client.leave()
    assert len(origin.asked) == 3
