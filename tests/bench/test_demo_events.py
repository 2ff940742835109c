"""The events of each dialect's stream, and the same answer whole."""

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from trioproxy.bench import demo_events
from trioproxy.bench.demo_events import Answer, Dialect, Event
from trioproxy.bench.demo_model import parse_model

EVERY = list(Dialect)
CHUNKS: dict[Dialect, type[BaseModel]] = {Dialect.CHAT: ChatCompletionChunk, Dialect.COMPLETIONS: Completion}


def answer(
    dialect: Dialect, model: str = "gpt-4o-mini", *, include_usage: bool = False, request: bytes = b"{}"
) -> Answer:
    return Answer(dialect, model, parse_model(model), request, 1, include_usage=include_usage)


def events_of(given: Answer) -> list[Event]:
    contents = [demo_events.content(given, index) for index in range(given.count)]
    return [*demo_events.opening(given), *contents, *demo_events.closing(given)]


def data_of(given: Answer) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events_of(given) if event.data != b"[DONE]"]


@pytest.mark.parametrize("dialect", EVERY)
def test_the_same_request_gets_the_same_answer(dialect: Dialect) -> None:
    assert events_of(answer(dialect)) == events_of(answer(dialect))


def test_another_request_gets_another_text() -> None:
    texts = {answer(Dialect.CHAT, request=str(number).encode()).text() for number in range(30)}
    assert len(texts) > 5


@pytest.mark.parametrize("dialect", EVERY)
def test_a_natural_answer_is_whole_sentences_of_about_forty_words(dialect: Dialect) -> None:
    given = answer(dialect)
    assert 40 <= given.count <= 60
    assert given.text().endswith(".") and given.text()[0].isupper()


@pytest.mark.parametrize("number", [0, 1, 2, 500])
@pytest.mark.parametrize("dialect", EVERY)
def test_a_name_chooses_the_number_of_content_events(dialect: Dialect, number: int) -> None:
    given = answer(dialect, f"demo-n{number}")
    assert given.count == number
    assert len(given.text().split()) == number


def test_an_answer_is_long_enough_for_a_late_fault() -> None:
    assert answer(Dialect.CHAT, "demo-x300").count > 300


def test_padding_is_in_every_content_event() -> None:
    given = answer(Dialect.CHAT, "demo-n3-b100")
    assert all("x" * 100 in given.piece(index) for index in range(3))


@pytest.mark.parametrize("tools", ["", "-tools"])
@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS])
def test_chunks_are_what_the_official_package_expects(dialect: Dialect, tools: str) -> None:
    for chunk in data_of(answer(dialect, f"demo-n4{tools}", include_usage=True)):
        if dialect is Dialect.COMPLETIONS and chunk["choices"]:
            # The API sends null here until the end; the package's type does not say so, but its parser takes it.
            chunk["choices"][0]["finish_reason"] = "stop"
        CHUNKS[dialect].model_validate(chunk, strict=True)


@pytest.mark.parametrize("tools", ["", "-tools"])
def test_responses_events_are_what_the_official_package_expects(tools: str) -> None:
    given = answer(Dialect.RESPONSES, f"demo-n4{tools}")
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for event in data_of(given):
        adapter.validate_python(event)
    for index in (0, 3):
        adapter.validate_json(demo_events.failure(given, index).data)


@pytest.mark.parametrize("tools", ["", "-tools"])
def test_sequence_numbers_have_no_gap(tools: str) -> None:
    numbers = [event["sequence_number"] for event in data_of(answer(Dialect.RESPONSES, f"demo-n4{tools}"))]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES])
def test_named_events_carry_their_type_as_name(dialect: Dialect) -> None:
    for event in events_of(answer(dialect)):
        assert event.name == json.loads(event.data)["type"]


def test_a_messages_stream_has_the_events_of_the_real_one() -> None:
    kinds = [event.name for event in events_of(answer(Dialect.MESSAGES, "demo-n2"))]
    deltas = ["content_block_delta"] * 2
    ends = ["content_block_stop", "message_delta", "message_stop"]
    assert kinds == ["message_start", "content_block_start", "ping", *deltas, *ends]


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS])
def test_usage_is_one_chunk_before_done_and_null_in_the_others(dialect: Dialect) -> None:
    chunks = data_of(answer(dialect, "demo-n3", include_usage=True))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 3
    assert all("usage" not in chunk for chunk in data_of(answer(dialect, "demo-n3")))


@pytest.mark.parametrize("number", [1, 2, 9])
def test_a_tool_calls_arguments_are_json_when_put_together(number: int) -> None:
    given = answer(Dialect.CHAT, f"demo-tools-n{number}")
    deltas = [chunk["choices"][0]["delta"] for chunk in data_of(given)]
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if delta.get("tool_calls")]
    assert list(json.loads("".join(pieces))) == ["note"]


@pytest.mark.parametrize("tools", ["", "-tools"])
def test_whole_answers_are_what_the_official_package_expects(tools: str) -> None:
    for dialect, kind in ((Dialect.CHAT, ChatCompletion), (Dialect.RESPONSES, Response)):
        kind.model_validate(demo_events.whole(answer(dialect, f"demo-n4{tools}")))
    Completion.model_validate(demo_events.whole(answer(Dialect.COMPLETIONS)), strict=True)


def test_a_whole_message_has_blocks_usage_and_a_reason() -> None:
    message = demo_events.whole(answer(Dialect.MESSAGES, "demo-n4"))
    assert message["content"][0]["type"] == "text" and message["stop_reason"] == "end_turn"
    assert message["usage"]["output_tokens"] == 4
    called = demo_events.whole(answer(Dialect.MESSAGES, "demo-n4-tools"))
    assert called["content"][0]["input"]["note"] and called["stop_reason"] == "tool_use"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_an_event_ends_with_a_blank_line_of_its_own_kind(newline: str) -> None:
    assert Event(b"{}", "ping").render(newline).decode() == f"event: ping{newline}data: {{}}{newline}{newline}"


def test_vectors_are_the_same_for_the_same_text_and_as_long_as_asked() -> None:
    made = demo_events.embeddings({"input": ["a", "b", "a"], "dimensions": 8}, "m")
    CreateEmbeddingResponse.model_validate(made, strict=True)
    first, second, third = (entry["embedding"] for entry in made["data"])
    assert len(first) == 8 and first == third != second


def test_vectors_in_base64_are_the_same_floats() -> None:
    request = {"input": [1, 2, 3], "dimensions": 4}
    plain = demo_events.embeddings(request, "m")["data"][0]["embedding"]
    packed = demo_events.embeddings(request | {"encoding_format": "base64"}, "m")["data"][0]["embedding"]
    assert list(struct.unpack("<4f", base64.b64decode(packed))) == pytest.approx(plain)


@pytest.mark.parametrize("given", [None, {}, [None], [["a"]], ["a"] * 2049])
def test_an_input_that_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"^input: "):
        demo_events.embeddings({"input": given}, "m")
