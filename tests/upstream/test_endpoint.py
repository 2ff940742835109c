"""An upstream of the configuration: what its requests look like, and what it tells about itself."""

import pytest

from tests.harness.origin import Visit
from tests.harness.wires import HOST, open_net, serve_tls, tls_client
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool


def endpoint(base_url: str = "http://origin.test/v1", headers: list[tuple[bytes, bytes]] | None = None) -> Endpoint:
    return Endpoint("name", base_url, pool=Pool(), connect_s=5, headers=headers or [])


@pytest.mark.parametrize(
    ("base_url", "target", "expected"),
    [
        ("http://origin.test/v1", b"/v1/models", b"/v1/models"),
        ("http://origin.test/v1/", b"/v1/models", b"/v1/models"),
        ("http://origin.test", b"/v1/models", b"/models"),
        ("http://origin.test/", b"/v1/models", b"/models"),
        ("http://origin.test/openai/v4beta", b"/v1/models", b"/openai/v4beta/models"),
        ("http://origin.test/v1/v1", b"/v1/v1/models", b"/v1/v1/v1/models"),
        ("http://origin.test/a%2Fb", b"/v1/models", b"/a%2Fb/models"),
        ("http://origin.test/v1", b"/v1/a%2Fb/%2e%2E/c//d", b"/v1/a%2Fb/%2e%2E/c//d"),
        ("http://origin.test/v1", b"/v1/models?after=%20&limit[]=1?", b"/v1/models?after=%20&limit[]=1?"),
        ("http://origin.test", b"/v1/models?", b"/models?"),
    ],
)
def test_a_target_has_the_origin_s_prefix_and_is_else_as_the_client_wrote_it(
    base_url: str, target: bytes, expected: bytes
) -> None:
    assert endpoint(base_url).target(target) == expected


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("http://origin.test/v1", b"origin.test"),
        ("http://origin.test:80/v1", b"origin.test"),
        ("https://origin.test:443/v1", b"origin.test"),
        ("https://origin.test:80/v1", b"origin.test:80"),
        ("http://origin.test:8080/v1", b"origin.test:8080"),
        ("http://[2001:db8::1]/v1", b"[2001:db8::1]"),
        ("http://[2001:db8::1]:8080/v1", b"[2001:db8::1]:8080"),
        ("http://user:hunter2@origin.test/v1", b"origin.test"),
        ("http://xn--mnchen-3ya.test/v1", b"xn--mnchen-3ya.test"),
        ("http://xn--a/v1", b"xn--a"),
    ],
)
def test_its_requests_name_its_host(base_url: str, host: bytes) -> None:
    assert endpoint(base_url).dress([(b"x", b"y")]) == [(b"host", host), (b"x", b"y")]
    assert host.decode() in repr(endpoint(base_url))


def test_its_own_fields_stand_in_place_of_the_client_s() -> None:
    own = [(b"authorization", b"Bearer own"), (b"x-own", b"1")]
    theirs = [(b"authorization", b"Bearer theirs"), (b"accept", b"*/*"), (b"x-own", b"2"), (b"x-own", b"3")]
    assert endpoint(headers=own).dress(theirs) == [(b"host", b"origin.test"), (b"accept", b"*/*"), *own]
    assert theirs[0] == (b"authorization", b"Bearer theirs"), "the client's list is not touched"


def test_without_own_fields_the_client_s_go_through() -> None:
    theirs = [(b"authorization", b"Bearer theirs"), (b"x-own", b"2"), (b"x-own", b"3")]
    assert endpoint().dress(theirs) == [(b"host", b"origin.test"), *theirs]


def test_it_tells_no_secret_about_itself() -> None:
    secret = Endpoint(
        "name",
        "http://user:hunter2@origin.test/v1",
        pool=Pool(),
        connect_s=5,
        headers=[(b"authorization", b"Bearer hunter2")],
        proxy="http://user:hunter2@proxy.test:3128",
    )
    assert "hunter2" not in repr(secret) + str(secret)


async def test_it_is_reached_by_its_proxy_and_with_its_authorities() -> None:
    async def script(visit: Visit) -> None:
        assert (await visit.read_request()).startswith(b"CONNECT origin.test:443 ")
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await serve_tls(visit.stream)

    async with open_net(script) as net:
        reached = Endpoint(
            "name",
            f"https://{HOST}/v1",
            pool=Pool(),
            connect_s=5,
            tls=tls_client(),
            proxy="http://proxy.test:3128",
            open_tcp=net.open_tcp,
        )
        await reached.transport.warm_up(reached.url, reached.connect_s)
        assert net.asked == [("proxy.test", 3128)]
        await reached.transport.aclose()
        assert net.still_open == []


def test_a_client_s_key_among_the_subprotocols_does_not_go_beside_its_own() -> None:
    offered = [(b"sec-websocket-protocol", b"realtime, openai-insecure-api-key.sk-theirs")]
    assert endpoint().dress(offered) == [(b"host", b"origin.test"), *offered]
    own = endpoint(headers=[(b"authorization", b"Bearer own")]).dress(offered)
    assert (b"sec-websocket-protocol", b"realtime") in own
    assert b"theirs" not in b"".join(value for _, value in own)
