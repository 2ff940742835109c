"""The data address over TLS, with the official `openai` package, and with raw TLS where the end is what counts."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import trio
import trustme
from openai import AsyncOpenAI, OpenAI

from tests.loopback.processes import Server, serving
from tests.loopback.raw_http import WAIT_S, chat, request_bytes

# On Trio the client leaves its own generators to the garbage collector whenever a stream ends with [DONE].
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'openai:ResourceWarning")

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode("ascii"))
    context.set_alpn_protocols(["http/1.1"])
    return context


@pytest.fixture(scope="module")
def tls_proxy(upstream: Server, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A proxy with a certificate for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "own.pem"))
    issued.private_key_pem.write_to_path(str(folder / "own.key"))
    env = {
        "TRIOPROXY_SERVER__TLS__CERT": str(folder / "own.pem"),
        "TRIOPROXY_SERVER__TLS__KEY": str(folder / "own.key"),
    }
    with serving(upstream.base_url, env=env) as server:
        yield server


def base_url(proxy: Server) -> str:
    return f"https://127.0.0.1:{proxy.port}/v1"


def connect(proxy: Server, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection that raises where the end of the connection is no end of TLS."""
    plain = socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)
    return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def ask_for(secured: ssl.SSLSocket, model: str, **headers: str) -> None:
    secured.sendall(request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), headers))


def test_the_openai_client_streams_over_tls(tls_proxy: Server, trusting: ssl.SSLContext) -> None:
    http = openai.DefaultHttpxClient(verify=trusting, trust_env=False)
    with OpenAI(base_url=base_url(tls_proxy), api_key="any", max_retries=0, http_client=http) as client:
        for _ in range(3):
            stream = client.chat.completions.create(
                model="m-n20-i1-t0", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            pieces = [event.choices[0].delta.content for event in stream if event.choices]
            assert len([piece for piece in pieces if piece]) == 20
        whole = client.chat.completions.create(model="m-n5-t0", messages=[{"role": "user", "content": "Hello"}])
        assert whole.choices[0].message.content


def test_the_openai_client_on_trio_raises_when_a_stream_is_cut(tls_proxy: Server, trusting: ssl.SSLContext) -> None:
    async def main() -> int:
        http = openai.DefaultAsyncHttpxClient(verify=trusting, trust_env=False)
        seen = 0
        async with AsyncOpenAI(base_url=base_url(tls_proxy), api_key="any", max_retries=0, http_client=http) as client:
            stream = await client.chat.completions.create(
                model="m-x3-i1-t0", messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            with pytest.raises(openai.APIError, match="too early"):  # noqa: PT012 - whichever event it is
                async for _ in stream:
                    seen += 1
        return seen

    assert trio.run(main) >= 3


def test_an_honest_end_is_one_of_tls_too_and_a_cut_is_none(tls_proxy: Server, trusting: ssl.SSLContext) -> None:
    with connect(tls_proxy, trusting) as secured:
        assert secured.selected_alpn_protocol() == "http/1.1"
        ask_for(secured, "m-n3-i0-t0", connection="close")
        data = b""
        while piece := secured.recv(65536):
            data += piece
        assert data.endswith(b"0\r\n\r\n")
    with connect(tls_proxy, trusting) as secured:
        ask_for(secured, "m-x3-i0-t0")
        data = b""
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):  # noqa: PT012 - whichever read it is
            while piece := secured.recv(65536):
                data += piece
        assert b"upstream_truncated" in data and not data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "stalls"])
def test_a_client_that_leaves_stops_the_generation(
    reads: bool, tls_proxy: Server, upstream: Server, trusting: ssl.SSLContext
) -> None:
    with connect(tls_proxy, trusting) as secured:
        ask_for(secured, "m-n1000-i50-t0" if reads else "m-flood-t0", **{"x-request-id": f"leaves-{reads}"})
        assert secured.recv(1000)
        time.sleep(0.3)  # until the pipes are full, where nothing is read
        secured.shutdown(socket.SHUT_WR)
        assert tls_proxy.exchange(f"leaves-{reads}")["reason"] == "client_gone"


def test_what_is_not_tls_is_let_go(tls_proxy: Server) -> None:
    with socket.create_connection(("127.0.0.1", tls_proxy.port), WAIT_S) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        try:
            data = plain.recv(65536)
        except ConnectionResetError:
            data = b""
        assert not data.startswith(b"HTTP/")
