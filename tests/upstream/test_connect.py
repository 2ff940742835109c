"""Ways to an origin: straight, through an outbound proxy, with TLS; and every way in which they fail."""

import errno
import resource
import socket
import ssl
from base64 import b64encode

import httpx
import pytest
import trio
import trio.testing
import trustme

from tests.harness.counting import AtStep
from tests.harness.origin import Script, Visit
from tests.harness.wires import HOST, PUNYCODE_HOST, is_closed, open_net, serve_tls, tls_client, tls_server
from trioproxy.net.tcp import PROBE_AFTER_S, TcpStream, close_nowait
from trioproxy.upstream.connect import Connector, OutOfDescriptors, open_tcp
from trioproxy.upstream.http1 import OriginConnection

PROXY = httpx.URL("http://proxy.test:3128")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


async def silent(visit: Visit) -> None:
    """Reads, and says nothing."""


async def greet(visit: Visit) -> None:
    await visit.send(HELLO)


async def greet_by_tls(visit: Visit) -> None:
    visit.stream = await serve_tls(visit.stream)
    await visit.send(HELLO)


def answering(*pieces: bytes, then: Script = silent) -> Script:
    """A proxy that answers like this."""

    async def play(visit: Visit) -> None:
        await visit.read_request()
        for piece in pieces:
            await visit.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        await then(visit)

    return play


async def body_of(connection: OriginConnection) -> bytes:
    await connection.read_head()
    return await connection.read()


async def failure(connector: Connector, scheme: str = "https", host: str = HOST, port: int = 443) -> str:
    """The words of the ConnectError that opening a connection ends with."""
    with pytest.raises(httpx.ConnectError) as caught:
        await connector.open(scheme, host, port)
    return str(caught.value)


# Straight


async def test_an_origin_is_reached_at_its_address() -> None:
    async with open_net(greet) as wires:
        connection = await Connector(tls=None, open_tcp=wires.open_tcp).open("http", "origin", 8080)
        assert wires.asked == [("origin", 8080)]
        assert await body_of(connection) == b"hi"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        socket.gaierror(-2, "Name or service not known"),
        TimeoutError(110, "Connection timed out"),
        OSError("all attempts to connect to x:80 failed"),
        UnicodeError("encoding with 'idna' codec failed"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_address_that_leads_nowhere_is_a_connect_error(error: Exception) -> None:
    async def refuse(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    for proxy in (None, PROXY):
        words = await failure(Connector(tls=tls_client(), proxy=proxy, open_tcp=refuse))
        assert words == "the address cannot be resolved, or refuses the connection"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_want_of_a_socket_is_our_lack_and_not_the_origin_s_refusal(number: int) -> None:
    async def exhausted(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        attempts = [OSError(errno.ECONNREFUSED, "refused"), OSError(number, "exhausted")]
        raise OSError("all attempts to connect to x:80 failed") from ExceptionGroup("all", attempts)

    async def at_once(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError(number, "exhausted")

    for way in (exhausted, at_once):
        with pytest.raises(OutOfDescriptors):
            await Connector(tls=None, open_tcp=way).open("http", "x", 80)


async def test_trio_itself_tells_of_it_in_that_way() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # open ones stay open; there are more than three
    try:
        with pytest.raises(OutOfDescriptors):
            await Connector(tls=None).open("http", "127.0.0.1", 9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_vanished_origin_is_noticed_but_one_may_take_its_time_with_an_upload() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stream = await open_tcp("127.0.0.1", listening.getsockname()[1])
        assert isinstance(stream, TcpStream)
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == PROBE_AFTER_S
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        stream.close_nowait()


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".", "x" * 300, "\udcff", "a\0b"])
async def test_a_name_that_cannot_be_looked_up_is_a_connect_error(host: str) -> None:
    assert "cannot be resolved" in await failure(Connector(tls=None), "http", host, 80)


# Through a proxy


@pytest.mark.parametrize(
    ("host", "port", "authority"),
    [
        (HOST, 443, b"origin.test:443"),
        ("192.0.2.1", 80, b"192.0.2.1:80"),
        ("2001:db8::1", 8443, b"[2001:db8::1]:8443"),
        (PUNYCODE_HOST, 443, b"xn--mnchen-3ya.test:443"),
    ],
)
async def test_a_proxy_is_asked_for_a_tunnel_to_the_origin(host: str, port: int, authority: bytes) -> None:
    got: list[bytes] = []

    async def play(visit: Visit) -> None:
        got.append(await visit.read_request())
        await visit.send(ESTABLISHED)

    async with open_net(play) as wires:
        await Connector(tls=None, proxy=PROXY, open_tcp=wires.open_tcp).open("http", host, port)
        assert wires.asked == [("proxy.test", 3128)]
        assert got == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)]


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:secret", b"user:secret"),
        ("user", b"user:"),
        ("user:", b"user:"),
        ("us%40er:se%3Acret%2F", b"us@er:se:cret/"),
        ("us%C3%A9r:%ff", b"us\xc3\xa9r:\xff"),
        ("user:se:cret", b"user:se:cret"),
    ],
)
async def test_a_proxy_s_user_is_named_as_its_rfc_says(userinfo: str, credentials: bytes) -> None:
    got: list[bytes] = []

    async def play(visit: Visit) -> None:
        got.append(await visit.read_request())
        await visit.send(ESTABLISHED)

    async with open_net(play) as wires:
        proxy = httpx.URL(f"http://{userinfo}@proxy.test:3128")
        await Connector(tls=None, proxy=proxy, open_tcp=wires.open_tcp).open("http", HOST, 80)
    assert b"\r\nProxy-Authorization: Basic %b\r\n" % b64encode(credentials) in got[0]


