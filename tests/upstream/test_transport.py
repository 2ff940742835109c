"""Requests on the wire, uploads beside their answers, connections kept or closed, and cancellation at every step."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx
import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.wires import HOST, Net, open_net, serve_tls, tls_client, tls_server
from trioproxy.errors import RequestTooLarge
from trioproxy.upstream.connect import Connector
from trioproxy.upstream.http1 import OriginConnection
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.transport import OriginBody, TrioTransport, Upload, origin_of

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\n"
HEADERS = [(b"host", b"origin.test"), (b"authorization", b"Bearer key")]
HEAD = b"POST /v1/x HTTP/1.1\r\nhost: origin.test\r\nauthorization: Bearer key\r\n"
AT_ONCE = 65536

CHUNKED = [*HEADERS, (b"transfer-encoding", b"chunked")]
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


class Source:
    """A body that is streamed: each piece is asked for. `asked` counts; `failure` or silence may stand at its end."""

    def __init__(self, pieces: Sequence[bytes], *, failure: Exception | None = None, has_end: bool = True) -> None:
        self._pieces = list(pieces)
        self._failure = failure
        self._has_end = has_end
        self.asked = 0

    def __aiter__(self) -> "Source":
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        if not self._has_end:
            await trio.sleep_forever()
        raise StopAsyncIteration


class _Streamed(httpx.AsyncByteStream):
    def __init__(self, source: Source) -> None:
        self._source = source

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._source)


class Side:
    """Our side of a net: a transport with its pool."""

    def __init__(self, net: Net, scheme: str = "http", proxy: str | None = None) -> None:
        self.pool = Pool()
        self.net = net
        self._url = f"{scheme}://{HOST}/v1"
        connector = Connector(tls=tls_client(), proxy=httpx.URL(proxy) if proxy else None, open_tcp=net.open_tcp)
        self.transport = TrioTransport(connector, self.pool)

    async def send(
        self,
        body: bytes | Source = b"",
        headers: Sequence[tuple[bytes, bytes]] = HEADERS,
        *,
        nursery: trio.Nursery | None = None,
        method: str = "POST",
        target: bytes = b"/v1/x",
        connect_s: float = 5,
    ) -> httpx.Response:
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _Streamed(body)
        extensions = {"target": target, "timeout": {"connect": connect_s}, "nursery": nursery}
        request = httpx.Request(method, self._url, headers=list(headers), stream=stream, extensions=extensions)
        return await self.transport.handle_async_request(request)

    async def warm_up(self, connect_s: float = 5) -> None:
        await self.transport.warm_up(httpx.URL(self._url), connect_s)


def body_of(response: httpx.Response) -> OriginBody:
    assert isinstance(response.stream, OriginBody)
    return response.stream


async def read_all(response: httpx.Response) -> bytes:
    body = body_of(response)
    data = b""
    try:
        while piece := await body.read():
            data += piece
    finally:
        body.close_nowait()
    return data


def answering(*answers: bytes, got: list[bytes] | None = None, tls: bool = False) -> Script:
    """An origin that reads whole requests, and answers each with the next of these."""

    async def script(visit: Visit) -> None:
        if tls:
            visit.stream = await serve_tls(visit.stream)
        for answer in answers:
            request = await visit.read_request()
            if got is not None:
                got.append(request)
            await visit.send(answer)

    return script


async def read_head(visit: Visit) -> bytes:
    while b"\r\n\r\n" not in visit.received:
        visit.received += await visit.stream.receive_some(65536)
    head, _, visit.received = visit.received.partition(b"\r\n\r\n")
    return head


# On the wire


def sends(got: list[bytes], count: int) -> Script:
    """An origin that notes each send by itself (its net has to be in lockstep), and answers after so many."""

    async def script(visit: Visit) -> None:
        while len(got) < count:
            got.append(bytes(await visit.stream.receive_some()))
        await trio.testing.wait_all_tasks_blocked()
        await visit.send(OK)

    return script


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * AT_ONCE], ids=len)
async def test_head_and_body_are_one_send(body: bytes) -> None:
    got: list[bytes] = []
    length = (b"content-length", b"%d" % len(body))
    async with open_net(sends(got, 1), lockstep=True) as net:
        assert await read_all(await Side(net).send(body, [*HEADERS, length])) == b"hi"
    assert got == [HEAD + b"content-length: %d\r\n\r\n" % len(body) + body]


async def test_a_large_body_follows_its_head() -> None:
    got: list[bytes] = []
    body = bytes(range(256)) * 256 + b"!"
    length = (b"content-length", b"%d" % len(body))
    async with open_net(sends(got, 3), lockstep=True) as net, trio.open_nursery() as nursery:
        assert await read_all(await Side(net).send(body, [*HEADERS, length], nursery=nursery)) == b"hi"
    assert got == [HEAD + b"content-length: 65537\r\n\r\n", body[:-1], b"!"]


async def test_a_streamed_body_is_chunked_piece_by_piece() -> None:
    got: list[bytes] = []
    pieces = [b"a", b"", b"x" * 70_000, b"bc"]  # an empty chunk would be the end
    async with open_net(sends(got, 5), lockstep=True) as net, trio.open_nursery() as nursery:
        assert await read_all(await Side(net).send(Source(pieces), CHUNKED, nursery=nursery)) == b"hi"
    assert got == [
        HEAD + b"transfer-encoding: chunked\r\n\r\n",
        b"1\r\na\r\n",
        b"11170\r\n" + b"x" * 70_000 + b"\r\n",
        b"2\r\nbc\r\n",
        b"0\r\n\r\n",
    ]


async def test_a_streamed_body_of_known_length_goes_out_as_it_is() -> None:
    got: list[bytes] = []
    headers = [*HEADERS, (b"content-length", b"3")]
    async with open_net(sends(got, 3), lockstep=True) as net, trio.open_nursery() as nursery:
        side = Side(net)
        assert await read_all(await side.send(Source([b"a", b"", b"bc"]), headers, nursery=nursery)) == b"hi"
        assert side.pool.idle_connections == 1
    assert got == [HEAD + b"content-length: 3\r\n\r\n", b"a", b"bc"]


async def test_without_a_nursery_the_body_is_sent_before_the_answer_is_read() -> None:
    got: list[bytes] = []
    async with open_net(answering(OK, got=got)) as net:
        side = Side(net)
        assert await read_all(await side.send(Source([b"abc"]), CHUNKED)) == b"hi"
        assert side.pool.idle_connections == 1
    assert got == [HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]


@pytest.mark.parametrize(
    "target", [b"/a%2Fb/../c", b"//a//b/./", b"/v1/x?a=%20&b[]=\xc3\xa4", b"/%00%ff", b"*", b"/a?", b"/a;b=c#d"]
)
async def test_a_target_goes_out_as_it_was_written(target: bytes) -> None:
    got: list[bytes] = []
    async with open_net(answering(OK, got=got)) as net:
        await read_all(await Side(net).send(target=target))
    assert got[0].startswith(b"POST " + target + b" HTTP/1.1\r\n")


async def test_nothing_is_added_to_a_request_and_nothing_kept_from_an_answer() -> None:
    got: list[bytes] = []
    cookie = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    headers = [(b"Host", b"h"), (b"x-B", b"\xe4"), (b"x-b", b"2"), (b"X-Empty", b"")]
    async with open_net(answering(cookie, OK, got=got)) as net:
        side = Side(net)
        for _ in range(2):
            await read_all(await side.send(headers=headers, method="GET"))
        assert len(net.opened) == 1
    assert got == [b"GET /v1/x HTTP/1.1\r\nHost: h\r\nx-B: \xe4\r\nx-b: 2\r\nX-Empty: \r\n\r\n"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 407, 429, 503])
async def test_whatever_the_status_an_answer_is_an_answer(status: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nlocation: http://elsewhere.test/\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\nhi"
    async with open_net(answering(answer % status)) as net:
        response = await Side(net).send()
        assert response.status_code == status
        assert response.headers["location"] == "http://elsewhere.test/"
        assert await read_all(response) == b"hi"
        assert len(net.opened) == len(net.asked) == 1


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.test/v1", ("http", "a.test", 80)),
        ("https://a.test", ("https", "a.test", 443)),
        ("https://a.test:8443/v1", ("https", "a.test", 8443)),
        ("http://A.Test:80/", ("http", "a.test", 80)),
        ("http://[2001:db8::1]:8000/v1", ("http", "2001:db8::1", 8000)),
        ("http://user:pass@a.test/", ("http", "a.test", 80)),
        ("http://münchen.test/", ("http", "xn--mnchen-3ya.test", 80)),
        ("http://xn--mnchen-3ya.test/", ("http", "xn--mnchen-3ya.test", 80)),
        ("http://xn--a/", ("http", "xn--a", 80)),
        ("http://under_score/", ("http", "under_score", 80)),
    ],
)
def test_an_origin_is_named_as_it_is_looked_up(url: str, origin: tuple[str, str, int]) -> None:
    """Also one whose punycode is none: httpx would fail to show it."""
    assert origin_of(httpx.URL(url)) == origin


# Reuse


@SCHEMES
async def test_a_connection_is_used_again_and_again(scheme: str) -> None:
    async with open_net(answering(OK, OK, OK, tls=scheme == "https")) as net:
        side = Side(net, scheme)
        for _ in range(3):
            response = await side.send()
            assert side.pool.idle_connections == 0
            assert await read_all(response) == b"hi"
            assert side.pool.idle_connections == 1
        assert len(net.opened) == 1


@SCHEMES
async def test_an_answer_that_was_not_read_to_its_end_costs_its_connection(scheme: str) -> None:
    async with open_net(answering(OK_STREAM + chunk(b"a"), OK, tls=scheme == "https")) as net:
        side = Side(net, scheme)
        body = body_of(await side.send())
        assert await body.read() == b"a"
        with trio.testing.assert_no_checkpoints():
            body.close_nowait()
        assert net.still_open == []
        assert side.pool.idle_connections == 0
        body.close_nowait()


async def test_what_an_origin_sends_unasked_over_tls_is_no_answer_to_the_next_request() -> None:
    """Two records in one piece: the second one is in TLS's buffer, and the socket knows nothing of it."""

    async def script(visit: Visit) -> None:
        tls = await serve_tls(visit.stream)
        await tls.receive_some()
        held, sent = trio.testing.memory_stream_pair()
        tls.transport_stream = held
        await tls.send_all(OK)
        await tls.send_all(OK.replace(b"hi", b"no"))
        await visit.send(bytes(await sent.receive_some()))
        await trio.sleep_forever()

    async with open_net(script) as net:
        side = Side(net, "https")
        for connections in (1, 2):
            assert await read_all(await side.send()) == b"hi"
            assert len(net.opened) == connections


