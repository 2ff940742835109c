"""The simulated origin, over memory streams in virtual time and over real sockets."""

import hashlib
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import openai
import pytest
import trio
import trio.testing
from openai import OpenAI

from trioproxy.bench.demo_upstream import State, serve, serve_connection

Clock = trio.testing.MockClock
DIALECTS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]
CHAT = DIALECTS[0]


@dataclass
class Got:
    """An answer, as a client saw it: each chunk with its time, and whether it ended cleanly."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    is_clean: bool = False
    head_at: float = -1.0

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A plain h11 client on any stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        given = {"host": "demo", "content-length": str(len(body))} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        await self.start(method, path, given)
        await self.stream.send_all(
            (self.http.send(h11.Data(data=body)) or b"") + (self.http.send(h11.EndOfMessage()) or b"")
        )

    async def start(self, method: str, path: str, headers: dict[str, str]) -> None:
        head = h11.Request(method=method, target=path, headers=list(headers.items()))
        await self.stream.send_all(self.http.send(head) or b"")

    async def next_event(self) -> h11.Event:
        while not isinstance(event := self.http.next_event(), h11.Event):
            self.http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def read(self) -> Got:
        got = Got()
        try:
            while not got.is_clean:
                event = await self.next_event()
                if isinstance(event, h11.ConnectionClosed):
                    break
                if isinstance(event, h11.Response):
                    got.status, got.head_at = event.status_code, trio.current_time()
                    got.headers = {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    if event.chunk_start or not got.chunks:
                        got.chunks.append(b"")
                        got.times.append(trio.current_time())
                    got.chunks[-1] += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    got.is_clean = True
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            pass  # A cut answer: `is_clean` stays false.
        if got.is_clean and self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return got

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Got:
        await self.send(method, path, body, **headers)
        return await self.read()

    async def post(self, path: str, **value: object) -> Got:
        return await self.ask("POST", path, json.dumps(value).encode())


@asynccontextmanager
async def origin() -> AsyncIterator[tuple[Client, State]]:
    """A client of one connection in memory; the connection must end by itself when the client leaves."""
    state = State()
    theirs, mine = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, mine, state)
        await trio.testing.wait_all_tasks_blocked()
        yield Client(theirs), state
        await theirs.aclose()
    assert (state.open, state.streams) == (0, 0)


def streaming(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "stream": True, "messages": [], **more}


class TestFormats:
    @pytest.mark.parametrize("path", DIALECTS)
    async def test_every_event_is_one_chunk(self, autojump_clock: Clock, path: str) -> None:
        async with origin() as (client, _):
            got = await client.post(path, **streaming("gpt-4o-mini"))
        assert got.status == 200 and got.is_clean
        assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert got.headers["x-request-id"] == "req_demo_1"
        assert got.headers["transfer-encoding"] == "chunked"
        assert all(chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1 for chunk in got.chunks)
        assert len(got.chunks) > 40

    async def test_a_chat_stream_goes_from_role_to_done(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-n2", stream_options={"include_usage": True}))
        assert got.chunks[-1] == b"data: [DONE]\n\n"
        first, *contents, last, usage = (json.loads(chunk[6:]) for chunk in got.chunks[:-1])
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert [bool(chunk["choices"][0]["delta"]["content"]) for chunk in contents] == [True, True]
        assert last["choices"][0]["finish_reason"] == "stop"
        assert usage["usage"]["completion_tokens"] == 2

    @pytest.mark.parametrize("path", DIALECTS)
    async def test_a_whole_answer_has_usage_and_its_length(self, autojump_clock: Clock, path: str) -> None:
        async with origin() as (client, _):
            got = await client.post(path, model="demo-n3", messages=[])
        assert got.headers["content-length"] == str(len(got.body))
        assert 3 in got.json["usage"].values()

    async def test_usage_is_sent_unasked_if_the_name_says_so(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-n1-usage"))
        assert json.loads(got.chunks[-2][6:])["usage"]["total_tokens"]

    async def test_models_are_listed_and_any_model_exists(self) -> None:
        async with origin() as (client, _):
            listed = await client.ask("GET", "/v1/models")
            one = await client.ask("GET", "/v1/models/org%2Fdemo-n3")
        assert "gpt-4o-mini" in [entry["id"] for entry in listed.json["data"]]
        assert one.json["id"] == "org/demo-n3"

    async def test_sound_comes_in_chunks(self) -> None:
        async with origin() as (client, _):
            got = await client.post("/v1/audio/speech", model="tts-1", input="hello", voice="alloy")
        assert (got.headers["content-type"], len(got.body), len(got.chunks)) == ("audio/mpeg", 262144, 32)

    async def test_an_upload_is_measured_and_not_kept(self) -> None:
        body = bytes(range(256)) * 40_000
        async with origin() as (client, _):
            got = await client.ask("POST", "/v1/files", body, content_type="multipart/form-data; boundary=b")
        assert got.json["bytes"] == len(body)
        assert got.json["sha256"] == hashlib.sha256(body).hexdigest()


class TestPace:
    async def test_the_natural_pace_is_a_first_token_then_a_jitter(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("gpt-4o-mini"))
        contents = got.times[1:-2]
        gaps = [later - sooner for sooner, later in itertools.pairwise(contents)]
        assert got.head_at == got.times[0] == contents[0] == pytest.approx(0.2)
        assert min(gaps) > 0.0249 and max(gaps) < 0.0601

    async def test_a_name_sets_the_pace(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-n3-t5000-i1000"))
        assert got.times == pytest.approx([5, 5, 6, 7, 7, 7])

    async def test_of_all_requests_some_are_late_whoever_sent_them(self, autojump_clock: Clock) -> None:
        took: list[float] = []
        async with origin() as (client, _):
            for number in range(8):
                start = trio.current_time()
                await client.post(CHAT, model="demo-late25-n1-t0", stream=number % 2 == 0)
                await client.post(CHAT, **streaming("demo-n1-t0"))  # is not counted
                took.append(trio.current_time() - start)
        assert took == [0, 0, 0, 2, 0, 0, 0, 2]

    async def test_a_whole_answer_takes_as_long_as_a_stream(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, model="demo-n3-t5000-i1000", messages=[])
        assert got.head_at == pytest.approx(7)

    async def test_a_lingering_answer_ends_thirty_seconds_late(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-n1-t0-linger"))
            assert got.is_clean and got.times[-1] == 0 and trio.current_time() == pytest.approx(30)

    async def test_silence_shows_its_head_at_once(self, autojump_clock: Clock) -> None:
        async with origin() as (client, state):
            await client.send("POST", CHAT, json.dumps(streaming("demo-silent")).encode())
            assert isinstance(await client.next_event(), h11.Response)
            assert trio.current_time() == 0 and state.streams == 1
            with trio.move_on_after(3600) as patience:
                await client.stream.receive_some(1)
            assert patience.cancelled_caught
        assert state.aborted == 1


class TestFaults:
    @pytest.mark.parametrize("word", ["x2", "reset2", "cut2"])
    @pytest.mark.parametrize("path", DIALECTS)
    async def test_a_death_leaves_no_clean_end_and_is_no_abort(
        self, autojump_clock: Clock, word: str, path: str
    ) -> None:
        async with origin() as (client, state):
            got = await client.post(path, **streaming(f"demo-{word}"))
        assert got.status == 200 and not got.is_clean and got.chunks
        assert got.chunks[-1].endswith(b"\n\n") == (word != "cut2")
        assert state.aborted == 0

    @pytest.mark.parametrize("word", ["mute", "silent", "silent2", "i100000", "t100000", "linger-i0"])
    async def test_a_peer_that_leaves_ends_the_generation_at_once(self, autojump_clock: Clock, word: str) -> None:
        async with origin() as (client, state):
            await client.send("POST", CHAT, json.dumps(streaming(f"demo-{word}")).encode())
            await trio.sleep(0.3)
            assert state.streams == 1
            left_at = trio.current_time()
            await client.stream.aclose()
            await trio.sleep(0.01)
            assert state.streams == 0 and trio.current_time() - left_at < 0.02
        assert state.aborted == (word != "linger-i0")

    async def test_a_peer_that_leaves_a_whole_answer_counts_too(self, autojump_clock: Clock) -> None:
        async with origin() as (client, state):
            await client.send("POST", CHAT, json.dumps({"model": "demo"}).encode())
            await trio.sleep(0.1)
        assert state.aborted == 1

    @pytest.mark.parametrize("word", ["garbage", "refusehead", "nohead"])
    async def test_an_answer_that_is_none(self, word: str) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming(f"demo-{word}"))
        assert (got.status, got.is_clean) == (0, False)

    async def test_a_status_comes_with_an_envelope(self) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-e503-r2"))
            other = await client.post("/v1/messages", **streaming("demo-e529"))
        assert (got.status, got.headers["retry-after"], got.json["error"]["code"]) == (503, "2", "overloaded")
        assert other.json["error"]["type"] == "overloaded_error"
        assert other.json["request_id"] == other.headers["x-request-id"] == "req_demo_2"

    async def test_a_redirect_names_its_target(self) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-redirect"))
        assert (got.status, got.headers["location"]) == (302, "/v1/models")

    @pytest.mark.parametrize("path", [CHAT, "/v1/files?model=early"])
    async def test_early_does_not_wait_for_the_body(self, path: str) -> None:
        async with origin() as (client, _):
            await client.start("POST", path, {"host": "demo", "content-length": "1000000"})
            await client.stream.send_all(client.http.send(h11.Data(data=b'{"model": "demo-early", ')) or b"")
            got = await client.read()
            assert await client.stream.receive_some(1) == b""
        assert (got.status, got.headers["connection"]) == (413, "close")

    async def test_the_query_chooses_where_no_body_does(self) -> None:
        async with origin() as (client, _):
            got = await client.ask("GET", "/v1/models?model=demo-e503")
        assert got.status == 503

    async def test_one_byte_a_chunk_is_the_same_stream(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-n1-byte"))
        assert {len(chunk) for chunk in got.chunks} == {1} and got.body.endswith(b"data: [DONE]\n\n")

    async def test_one_event_is_a_megabyte(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming("demo-big"))
        assert [len(chunk) > 1_000_000 for chunk in got.chunks].count(True) == 1


class TestHttp:
    async def test_a_connection_serves_many_requests(self, autojump_clock: Clock) -> None:
        async with origin() as (client, state):
            ids = [(await client.post(CHAT, **streaming("demo-n1"))).headers["x-request-id"] for _ in range(3)]
        assert ids == ["req_demo_1", "req_demo_2", "req_demo_3"] and state.requests == 3

    async def test_a_request_sent_ahead_is_served(self, autojump_clock: Clock) -> None:
        request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
        body = json.dumps(streaming("demo-n2")).encode()
        async with origin() as (client, state):
            await client.stream.send_all((request % (len(body), body)) * 2)
            data = b""
            while data.count(b"[DONE]") < 2:
                data += await client.stream.receive_some(65536)
        assert (state.requests, state.aborted) == (2, 0)

    @pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/models/", "/v2/models", "/v1//models"])
    async def test_an_unknown_path_is_404(self, path: str) -> None:
        async with origin() as (client, _):
            got = await client.ask("POST", path, b"anything")
        assert (got.status, got.json["error"]["code"]) == (404, "unknown_path")

    @pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/models"), ("HEAD", CHAT)])
    async def test_a_wrong_method_is_405(self, method: str, path: str) -> None:
        async with origin() as (client, _):
            got = await client.ask(method, path)
        assert got.status == 405 and "OPTIONS" in got.headers["allow"] and "x-request-id" in got.headers
        assert method == "HEAD" or got.json["error"]["code"] == "method_not_allowed"

    async def test_head_and_options_have_no_body(self) -> None:
        async with origin() as (client, _):
            head = await client.ask("HEAD", "/v1/models")
            options = await client.ask("OPTIONS", CHAT)
            everything = await client.ask("OPTIONS", "*")
        assert (head.status, head.body) == (200, b"") and int(head.headers["content-length"]) > 0
        assert (options.status, options.body, options.headers["allow"]) == (204, b"", "POST, OPTIONS")
        assert everything.status == 204

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"{}", b"\xff", b'{"model":7}', b"[" * 100_000, b'{"model":"b999999-n999999"}']
    )
    async def test_a_body_that_makes_no_sense_is_400(self, body: bytes) -> None:
        async with origin() as (client, _):
            got = await client.ask("POST", CHAT, body)
            again = await client.ask("GET", "/v1/models")
        assert (got.status, got.json["error"]["code"], again.status) == (400, "invalid_body", 200)

    @pytest.mark.parametrize("text", ["\ud800", "ü-n2", "\x00"])
    async def test_any_text_can_be_a_model(self, autojump_clock: Clock, text: str) -> None:
        async with origin() as (client, _):
            got = await client.post(CHAT, **streaming(text))
        assert json.loads(got.chunks[0][6:])["model"] == text

    @pytest.mark.parametrize("data", [b"\x16\x03\x01\x00", b"GET\r\n\r\n", b"A" * 100_000, b"\r\n" * 10])
    async def test_bytes_that_are_not_http_end_the_connection_only(self, data: bytes) -> None:
        async with origin() as (client, _):
            await client.stream.send_all(data)
            await client.stream.send_all(b"\r\n\r\n")

    async def test_http_1_0_gets_its_stream_until_the_end(self, autojump_clock: Clock) -> None:
        body = json.dumps(streaming("demo-n2")).encode()
        async with origin() as (client, _):
            await client.stream.send_all(
                b"POST %s HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (CHAT.encode(), len(body), body)
            )
            data = b""
            while piece := await client.stream.receive_some(65536):
                data += piece
        assert b"transfer-encoding" not in data.lower() and data.endswith(b"data: [DONE]\n\n")

    async def test_stats_count_what_runs_and_not_themselves(self, autojump_clock: Clock) -> None:
        async with origin() as (client, _):
            await client.post(CHAT, **streaming("demo-n1"))
            got = await client.ask("GET", "/stats")
        assert got.json == {"open": 1, "streams": 0, "aborted": 0, "requests": 1}


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """A server on a real loopback socket."""
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(serve, "127.0.0.1", 0)
        yield port
        nursery.cancel_scope.cancel()


async def stats(port: int) -> dict[str, int]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        shown: dict[str, int] = (await Client(stream).ask("GET", "/stats")).json
        return shown


class TestLoopback:
    async def test_a_taken_port_is_an_os_error(self) -> None:
        async with listening() as port:
            with pytest.raises(OSError, match="in use"):
                await serve("127.0.0.1", port)

    async def test_a_name_with_two_addresses_gets_one_port(self) -> None:
        async with trio.open_nursery() as nursery:
            port: int = await nursery.start(serve, "localhost", 0)
            stream = await trio.open_tcp_stream("localhost", port)
            async with stream:
                assert (await Client(stream).ask("GET", "/v1/models")).status == 200
            nursery.cancel_scope.cancel()

    async def test_a_reset_is_a_reset_and_a_close_is_none(self) -> None:
        async with listening() as port:
            for word, error in (("reset1", trio.BrokenResourceError), ("x1", None)):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await Client(stream).send("POST", CHAT, json.dumps(streaming(f"demo-t0-{word}")).encode())
                    caught = None
                    try:
                        while await stream.receive_some(65536):
                            pass
                    except trio.BrokenResourceError as reset:
                        caught = type(reset)
                    assert caught is error

    @pytest.mark.parametrize("is_reset", [True, False])
    @pytest.mark.parametrize("word", ["silent", "mute", "flood"])
    async def test_stats_count_a_peer_that_left(self, word: str, is_reset: bool) -> None:
        async with listening() as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await Client(stream).send("POST", CHAT, json.dumps(streaming(f"demo-t0-{word}")).encode())
            await trio.sleep(0.05)
            assert (await stats(port))["streams"] == 1
            if is_reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await stream.aclose()
            await trio.sleep(0.05)
            assert await stats(port) == {"open": 1, "streams": 0, "aborted": 1, "requests": 1}

    async def test_the_sockets_do_not_wait_to_fill_a_packet(self) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with (
            listeners[0] as listener,
            await trio.testing.open_stream_to_socket_listener(listener),
            await listener.accept() as stream,
        ):
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def ask_everything(base_url: str) -> dict[str, str]:
    """What the official client makes of each dialect."""
    said: dict[str, str] = {}
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        chat = client.chat.completions.create(
            model="demo-n5-i1", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        said["chat"] = "".join(chunk.choices[0].delta.content or "" for chunk in chat)
        texts = client.completions.create(model="demo-n5-i1", prompt="hello", stream=True)
        said["completions"] = "".join(chunk.choices[0].text for chunk in texts)
        with client.responses.stream(model="demo-n5-i1", input="hello") as response:
            said["responses"] = response.get_final_response().output_text
        with client.responses.stream(model="demo-n5-i1-tools", input="hello") as response:
            said["call"] = str(json.loads(response.get_final_response().output[0].to_dict()["arguments"]))  # type: ignore[arg-type]
        whole = client.chat.completions.create(model="demo-n5-i1", messages=[{"role": "user", "content": "hello"}])
        said["whole"] = whole.choices[0].message.content or ""
        vectors = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
        said["embeddings"] = str([len(entry.embedding) for entry in vectors.data])
        said["models"] = next(model.id for model in client.models.list())
        said["model"] = client.models.retrieve("demo").id
        said["sound"] = str(len(client.audio.speech.create(model="tts-1", voice="alloy", input="hello").read()))
        said["file"] = client.files.create(file=b"some bytes", purpose="assistants").id[:5]
    return said


def ask_for_errors(base_url: str) -> list[str]:
    """What the official client makes of errors: as a status, and inside a stream."""
    seen: list[str] = []
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        for model in ("demo-e429", "demo-e503", "demo-t0-error", "demo-t0-i0-error3", "demo-t0-x2"):
            try:
                list(
                    client.chat.completions.create(
                        model=model, messages=[{"role": "user", "content": "a"}], stream=True
                    )
                )
            except openai.OpenAIError as error:
                seen.append(type(error).__name__)
    return seen


class TestOfficialClient:
    async def test_it_understands_every_dialect(self) -> None:
        async with listening() as port:
            said = await trio.to_thread.run_sync(ask_everything, f"http://127.0.0.1:{port}/v1")
        for dialect in ("chat", "completions", "responses", "whole"):
            assert len(said[dialect].split()) == 5
        assert said["call"].startswith("{'note': ")
        assert said["embeddings"] == "[8, 8]" and said["sound"] == "262144"
        assert (said["models"], said["model"], said["file"]) == ("gpt-4o-mini", "demo", "file-")

    async def test_it_raises_the_errors(self) -> None:
        async with listening() as port:
            seen = await trio.to_thread.run_sync(ask_for_errors, f"http://127.0.0.1:{port}/v1")
        assert seen == ["RateLimitError", "InternalServerError", "APIError", "APIError", "APIConnectionError"]
