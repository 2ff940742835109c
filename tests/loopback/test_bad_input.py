"""What clients and origins do wrong: each gets a clear error in the right shape and one log line, and disturbs nobody.

All tests of a proxy share it with a bystander, a client whose stream has to go on all the while.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import (
    LAST_CHUNK,
    Answer,
    Ended,
    Origin,
    Wire,
    ask,
    chat,
    chunk,
    event_stream_head,
    request_bytes,
)

CHAT = "/v1/chat/completions"
RELAYED = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"]
MAX_BODY = 100_000
MAX_UPLOAD = 200_000
LIMITS = {"TRIOPROXY_SERVER__MAX_BODY_BYTES": str(MAX_BODY), "TRIOPROXY_SERVER__MAX_UPLOAD_BYTES": str(MAX_UPLOAD)}


class Bystander:
    """Reads a stream without end, and knows the longest time in which nothing came."""

    def __init__(self, port: int) -> None:
        self.longest_gap_s = 0.0
        self.chunks = 0
        self.has_ended = False
        self._client = Wire.to(port)
        self._client.send(request_bytes("POST", CHAT, json.dumps(chat("m-n9999999-i20-t0")).encode()))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            self._client.read_head()
            last = time.monotonic()
            while self._client.read_chunk():
                now = time.monotonic()
                self.longest_gap_s = max(self.longest_gap_s, now - last)
                last = now
                self.chunks += 1
        except (OSError, Ended):
            pass
        self.has_ended = True

    def leave(self) -> None:
        """Check that nothing has happened to it, and leave."""
        before = self.chunks
        try:
            until(lambda: self.chunks > before + 2, "the bystander's stream goes on")
            assert not self.has_ended
            assert self.longest_gap_s < 1.0
        finally:
            self._client.socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._client.close()


@pytest.fixture(scope="module")
def small_proxy(upstream: Server) -> Iterator[Server]:
    """A proxy that takes small bodies only, with its bystander."""
    with serving(upstream.base_url, env=LIMITS) as server:
        bystander = Bystander(server.port)
        yield server
        bystander.leave()


@pytest.fixture(scope="module")
def small_scripted_proxy(origin: Origin) -> Iterator[Server]:
    """The same limits in front of the scripted origin, with a short time for its head."""
    with serving(origin.base_url, env={**LIMITS, "TRIOPROXY_DEADLINES__HEAD_S": "0.3"}) as server:
        yield server


def check(proxy: Server, answer: Answer, status: int, code: str, param: str | None = None) -> None:
    """A refusal: OpenAI's envelope, an id, one log line that says the same; and the next request works."""
    assert answer.is_clean
    assert answer.status == status, answer
    assert answer.error["code"] == code
    assert answer.error["param"] == param
    assert answer.error["message"]
    assert "Traceback" not in answer.error["message"]
    line = proxy.exchange(answer.request_id)
    assert (line["status"], line["outcome"], line["code"]) == (status, "failed", code)
    assert ask(proxy.port, "GET", "/healthz").status == 200


DEEP = b"[" * 100_000
BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "no JSON": (b"model=m&stream=true", None),
    "half of a JSON": (b'{"model":"m","stream":true,"messages":[{"role"', None),
    "more than one JSON": (b'{"model":"m"}{"model":"m"}', None),
    "no UTF-8": (b'{"model":"\xff\xfe"}', None),
    "UTF-16": ('{"model":"m"}'.encode("utf-16"), None),
    "a list": (b"[]", None),
    "a text": (b'"m"', None),
    "null": (b"null", None),
    "a number": (b"1e400", None),
    "NaN": (b'{"model":"m","temperature":NaN}', None),
    "brackets without end": (DEEP[:90_000], None),
    "deep nesting": (b'{"model":"m","messages":' + DEEP[:40_000] + b"]" * 40_000 + b"}", None),
    "deep nesting of objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, None),
    "a model that is a number": (b'{"model":1}', "model"),
    "a stream that is a text": (b'{"model":"m","stream":"true"}', "stream"),
    "a stream that is a number": (b'{"model":"m","stream":1}', "stream"),
    "the model twice": (b'{"model":"a","model":"b"}', None),
    "the stream twice, once in disguise": (b'{"stream":false,"str\\u0065am":true,"model":"m"}', None),
    "NUL": (b"\0" * 100, None),
}


