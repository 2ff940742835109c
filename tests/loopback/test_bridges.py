"""What the official `openai` package sees where client and upstream differ: one streams and the other does not.

`Even` is an origin that says the same either way, so that both can be compared; the faults are the demo upstream's.
"""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import openai
import pytest
from openai import OpenAI

from tests.loopback.crowd import CHAT, streams
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import LAST_CHUNK, Origin, Wire, chat, chunk, event_stream_head, request_bytes
from trioproxy.bench import demo_events as say
from trioproxy.bench import demo_script as script
from trioproxy.bench.demo_model import parse_model
from trioproxy.bench.demo_script import Send, Then

Json = dict[str, Any]

FAST: Final = "n8-i1-t0"
HELLO: Final[list[Any]] = [{"role": "user", "content": "Hello"}]
USAGE: Final[Any] = {"include_usage": True}
TIMEOUT_S: Final = 10.0
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading the usual authorities takes longer than most tests
_DIALECTS: Final = {
    CHAT: say.Dialect.CHAT,
    "/v1/completions": say.Dialect.COMPLETIONS,
    "/v1/responses": say.Dialect.RESPONSES,
}

CONFIG: Final = """
[[upstream]]
name = "demo"
base_url = "{demo}"

[[upstream]]
name = "demo-whole"
base_url = "{demo}"
streams = false

[[upstream]]
name = "even"
base_url = "{even}"

[[upstream]]
name = "even-whole"
base_url = "{even}"
streams = false

[[route]]
models = ["demo-folded-*"]
targets = [{{ upstream = "demo" }}]
aggregate = true

[[route]]
models = ["demo-made-*"]
targets = [{{ upstream = "demo-whole" }}]

[[route]]
models = ["even-folded-*"]
targets = [{{ upstream = "even" }}]
aggregate = true

[[route]]
models = ["even-made-*"]
targets = [{{ upstream = "even-whole" }}]

[[route]]
models = ["even-last-*"]
targets = [{{ upstream = "even" }}]
batch_fallback = true
"""


class Even:
    """An origin that says the same whether it streams or not. What its model's name makes go wrong hits streams only.

    Attributes:
        asked: for each request whether it was for a stream.
    """

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def play(self, wire: Wire) -> None:
        """Answer one request."""
        head, body = wire.read_request()
        value = json.loads(body)
        self.asked.append(value.get("stream") is True)
        has_usage = (value.get("stream_options") or {}).get("include_usage") is True
        model = value["model"]
        answer = say.Answer(_DIALECTS[head.target], model, parse_model(model), b"", 1, include_usage=has_usage)
        if self.asked[-1]:
            self._stream(wire, answer)
        else:
            self._send_json(wire, 200, say.whole(answer))

    @staticmethod
    def _send_json(wire: Wire, status: int, value: Json) -> None:
        body = say.dumps(value)
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        wire.send(head.encode() + body)

    def _stream(self, wire: Wire, answer: say.Answer) -> None:
        """The stream without its pauses; a status in the name refuses that there is one."""
        status = answer.behaviour.status
        if status is not None:
            error = say.error_envelope("No stream.", "invalid_request_error", "unsupported_value", "stream")
            self._send_json(wire, status, error)
            return
        wire.send(event_stream_head())
        for step in script.stream(answer).steps:
            match step:
                case Send(data):
                    wire.send(chunk(data))
                case Then.FINISH:
                    wire.send(LAST_CHUNK)
                case Then.CLOSE:
                    wire.close()
                case Then.RESET:
                    wire.reset()


