"""A whole answer as a stream: folded again it is the same in any cutting; watches and the official client agree."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx2  # the HTTP library of the official client
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.bench import demo_events, demo_model
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.fold import Fold
from trioproxy.wire.sse import Framer
from trioproxy.wire.unfold import unfold

STREAMED = [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES]
Json = dict[str, Any]


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The stream in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def folded(dialect: Dialect, stream: bytes, sizes: list[int]) -> Fold:
    fold = Fold(dialect)
    for piece in cut(stream, sizes):
        fold.feed(piece)
    fold.finish()
    return fold


class Told:
    """Lists the events that a framer shows it."""

    is_settled = False

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def hints(self, block: bytes) -> bool:
        return True

    def look(self, name: bytes, data: bytes) -> None:
        self.events.append((name.decode(), None if data == b"[DONE]" else json.loads(data)))


def events_of(stream: bytes | None) -> list[tuple[str, Any]]:
    """Name and data of each event; `[DONE]` is None."""
    assert stream is not None
    told = Told()
    framer = Framer(told, 2**30)
    framer.feed(stream)
    assert framer.at_border
    return told.events


def datas(dialect: Dialect, answer: Json, with_usage: bool = True) -> list[Any]:
    return [data for _, data in events_of(unfold(dialect, json.dumps(answer).encode(), with_usage=with_usage))]


# --- answers ----------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20) | st.sampled_from(["", "data: [DONE]\n\n", '"\\', "\u2028\r\n", "😀", "response.completed"])
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SIMPLE = st.none() | st.booleans() | NUMBER | TEXT
ANY = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
OBJECT = st.dictionaries(st.sampled_from(["a", "id", "type", "text", "index", "ä"]), ANY, max_size=3)
NUMBERS = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), st.integers(0, 9))


def made_of(needed: Json, optional: Json) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(needed, optional=optional)


TOP = {"id": TEXT, "created": st.integers(0), "system_fingerprint": st.none() | TEXT, "mine": ANY}
TOKEN = made_of({"token": TEXT, "logprob": NUMBER}, {"bytes": st.none() | st.lists(st.integers(0, 255), max_size=3)})
LOGPROBS = st.none() | made_of({"content": st.none() | st.lists(TOKEN, max_size=3)}, {"refusal": st.none()})
FUNCTION = made_of({"name": TEXT, "arguments": TEXT}, {})
CALL = st.one_of(
    made_of({"id": TEXT, "type": st.just("function"), "function": FUNCTION}, {"extra_content": OBJECT}),
    made_of({"id": TEXT, "type": st.just("custom"), "custom": made_of({"name": TEXT, "input": TEXT}, {})}, {}),
)
SAID = made_of(
    {"role": st.just("assistant"), "content": TEXT},
    {
        "reasoning_content": st.none() | TEXT,
        "reasoning": TEXT,
        "refusal": st.none(),
        "annotations": st.lists(OBJECT, max_size=2),
        "mine": ANY,
    },
)
UNSAID = made_of(
    {"role": st.just("assistant"), "content": st.none()},
    {
        "refusal": st.none() | TEXT,
        "tool_calls": st.lists(CALL, max_size=3),
        "function_call": FUNCTION,
        "audio": made_of({"id": TEXT, "data": TEXT, "transcript": TEXT, "expires_at": st.integers(1)}, {}),
    },
)
CHOICE_END = {"finish_reason": st.sampled_from([None, "stop", "length", "tool_calls"])}


def numbered(choices: list[Json]) -> list[Json]:
    return [{**choice, "index": index} for index, choice in enumerate(choices)]


CHAT = made_of(
    {
        "object": st.just("chat.completion"),
        "model": TEXT,
        "choices": st.lists(
            made_of(
                {"message": SAID | UNSAID, **CHOICE_END}, {"logprobs": LOGPROBS, "stop_reason": SIMPLE, "mine": OBJECT}
            ),
            min_size=1,
            max_size=3,
        ).map(numbered),
    },
    {"usage": NUMBERS, **TOP},
)
LEGACY_LOGPROBS = made_of({"tokens": st.lists(TEXT, max_size=2), "text_offset": st.lists(NUMBER, max_size=2)}, {})
COMPLETION = made_of(
    {
        "object": st.just("text_completion"),
        "model": TEXT,
        "choices": st.lists(
            made_of({"text": TEXT, **CHOICE_END}, {"logprobs": st.none() | LEGACY_LOGPROBS}), min_size=1, max_size=3
        ).map(numbered),
    },
    {"usage": NUMBERS, **TOP},
)
ANNOTATED = {"annotations": st.lists(OBJECT, max_size=2), "logprobs": st.lists(TOKEN, max_size=2)}
PART = st.one_of(
    made_of({"type": st.just("output_text"), "text": TEXT}, ANNOTATED),
    made_of({"type": st.just("refusal"), "refusal": TEXT}, {}),
    OBJECT,
)
ITEM = st.one_of(
    made_of({"type": st.just("message"), "content": st.lists(PART, max_size=3)}, {"id": TEXT, "status": TEXT}),
    made_of(
        {"type": st.just("reasoning"), "summary": st.lists(made_of({"type": TEXT, "text": TEXT}, {}), max_size=2)},
        {"id": TEXT, "content": st.lists(made_of({"type": st.just("reasoning_text"), "text": TEXT}, {}), max_size=2)},
    ),
    made_of({"type": st.just("function_call"), "name": TEXT, "arguments": TEXT}, {"id": TEXT, "status": TEXT}),
    made_of({"type": st.just("custom_tool_call"), "input": TEXT}, {}),
    OBJECT,
)
RESPONSE = made_of(
    {"object": st.just("response"), "output": st.lists(ITEM, max_size=3)},
    {"status": st.sampled_from(["completed", "incomplete", "failed"]), "usage": OBJECT, "error": ANY, **TOP},
)
BLOCK = st.one_of(
    made_of({"type": st.just("text"), "text": TEXT}, {"citations": st.none() | st.lists(OBJECT, max_size=2)}),
    made_of({"type": st.just("thinking"), "thinking": TEXT}, {"signature": TEXT}),
    made_of(
        {"type": st.sampled_from(["tool_use", "server_tool_use"]), "name": TEXT, "input": st.dictionaries(TEXT, ANY)},
        {},
    ),
    made_of({"type": st.just("redacted_thinking"), "data": TEXT}, {"mine": ANY}),
)
TOKENS = st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), st.integers(0, 9))
MESSAGE = made_of(
    {
        "type": st.just("message"),
        "role": st.just("assistant"),
        "content": st.lists(BLOCK, max_size=3),
        "stop_reason": st.none() | st.sampled_from(["end_turn", "tool_use"]),
    },
    {"stop_sequence": st.none() | TEXT, "usage": TOKENS, "id": TEXT, "container": st.none() | OBJECT, "mine": ANY},
)
ANSWERS = {
    Dialect.CHAT: CHAT,
    Dialect.COMPLETIONS: COMPLETION,
    Dialect.RESPONSES: RESPONSE,
    Dialect.MESSAGES: MESSAGE,
}
SPOKEN = st.sampled_from(STREAMED).flatmap(lambda dialect: st.tuples(st.just(dialect), ANSWERS[dialect]))
SIZES = st.lists(st.integers(1, 40) | st.integers(40, 400), min_size=1, max_size=8)


# --- laws -------------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(SPOKEN, SIZES, st.sampled_from([None, 2]), st.booleans())
def test_an_answer_unfolded_and_folded_is_the_same_in_any_cutting(
    spoken: tuple[Dialect, Json], sizes: list[int], indent: int | None, ascii_only: bool
) -> None:
    dialect, answer = spoken
    stream = unfold(dialect, json.dumps(answer, indent=indent, ensure_ascii=ascii_only).encode(), with_usage=True)
    assert stream is not None
    fold = folded(dialect, stream, sizes)
    assert fold.problem is None and fold.is_complete
    assert json.loads(fold.answer() or b"") == answer


@settings(max_examples=100)
@given(SPOKEN, st.booleans())
def test_the_proxys_own_watch_sees_an_honest_end(spoken: tuple[Dialect, Json], with_usage: bool) -> None:
    dialect, answer = spoken
    stream = unfold(dialect, json.dumps(answer).encode(), with_usage=with_usage)
    assert stream is not None and b"\r" not in stream and stream.endswith(b"\n\n")
    watch = dialect.watch()
    framer = Framer(watch)
    framer.feed(stream)
    assert framer.at_border and watch.saw_done and watch.may_end and watch.first_error is None


HOSTILE = st.one_of(
    st.binary(max_size=40),
    ANY.map(lambda value: json.dumps(value).encode()),
    SPOKEN.flatmap(
        lambda spoken: st.tuples(st.just(json.dumps(spoken[1]).encode()), st.integers(0, 200), st.binary(max_size=3))
    ).map(lambda broken: broken[0][: broken[1]] + broken[2] + broken[0][broken[1] + 1 :]),
    st.dictionaries(
        st.sampled_from(["object", "type", "choices", "output", "content", "usage", "status"]),
        ANY | st.lists(st.dictionaries(st.sampled_from(["message", "text", "content", "type", "input"]), ANY)),
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300)
@given(HOSTILE, st.sampled_from(Dialect), st.booleans())
def test_whatever_the_bytes_nothing_is_raised_and_what_is_made_is_a_stream(
    answer: bytes, dialect: Dialect, with_usage: bool
) -> None:
    stream = unfold(dialect, answer, with_usage=with_usage)
    if stream is not None:
        watch = dialect.watch()
        framer = Framer(watch, 2**30)
        framer.feed(stream)
        assert framer.at_border and watch.may_end


# --- what is no answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"error":{"message":"no"}}',
        b'{"type":"error","error":{"message":"no"}}',
        b'{"choices":[]}',
        b'{"choices":[{"message":null}]}',
        b'{"object":"response","status":"queued","output":[]}',
        b'{"type":"message","content":"text"}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
        b"[" * 100_000,
        b'{"choices":' + b"[" * 100_000,
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_what_is_no_answer_of_the_dialect_makes_no_stream(dialect: Dialect, answer: bytes) -> None:
    assert unfold(dialect, answer, with_usage=True) is None


@pytest.mark.parametrize("dialect", STREAMED)
def test_an_answer_of_another_dialect_makes_no_stream(dialect: Dialect) -> None:
    for other in STREAMED:
        stream = unfold(dialect, json.dumps(demo_answer(other)).encode(), with_usage=True)
        assert (stream is not None) == (other is dialect)


# --- how the streams look ---------------------------------------------------------------------------------------------


def demo_answer(dialect: Dialect, model: str = "gpt-4o-mini") -> Json:
    """What the demo upstream says without streaming."""
    spoken = demo_events.Dialect(dialect.value)
    return demo_events.whole(demo_events.Answer(spoken, model, demo_model.parse_model(model), b"{}", 1))


def test_a_chat_says_who_speaks_then_what_then_why_it_ended_then_the_usage() -> None:
    answer = demo_answer(Dialect.CHAT)
    chunks = datas(Dialect.CHAT, answer)
    assert chunks.pop() is None
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        (answer["id"], "chat.completion.chunk", answer["created"], answer["model"])
    }
    usage = chunks.pop()
    assert (usage["choices"], usage["usage"]) == ([], answer["usage"])
    assert all(chunk["usage"] is None for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    assert choices[1]["delta"] == {"content": answer["choices"][0]["message"]["content"]}
    assert (choices[2]["delta"], choices[2]["finish_reason"], len(choices)) == ({}, "stop", 3)


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS])
def test_a_client_that_did_not_ask_for_the_usage_is_not_told_it(dialect: Dialect) -> None:
    chunks = datas(dialect, demo_answer(dialect), with_usage=False)
    assert not any("usage" in chunk for chunk in chunks[:-1])
    assert all(chunk["choices"] for chunk in chunks[:-1])


def test_reasoning_comes_before_content_and_log_probabilities_with_it() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1}]}
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    chunks = datas(Dialect.CHAT, {"choices": [choice], "citations": ["x"]})[:-1]
    said = [(chunk["choices"][0]["delta"], chunk["choices"][0]["logprobs"]) for chunk in chunks]
    assert said[1:] == [({"reasoning_content": "hm"}, None), ({"content": "a"}, logprobs), ({}, None)]
    assert [chunk.get("citations") for chunk in chunks] == [["x"], None, None, None]


def test_tool_calls_are_numbered() -> None:
    calls = [{"id": str(at), "type": "function", "function": {"name": "f", "arguments": "{}"}} for at in range(2)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    chunks = datas(Dialect.CHAT, {"choices": [{"message": message, "finish_reason": "tool_calls"}]})[1:-2]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"tool_calls": [{**call, "index": index}]} for index, call in enumerate(calls)
    ]


@pytest.mark.parametrize("model", ["gpt-4o-mini", "demo-tools"])
@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES])
def test_named_events_are_those_of_an_origin_that_streams(dialect: Dialect, model: str) -> None:
    """Beside the demo upstream: the same events in the same order, but for pings, and one delta instead of many."""
    answer = demo_events.Answer(demo_events.Dialect(dialect.value), model, demo_model.parse_model(model), b"{}", 1)
    deltas = [demo_events.content(answer, index) for index in range(answer.count)]
    theirs = [*demo_events.opening(answer), deltas[0], *demo_events.closing(answer)]
    ours = events_of(unfold(dialect, json.dumps(demo_events.whole(answer)).encode(), with_usage=False))
    expected = [json.loads(event.data) for event in theirs if event.name != "ping"]
    assert [name for name, _ in ours] == [data["type"] for _, data in ours] == [data["type"] for data in expected]
    for (_, data), like in zip(ours, expected, strict=True):
        assert data.keys() == like.keys()
        if "delta" not in like["type"] and like["type"] != "message_start":
            assert {**data, "sequence_number": 0} == {**like, "sequence_number": 0}
    if dialect is Dialect.RESPONSES:
        assert [data["sequence_number"] for _, data in ours] == list(range(len(ours)))


def test_a_response_that_reasons_says_its_summary_and_its_content() -> None:
    reasoning = {
        "id": "rs",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "s"}],
        "content": [{"type": "reasoning_text", "text": "c"}],
    }
    events = datas(Dialect.RESPONSES, {"object": "response", "status": "incomplete", "output": [reasoning]})
    assert [event["type"].removeprefix("response.") for event in events[2:]] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    assert (events[4]["item_id"], events[4]["summary_index"], events[8]["content_index"]) == ("rs", 0, 0)


def test_a_message_begins_empty_and_ends_with_its_reason_and_usage() -> None:
    usage = {"input_tokens": 3, "output_tokens": 5}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "text", "text": "Hi"}]
    answer = {"type": "message", "content": blocks, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
    events = datas(Dialect.MESSAGES, answer)
    begun: Json = {"content": [], "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 0}}
    assert events[0]["message"] == {**answer, **begun}
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert [event["delta"]["type"] for event in events[2:4]] == ["thinking_delta", "signature_delta"]
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2:] == [{"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}]


# --- the official client ----------------------------------------------------------------------------------------------


class Origin(httpx2.BaseTransport):
    """Answers whatever it is asked with one stream."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._stream)