class TestBodies:
    @pytest.mark.parametrize(("body", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
    def test_a_body_that_cannot_be_read_is_refused(self, small_proxy: Server, body: bytes, param: str | None) -> None:
        answer = ask(small_proxy.port, "POST", CHAT, body, {"content-length": str(len(body))})
        check(small_proxy, answer, 400, "invalid_body", param)

    @pytest.mark.parametrize("path", RELAYED)
    def test_each_of_the_five_routes_refuses_in_its_own_shape(self, small_proxy: Server, path: str) -> None:
        answer = ask(small_proxy.port, "POST", path, b"{")
        if path != "/v1/messages":
            check(small_proxy, answer, 400, "invalid_body")
            return
        assert answer.status == 400
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert small_proxy.exchange(answer.request_id)["code"] == "invalid_body"

    def test_an_empty_body_without_a_length_is_refused(self, small_proxy: Server) -> None:
        check(small_proxy, ask(small_proxy.port, "POST", CHAT), 400, "invalid_body")

    @pytest.mark.parametrize("is_chunked", [False, True])
    @pytest.mark.parametrize(("path", "limit"), [(CHAT, MAX_BODY), ("/v1/files", MAX_UPLOAD)])
    def test_a_body_that_is_too_large_is_refused(
        self, small_proxy: Server, path: str, limit: int, is_chunked: bool
    ) -> None:
        headers = {"transfer-encoding": "chunked"} if is_chunked else {"content-length": str(limit + 1)}
        with Wire.to(small_proxy.port) as client:
            client.send(request_bytes("POST", path, headers=headers))
            sending = threading.Thread(target=_send, args=(client, limit + 1, is_chunked))
            sending.start()
            answer = client.read_answer()
            sending.join()
        check(small_proxy, answer, 413, "request_too_large")

    @pytest.mark.parametrize("is_chunked", [False, True])
    @pytest.mark.parametrize(("path", "limit"), [(CHAT, MAX_BODY), ("/v1/files", MAX_UPLOAD)])
    def test_a_body_of_just_the_size_is_taken(
        self, small_proxy: Server, path: str, limit: int, is_chunked: bool
    ) -> None:
        body = json.dumps(chat("m-n1-t0", stream=False)).encode()
        body += b" " * (limit - len(body))
        headers = {"transfer-encoding": "chunked"} if is_chunked else {"content-length": str(limit)}
        with Wire.to(small_proxy.port) as client:
            sent = chunk(body) + LAST_CHUNK if is_chunked else body
            client.send(request_bytes("POST", path, headers=headers) + sent)
            assert client.read_answer().status == 200

    @pytest.mark.parametrize("path", [CHAT, "/v1/files"])
    def test_a_declared_body_that_is_too_large_is_neither_waited_nor_asked_for(
        self, small_proxy: Server, path: str
    ) -> None:
        headers = {"content-length": str(10**15), "expect": "100-continue"}
        start = time.monotonic()
        with Wire.to(small_proxy.port) as client:
            client.send(request_bytes("POST", path, headers=headers))
            answer = client.read_answer()
        assert time.monotonic() - start < 1.0
        assert answer.interim == []
        check(small_proxy, answer, 413, "request_too_large")

    @pytest.mark.parametrize("path", [CHAT, "/v1/files"])
    def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(self, small_proxy: Server, path: str) -> None:
        body = json.dumps(chat("m-n1-t0", stream=False)).encode()
        headers = {"content-length": str(len(body)), "expect": "100-continue"}
        with Wire.to(small_proxy.port) as client:
            client.send(request_bytes("POST", path, headers=headers))
            assert client.read_head().status == 100
            client.send(body)
            assert client.read_answer().status == 200

    def test_a_huge_body_is_no_problem_where_it_is_allowed(self, proxy: Server) -> None:
        body = json.dumps(chat("m-n1-t0", stream=False, user="x" * 20_000_000)).encode()
        assert ask(proxy.port, "POST", CHAT, body).status == 200

    @pytest.mark.parametrize("path", [CHAT, "/v1/files"])
    def test_a_chunk_that_is_none_ends_the_request(self, small_proxy: Server, path: str) -> None:
        mine = f"bad-chunk-{path}"
        headers = {"transfer-encoding": "chunked", "x-request-id": mine}
        before = len(small_proxy.log)
        with Wire.to(small_proxy.port) as client:
            client.send(request_bytes("POST", path, headers=headers) + chunk(b"{") + b"zz\r\nno chunk\r\n")
            answer = client.read_answer()
            assert (answer.status, answer.error["code"]) == (400, "invalid_body")
            assert answer.headers["connection"] == "close"
            assert client.read_all() == b""
        time.sleep(0.2)
        lines = [line for line in small_proxy.log[before:] if line.get("path") != "/healthz"]
        told = [(line["request_id"], line["status"], line.get("code")) for line in lines]
        assert told == [(mine, 400, "invalid_body")]
        assert answer.request_id == mine


def _send(client: Wire, size: int, is_chunked: bool) -> None:
    try:
        client.send(chunk(b" " * size) + LAST_CHUNK if is_chunked else b" " * size)
    except OSError:
        pass  # refused before everything was sent


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/embeddings"),
            ("GET", "/v1/messages"),
            ("DELETE", CHAT),
            ("PUT", "/v1/responses"),
            ("PATCH", "/v1/completions"),
        ],
    )
    def test_a_wrong_method_is_refused_and_the_right_one_named(
        self, small_proxy: Server, method: str, path: str
    ) -> None:
        answer = ask(small_proxy.port, method, path)
        assert "POST" in answer.headers["allow"]
        if path == "/v1/messages":
            assert answer.status == 405
            assert answer.json["type"] == "error"
            assert small_proxy.exchange(answer.request_id)["code"] == "method_not_allowed"
        else:
            check(small_proxy, answer, 405, "method_not_allowed")

    @pytest.mark.parametrize("method", ["BREW", "LINK"])
    def test_a_method_that_nobody_knows_is_refused(self, small_proxy: Server, method: str) -> None:
        check(small_proxy, ask(small_proxy.port, method, CHAT), 405, "method_not_allowed")

    @pytest.mark.parametrize("path", ["/", "/v1", "/v2/chat/completions", "/favicon.ico", "/chat/completions"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_an_unknown_path_is_not_found(self, small_proxy: Server, method: str, path: str) -> None:
        check(small_proxy, ask(small_proxy.port, method, path), 404, "unknown_path")

    @pytest.mark.parametrize(
        "path",
        [
            "/V1/models",
            "/v1/../admin",
            "/v1/./models",
            "/v1/%2e%2e/admin",
            "/v1/files/..%2f..%2fadmin",
            "/v1/files/%252e%252e/x",
            "/v1/files/..\\x",
            "/v1//chat/completions",
            "/v1/chat%2fcompletions",
            "/v1/chat/completions/",
        ],
    )
    def test_a_path_that_could_be_read_as_another_one_is_refused(self, small_proxy: Server, path: str) -> None:
        check(small_proxy, ask(small_proxy.port, "POST", path, b"{}"), 400, "invalid_path")

    def test_an_unknown_path_below_v1_is_the_origins_to_refuse(self, small_proxy: Server, upstream: Server) -> None:
        through, direct = (ask(port, "GET", "/v1/no/such/thing") for port in (small_proxy.port, upstream.port))
        assert (through.status, through.body) == (direct.status, direct.body)
        assert through.status == 404


UNREADABLE: dict[str, tuple[bytes, set[int]]] = {
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505, 400}),
    "two lengths": (b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", {400}),
    "a length and chunks": (
        b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "a length that is none": (b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx", {400}),
    "an unknown coding": (b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nx", {400, 501}),
    "two codings": (
        b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        {400, 501},
    ),
    "chunks in HTTP/1.0": (b"POST /v1/files HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", {400}),
    "a blank before the colon": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n", {400}),
    "NUL in a value": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n", {400}),
    "NUL in the path": (b"GET /v1/mod\0els HTTP/1.1\r\nhost: a\r\n\r\n", {400}),
    "a blank in the path": (b"GET /v1/mod els HTTP/1.1\r\nhost: a\r\n\r\n", {400}),
    "another host's URL": (b"GET http://evil.test/v1/models HTTP/1.1\r\nhost: a\r\n\r\n", {400, 404, 421}),
    "a tunnel": (b"CONNECT evil.test:443 HTTP/1.1\r\nhost: a\r\n\r\n", {400, 404, 405}),
    "a header that is too large": (
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a: " + b"b" * 200_000 + b"\r\n\r\n",
        {431},
    ),
    "a header that is a little too large": (
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a: " + b"b" * 70_000 + b"\r\n\r\n",
        {431},
    ),
    "headers that are too many": (
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + b"x-a: b\r\n" * 10_000 + b"\r\n",
        {431},
    ),
    "a URL that is too long": (b"GET /v1/" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", {414}),
    "a URL that is far too long": (b"GET /v1/" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", {414}),
}


class TestRequestsThatCannotBeRead:
    @pytest.mark.parametrize(("data", "statuses"), UNREADABLE.values(), ids=UNREADABLE)
    def test_a_request_that_cannot_be_read_is_refused_and_the_connection_closed(
        self, small_proxy: Server, data: bytes, statuses: set[int]
    ) -> None:
        with Wire.to(small_proxy.port) as client:
            client.send(data)
            answer = client.read_answer()
            # Nothing behind it is taken for a next request.
            client.socket.settimeout(1.0)
            if answer.headers.get("connection") == "close":
                assert client.read_all() == b""
        assert answer.status in statuses
        assert answer.is_clean
        assert answer.error["message"]
        assert answer.headers["x-request-id"]
        assert small_proxy.line_of(answer.request_id)["status"] == answer.status
        assert ask(small_proxy.port, "GET", "/healthz").status == 200

    @pytest.mark.parametrize(
        ("what", "code"),
        [
            ("a header that is too large", "headers_too_large"),
            ("a header that is a little too large", "headers_too_large"),
            ("headers that are too many", "headers_too_large"),
            ("a URL that is too long", "uri_too_long"),
            ("a URL that is far too long", "uri_too_long"),
        ],
    )
    def test_what_is_too_large_is_told_by_its_code(self, small_proxy: Server, what: str, code: str) -> None:
        with Wire.to(small_proxy.port) as client:
            client.send(UNREADABLE[what][0])
            assert client.read_answer().error["code"] == code

    def test_a_smuggled_request_does_not_reach_the_origin(self, origin: Origin, small_scripted_proxy: Server) -> None:
        seen: list[str] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request()[0].target)
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        smuggled = b"GET /v1/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
        framings = [
            b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            b"content-length: 0\r\ncontent-length: 44\r\n\r\n",
            b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\nx : 3\r\n\r\n",
        ]
        with origin.playing(play):
            for framing in framings:
                with Wire.to(small_scripted_proxy.port) as client:
                    client.send(b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n" + framing + smuggled)
                    assert client.read_answer().status >= 400
                    assert client.read_all() == b""
        assert seen == []


REFUSED_HEADS: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status below all": b"HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n",
    "a status above all": b"HTTP/1.1 600 No\r\ncontent-length: 0\r\n\r\n",
    "a line that is no header": b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n",
    "a blank in a name": b"HTTP/1.1 200 OK\r\nx a: b\r\ncontent-length: 0\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n",
    "CR in a value": b"HTTP/1.1 200 OK\r\nx-a: b\rset-cookie: c\r\ncontent-length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "an unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a protocol that nobody asked for": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "interim heads without end": b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" * 1000,
    "a head that is too large": b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 200_000 + b"\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
}


class TestOrigins:
    @pytest.mark.parametrize("head", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
    @pytest.mark.parametrize("is_stream", [True, False])
    def test_a_head_that_is_not_acceptable_is_a_bad_gateway(
        self, origin: Origin, small_scripted_proxy: Server, head: bytes, is_stream: bool
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(head)
            wire.close()

        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m", stream=is_stream))
        check(small_scripted_proxy, answer, 502, "upstream_protocol_error")

    @pytest.mark.parametrize("is_reset", [False, True])
    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-"])
    def test_an_origin_that_leaves_before_its_head_is_a_bad_gateway(
        self, origin: Origin, small_scripted_proxy: Server, sent: bytes, is_reset: bool
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(sent)
            if is_reset:
                time.sleep(0.02)
                wire.reset()
            else:
                wire.close()

        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m"))
        check(small_scripted_proxy, answer, 502, "upstream_disconnected")

    @pytest.mark.parametrize("path", [CHAT, "/v1/files"])
    def test_an_origin_that_is_silent_is_a_gateway_timeout(
        self, origin: Origin, small_scripted_proxy: Server, path: str
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.read_all()

        start = time.monotonic()
        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", path, chat("m"))
        assert 0.3 <= time.monotonic() - start < 1.5
        check(small_scripted_proxy, answer, 504, "upstream_head_timeout")

    def test_an_origin_that_writes_its_head_slowly_for_ever_is_a_gateway_timeout(
        self, origin: Origin, small_scripted_proxy: Server
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\nx-a: ")
            while True:
                wire.send(b"a")
                time.sleep(0.05)

        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m"))
        check(small_scripted_proxy, answer, 504, "upstream_head_timeout")

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_passed_and_never_followed(
        self, origin: Origin, small_scripted_proxy: Server, status: int
    ) -> None:
        asked: list[str] = []

        def play(wire: Wire) -> None:
            asked.append(wire.read_request()[0].target)
            wire.send(b"HTTP/1.1 %d Go\r\nlocation: /v1/elsewhere\r\ncontent-length: 0\r\n\r\n" % status)

        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m"))
        assert (answer.status, answer.headers["location"]) == (status, "/v1/elsewhere")
        assert asked == [CHAT]

    @pytest.mark.parametrize(
        "rest",
        [b"zz\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"5\r\nab"],
        ids=["no size", "a size beyond all", "more than its size", "less than nothing", "less than its size"],
    )
    def test_a_body_whose_framing_breaks_is_cut_and_never_ended(
        self, origin: Origin, small_scripted_proxy: Server, rest: bytes
    ) -> None:
        event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'

        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event))
            time.sleep(0.02)
            wire.send(rest)
            wire.close()

        def play_whole(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            wire.send(chunk(b"{"))
            time.sleep(0.02)
            wire.send(rest)
            wire.close()

        with origin.playing(play):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m"))
        assert not answer.is_clean
        assert answer.body.startswith(event)
        told: dict[str, Any] = json.loads(answer.body.rpartition(b"data: ")[2])
        assert told["error"]["code"] in ("upstream_protocol_error", "upstream_truncated")
        assert small_scripted_proxy.exchange(answer.request_id)["code"] == told["error"]["code"]
        with origin.playing(play_whole):
            answer = ask(small_scripted_proxy.port, "POST", CHAT, chat("m", stream=False))
        assert not answer.is_clean
        assert small_scripted_proxy.exchange(answer.request_id)["outcome"] == "failed"

    def test_an_answer_before_the_body_was_read_is_passed(self, origin: Origin, small_scripted_proxy: Server) -> None:
        def play(wire: Wire) -> None:
            wire.read_head()
            wire.send(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            wire.close()

        with origin.playing(play):
            for path, body in ((CHAT, chat("m", user="x" * 90_000)), ("/v1/files", chat("m", user="x" * 190_000))):
                answer = ask(small_scripted_proxy.port, "POST", path, body)
                assert (answer.status, answer.body) == (401, b"no")

    def test_bytes_behind_an_answer_are_not_taken_for_the_next_one(
        self, origin: Origin, small_scripted_proxy: Server
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n%b"
            wire.send(answer % b"right" + answer % b"wrong")

        with origin.playing(play):
            for _ in range(5):
                assert ask(small_scripted_proxy.port, "GET", "/v1/models").body == b"right"

    def test_an_answer_that_comes_before_it_was_asked_for_is_nobodys(
        self, origin: Origin, small_scripted_proxy: Server
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nright")
            time.sleep(0.05)
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")

        with origin.playing(play):
            for _ in range(3):
                assert ask(small_scripted_proxy.port, "GET", "/v1/models").body == b"right"
                time.sleep(0.1)
