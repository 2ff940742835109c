"""HTTP/1.1 as a client, against origins that answer in every way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioproxy.bench.http_client import Connection, Failed, Url, connect_tcp, parse_url

HEAD = b"HTTP/1.1 200 OK\r\n"
WHERE = Url("http", "origin", 80, "/v1")


class Origin:
    """Answers each request with the next of its answers, piece by piece; the piece b"" hangs up.

    Attributes:
        asked: the requests so far.
        streams: its end of each connection.
    """

    def __init__(self, nursery: trio.Nursery, *answers: list[bytes]) -> None:
        self._nursery = nursery
        self._answers = list(answers)
        self.asked: list[bytes] = []
        self.streams: list[trio.abc.Stream] = []

    async def connect(self, url: Url) -> trio.abc.Stream:
        theirs, ours = trio.testing.memory_stream_pair()
        self.streams.append(ours)
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            while await self._read_request(stream):
                for piece in self._answers.pop(0):
                    if not piece:
                        return
                    await stream.send_all(piece)

    async def _read_request(self, stream: trio.abc.Stream) -> bool:
        request = b""
        while not (b"\r\n\r\n" in request and (b"content-length" not in request or request.endswith(b"}"))):
            piece = await stream.receive_some()
            if not piece:
                return False
            request += piece
        self.asked.append(request)
        return True


@asynccontextmanager
async def origin(*answers: list[bytes]) -> AsyncIterator[tuple[Origin, Connection]]:
    """Such an origin, and a connection to it."""
    async with trio.open_nursery() as nursery:
        scripted = Origin(nursery, *answers)
        connection = Connection(WHERE, "secret", scripted.connect)
        yield scripted, connection
        connection.close()


async def whole(connection: Connection) -> bytes:
    body = b""
    while piece := await connection.read():
        body += piece
    return body


@pytest.mark.parametrize(
    ("expected", "answer", "body", "is_kept"),
    [
        (200, [HEAD + b"content-length: 3\r\n\r\nabc"], b"abc", True),
        (200, [HEAD + b"content-length: 3\r\n\r\n", b"a", b"bc"], b"abc", True),
        (200, [HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"], b"abc", True),
        (200, [HEAD + b"content-length: 0\r\n\r\n"], b"", True),
        (200, [HEAD + b"connection: close\r\ncontent-length: 3\r\n\r\nabc"], b"abc", False),
        (200, [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", HEAD + b"content-length: 1\r\n\r\na"], b"a", True),
        (429, [b"HTTP/1.1 429 Too Many\r\ncontent-length: 1\r\n\r\na"], b"a", True),
        (204, [b"HTTP/1.1 204 No Content\r\n\r\n"], b"", True),
    ],
)
async def test_an_answer_is_read_whole_and_its_connection_used_again(
    autojump_clock: trio.testing.MockClock, expected: int, answer: list[bytes], body: bytes, is_kept: bool
) -> None:
    async with origin(answer, answer) as (scripted, connection):
        for _ in range(2):
            status = await connection.ask("POST", "/chat/completions", b"{}")
            assert status == expected
            assert await whole(connection) == body
        assert len(scripted.streams) == (1 if is_kept else 2)
        assert scripted.asked[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: origin\r\n")
        assert b"\r\nauthorization: Bearer secret\r\n" in scripted.asked[0]


async def test_a_body_may_end_with_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with origin([HEAD + b"\r\nabc", b"def", b""]) as (_, connection):
        await connection.ask("GET", "/models")
        assert await whole(connection) == b"abcdef"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([HEAD + b"content-length: 3\r\n\r\nab", b""], "connection cut"),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b""], "connection cut"),
        ([b"HTTP/1.1 200 O", b""], "connection cut"),
        ([b"SSH-2.0\r\n\r\n"], "not HTTP/1.1"),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"], "not HTTP/1.1"),
    ],
)
async def test_what_is_no_whole_answer_fails(
    autojump_clock: trio.testing.MockClock, answer: list[bytes], says: str
) -> None:
    async with origin(answer) as (_, connection):

        async def ask() -> None:
            await connection.ask("POST", "/x", b"{}")
            await whole(connection)

        with pytest.raises(Failed, match=says):
            await ask()


async def test_an_origin_that_hung_up_between_two_requests_is_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    good = [HEAD + b"content-length: 1\r\n\r\na"]
    async with origin(good, [b""], good) as (scripted, connection):
        for _ in range(2):
            assert await connection.ask("POST", "/x", b"{}") == 200
            await whole(connection)
        assert len(scripted.streams) == 2


async def test_a_new_connection_without_an_answer_is_not_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    async with origin([b""], [b""]) as (scripted, connection):
        with pytest.raises(Failed, match="connection cut"):
            await connection.ask("POST", "/x", b"{}")
        assert len(scripted.asked) == 1


async def test_who_is_cancelled_leaves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with origin([HEAD + b"content-length: 3\r\n\r\na"]) as (scripted, connection):
        await connection.ask("POST", "/x", b"{}")
        assert await connection.read() == b"a"
        with trio.move_on_after(1):
            await connection.read()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await scripted.streams[0].send_all(b"bc")


async def test_nobody_there_is_said() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(Failed, match="cannot connect"):
            await connect_tcp(Url("http", "127.0.0.1", port, "/v1"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("http://a/", "http://a/v1"),
        ("https://a/x/y/", "https://a/x/y"),
        ("https://a:443", "https://a/v1"),
        ("http://[::1]:80/v1/chat/completions", "http://[::1]/v1"),
    ],
)
def test_where_a_url_leads(text: str, found: str) -> None:
    assert parse_url(text).text == found


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a",
        "http://",
        "http://[",
        "http://me:hunter2@a/v1",
        "http://me:hunter2",
        "http://a/?key=hunter2",
        "http://a/hunter2 x",
        "http://a\r\nhost: hunter2/",
        "http://a/hünter2",
    ],
)
def test_what_is_no_url_is_refused_and_not_echoed(text: str) -> None:
    with pytest.raises(ValueError, match=r"^((?!h.nter2).)*$"):
        parse_url(text)