async def test_a_proxy_without_a_port_listens_on_80() -> None:
    async with open_net(answering(ESTABLISHED)) as wires:
        proxy = httpx.URL("http://[2001:db8::7]")
        await Connector(tls=None, proxy=proxy, open_tcp=wires.open_tcp).open("http", HOST, 80)
        assert wires.asked == [("2001:db8::7", 80)]


@pytest.mark.parametrize(
    "head",
    [
        ESTABLISHED,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nvia: 1.1 proxy\r\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000 + b"\r\n\r\n",
    ],
    ids=["as usual", "HTTP/1.0", "no reason", "with fields", "with a length", "long"],
)
async def test_what_comes_right_behind_a_proxy_s_head_is_the_origin_s(head: bytes) -> None:
    """A 2xx to CONNECT has no body, whatever it says (RFC 9110 section 9.3.6)."""
    for pieces in ([head + HELLO], [head, HELLO], [head[:-1], head[-1:] + HELLO[:1], HELLO[1:]]):
        async with open_net(answering(*pieces)) as wires:
            connection = await Connector(tls=None, proxy=PROXY, open_tcp=wires.open_tcp).open("http", HOST, 80)
            assert await body_of(connection) == b"hi"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nForbidden", "refused the tunnel"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 2\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "refused the tunnel"),
        (b"HTTP/2 200 OK\r\n\r\n", "refused the tunnel"),
        (b"SSH-2.0-OpenSSH 200\r\n\r\n", "refused the tunnel"),
        (b"\r\n\r\n", "refused the tunnel"),
        (b"\0\xff\r\n\r\n", "refused the tunnel"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "closed the tunnel"),
    ],
)
async def test_a_proxy_that_does_not_open_a_tunnel_is_a_connect_error(answer: bytes, words: str) -> None:
    async with open_net(answering(answer)) as wires:
        said = await failure(Connector(tls=tls_client(), proxy=PROXY, open_tcp=wires.open_tcp))
        assert words in said
        assert is_closed(wires.opened[0])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", ESTABLISHED[:-1]])
async def test_a_proxy_that_ends_the_connection_is_a_connect_error(answer: bytes) -> None:
    async def leave(visit: Visit) -> None:
        visit.cut()

    async with open_net(answering(answer, then=leave)) as wires:
        assert "outbound proxy" in await failure(Connector(tls=tls_client(), proxy=PROXY, open_tcp=wires.open_tcp))
        assert is_closed(wires.opened[0])


