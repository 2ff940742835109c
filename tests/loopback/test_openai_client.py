"""What the official `openai` package sees of the demo upstream and of each of its faults, through the proxy.

Every test runs three ways: the synchronous client, the asynchronous one on asyncio, and the same on Trio. The client
never retries by itself here, so that one request is one exchange.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import openai
import pytest
import trio
from openai import AsyncOpenAI, OpenAI

from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import ask, chat

# On Trio the client leaves its own generators to the garbage collector whenever a stream ends with [DONE].
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'openai:ResourceWarning")

T = TypeVar("T")

FAST: Final = "i1-t0"
HELLO: Final = [{"role": "user", "content": "Hello"}]
TIMEOUT_S: Final = 10.0
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading the usual authorities takes longer than most tests


def _without_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in which nothing is ever awaited."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the synchronous client awaited something")


def _on_trio(work: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        return await work

    return trio.run(main)


@dataclass(frozen=True)
class Way:
    """A client, and what runs it."""

    is_async: bool
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def client(self, base_url: str, *, follow_redirects: bool = True) -> Any:
        """A client that talks to nobody but `base_url`."""
        options: dict[str, Any] = {"trust_env": False, "verify": _NO_TLS, "follow_redirects": follow_redirects}
        if self.is_async:
            http: Any = openai.DefaultAsyncHttpxClient(**options)
            return AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=TIMEOUT_S, http_client=http)
        http = openai.DefaultHttpxClient(**options)
        return OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=TIMEOUT_S, http_client=http)


WAYS: Final = {
    "sync": Way(False, _without_loop),
    "asyncio": Way(True, asyncio.run),
    "trio": Way(True, _on_trio),
}


@dataclass
class Outcome:
    """What a call came to. `error` is what the client raised, at the call or while its stream was read."""

    value: Any = None
    items: list[Any] = field(default_factory=list)
    error: Exception | None = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The text of a chat stream."""
        return "".join(choice.delta.content or "" for chunk in self.items for choice in chunk.choices)

    @property
    def finish_reasons(self) -> list[str]:
        """Every finish reason that a chat stream gave."""
        return [choice.finish_reason for chunk in self.items for choice in chunk.choices if choice.finish_reason]

    @property
    def raised(self) -> Exception:
        """The error; fails if there was none, which would be a silent success."""
        assert self.error is not None, f"a silent success: {self.value!r}, {len(self.items)} events"
        return self.error

    def status_error(self, kind: type[openai.APIStatusError], status: int) -> dict[str, Any]:
        """The body of the error, which has to be of this class and status, and to know its request."""
        error = self.raised
        assert type(error) is kind, repr(error)
        assert isinstance(error, openai.APIStatusError)
        assert error.status_code == status
        assert error.request_id
        assert self.items == []
        assert isinstance(error.body, dict)
        return error.body

    def error_in_band(self, code: str) -> openai.APIError:
        """The error that was raised in mid-stream, which has to have this code."""
        error = self.raised
        assert type(error) is openai.APIError, repr(error)
        assert error.code == code
        return error


@dataclass(frozen=True)
class Caller:
    """Calls the API one way, at one base URL."""

    way: Way
    base_url: str

    def call(self, name: str, *, follow_redirects: bool = True, **arguments: Any) -> Outcome:
        """Call a method by its dotted name; if what it returns is a stream, read that to its end."""
        return self.way.run(self._call(name, follow_redirects, arguments))  # type: ignore[no-any-return]

    async def _call(self, name: str, follow_redirects: bool, arguments: dict[str, Any]) -> Outcome:
        outcome = Outcome()
        client = self.way.client(self.base_url, follow_redirects=follow_redirects)
        start = time.monotonic()
        try:
            method = client
            for part in name.split("."):
                method = getattr(method, part)
            value = await method(**arguments) if self.way.is_async else method(**arguments)
            if isinstance(value, openai.Stream | openai.AsyncStream):
                outcome.headers = dict(value.response.headers)
                async for item in _items(value):
                    outcome.items.append(item)
            else:
                outcome.value = value
        except (openai.OpenAIError, ValueError) as error:
            outcome.error = error
        finally:
            outcome.seconds = time.monotonic() - start
            if self.way.is_async:
                await client.close()
            else:
                client.close()
        return outcome

    def stream(self, model: str, **more: Any) -> Outcome:
        """A chat stream."""
        return self.call("chat.completions.create", model=model, messages=HELLO, stream=True, **more)

    def whole(self, model: str, **more: Any) -> Outcome:
        """A chat answer in one piece."""
        return self.call("chat.completions.create", model=model, messages=HELLO, **more)


