"""TLS on the data address: everything holds as without it, and an answer that was cut never ends like a whole one."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
import trustme

from tests.harness.house import Client, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from trioproxy.net.tcp import close_nowait

NAME = "proxy.test"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = b'POST /v1/embeddings HTTP/1.1\r\nhost: proxy\r\n%bcontent-length: 13\r\n\r\n{"model":"m"}'
Flags = dict[str, Any]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> Iterator[Flags]:
    """The flags of a house with a certificate for `NAME`."""
    issued = authority.issue_cert(NAME)
    with TemporaryDirectory() as folder:
        cert, key = Path(folder, "own.pem"), Path(folder, "own.key")
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
        yield {"server__tls__cert": str(cert), "server__tls__key": str(key)}


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def secured(client: Client, context: ssl.SSLContext) -> Client:
    """The same client, with TLS on its connection: it tells an honest end of it from a cut."""
    client.stream = trio.SSLStream(client.stream, context, server_hostname=NAME)
    return client


async def answers(visit: Visit) -> None:
    while True:
        await visit.read_request()
        await visit.send(WHOLE)


async def streams(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM + chunk(content("word")))
    await trio.sleep(5)
    await visit.send(chunk(DONE) + LAST_CHUNK)


async def endless(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    while True:
        await visit.send(chunk(content("word" * 1000)))


async def breaks_off(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM + chunk(content("word")))
    visit.cut()


async def read_to_the_end(client: Client) -> tuple[bytes, bool]:
    """Everything up to the end of the connection, and whether TLS itself says that nothing is missing."""
    raw = b""
    try:
        while piece := await client.read_some():
            raw += piece
    except trio.BrokenResourceError:
        return raw, False
    return raw, True


async def is_honest_end(client: Client) -> bool:
    """Whether nothing more comes, and TLS itself says that nothing is missing."""
    return await read_to_the_end(client) == (b"", True)


async def test_a_stream_comes_over_tls_and_ends_honestly(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(streams, **tls) as house:
        client = secured(house.connect(), trusting)
        await client.post(headers="connection: close\r\n")
        answer = await client.answer()
        assert answer.is_complete and answer.body.endswith(DONE)
        assert await is_honest_end(client)
        client.leave()
    assert house.log.exchanges[0]["client"] == "192.0.2.7"


async def test_only_http_1_1_is_agreed_on_and_the_scheme_is_https(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    schemes = []

    async def look(receive: Any, send: Any) -> None:
        """An app that answers nothing."""

    def note(app: Any, scope: Any) -> Any:
        schemes.append(scope["scheme"])
        return look

    async with open_house(answers, **tls) as house:
        monkeypatch.setattr(house.house.app, "asgi_http_class", note)
        client = secured(house.connect(), trusting)
        await client.send(REQUEST % b"")
        assert isinstance(client.stream, trio.SSLStream)
        assert client.stream.selected_alpn_protocol() == "http/1.1"
        assert client.stream.version() == "TLSv1.3"
        await client.read_raw()
        client.leave()
    assert schemes == ["https"]


async def test_many_requests_share_a_connection(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, **tls) as house:
        client = secured(house.connect(), trusting)
        for _ in range(20):
            await client.send(REQUEST % b"")
            assert (await client.answer()).status == 200
        assert len(house.origin.visits) == 1
        assert await is_honest_end(client)  # once its idle time is over
        assert trio.current_time() == pytest.approx(75)
        client.leave()


async def test_a_cut_answer_does_not_end_like_a_whole_one(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(breaks_off, **tls) as house:
        client = secured(house.connect(), trusting)
        await client.post()
        raw, is_honest = await read_to_the_end(client)
        assert b"upstream_truncated" in raw and not raw.endswith(LAST_CHUNK) and not is_honest
        client.leave()


async def test_an_answer_that_ends_with_the_connection_is_cut_the_harder_way(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(breaks_off, **tls) as house:
        client = secured(house.connect(), trusting)
        await client.send((REQUEST % b"").replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"embeddings", b"completions"))
        raw, is_honest = await read_to_the_end(client)
        assert raw.startswith(b"HTTP/1.1 200") and not is_honest
        client.leave()


async def test_hands_that_are_not_shaken_in_time_are_let_go(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, **tls) as house:
        silent, slow = house.connect(), secured(house.connect(), trusting)
        await silent.send(b"\x16\x03\x01")
        await trio.sleep(6)
        await slow.send((REQUEST % b"")[:20])  # the handshake, and some of a head: one time for both
        assert json.loads((await slow.answer()).body)["error"]["code"] == "request_timeout"
        assert trio.current_time() == pytest.approx(10)
        assert await silent.read_raw() == b"" and trio.current_time() == pytest.approx(10)
        slow.leave()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
async def test_what_is_not_tls_ends_the_connection_and_nothing_else(
    sent: bytes, tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, **tls) as house:
        client = house.connect()
        if sent:
            await client.send(sent)
        else:
            client.leave()
        await trio.sleep(1)
        other = secured(house.connect(), trusting)
        await other.send(REQUEST % b"")
        assert (await other.answer()).status == 200
        for one in (client, other):
            one.leave()


async def test_a_client_that_reads_nothing_is_cut_off_in_its_time(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(endless, lockstep=True, **tls) as house:
        client = secured(house.connect(), trusting)
        await client.post()
        await client.read_some()
        start = trio.current_time()
        await trio.sleep(29)
        assert house.origin.still_open == 1
        await trio.sleep(2)
        assert house.origin.still_open == 0
        assert trio.current_time() - start < 32
        client.leave()
    assert house.log.exchanges[0]["reason"] == "client_stalled"


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_client_that_leaves_is_noticed_also_behind_bytes_of_a_next_request(
    says_goodbye: bool, tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(content("word")))

    async with open_house(silent, **tls) as house:
        client = secured(house.connect(), trusting)
        await client.post()
        await client.send(REQUEST % b"")
        await client.read_some()
        if says_goodbye:
            await client.stream.aclose()
        else:
            close_nowait(client.stream)
        await trio.sleep(1)
        assert house.origin.still_open == 0
    assert house.log.exchanges[0]["reason"] == "client_gone"


async def test_a_goodbye_of_tls_alone_is_a_half_close_that_may_be_kept(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(streams, server__half_close="keep", **tls) as house:
        client = secured(house.connect(), trusting)
        await client.post()
        assert isinstance(client.stream, trio.SSLStream)
        with pytest.raises(ssl.SSLWantReadError):
            client.stream._ssl_object.unwrap()
        await client.stream.transport_stream.send_all(client.stream._outgoing.read())
        reader = client.stream.transport_stream
        raw = b""
        while piece := await reader.receive_some(65536):
            raw += piece
        assert trio.current_time() == pytest.approx(5) and len(raw) > len(DONE)
        client.leave()
    assert house.log.exchanges[0]["outcome"] == "finished"


@pytest.mark.parametrize("already", [100, 250_000])
async def test_an_early_refusal_is_readable_though_the_client_still_sends(
    already: int, tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, server__max_body_bytes=1000, **tls) as house:
        client = secured(house.connect(), trusting)
        body = b"x" * 300_000
        await client.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n" + body[:already])
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")
        await client.send(body[already:])
        assert await is_honest_end(client)
        client.leave()


async def test_a_connection_too_many_is_told_over_tls(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, server__max_connections=1, **tls) as house:
        first = secured(house.connect(), trusting)
        await first.send(REQUEST % b"")
        assert (await first.answer()).status == 200
        second, mute = secured(house.connect(), trusting), house.connect()
        answer = await second.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
        assert await is_honest_end(second)
        assert await mute.read_raw() == b"" and trio.current_time() == pytest.approx(2)
        for client in (first, second, mute):
            client.leave()


async def test_draining_ends_idle_connections_and_hands_that_are_being_shaken(
    tls: Flags, trusting: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(answers, **tls) as house:
        idle, new = secured(house.connect(), trusting), house.connect()
        await idle.send(REQUEST % b"")
        assert (await idle.answer()).status == 200
        drain(house)
        assert await is_honest_end(idle)
        assert await new.read_raw() == b"" and trio.current_time() == 0
        for client in (idle, new):
            client.leave()


def drain(house: HouseUnderTest) -> None:
    house.house.listener.end_idle()