async def test_a_proxy_that_was_gone_already_is_a_connect_error() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    close_nowait(theirs)

    async def open_broken(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    words = await failure(Connector(tls=None, proxy=PROXY, open_tcp=open_broken), "http")
    assert words == "the outbound proxy broke the connection"
    assert is_closed(ours)


async def test_the_proxy_s_password_is_in_no_error() -> None:
    proxy = httpx.URL("http://user:hunter2@proxy.test:3128")
    async with open_net(answering(b"HTTP/1.1 407 X\r\n\r\n")) as wires:
        with pytest.raises(httpx.ConnectError) as caught:
            await Connector(tls=None, proxy=proxy, open_tcp=wires.open_tcp).open("http", HOST, 80)
    assert "hunter2" not in str(caught.value) + repr(caught.value)


# TLS


@pytest.mark.parametrize("host", [HOST, PUNYCODE_HOST, "127.0.0.1", "::1"])
async def test_an_https_origin_shows_a_certificate_for_its_name(host: str) -> None:
    async with open_net(greet_by_tls) as wires:
        connection = await Connector(tls=tls_client(), open_tcp=wires.open_tcp).open("https", host, 443)
        assert wires.asked == [(host, 443)]
        assert await body_of(connection) == b"hi"
        connection.close_nowait()
        assert is_closed(wires.opened[0])


async def test_an_https_origin_is_reached_through_a_tunnel() -> None:
    async with open_net(answering(ESTABLISHED, then=greet_by_tls)) as wires:
        connection = await Connector(tls=tls_client(), proxy=PROXY, open_tcp=wires.open_tcp).open("https", HOST, 443)
        assert await body_of(connection) == b"hi"


async def refuses_by_certificate(connector: Connector, host: str = HOST) -> None:
    words = await failure(connector, host=host)
    assert words == "the origin's certificate is not trusted"


async def test_a_certificate_of_an_unknown_authority_is_not_trusted() -> None:
    async with open_net(greet_by_tls) as wires:
        await refuses_by_certificate(Connector(tls=ssl.create_default_context(), open_tcp=wires.open_tcp))
        assert is_closed(wires.opened[0])


async def test_a_certificate_for_another_name_is_not_trusted() -> None:
    async with open_net(greet_by_tls) as wires:
        for host in ("other.test", "192.0.2.1", "::2", "x" * 64 + ".test", "a..b"):
            await refuses_by_certificate(Connector(tls=tls_client(), open_tcp=wires.open_tcp), host)
        assert all(map(is_closed, wires.opened))


async def test_a_certificate_that_the_proxy_made_is_not_trusted() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(stranger)

    async def listen_in(visit: Visit) -> None:
        await serve_tls(visit.stream, stranger)

    async with open_net(answering(ESTABLISHED, then=listen_in)) as wires:
        await refuses_by_certificate(Connector(tls=tls_client(), proxy=PROXY, open_tcp=wires.open_tcp))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"\0" * 100], ids=repr
)
async def test_an_origin_that_does_not_speak_tls_is_a_connect_error(said: bytes) -> None:
    async def play(visit: Visit) -> None:
        await visit.stream.receive_some()
        await visit.send(said)

    async with open_net(play) as wires:
        assert await failure(Connector(tls=tls_client(), open_tcp=wires.open_tcp)) == "the TLS handshake failed"
        assert is_closed(wires.opened[0])


async def test_an_origin_that_leaves_in_the_handshake_is_a_connect_error() -> None:
    async def at_once(visit: Visit) -> None:
        visit.cut()

    async def behind_a_hello(visit: Visit) -> None:
        await visit.stream.receive_some()
        visit.cut()

    for play in (at_once, behind_a_hello):
        async with open_net(play) as wires:
            assert await failure(Connector(tls=tls_client(), open_tcp=wires.open_tcp)) == "the TLS handshake failed"
            assert is_closed(wires.opened[0])


async def test_an_origin_of_old_times_is_a_connect_error() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    modern = tls_client()
    modern.minimum_version = ssl.TLSVersion.TLSv1_3

    async def play(visit: Visit) -> None:
        try:
            await serve_tls(visit.stream, old)
        finally:
            visit.cut()

    async with open_net(play) as wires:
        assert await failure(Connector(tls=modern, open_tcp=wires.open_tcp)) == "the TLS handshake failed"