async def _items(stream: Any) -> AsyncIterator[Any]:
    if isinstance(stream, openai.AsyncStream):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def client(way: Way, proxy: Server) -> Caller:
    """Through the proxy."""
    return Caller(way, proxy.base_url)


@pytest.fixture
def direct(way: Way, upstream: Server) -> Caller:
    """Straight to the demo upstream, to compare with."""
    return Caller(way, upstream.base_url)


@pytest.fixture(scope="module")
def impatient_proxy(upstream: Server) -> Iterator[Server]:
    """A proxy with short deadlines, which holds the head until a stream's first event or its deadline."""
    deadlines = {"HEAD_S": "0.3", "FIRST_CONTENT_S": "0.4", "IDLE_S": "0.4"}
    with serving(
        upstream.base_url, env={f"TRIOPROXY_DEADLINES__{key}": value for key, value in deadlines.items()}
    ) as it:
        yield it


@pytest.fixture(scope="module")
def committing_proxy(upstream: Server) -> Iterator[Server]:
    """A proxy with short deadlines that lets the head out before them."""
    env = {"TRIOPROXY_DEADLINES__FIRST_CONTENT_S": "0.5", "TRIOPROXY_STREAM__COMMIT_AFTER_S": "0.1"}
    with serving(upstream.base_url, env=env) as it:
        yield it