@contextmanager
def openai_client(base_url: str) -> Iterator[OpenAI]:
    """A client that talks to nobody else and never asks twice."""
    with (
        openai.DefaultHttpxClient(trust_env=False, verify=_NO_TLS) as http,
        OpenAI(base_url=base_url, api_key="any", timeout=TIMEOUT_S, max_retries=0, http_client=http) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def bridge(upstream: Server, origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A proxy in front of both origins."""
    directory = tmp_path_factory.mktemp("bridge")
    text = CONFIG.format(demo=upstream.base_url, even=origin.base_url)
    (directory / "trioproxy.toml").write_text(text)
    with serving(None, directory=directory) as proxy:
        yield proxy


@pytest.fixture
def even(origin: Origin) -> Iterator[Even]:
    played = Even()
    with origin.playing(played.play):
        yield played


@pytest.fixture(scope="module")
def client(bridge: Server) -> Iterator[OpenAI]:
    """Through the proxy."""
    with openai_client(bridge.base_url) as through:
        yield through


@pytest.fixture(scope="module")
def direct(origin: Origin) -> Iterator[OpenAI]:
    """Straight to the even origin, to compare with."""
    with openai_client(origin.base_url) as straight:
        yield straight


def text_of(chunks: list[Any]) -> str:
    """The text of a chat's chunks."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def ask_for_whole(client: OpenAI, dialect: str, model: str) -> object:
    match dialect:
        case "chat":
            return client.chat.completions.create(model=model, messages=HELLO)
        case "completions":
            return client.completions.create(model=model, prompt="Hello")
        case _:
            return client.responses.create(model=model, input="Hello")


class TestAnUpstreamThatCannotStream:
    """A client's stream is made of the whole answer."""

    def test_a_chat_stream_says_what_the_whole_answer_says(self, client: OpenAI, direct: OpenAI, even: Even) -> None:
        model = f"even-made-{FAST}"
        chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
        assert even.asked == [False]
        whole = direct.chat.completions.create(model=model, messages=HELLO)
        assert text_of(chunks) == whole.choices[0].message.content
        assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {(whole.id, whole.created, whole.model)}
        assert [one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason] == ["stop"]
        assert chunks[0].choices[0].delta.role == "assistant"

    def test_usage_comes_when_it_is_asked_for_and_only_then(self, client: OpenAI, direct: OpenAI, even: Even) -> None:
        model = f"even-made-{FAST}"
        plain = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
        told = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=USAGE))
        assert even.asked == [False, False]
        assert {chunk.usage for chunk in plain} == {None}
        assert told[-1].usage == direct.chat.completions.create(model=model, messages=HELLO).usage
        assert told[-1].choices == []
        assert {chunk.usage for chunk in told[:-1]} == {None}

    def test_a_tool_call_is_whole(self, client: OpenAI, direct: OpenAI, even: Even) -> None:
        model = f"even-made-tools-{FAST}"
        chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
        called = [call for chunk in chunks for one in chunk.choices for call in one.delta.tool_calls or []]
        whole = direct.chat.completions.create(model=model, messages=HELLO).choices[0].message.tool_calls
        assert whole is not None
        assert [call.id for call in called if call.id] == [whole[0].id]
        functions = [call.function for call in called if call.function is not None]
        pieces = ([function.name or "", function.arguments or ""] for function in functions)
        name, arguments = map("".join, zip(*pieces, strict=True))
        assert {"name": name, "arguments": arguments} == whole[0].to_dict()["function"]

    def test_a_response_goes_from_created_to_completed(self, client: OpenAI, direct: OpenAI, even: Even) -> None:
        model = f"even-made-{FAST}"
        events: list[Any] = list(client.responses.create(model=model, input="Hello", stream=True))
        assert even.asked == [False]
        whole = direct.responses.create(model=model, input="Hello")
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        assert events[-1].response.to_dict() == whole.to_dict()
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert deltas == whole.output_text != ""
        assert [event.sequence_number for event in events] == list(range(len(events)))

    def test_a_legacy_completion_says_what_the_whole_answer_says(
        self, client: OpenAI, direct: OpenAI, even: Even
    ) -> None:
        model = f"even-made-{FAST}"
        chunks = list(client.completions.create(model=model, prompt="Hello", stream=True, stream_options=USAGE))
        assert even.asked == [False]
        whole = direct.completions.create(model=model, prompt="Hello")
        assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
        assert chunks[-1].usage == whole.usage

    @pytest.mark.parametrize("word", ["x2", "cut2", "reset2", "x0", "nohead", "error", "e500", "e503"])
    def test_what_goes_wrong_is_a_status_and_no_half_stream(self, client: OpenAI, word: str) -> None:
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(model=f"demo-made-{word}-{FAST}", messages=HELLO, stream=True)
        assert raised.value.request_id

    def test_a_rate_limit_is_passed_as_it_is(self, client: OpenAI) -> None:
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(model="demo-made-e429-r2", messages=HELLO, stream=True)
        assert raised.value.response.headers["retry-after"] == "2"