async def test_a_body_that_was_let_go_reads_nothing_of_the_next_answer() -> None:
    async with open_net(answering(OK, OK)) as net:
        side = Side(net)
        first = body_of(await side.send())
        while await first.read():
            pass
        first.close_nowait()
        second = body_of(await side.send())
        assert second.connection is first.connection
        with pytest.raises(httpx.StreamClosed):
            await first.read()
        first.close_nowait()
        assert await second.read() == b"hi"


async def test_httpx_can_iterate_and_close_an_answer() -> None:
    async with open_net(answering(OK, OK, OK)) as net:
        side = Side(net)
        response = await side.send()
        assert [piece async for piece in response.aiter_raw()] == [b"hi"]
        assert side.pool.idle_connections == 1
        await (await side.send()).aclose()
        assert side.pool.idle_connections == 0
        await read_all(await side.send())
        await side.transport.aclose()
        assert net.still_open == []


async def test_a_kept_connection_that_ends_just_then_is_a_read_error() -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK)
        await visit.read_request()
        visit.cut()

    async with open_net(script) as net:
        side = Side(net)
        await read_all(await side.send())
        with pytest.raises(httpx.ReadError):
            await side.send()
        assert net.still_open == []


# Warming up


@SCHEMES
async def test_a_warm_connection_waits_for_the_next_request(scheme: str) -> None:
    async with open_net(answering(OK, OK, tls=scheme == "https")) as net:
        side = Side(net, scheme)
        for _ in range(3):
            await side.warm_up()
            assert side.pool.idle_connections == 1
        assert await read_all(await side.send()) == b"hi"
        assert len(net.opened) == 1