class TestWhatWorks:
    def test_a_chat_stream_has_the_text_that_the_origin_sends(self, client: Caller, direct: Caller) -> None:
        through, straight = client.stream(f"demo-n8-{FAST}"), direct.stream(f"demo-n8-{FAST}")
        assert through.error is None
        assert through.text == straight.text != ""
        assert through.finish_reasons == ["stop"]
        assert len(through.items) == len(straight.items) == 10
        assert through.headers["x-request-id"]
        assert through.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert through.headers["cache-control"] == "no-cache, no-transform"

    def test_a_chat_answer_in_one_piece_is_the_same(self, client: Caller, direct: Caller) -> None:
        through, straight = client.whole(f"demo-n8-{FAST}"), direct.whole(f"demo-n8-{FAST}")
        assert through.value.choices == straight.value.choices
        assert through.value.choices[0].message.content
        assert through.value.usage == straight.value.usage
        assert through.value._request_id

    def test_usage_comes_when_it_is_asked_for_and_only_then(self, client: Caller, direct: Caller) -> None:
        asked: dict[str, Any] = {"stream_options": {"include_usage": True}}
        through, straight = client.stream(f"demo-n3-{FAST}", **asked), direct.stream(f"demo-n3-{FAST}", **asked)
        assert through.items[-1].usage == straight.items[-1].usage
        assert through.items[-1].usage.completion_tokens == 3
        assert client.stream(f"demo-n3-{FAST}").items[-1].usage is None

    def test_legacy_completions_both_ways(self, client: Caller, direct: Caller) -> None:
        arguments: dict[str, Any] = {"model": f"demo-n5-{FAST}", "prompt": "Hello"}
        stream, straight = (each.call("completions.create", stream=True, **arguments) for each in (client, direct))
        assert [item.choices for item in stream.items] == [item.choices for item in straight.items]
        assert len(stream.items) == 6
        whole, straight = (each.call("completions.create", **arguments) for each in (client, direct))
        assert whole.value.choices == straight.value.choices

    def test_responses_both_ways(self, client: Caller, direct: Caller) -> None:
        arguments: dict[str, Any] = {"model": f"demo-n5-{FAST}", "input": "Hello"}
        stream, straight = (each.call("responses.create", stream=True, **arguments) for each in (client, direct))
        assert stream.error is None
        assert [item.type for item in stream.items] == [item.type for item in straight.items]
        assert stream.items[-1].type == "response.completed"
        assert stream.items[-1].response.output_text == straight.items[-1].response.output_text != ""
        whole, straight = (each.call("responses.create", **arguments) for each in (client, direct))
        assert whole.value.output_text == straight.value.output_text != ""

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_embeddings_are_the_same_numbers(self, client: Caller, direct: Caller, encoding: str) -> None:
        arguments: dict[str, Any] = {
            "model": "text-embedding-3-small",
            "input": ["one", "two"],
            "encoding_format": encoding,
        }
        through, straight = (each.call("embeddings.create", **arguments) for each in (client, direct))
        assert through.value.data == straight.value.data
        assert len(through.value.data) == 2

    def test_the_models_are_the_origins_own(self, client: Caller, direct: Caller) -> None:
        through, straight = (each.call("models.list").value.data for each in (client, direct))
        assert through == straight != []
        assert client.call("models.retrieve", model="gpt-4o").value.id == "gpt-4o"

    def test_an_uploaded_file_arrives_whole(self, client: Caller) -> None:
        content = bytes(range(256)) * 4096
        through = client.call("files.create", file=("a.jsonl", content), purpose="batch")
        assert through.error is None
        # The multipart form around the file is the client's; its boundary is random.
        assert 0 < through.value.bytes - len(content) < 1000

    def test_speech_comes_as_the_bytes_that_the_origin_sends(self, client: Caller, direct: Caller) -> None:
        arguments: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "Hello"}
        through, straight = (each.call("audio.speech.create", **arguments).value for each in (client, direct))
        assert through.content == straight.content
        assert len(through.content) == 256 * 1024
        assert through.response.headers["content-type"] == "audio/mpeg"

    def test_a_tool_call_comes_in_pieces_that_fit_together(self, client: Caller, direct: Caller) -> None:
        def arguments(outcome: Outcome) -> str:
            calls = [call for item in outcome.items for each in item.choices for call in each.delta.tool_calls or []]
            return "".join(call.function.arguments for call in calls)

        through, straight = client.stream(f"demo-tools-n6-{FAST}"), direct.stream(f"demo-tools-n6-{FAST}")
        assert arguments(through) == arguments(straight) != ""
        assert through.finish_reasons == ["tool_calls"]

    @pytest.mark.parametrize("word", ["crlf", "cr", "byte", "big", "comments", "usage", "byte-crlf", "comments-cr"])
    def test_however_the_origin_writes_it_the_stream_is_the_same(
        self, client: Caller, direct: Caller, word: str
    ) -> None:
        through, straight = client.stream(f"demo-{word}-n4-{FAST}"), direct.stream(f"demo-{word}-n4-{FAST}")
        assert through.error is None
        assert through.text == straight.text != ""
        assert through.finish_reasons == ["stop"]
        assert len(through.items) == len(straight.items)

    def test_a_stream_ends_with_done_although_the_origin_lingers(self, client: Caller) -> None:
        through = client.stream(f"demo-linger-n3-{FAST}")
        assert through.error is None
        assert through.finish_reasons == ["stop"]
        assert through.seconds < 1.0

    def test_a_finish_reason_without_done_is_an_honest_end(self, client: Caller, direct: Caller) -> None:
        through = client.stream(f"demo-nofinal-n4-{FAST}")
        assert through.error is None
        assert through.finish_reasons == ["stop"]
        assert through.text == direct.stream(f"demo-nofinal-n4-{FAST}").text

    def test_the_clients_own_request_id_reaches_log_and_answer(self, client: Caller, proxy: Server) -> None:
        mine = f"mine-{time.monotonic_ns()}"
        assert client.stream(f"demo-n1-{FAST}", extra_headers={"x-request-id": mine}).error is None
        assert proxy.exchange(mine)["outcome"] == "finished"