@pytest.mark.parametrize("host", [".origin.test", ""])
async def test_a_name_that_no_certificate_can_have_is_a_connect_error(host: str) -> None:
    async with open_net(greet_by_tls) as wires:
        words = await failure(Connector(tls=tls_client(), open_tcp=wires.open_tcp), host=host)
        assert words == "the origin's name cannot be one in a certificate"
        assert is_closed(wires.opened[0])


async def test_without_a_context_no_https_origin_is_reached() -> None:
    async with open_net(greet_by_tls) as wires:
        assert "no certificates are trusted" in await failure(Connector(tls=None, open_tcp=wires.open_tcp))
        assert is_closed(wires.opened[0])


@pytest.mark.parametrize("has_end", [True, False], ids=["with TLS's own end", "with TCP's end alone"])
async def test_a_body_without_a_length_is_whole_only_if_tls_says_so(has_end: bool) -> None:
    """Anybody on the way can end a TCP connection (RFC 9112 section 9.8)."""

    async def play(visit: Visit) -> None:
        tls = await serve_tls(visit.stream)
        await tls.send_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if has_end:
            await tls.aclose()
        visit.cut()

    async with open_net(play) as wires:
        connection = await Connector(tls=tls_client(), open_tcp=wires.open_tcp).open("https", HOST, 443)
        assert await body_of(connection) == b"hello"
        if has_end:
            assert await connection.read() == b""
        else:
            with pytest.raises(httpx.ReadError):
                await connection.read()


# Cancelled


class Way:
    """A way to an origin: how it is opened, and what the other side does."""

    def __init__(self, name: str, play: Script, proxy: httpx.URL | None = None, scheme: str = "https") -> None:
        self.name = name
        self.play = play
        self.proxy = proxy
        self.scheme = scheme


WAYS = [
    Way("plain", greet, scheme="http"),
    Way("through a proxy", answering(ESTABLISHED), PROXY, scheme="http"),
    Way("TLS", greet_by_tls),
    Way("TLS through a proxy", answering(ESTABLISHED, then=greet_by_tls), PROXY),
    Way("an untrusted certificate", greet_by_tls),
]


def cancelled_at(way: Way, step: int) -> tuple[bool, int]:
    """Open a connection and cancel it at a step of the scheduler; whether that came in time, and how many steps."""
    instrument = AtStep(step)

    async def main() -> bool:
        async with open_net(way.play) as wires:
            trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if way.name.startswith("an untrusted") else tls_client()
            connector = Connector(tls=trusted, proxy=way.proxy, open_tcp=wires.open_tcp)
            opened: list[OriginConnection] = []
            closed: list[bool] = []
            with trio.CancelScope() as scope:
                instrument.act = scope.cancel
                try:
                    opened.append(await connector.open(way.scheme, HOST, 443))
                except httpx.ConnectError:
                    pass
                finally:
                    closed = [is_closed(stream) for stream in wires.opened]
            instrument.act = None
            assert closed == [not opened] * len(closed), "either ours and open, or closed before anybody else ran"
            for connection in opened:
                connection.close_nowait()
        return scope.cancelled_caught

    with_clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, clock=with_clock, instruments=[instrument]), instrument.steps


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_cancelled_way_leaves_nothing_open_at_whichever_step(way: Way) -> None:
    tls_server()
    step, in_time = 1, 0
    while True:
        was_cancelled, steps = cancelled_at(way, step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 0


# Real sockets


async def test_a_connection_is_a_tcp_stream_to_the_one_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        stream = await open_tcp(host, port)
        assert isinstance(stream, TcpStream)
        accepted, _ = listening.accept()
        with accepted:
            await stream.send_all(b"ping")
            assert accepted.recv(10) == b"ping"
            accepted.send(b"pong")
            assert await stream.receive_some() == b"pong"
            await stream.aclose()
            assert accepted.recv(10) == b""


async def test_where_nobody_listens_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert "refuses the connection" in await failure(Connector(tls=None), "http", "127.0.0.1", port)


async def test_a_cancelled_look_up_or_connection_leaves_no_socket() -> None:
    """What is left would warn when it is collected, and warnings are errors."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for step in range(1, 12):
            with trio.CancelScope() as scope:
                instrument = AtStep(step)
                instrument.act = scope.cancel
                trio.lowlevel.add_instrument(instrument)
                try:
                    stream = await open_tcp(*listening.getsockname())
                    close_nowait(stream)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
