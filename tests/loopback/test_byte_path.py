"""Bytes pass as they are and as soon as they are there, in both directions, and nothing of them is kept."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.loopback.processes import Server, serving
from tests.loopback.raw_http import (
    LAST_CHUNK,
    WAIT_S,
    Answer,
    Head,
    Origin,
    Wire,
    ask,
    chat,
    chunk,
    event_stream_head,
    request_bytes,
)

MIB = 1024 * 1024
CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"


def event(number: int) -> bytes:
    """A chat event; its text is its number."""
    choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
    return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


class Turns:
    """Lets the origin write only what the client has already read up to: a promise that nothing waits in between."""

    def __init__(self) -> None:
        self._taken = threading.Semaphore(0)

    def taken(self) -> None:
        """The client has what the origin wrote last."""
        self._taken.release()

    def wait(self) -> None:
        """Wait for the client."""
        assert self._taken.acquire(timeout=2.0), "what the origin wrote did not reach the client"


class TestNothingWaits:
    @pytest.mark.parametrize("is_chunked", [True, False])
    @pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
    def test_the_origin_sends_the_next_event_only_after_the_client_has_the_last_one(
        self, origin: Origin, scripted_proxy: Server, newline: bytes, is_chunked: bool
    ) -> None:
        turns = Turns()
        events = [event(number).replace(b"\n", newline) for number in range(50)]

        def one_by_one(wire: Wire) -> None:
            wire.read_request()
            head = event_stream_head()
            wire.send(head if is_chunked else head.replace(b"transfer-encoding: chunked\r\n", b""))
            for each in events:
                wire.send(chunk(each) if is_chunked else each)
                turns.wait()
            end = DONE.replace(b"\n", newline)
            wire.send(chunk(end) + LAST_CHUNK if is_chunked else end)
            if not is_chunked:
                wire.close()

        with origin.playing(one_by_one), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m")).encode()))
            head = client.read_head()
            assert head.headers["transfer-encoding"] == "chunked"
            got = []
            for _ in events:
                got.append(client.read_chunk())
                turns.taken()
            assert got == events
            assert client.read_chunk() == DONE.replace(b"\n", newline)
            assert client.read_chunk() == b""

    def test_the_origin_sends_the_next_byte_only_after_the_client_has_the_last_one(
        self, origin: Origin, scripted_proxy: Server
    ) -> None:
        turns = Turns()
        bytes_one_by_one = b"".join(event(number) for number in range(1, 6)) + b": a comment\n\n" + DONE

        def byte_by_byte(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event(0)))
            turns.wait()
            for at in range(len(bytes_one_by_one)):
                wire.send(chunk(bytes_one_by_one[at : at + 1]))
                turns.wait()
            wire.send(LAST_CHUNK)

        with origin.playing(byte_by_byte), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m")).encode()))
            client.read_head()
            assert client.read_chunk() == event(0)
            for at in range(len(bytes_one_by_one)):
                turns.taken()
                assert client.read_chunk() == bytes_one_by_one[at : at + 1]
            turns.taken()
            assert client.read_chunk() == b""

    def test_the_first_event_may_come_one_byte_at_a_time(self, origin: Origin, scripted_proxy: Server) -> None:
        def byte_by_byte(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head())
            for each in (event(0), DONE):
                for at in range(len(each)):
                    wire.send(chunk(each[at : at + 1]))
            wire.send(LAST_CHUNK)

        with origin.playing(byte_by_byte):
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
        assert answer.is_clean
        assert answer.body == event(0) + DONE

    def test_what_is_no_event_stream_does_not_wait_either(self, origin: Origin, scripted_proxy: Server) -> None:
        turns = Turns()
        pieces = [bytes([number]) * 1000 for number in range(50)]

        def piece_by_piece(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 50000\r\n\r\n")
            for piece in pieces:
                wire.send(piece)
                turns.wait()

        with origin.playing(piece_by_piece), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", "/v1/audio/speech", b"{}"))
            head = client.read_head()
            assert head.headers["content-length"] == "50000"
            for piece in pieces:
                assert client.read_exactly(1000) == piece
                turns.taken()

    def test_an_upload_does_not_wait_either(self, origin: Origin, scripted_proxy: Server) -> None:
        turns = Turns()

        def read_piece_by_piece(wire: Wire) -> None:
            head = wire.read_head()
            assert head.headers["content-length"] == "50000"
            for number in range(50):
                assert wire.read_exactly(1000) == bytes([number]) * 1000
                turns.taken()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        with origin.playing(read_piece_by_piece), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": "50000"}))
            for number in range(50):
                client.send(bytes([number]) * 1000)
                turns.wait()
            assert client.read_answer().body == b"ok"


HOSTILE_STREAMS = {
    "no blank behind the colon": b'data:{"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n' + DONE,
    "several data lines": b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"a"}}]}\n\n' + DONE,
    "unknown fields": b'foo: bar\nid\nretry: 10\ndata: {"choices":[]}\n\nwhatever\n\n' + DONE,
    "a byte order mark": b"\xef\xbb\xbf" + event(1) + DONE,
    "a line separator": event(1).replace(b"1 ", "a\u2028b\u0085".encode()) + DONE,
    "invalid UTF-8": event(1).replace(b"1 ", b"\xff\xfe\xc3\x28") + DONE,
    "a thousand events at once": b"".join(event(number) for number in range(1000)) + DONE,
    "an event of a megabyte": b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * MIB) + DONE,
    "mixed line ends": b"data: {}\r\n\r\n" + b": c\r\r" + event(1) + b"event: x\r\ndata: {}\n\n" + DONE,
    "blank lines": b"\n\n\n" + event(1) + b"\n\n\n\n" + DONE,
    "an obfuscation field": b'data: {"choices":[],"obfuscation":"aGFsbG8"}\n\n' + DONE,
    "NUL": b"data: \0\n\n: \0\n\n" + DONE,
}


class TestNothingIsChanged:
    @pytest.mark.parametrize("stream", HOSTILE_STREAMS.values(), ids=HOSTILE_STREAMS)
    def test_a_stream_arrives_byte_for_byte(self, origin: Origin, scripted_proxy: Server, stream: bytes) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head("x-origin: kept"))
            for at in range(0, len(stream), 4099):
                wire.send(chunk(stream[at : at + 4099]))
            wire.send(LAST_CHUNK)

        with origin.playing(play):
            direct = ask(origin.port, "POST", CHAT, chat("m"))
            through = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
        assert direct.is_clean
        assert through.is_clean
        assert through.body == direct.body == stream
        assert through.headers["x-origin"] == "kept"

    def test_a_compressed_stream_is_passed_raw(self, origin: Origin, scripted_proxy: Server) -> None:
        content = bytes(range(256)) * 100

        def play(wire: Wire) -> None:
            head, _ = wire.read_request()
            assert head.headers["accept-encoding"] == "identity"
            wire.send(event_stream_head("content-encoding: gzip") + chunk(content) + LAST_CHUNK)

        with origin.playing(play):
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"), {"accept-encoding": "gzip"})
        assert answer.is_clean
        assert answer.body == content
        assert answer.headers["content-encoding"] == "gzip"

    def test_a_binary_answer_arrives_byte_for_byte(self, proxy: Server, upstream: Server) -> None:
        asked = {"model": "tts-1", "voice": "alloy", "input": "Hello"}
        through, direct = (ask(port, "POST", "/v1/audio/speech", asked) for port in (proxy.port, upstream.port))
        assert through.is_clean
        assert through.body == direct.body
        assert len(through.body) == 256 * 1024

    def test_path_and_query_arrive_as_they_were_written(self, origin: Origin, scripted_proxy: Server) -> None:
        seen: list[Head] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request()[0])
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        targets = [
            "/v1/files/a%2Fb?include[]=x&y=%20",
            "/v1/files/a%2fb?%",
            "/v1/files/%C3%A4;v=1?a=b?c&a=b;d&&=",
            "/v1/files/A~b_c-d.e?q=%%zz",
            "/v1/files//double?next=http://x/../y",
            "/v1/files/trailing/",
        ]
        for target in targets:
            with origin.playing(play):
                assert ask(scripted_proxy.port, "GET", target).status == 200
        assert [head.target for head in seen] == targets

    def test_a_question_mark_with_nothing_behind_it_is_kept(self, origin: Origin, scripted_proxy: Server) -> None:
        seen: list[Head] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request()[0])
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        with origin.playing(play):
            ask(scripted_proxy.port, "GET", "/v1/files?")
        assert seen[0].target == "/v1/files?"

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_any_method_is_passed(self, origin: Origin, scripted_proxy: Server, method: str) -> None:
        def play(wire: Wire) -> None:
            head, body = wire.read_request()
            assert head.line == f"{method} /v1/batches/b_1 HTTP/1.1"
            wire.send(b"HTTP/1.1 207 Multi\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        with origin.playing(play):
            answer = ask(scripted_proxy.port, method, "/v1/batches/b_1", b"" if method == "GET" else b"\0body\xff")
        assert answer.status == 207
        assert answer.body == (b"" if method == "GET" else b"\0body\xff")

    def test_head_has_the_head_of_get_and_nothing_behind_it(self, proxy: Server, upstream: Server) -> None:
        with Wire.to(proxy.port) as client:
            client.send(request_bytes("HEAD", "/v1/models"))
            through = client.read_answer("HEAD")
            client.send(request_bytes("GET", "/v1/models"))
            following = client.read_answer("GET")
        direct = ask(upstream.port, "GET", "/v1/models")
        assert through.status == following.status == 200
        assert through.headers["content-length"] == str(len(direct.body))
        assert following.body == direct.body

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
    def test_options_is_answered_by_the_origin(self, proxy: Server, upstream: Server, path: str) -> None:
        through, direct = (ask(port, "OPTIONS", path) for port in (proxy.port, upstream.port))
        assert through.status == direct.status == 204
        assert through.headers["allow"] == direct.headers["allow"]

    def test_a_redirect_is_passed(self, proxy: Server, upstream: Server) -> None:
        before = ask(upstream.port, "GET", "/stats").json["requests"]
        answer = ask(proxy.port, "GET", "/v1/models?model=demo-redirect")
        assert answer.status == 302
        assert answer.headers["location"] == "/v1/models"
        assert answer.is_clean
        assert ask(upstream.port, "GET", "/stats").json["requests"] == before + 1

    def test_headers_cross_as_they_should(self, origin: Origin, scripted_proxy: Server) -> None:
        seen: list[Head] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request()[0])
            fields = "x-ratelimit-reset-tokens: 6m0s\r\nset-cookie: a=b\r\nstrict-transport-security: max-age=1\r\n"
            fields += (
                "alt-svc: h3\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=9\r\nopenai-version: 2020\r\n"
            )
            wire.send(f"HTTP/1.1 200 OK\r\n{fields}x-request-id: theirs\r\ncontent-length: 0\r\n\r\n".encode())

        sent = {
            "authorization": "Bearer sk-client",
            "x-custom": "kept",
            "openai-organization": "org",
            "idempotency-key": "1",
            "traceparent": "00-1",
            "cookie": "secret=1",
            "x-forwarded-for": "10.0.0.1",
            "x-real-ip": "10.0.0.1",
            "forwarded": "for=10.0.0.1",
            "x-trioproxy-timing": "1",
            "x-dropped": "1",
            "te": "trailers",
            "connection": "x-dropped, authorization",
            "x-request-id": "mine",
        }
        with origin.playing(play):
            answer = ask(scripted_proxy.port, "GET", "/v1/models", headers=sent)
        headers = seen[0].headers
        for name in ("authorization", "x-custom", "openai-organization", "idempotency-key", "traceparent"):
            assert headers[name] == sent[name]
        for name in ("cookie", "x-forwarded-for", "x-real-ip", "forwarded", "x-trioproxy-timing", "x-dropped", "te"):
            assert name not in headers
        assert headers["host"] == f"127.0.0.1:{origin.port}"
        assert headers["x-request-id"] == "mine"
        assert answer.headers["x-request-id"] == "theirs"
        assert answer.headers["x-trioproxy-request-id"] == "mine"
        assert answer.headers["x-ratelimit-reset-tokens"] == "6m0s"
        assert answer.headers["openai-version"] == "2020"
        for name in ("set-cookie", "strict-transport-security", "alt-svc", "x-hop", "keep-alive"):
            assert name not in answer.headers


class TestTheEnd:
    @pytest.mark.parametrize("is_open", [True, False])
    def test_done_ends_the_answer_at_once_although_the_origin_lingers(
        self, origin: Origin, scripted_proxy: Server, is_open: bool
    ) -> None:
        is_answered = threading.Event()

        def play(wire: Wire) -> None:
            wire.read_request()
            head = event_stream_head()
            whole = event(1) + DONE
            if is_open:
                wire.send(head + chunk(whole))
            else:
                wire.send(head.replace(b"transfer-encoding: chunked\r\n", b"") + whole)
            is_answered.wait(WAIT_S)

        with origin.playing(play):
            start = time.monotonic()
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
            took_s = time.monotonic() - start
            is_answered.set()
        assert answer.is_clean
        assert answer.body == event(1) + DONE
        assert took_s < 0.3

    def test_nothing_behind_done_is_added(self, origin: Origin, scripted_proxy: Server) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event(1)) + chunk(DONE + b": behind\n\n") + LAST_CHUNK)

        with origin.playing(play):
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
        assert answer.is_clean
        assert answer.body == event(1) + DONE + b": behind\n\n"

    @pytest.mark.parametrize("end", ["close", "clean"])
    def test_a_truncated_stream_ends_with_an_error_and_no_end(
        self, origin: Origin, scripted_proxy: Server, end: str
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event(1)) + (LAST_CHUNK if end == "clean" else b""))
            wire.close()

        with origin.playing(play):
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
        assert not answer.is_clean
        assert answer.body.startswith(event(1))
        told = answer.body.removeprefix(event(1))
        assert told.startswith(b"data: ")
        assert told.endswith(b"}\n\n")
        error = json.loads(told.removeprefix(b"data: "))["error"]
        assert error["code"] == "upstream_truncated"
        assert b"[DONE]" not in answer.body
        assert scripted_proxy.exchange(answer.request_id)["code"] == "upstream_truncated"

    @pytest.mark.parametrize("word", ["x3", "reset3", "nodone"])
    @pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
    def test_a_truncated_stream_is_told_in_the_words_of_its_dialect(self, proxy: Server, path: str, word: str) -> None:
        answer = ask(proxy.port, "POST", path, chat(f"m-{word}-n6-i1-t0"))
        assert not answer.is_clean
        *name, data = answer.body.removesuffix(b"\n\n").rpartition(b"\n\n")[2].split(b"\n")
        told = json.loads(data.removeprefix(b"data: "))
        if path == "/v1/responses":
            assert name == [b"event: error"]
            assert (told["type"], told["code"], told["param"]) == ("error", "upstream_truncated", None)
            assert told["message"]
        elif path == "/v1/messages":
            assert name == [b"event: error"]
            assert (told["type"], told["error"]["type"]) == ("error", "api_error")
            assert told["error"]["message"]
        else:
            assert name == []
            assert list(told) == ["error"]
            assert told["error"]["code"] == "upstream_truncated"
        assert proxy.exchange(answer.request_id)["code"] == "upstream_truncated"

    @pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
    def test_a_whole_stream_ends_cleanly_in_every_dialect(self, proxy: Server, path: str) -> None:
        answer = ask(proxy.port, "POST", path, chat("m-n6-i1-t0"))
        assert answer.is_clean
        assert proxy.exchange(answer.request_id)["outcome"] == "finished"

    def test_a_truncated_answer_in_one_piece_has_no_end(self, origin: Origin, scripted_proxy: Server) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"half":')
            wire.close()

        with origin.playing(play):
            answer = ask(scripted_proxy.port, "POST", CHAT, chat("m", stream=False))
        assert not answer.is_clean
        assert answer.body == b'{"half":'

    def test_a_connection_to_the_origin_is_used_again_after_done(self, origin: Origin, scripted_proxy: Server) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event(1)) + chunk(DONE))
            time.sleep(0.01)
            wire.send(LAST_CHUNK)

        with origin.playing(play):
            assert ask(scripted_proxy.port, "POST", CHAT, chat("m")).is_clean
            time.sleep(0.1)
            before = origin.connections
            for _ in range(5):
                answer = ask(scripted_proxy.port, "POST", CHAT, chat("m"))
                assert answer.is_clean
                # Logged once the origin's rest was read, which is when its connection is free.
                assert scripted_proxy.exchange(answer.request_id)["outcome"] == "finished"
            assert origin.connections == before


BOUNDARY = "----boundary-of-the-client"


def multipart(blocks: int, block: bytes) -> Iterator[bytes]:
    """A multipart form with one file of so many blocks."""
    yield (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    ).encode()
    for _ in range(blocks):
        yield block
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(port: int, blocks: int, *, is_chunked: bool) -> tuple[Answer, str, int]:
    """Upload so many MiB without holding them; gives the answer, what the SHA-256 has to be, and the size."""
    block = bytes(range(256)) * (MIB // 256)
    digest = hashlib.sha256()
    size = 0
    for piece in multipart(blocks, block):
        digest.update(piece)
        size += len(piece)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    headers |= {"transfer-encoding": "chunked"} if is_chunked else {"content-length": str(size)}
    with Wire.to(port) as client:
        client.socket.settimeout(30)
        client.send(request_bytes("POST", "/v1/files", headers=headers))
        for piece in multipart(blocks, block):
            client.send(chunk(piece) if is_chunked else piece)
        client.send(LAST_CHUNK if is_chunked else b"")
        return client.read_answer(), digest.hexdigest(), size


class TestUploads:
    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_a_hundred_megabytes_pass_through_flat_memory(self, upstream: Server, is_chunked: bool) -> None:
        with serving(upstream.base_url) as proxy:
            assert upload(proxy.port, 1, is_chunked=is_chunked)[0].status == 200
            before_kib = proxy.memory_kib("VmHWM")
            answer, digest, size = upload(proxy.port, 100, is_chunked=is_chunked)
            grown_kib = proxy.memory_kib("VmHWM") - before_kib
        print(f"grown by {grown_kib} KiB")
        assert answer.status == 200
        assert answer.json["sha256"] == digest
        assert answer.json["bytes"] == size
        assert grown_kib < 16 * 1024

    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_an_upload_keeps_its_framing_and_its_boundary(
        self, origin: Origin, scripted_proxy: Server, is_chunked: bool
    ) -> None:
        seen: list[tuple[Head, bytes]] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request())
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        with origin.playing(play):
            assert upload(scripted_proxy.port, 1, is_chunked=is_chunked)[0].status == 200
        head, body = seen[0]
        assert head.headers["content-type"] == f"multipart/form-data; boundary={BOUNDARY}"
        assert ("transfer-encoding" in head.headers, "content-length" in head.headers) == (is_chunked, not is_chunked)
        assert body == b"".join(multipart(1, bytes(range(256)) * (MIB // 256)))

    @pytest.mark.parametrize("is_chunked", [False, True])
    @pytest.mark.parametrize("reads", [0, 100_000])
    def test_an_answer_before_the_upload_ended_reaches_the_client(
        self, origin: Origin, scripted_proxy: Server, reads: int, is_chunked: bool
    ) -> None:
        def play(wire: Wire) -> None:
            wire.read_head()
            wire.read_exactly(reads)
            body = b'{"error":{"message":"Too large.","type":"t","param":null,"code":"theirs"}}'
            head = b"HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
            wire.send(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            wire.close()

        headers = {"transfer-encoding": "chunked"} if is_chunked else {"content-length": str(64 * MIB)}
        with origin.playing(play), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", "/v1/files", headers=headers))
            # The client goes on as a client that reads only afterwards would, until it is stopped.
            sending = threading.Thread(target=_send_on, args=(client, is_chunked))
            sending.start()
            answer = client.read_answer()
            client.socket.close()
            sending.join(WAIT_S)
        assert answer.status == 413
        assert answer.error["code"] == "theirs"
        assert scripted_proxy.exchange(answer.request_id)["status"] == 413

    def test_a_slow_origin_slows_the_upload(self, origin: Origin, scripted_proxy: Server) -> None:
        goes_on = threading.Event()

        def play(wire: Wire) -> None:
            wire.read_head()
            goes_on.wait(WAIT_S)
            size = 64 * MIB
            while size:
                size -= len(wire.read_some())
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        before_kib = scripted_proxy.memory_kib()
        sent = 0
        with origin.playing(play), Wire.to(scripted_proxy.port) as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": str(64 * MIB)}))
            client.socket.settimeout(0.5)
            try:
                while sent < 64 * MIB:
                    sent += client.socket.send(bytes(65536))
            except TimeoutError:
                pass  # nothing more is taken from us
            assert sent < 32 * MIB
            assert scripted_proxy.memory_kib() - before_kib < 4096
            goes_on.set()
            client.socket.settimeout(WAIT_S)
            while sent < 64 * MIB:
                sent += client.socket.send(bytes(min(65536, 64 * MIB - sent)))
            assert client.read_answer().status == 200


def _send_on(client: Wire, is_chunked: bool) -> None:
    try:
        for _ in range(64 * 16):
            client.send(chunk(bytes(65536)) if is_chunked else bytes(65536))
    except OSError:
        pass  # stopped