class TestStreamsThatBreakOff:
    @pytest.mark.parametrize("word", ["x3", "reset3"])
    def test_a_stream_that_dies_raises_after_what_came(self, client: Caller, word: str) -> None:
        through = client.stream(f"demo-{word}-n8-{FAST}")
        through.error_in_band("upstream_truncated")
        assert len(through.text.split()) == 3
        assert through.finish_reasons == []

    def test_a_stream_that_dies_within_an_event_raises(self, client: Caller) -> None:
        through = client.stream(f"demo-cut3-n8-{FAST}")
        assert through.raised
        assert len(through.text.split()) == 3

    @pytest.mark.parametrize("word", ["x0", "reset0", "cut0"])
    def test_a_stream_that_dies_before_its_first_event_is_a_status(self, client: Caller, word: str) -> None:
        body = client.stream(f"demo-{word}-{FAST}").status_error(openai.InternalServerError, 502)
        assert body["code"] in ("upstream_truncated", "upstream_disconnected")

    def test_a_clean_end_without_a_terminal_raises(self, client: Caller, direct: Caller) -> None:
        assert direct.stream(f"demo-nodone-n4-{FAST}").error is None, "this is what the proxy is for"
        through = client.stream(f"demo-nodone-n4-{FAST}")
        through.error_in_band("upstream_truncated")
        assert len(through.text.split()) == 4

    @pytest.mark.parametrize("word", ["x3", "reset3", "cut3", "nodone"])
    def test_legacy_completions_raise_too(self, client: Caller, word: str) -> None:
        through = client.call("completions.create", model=f"demo-{word}-n8-{FAST}", prompt="Hello", stream=True)
        assert through.raised

    @pytest.mark.parametrize("word", ["x3", "reset3", "cut3", "nodone"])
    def test_responses_raise_too(self, client: Caller, word: str) -> None:
        through = client.call("responses.create", model=f"demo-{word}-n8-{FAST}", input="Hello", stream=True)
        assert through.raised
        assert "response.completed" not in [item.type for item in through.items]

    @pytest.mark.parametrize("word", ["x3", "reset3", "cut3"])
    def test_half_an_answer_in_one_piece_raises(self, client: Caller, word: str) -> None:
        assert isinstance(client.whole(f"demo-{word}-n8-{FAST}").raised, openai.APIConnectionError)

    @pytest.mark.parametrize("word", ["x0", "reset0"])
    def test_an_answer_in_one_piece_that_never_came_is_a_status(self, client: Caller, word: str) -> None:
        body = client.whole(f"demo-{word}-n8-{FAST}").status_error(openai.InternalServerError, 502)
        assert body["code"] in ("upstream_truncated", "upstream_disconnected")