def client_of(stream: bytes | None) -> openai.OpenAI:
    """The official client, with that origin."""
    assert stream is not None
    client = httpx2.Client(transport=Origin(stream))
    return openai.OpenAI(api_key="key", base_url="http://origin/v1", max_retries=0, http_client=client)


@pytest.mark.parametrize("model", ["gpt-4o-mini", "demo-tools"])
def test_the_official_client_reads_a_chat_as_the_answer_it_was_made_of(model: str) -> None:
    answer = demo_answer(Dialect.CHAT, model)
    client = client_of(unfold(Dialect.CHAT, json.dumps(answer).encode(), with_usage=True))
    with client.chat.completions.stream(model=model, messages=[]) as stream:
        read = stream.get_final_completion().to_dict()
    message, said = read["choices"][0]["message"], answer["choices"][0]["message"]  # type: ignore[index]
    assert message["content"] == said["content"]
    calls = [call["function"] for call in message.get("tool_calls") or []]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        (call["function"]["name"], call["function"]["arguments"]) for call in said.get("tool_calls", [])
    ]
    assert read["usage"] == answer["usage"]


@pytest.mark.parametrize("model", ["gpt-4o-mini", "demo-tools"])
def test_the_official_client_reads_a_response_as_the_answer_it_was_made_of(model: str) -> None:
    answer = demo_answer(Dialect.RESPONSES, model)
    client = client_of(unfold(Dialect.RESPONSES, json.dumps(answer).encode(), with_usage=False))
    with client.responses.stream(model=model, input="") as stream:
        read = stream.get_final_response()
    assert (read.id, read.status) == (answer["id"], "completed")
    assert [item.type for item in read.output] == [item["type"] for item in answer["output"]]
    if model == "gpt-4o-mini":
        assert read.output_text == answer["output"][0]["content"][0]["text"]
