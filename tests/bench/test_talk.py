"""One chat: what came back, when, and what is said of what went wrong."""

import pytest
import trio
import trio.testing

from tests.harness.demo import DEMO, open_demo
from trioproxy.bench.http_client import Connection, Url
from trioproxy.bench.talk import Talk, request_body, stream_chat, whole_chat

Clock = trio.testing.MockClock
HELLO = [{"role": "user", "content": "Hello"}]


async def talk_to(model: str, *, streams: bool = True, url: Url = DEMO) -> tuple[Talk, list[str]]:
    """A chat with the demo upstream, and the pieces of text that came."""
    heard: list[str] = []
    async with open_demo() as (connect, _):
        connection = Connection(url, None, connect)
        talk = stream_chat if streams else whole_chat
        said = await talk(connection, request_body(model, HELLO, streams=streams), heard.append)
        connection.close()
    return said, heard


async def test_a_stream_s_times_are_those_of_its_origin(autojump_clock: Clock) -> None:
    talk, heard = await talk_to("m-n21-i100-t300")
    assert (talk.error, talk.contents) == (None, 21)
    assert len(heard) == 21
    assert talk.first_content_s == pytest.approx(0.3)
    assert talk.total_s == pytest.approx(2.3)
    assert talk.tokens_per_s == pytest.approx(10.0)


async def test_a_whole_answer_s_content_comes_with_its_end(autojump_clock: Clock) -> None:
    talk, heard = await talk_to("m-n21-i100-t300", streams=False)
    assert (talk.error, talk.contents, talk.tokens) == (None, 1, 21)
    assert [len(text.split()) for text in heard] == [21]
    assert talk.first_content_s == talk.total_s == pytest.approx(2.3)
    assert talk.tokens_per_s is None


async def test_the_origin_s_own_count_of_tokens_is_taken(autojump_clock: Clock) -> None:
    talk, _ = await talk_to("m-n5-i10-t0-usage-comments-crlf")
    assert (talk.error, talk.contents, talk.tokens) == (None, 5, 5)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("m-n5-i1-nodone", "ended without [DONE]", ""),
        ("m-n5-i1-nofinal", "ended without [DONE]", ""),
        ("m-n5-i1-x3", "connection cut", ""),
        ("m-n5-i1-cut3", "connection cut", ""),
        ("m-nohead", "connection cut", ""),
        ("m-garbage", "not HTTP/1.1", ""),
        ("m-refusehead", "not HTTP/1.1", ""),
        ("m-redirect", "HTTP 302", ""),
        ("m-e429", "HTTP 429 rate_limit_exceeded", "Simulated error 429."),
        ("m-n5-i1-error2", "in the stream: overloaded", "The model is overloaded."),
    ],
)
async def test_what_went_wrong_has_a_name(autojump_clock: Clock, model: str, error: str, message: str) -> None:
    talk, _ = await talk_to(model)
    assert (talk.error, talk.message) == (error, message)


async def test_nobody_there_is_an_error_like_others(autojump_clock: Clock) -> None:
    talk, _ = await talk_to("m", url=Url("http", "elsewhere", 80, "/v1"))
    assert talk.error == "cannot connect"
    talk, _ = await talk_to("m", url=Url("http", "elsewhere", 80, "/v1"), streams=False)
    assert talk.error == "cannot connect"


async def test_a_stream_where_a_whole_answer_was_asked_for_is_an_error(autojump_clock: Clock) -> None:
    async with open_demo() as (connect, _):
        connection = Connection(DEMO, None, connect)
        talk = await whole_chat(connection, request_body("m-n3-i0-t0", HELLO, streams=True), lambda text: None)
        connection.close()
    assert talk.error == "not JSON"


async def test_who_is_cancelled_leaves_the_origin(autojump_clock: Clock) -> None:
    async with open_demo() as (connect, state):
        connection = Connection(DEMO, None, connect)
        with trio.move_on_after(1):
            await stream_chat(connection, request_body("m-n500-i100", HELLO, streams=True), lambda text: None)
        await trio.sleep(1)
        assert (state.aborted, state.streams, state.open) == (1, 0, 0)