class TestErrors:
    def test_an_error_inside_a_success_becomes_a_status(self, client: Caller, direct: Caller) -> None:
        assert not isinstance(direct.stream(f"demo-error-{FAST}").raised, openai.APIStatusError)
        body = client.stream(f"demo-error-{FAST}").status_error(openai.InternalServerError, 503)
        assert body["code"] == "overloaded"
        assert body["message"] == "The model is overloaded."

    def test_an_error_inside_a_success_becomes_a_status_for_responses_too(self, client: Caller) -> None:
        through = client.call("responses.create", model=f"demo-error-{FAST}", input="Hello", stream=True)
        through.status_error(openai.InternalServerError, 503)

    def test_an_error_in_mid_stream_is_the_origins_own(self, client: Caller) -> None:
        through = client.stream(f"demo-error3-n8-{FAST}")
        assert through.error_in_band("overloaded").message == "The model is overloaded."
        assert len(through.text.split()) == 3

    @pytest.mark.parametrize("is_stream", [True, False])
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (403, openai.PermissionDeniedError),
            (404, openai.NotFoundError),
            (409, openai.ConflictError),
            (422, openai.UnprocessableEntityError),
            (500, openai.InternalServerError),
            (503, openai.InternalServerError),
        ],
    )
    def test_the_origins_own_errors_pass_as_they_are(
        self, client: Caller, direct: Caller, status: int, kind: type[openai.APIStatusError], is_stream: bool
    ) -> None:
        through, straight = (
            (each.stream if is_stream else each.whole)(f"demo-e{status}-{FAST}") for each in (client, direct)
        )
        assert through.status_error(kind, status) == straight.status_error(kind, status)

    def test_a_rate_limit_keeps_its_retry_after(self, client: Caller) -> None:
        through = client.stream(f"demo-e429-r2-{FAST}")
        assert through.status_error(openai.RateLimitError, 429)["code"] == "rate_limit_exceeded"
        assert isinstance(through.error, openai.RateLimitError)
        assert through.error.response.headers["retry-after"] == "2"

    @pytest.mark.parametrize("is_stream", [True, False])
    @pytest.mark.parametrize(
        ("word", "code"),
        [
            ("garbage", "upstream_protocol_error"),
            ("refusehead", "upstream_protocol_error"),
            ("nohead", "upstream_disconnected"),
        ],
    )
    def test_an_origin_that_does_not_speak_http_is_a_bad_gateway(
        self, client: Caller, word: str, code: str, is_stream: bool
    ) -> None:
        through = (client.stream if is_stream else client.whole)(f"demo-{word}-{FAST}")
        assert through.status_error(openai.InternalServerError, 502)["code"] == code

    def test_a_redirect_is_passed_and_not_followed(self, client: Caller, upstream: Server) -> None:
        before = ask(upstream.port, "GET", "/stats").json["requests"]
        through = client.call(
            "chat.completions.create",
            model="demo-redirect",
            messages=HELLO,
            stream=True,
            follow_redirects=False,
        )
        error = through.raised
        assert isinstance(error, openai.APIStatusError)
        assert error.status_code == 302
        assert error.response.headers["location"] == "/v1/models"
        assert ask(upstream.port, "GET", "/stats").json["requests"] == before + 1

    @pytest.mark.parametrize("length", [10, 3_000_000])
    def test_an_answer_before_the_request_was_read_is_passed(self, client: Caller, length: int) -> None:
        through = client.stream("demo-early", user="x" * length)
        assert through.status_error(openai.APIStatusError, 413)["code"] == "request_too_large"


class TestSilence:
    def test_no_head_in_time_is_a_gateway_timeout(self, way: Way, impatient_proxy: Server) -> None:
        through = Caller(way, impatient_proxy.base_url).stream("demo-mute")
        assert through.status_error(openai.InternalServerError, 504)["code"] == "upstream_head_timeout"
        assert through.seconds < 2.0

    def test_a_head_and_then_nothing_is_a_gateway_timeout(self, way: Way, impatient_proxy: Server) -> None:
        through = Caller(way, impatient_proxy.base_url).stream("demo-silent")
        body = through.status_error(openai.InternalServerError, 504)
        assert body["code"] in ("upstream_first_content_timeout", "upstream_idle_timeout")
        assert through.seconds < 2.0

    def test_a_head_and_then_nothing_raises_in_band_once_the_head_is_out(
        self, way: Way, committing_proxy: Server
    ) -> None:
        through = Caller(way, committing_proxy.base_url).stream("demo-silent")
        through.error_in_band("upstream_first_content_timeout")

    def test_silence_in_mid_stream_raises(self, way: Way, impatient_proxy: Server) -> None:
        through = Caller(way, impatient_proxy.base_url).stream(f"demo-silent3-{FAST}")
        through.error_in_band("upstream_idle_timeout")
        assert len(through.text.split()) == 3
        assert through.seconds < 2.0

    def test_an_answer_in_one_piece_that_stops_raises(self, way: Way, impatient_proxy: Server) -> None:
        through = Caller(way, impatient_proxy.base_url).whole(f"demo-silent3-n8-{FAST}")
        assert isinstance(through.raised, openai.APIConnectionError | openai.InternalServerError)


def test_no_fault_leaves_a_stream_behind_at_the_origin(proxy: Server, upstream: Server) -> None:
    for word in ("linger", "error3", "x3", "reset3", "cut3", "nodone"):
        assert ask(proxy.port, "POST", "/v1/chat/completions", chat(f"demo-{word}-n4-{FAST}")).body
    until(lambda: ask(upstream.port, "GET", "/stats").json["streams"] == 0, "no stream at the origin", patience_s=1.0)