async def test_warming_up_does_not_keep_a_connection_for_longer(autojump_clock: trio.testing.MockClock) -> None:
    answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=3\r\ncontent-length: 0\r\n\r\n"
    async with open_net(answering(answer, answer)) as net:
        side = Side(net)
        await read_all(await side.send())
        for _ in range(2):
            await side.warm_up()
            assert len(net.opened) == 1
            await trio.sleep(1.1)
        await side.warm_up()
        assert len(net.opened) == 2 and len(net.still_open) == 1


# Connecting


@pytest.mark.parametrize("proxy", [None, "http://proxy.test:3128"])
@pytest.mark.parametrize("connect_s", [0.5, 5])
async def test_the_time_to_connect_covers_proxy_and_tls(
    connect_s: float, proxy: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(visit: Visit) -> None:
        """Accepts, and never says anything."""

    async with open_net(silent) as net:
        side = Side(net, "https", proxy)
        for act in (side.send(connect_s=connect_s), side.warm_up(connect_s)):
            started = trio.current_time()
            with pytest.raises(httpx.ConnectTimeout):
                await act
            assert trio.current_time() == started + connect_s
            assert net.still_open == []


async def test_the_time_to_connect_covers_a_tunnel_that_opens_slowly(autojump_clock: trio.testing.MockClock) -> None:
    async def drip(visit: Visit) -> None:
        await visit.read_request()
        while True:
            await trio.sleep(0.9)
            await visit.send(b"H")

    async with open_net(drip) as net:
        with pytest.raises(httpx.ConnectTimeout):
            await Side(net, "https", "http://proxy.test:3128").send(connect_s=2)
        assert net.still_open == []


async def test_the_time_to_connect_covers_finding_the_address(autojump_clock: trio.testing.MockClock) -> None:
    async def look_up(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    transport = TrioTransport(Connector(tls=None, open_tcp=look_up), Pool())
    with pytest.raises(httpx.ConnectTimeout):
        await transport.warm_up(httpx.URL("http://origin.test"), 3)
    assert trio.current_time() == pytest.approx(3)


async def test_the_time_to_connect_does_not_go_on_once_connected(autojump_clock: trio.testing.MockClock) -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(50)
        await visit.send(OK)

    async with open_net(script) as net:
        assert await read_all(await Side(net).send(connect_s=1)) == b"hi"


# An upload and its answer


def early(answer: bytes, *rest: bytes, tls: bool) -> Script:
    """An origin that has read the head, and answers without reading the body."""

    async def script(visit: Visit) -> None:
        if tls:
            visit.stream = await serve_tls(visit.stream)
        await read_head(visit)
        for piece in (answer, *rest):
            await visit.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep_forever()

    return script


@SCHEMES
@pytest.mark.parametrize("is_held", [True, False], ids=["held", "streamed"])
async def test_an_early_refusal_is_delivered_and_ends_the_upload(scheme: str, is_held: bool) -> None:
    """In lockstep: the upload is stuck in a send that the origin never reads. The refusal comes in three pieces."""
    script = early(TOO_LARGE, b"too ", b"large", tls=scheme == "https")
    source = Source([b"x" * 1000] * 50)
    async with open_net(script, lockstep=True) as net, trio.open_nursery() as nursery:
        side = Side(net, scheme)
        if is_held:
            response = await side.send(b"x" * 500_000, [*HEADERS, (b"content-length", b"500000")], nursery=nursery)
        else:
            response = await side.send(source, CHUNKED, nursery=nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert response.status_code == 413
        assert await read_all(response) == b"too large"
        assert net.still_open == []
        assert side.pool.idle_connections == 0
    assert source.asked <= 2


async def test_an_early_refusal_ends_an_upload_that_waits_for_its_source() -> None:
    source = Source([b"x"], has_end=False)

    async def script(visit: Visit) -> None:
        await read_head(visit)
        await visit.stream.receive_some()
        await visit.send(TOO_LARGE + b"too large")

    async with open_net(script) as net:
        side = Side(net)
        async with trio.open_nursery() as nursery:
            response = await side.send(source, CHUNKED, nursery=nursery)
        assert source.asked == 2, "the nursery is empty though the source has no end"
        assert await read_all(response) == b"too large"
        assert net.still_open == []


@SCHEMES
async def test_while_an_answer_comes_early_the_upload_goes_on(scheme: str) -> None:
    """Both ways at once: the origin answers each piece before it takes the next."""

    async def echo(visit: Visit) -> None:
        if scheme == "https":
            visit.stream = await serve_tls(visit.stream)
        await read_head(visit)
        await visit.send(OK_STREAM)
        received = visit.received
        while not received.endswith(LAST_CHUNK):
            piece = bytes(await visit.stream.receive_some())
            received += piece
            await visit.send(chunk(piece))
        await visit.send(LAST_CHUNK)

    source = Source([b"%d" % number for number in range(20)])
    async with open_net(echo, lockstep=True) as net, trio.open_nursery() as nursery:
        side = Side(net, scheme)
        response = await side.send(source, CHUNKED, nursery=nursery)
        assert source.asked <= 2
        sent = await read_all(response)
        assert sent == b"".join(chunk(b"%d" % number) for number in range(20)) + LAST_CHUNK
        assert side.pool.idle_connections == 1


@SCHEMES
async def test_an_answer_that_is_over_before_the_upload_costs_the_connection(scheme: str) -> None:
    source = Source([b"x"] * 50)
    async with open_net(early(OK, tls=scheme == "https"), lockstep=True) as net:
        side = Side(net, scheme)
        async with trio.open_nursery() as nursery:
            assert await read_all(await side.send(source, CHUNKED, nursery=nursery)) == b"hi"
            assert net.still_open == []
        assert side.pool.idle_connections == 0
        assert source.asked <= 2


async def test_nothing_is_asked_of_a_source_before_the_origin_took_the_last_piece() -> None:
    async def script(visit: Visit) -> None:
        await read_head(visit)
        for taken in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert source.asked == taken + 1
            await visit.stream.receive_some()
        visit.cut()

    source = Source([b"x"] * 10)
    async with open_net(script, lockstep=True) as net, trio.open_nursery() as nursery:
        with pytest.raises(httpx.ReadError):
            await Side(net).send(source, CHUNKED, nursery=nursery)


@SCHEMES
@pytest.mark.parametrize("body", ["small", "large", "streamed", "streamed and waiting"])
@pytest.mark.parametrize("has_answer", [True, False], ids=["having answered", "without a word"])
async def test_an_origin_may_leave_without_reading(scheme: str, body: str, has_answer: bool) -> None:
    async def script(visit: Visit) -> None:
        if scheme == "https":
            visit.stream = await serve_tls(visit.stream)
        if has_answer:
            await visit.send(TOO_LARGE + b"too large")
        visit.cut()

    source = Source([b"x"] * 5, has_end=not body.endswith("waiting"))
    async with open_net(script) as net:
        side = Side(net, scheme)
        await side.warm_up()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def send() -> httpx.Response:
                if body.startswith("streamed"):
                    return await side.send(source, CHUNKED, nursery=nursery)
                data = b"x" * (10 if body == "small" else 100_000)
                return await side.send(data, [*HEADERS, (b"content-length", b"%d" % len(data))], nursery=nursery)

            if has_answer:
                assert await read_all(await send()) == b"too large"
            else:
                with pytest.raises(httpx.ReadError):
                    await send()
        assert net.still_open == []


@pytest.mark.parametrize(
    ("answer", "error"), [(b"nonsense\r\n\r\n", httpx.RemoteProtocolError), (b"HTTP/1.1 2", httpx.ReadError)]
)
async def test_a_request_that_failed_asks_no_more_of_its_source(answer: bytes, error: type[Exception]) -> None:
    async def script(visit: Visit) -> None:
        await read_head(visit)
        await visit.stream.receive_some()
        await visit.send(answer)
        await visit.stream.send_eof()  # type: ignore[attr-defined]

    source = Source([b"x"], has_end=False)
    async with open_net(script) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(error):
                await Side(net).send(source, CHUNKED, nursery=nursery)
        assert source.asked == 2
        assert net.still_open == []


@SCHEMES
@pytest.mark.parametrize("beside", [True, False], ids=["beside the answer", "before the answer"])
async def test_a_source_that_gives_up_is_the_request_s_failure(scheme: str, beside: bool) -> None:
    """The origin must not take what it has for the whole body."""
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        if scheme == "https":
            visit.stream = await serve_tls(visit.stream)
        try:
            while piece := await visit.stream.receive_some():
                got.append(bytes(piece))
        except trio.BrokenResourceError:
            got.append(b"<broken>")  # TLS says that this was no proper end

    source = Source([b"abc"], failure=RequestTooLarge("too large"))
    async with open_net(script) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(RequestTooLarge):
                await Side(net, scheme).send(source, CHUNKED, nursery=nursery if beside else None)
        assert net.still_open == []
        await trio.testing.wait_all_tasks_blocked()
    assert b"abc" in b"".join(got)
    assert LAST_CHUNK not in b"".join(got)


async def test_a_source_that_gives_up_behind_an_early_answer_breaks_that_off() -> None:
    release = trio.Event()

    class Late(Source):
        async def __anext__(self) -> bytes:
            await release.wait()
            return await super().__anext__()

    async with open_net(early(OK_STREAM, chunk(b"a"), tls=False)) as net:
        async with trio.open_nursery() as nursery:
            late = Late([], failure=RequestTooLarge("too large"))
            body = body_of(await Side(net).send(late, CHUNKED, nursery=nursery))
            assert await body.read() == b"a"
            release.set()
            with pytest.raises(httpx.ReadError):
                await body.read()
            body.close_nowait()
        assert net.still_open == []


@pytest.mark.parametrize("declared", [b"0", b"2", b"4", b"10", None])
async def test_a_body_that_is_not_as_long_as_declared_never_shares_a_connection(declared: bytes | None) -> None:
    """Too short, and the next request would be taken for its rest; too long, and its rest for the next request."""
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        await read_head(visit)
        await visit.send(OK)
        got.append(visit.received)
        while piece := await visit.stream.receive_some():
            got.append(bytes(piece))

    headers = HEADERS if declared is None else [*HEADERS, (b"content-length", declared)]
    async with open_net(script) as net:
        side = Side(net)
        async with trio.open_nursery() as nursery:
            try:
                await read_all(await side.send(Source([b"a", b"b", b"c"]), headers, nursery=nursery))
            except httpx.ReadError:
                pass
        assert side.pool.idle_connections == 0
        assert net.still_open == []
        await trio.testing.wait_all_tasks_blocked()
    assert len(b"".join(got)) <= int(declared or 0)


async def test_an_upload_is_over_only_when_all_was_sent() -> None:
    for pieces, length, is_over in (([b"ab"], 2, True), ([b"a"], 2, False), ([], 0, True), ([b"a"], None, True)):
        ours, _ = trio.testing.memory_stream_pair()
        upload = Upload(OriginConnection(ours), aiter(Source(pieces)), length)
        assert not upload.is_over
        await upload.run()
        assert upload.is_over is is_over
    ours, _ = trio.testing.memory_stream_pair()
    upload = Upload(OriginConnection(ours), aiter(Source([b"a"])), None)
    upload.stop()
    await upload.run()
    assert not upload.is_over


# Cancelled at every step


@dataclass(frozen=True)
class Story:
    """A request that is cancelled again and again, each time one step later. `before` runs before that begins."""

    name: str
    script: Script
    play: Callable[[Side, trio.Nursery], Awaitable[None]]
    before: Callable[[Side], Awaitable[object]] | None = None
    scheme: str = "http"
    proxy: str | None = None
    lockstep: bool = False


def in_pieces(*pieces: bytes, tls: bool = False) -> Script:
    async def script(visit: Visit) -> None:
        if tls:
            visit.stream = await serve_tls(visit.stream)
        while True:
            visit.received = b""
            await visit.read_request()
            for piece in pieces:
                await visit.send(piece)
                await trio.lowlevel.checkpoint()

    return script


def behind_a_tunnel(script: Script) -> Script:
    async def play(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await script(visit)

    return play


async def ask(side: Side, nursery: trio.Nursery) -> None:
    await exchange(side, side.send(nursery=nursery))


async def upload(side: Side, nursery: trio.Nursery) -> None:
    await exchange(side, side.send(Source([b"a", b"b" * 5000, b"c"]), CHUNKED, nursery=nursery))


async def upload_first(side: Side, nursery: trio.Nursery) -> None:
    await exchange(side, side.send(Source([b"a", b"b"]), CHUNKED))


async def upload_large(side: Side, nursery: trio.Nursery) -> None:
    headers = [*HEADERS, (b"content-length", b"100000")]
    await exchange(side, side.send(b"x" * 100_000, headers, nursery=nursery))


async def exchange(side: Side, sending: Awaitable[httpx.Response]) -> None:
    """Send and read, and look what is open before any other task has run."""
    response: httpx.Response | None = None
    try:
        response = await sending
        while await body_of(response).read():
            pass
    finally:
        if response is not None:
            body_of(response).close_nowait()
        assert len(side.net.still_open) == side.pool.idle_connections


ANSWER = (OK_STREAM[:20], OK_STREAM[20:], chunk(b"a"), chunk(b"bc"), LAST_CHUNK)
STORIES = [
    Story("plain", in_pieces(*ANSWER), ask),
    Story("on a kept connection", in_pieces(*ANSWER), ask, before=lambda side: side.warm_up()),
    Story("TLS", in_pieces(*ANSWER, tls=True), ask, scheme="https"),
    Story("through a proxy", behind_a_tunnel(in_pieces(*ANSWER)), ask, proxy="http://proxy.test"),
    Story("an upload", in_pieces(*ANSWER), upload),
    Story("an upload in lockstep", in_pieces(*ANSWER), upload, lockstep=True),
    Story("an upload by TLS", in_pieces(*ANSWER, tls=True), upload, scheme="https", before=lambda side: side.warm_up()),
    Story("an upload before the answer", in_pieces(*ANSWER), upload_first),
    Story("a large body in lockstep", in_pieces(*ANSWER), upload_large, lockstep=True),
    Story("an early refusal", early(TOO_LARGE, b"too ", b"large", tls=False), upload, lockstep=True),
    Story(
        "an early refusal by TLS",
        early(TOO_LARGE, b"too ", b"large", tls=True),
        upload,
        scheme="https",
        lockstep=True,
        before=lambda side: side.warm_up(),
    ),
]


def play(story: Story, step: int) -> tuple[bool, int]:
    """Play a story and cancel it at a step of the scheduler; whether that came in time, and how many steps it had."""
    instrument = AtStep(step)

    async def main() -> bool:
        async with open_net(story.script, lockstep=story.lockstep) as net:
            side = Side(net, story.scheme, story.proxy)
            if story.before is not None:
                await story.before(side)
            with trio.CancelScope() as scope:
                instrument.act = scope.cancel
                async with trio.open_nursery() as nursery:
                    await story.play(side, nursery)
            instrument.act = None
            assert len(net.still_open) == side.pool.idle_connections
            if scope.cancelled_caught:
                assert side.pool.idle_connections <= (story.before is not None), "kept, though it was cancelled"
            side.pool.close_nowait()
            assert net.still_open == []
        return scope.cancelled_caught

    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_cancelled_request_leaves_nothing_open_at_whichever_step(story: Story) -> None:
    tls_server()
    step, in_time = 1, 0
    while True:
        was_cancelled, steps = play(story, step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 5