class TestAClientThatDoesNotStream:
    """The upstream streams, and its stream is folded into the whole answer."""

    @pytest.mark.parametrize("words", [FAST, f"tools-{FAST}", f"crlf-{FAST}", f"byte-{FAST}", f"comments-{FAST}"])
    def test_a_chat_answer_is_the_origins_own(self, client: OpenAI, direct: OpenAI, even: Even, words: str) -> None:
        model = f"even-folded-{words}"
        folded = client.chat.completions.create(model=model, messages=HELLO).to_dict()
        assert even.asked == [True]
        whole: Json = direct.chat.completions.create(model=model, messages=HELLO).to_dict()
        whole["choices"][0]["message"].pop("annotations", None)  # the origin's stream does not tell of them
        assert folded == whole
        assert folded["usage"]

    def test_a_legacy_completion_is_the_origins_own(self, client: OpenAI, direct: OpenAI, even: Even) -> None:
        model = f"even-folded-{FAST}"
        folded = client.completions.create(model=model, prompt="Hello").to_dict()
        assert even.asked == [True]
        whole = direct.completions.create(model=model, prompt="Hello").to_dict()
        assert {**folded, "system_fingerprint": None} == {**whole, "system_fingerprint": None}  # only the stream tells
        assert folded["usage"]

    @pytest.mark.parametrize("words", [FAST, f"tools-{FAST}"])
    def test_a_response_is_the_origins_own(self, client: OpenAI, direct: OpenAI, even: Even, words: str) -> None:
        model = f"even-folded-{words}"
        folded = client.responses.create(model=model, input="Hello").to_dict()
        assert even.asked == [True]
        assert folded == direct.responses.create(model=model, input="Hello").to_dict()
        assert folded["usage"]

    @pytest.mark.parametrize(
        ("word", "status", "codes"),
        [
            ("x2", 502, ("upstream_truncated",)),
            ("reset2", 502, ("upstream_truncated",)),
            ("cut2", 502, ("upstream_truncated",)),
            ("nodone", 502, ("upstream_truncated",)),
            ("x0", 502, ("upstream_truncated", "upstream_disconnected")),
            ("error", 503, ("overloaded",)),
            ("error3", 503, ("overloaded",)),
            ("e503", 503, ("overloaded",)),
        ],
    )
    @pytest.mark.parametrize("dialect", ["chat", "completions", "responses"])
    def test_what_goes_wrong_is_a_status_and_no_half_answer(
        self, client: OpenAI, dialect: str, word: str, status: int, codes: tuple[str, ...]
    ) -> None:
        model = f"demo-folded-{word}-{FAST}"
        with pytest.raises(openai.InternalServerError) as raised:
            ask_for_whole(client, dialect, model)
        assert raised.value.status_code == status
        assert raised.value.code in codes
        assert raised.value.request_id

    def test_a_client_that_leaves_stops_the_origin(self, bridge: Server, upstream: Server) -> None:
        until(lambda: streams(upstream) == 0, "a quiet origin")
        body = json.dumps(chat("demo-folded-n9999-i20-t0", stream=False)).encode()
        took_s = []
        for _ in range(5):
            with Wire.to(bridge.port) as wire:
                wire.send(request_bytes("POST", CHAT, body))
                until(lambda: streams(upstream) == 1, "it generates")
                time.sleep(0.1)
            took_s.append(until(lambda: streams(upstream) == 0, "it has stopped", pause_s=0.001))
        print(f"the origin was free after {', '.join(f'{1000 * each:.0f}' for each in took_s)} ms")
        assert min(took_s) < 0.1  # the others shared the machine with someone
        assert max(took_s) < 1.0


class TestTheLastResort:
    """A stream that failed before its first content is asked for as a whole answer."""

    @pytest.mark.parametrize("word", ["x0", "reset0", "cut0", "error", "e400"])
    def test_a_stream_that_never_began_is_made_of_a_whole_answer(
        self, bridge: Server, client: OpenAI, direct: OpenAI, even: Even, word: str
    ) -> None:
        model = f"even-last-{FAST}-{word}"
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=USAGE)
        chunks = list(stream)
        assert even.asked == [True, False]
        whole = direct.chat.completions.create(model=model, messages=HELLO)
        assert text_of(chunks) == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage
        line = bridge.exchange(stream.response.headers["x-request-id"])
        assert (line["outcome"], line["attempts"], line["batch_fallback"]) == ("finished", 2, True)

    def test_a_stream_that_works_is_passed(self, client: OpenAI, even: Even) -> None:
        chunks = list(client.chat.completions.create(model=f"even-last-{FAST}", messages=HELLO, stream=True))
        assert len(text_of(chunks).split()) == 8
        assert even.asked == [True]

    @pytest.mark.parametrize("word", ["x3", "error3", "nodone"])
    def test_a_stream_that_has_begun_is_not_asked_for_again(self, client: OpenAI, even: Even, word: str) -> None:
        chunks: list[Any] = []
        stream = client.chat.completions.create(model=f"even-last-{FAST}-{word}", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as raised:
            chunks.extend(stream)
        assert not isinstance(raised.value, openai.APIStatusError)
        assert len(text_of(chunks).split()) == (8 if word == "nodone" else 3)
        assert even.asked == [True]
