"""A stream folded into its answer: beside the demo upstream's own whole answers, in any cutting, and of hostile bytes.

That an answer made into a stream folds back into itself is a law in `test_unfold`.
"""

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy.bench import demo_events, demo_model
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.fold import MAX_BYTES, Fold, Problem

STREAMED = [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES]
CHUNKED = [Dialect.CHAT, Dialect.COMPLETIONS]
DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The stream in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def folded(dialect: Dialect, stream: bytes, sizes: list[int] | None = None, max_bytes: int = MAX_BYTES) -> Fold:
    fold = Fold(dialect, max_bytes)
    for piece in cut(stream, sizes or [max(1, len(stream))]):
        fold.feed(piece)
    fold.finish()
    return fold


def events(*datas: Json) -> bytes:
    """A stream of events, named by their type where they have one."""
    stream = b""
    for data in datas:
        name = f"event: {data['type']}\n" if "type" in data else ""
        stream += f"{name}data: {json.dumps(data)}\n\n".encode()
    return stream


def chunk(delta: Json | None = None, index: int = 0, finish: str | None = None, **more: Any) -> Json:
    """A chunk of a chat."""
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


def answer(fold: Fold) -> Any:
    assert fold.problem is None and fold.is_complete
    return json.loads(fold.answer() or b"null")


def chat(*chunks: Json) -> Any:
    return answer(folded(Dialect.CHAT, events(*chunks) + DONE))


def message(*deltas: Json) -> Any:
    """The message of a chat with these deltas."""
    return chat(*map(chunk, deltas))["choices"][0]["message"]


def origin(dialect: Dialect, model: str) -> demo_events.Answer:
    """What the demo upstream says."""
    spoken = demo_events.Dialect(dialect.value)
    return demo_events.Answer(spoken, model, demo_model.parse_model(model), b"{}", 1, include_usage=True)


def stream_of(said: demo_events.Answer, newline: str = "\n") -> bytes:
    contents = [demo_events.content(said, index) for index in range(said.count)]
    written = [*demo_events.opening(said), *contents, *demo_events.closing(said)]
    return b"".join(event.render(newline) for event in written)


# --- beside the origin's own answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("model", ["gpt-4o-mini", "demo-tools", "demo-n0", "demo-n1-b5000"])
@pytest.mark.parametrize("dialect", STREAMED)
@pytest.mark.parametrize("sizes", [[1], [7, 300], [10_000_000]], ids=str)
def test_the_demo_upstreams_stream_folds_into_its_whole_answer(
    dialect: Dialect, model: str, newline: str, sizes: list[int]
) -> None:
    said = origin(dialect, model)
    if said.is_tool_call and said.count == 0:
        return
    read = answer(folded(dialect, stream_of(said, newline), sizes))
    whole = demo_events.whole(said)
    if dialect is Dialect.CHAT:
        for choice in whole["choices"]:
            choice["message"].pop("annotations", None)  # this stream does not tell of them
    if dialect is Dialect.COMPLETIONS:
        whole["system_fingerprint"] = "fp_demo"  # of which only the stream tells
        if said.count == 0:
            whole["choices"][0]["text"] = ""
    assert read == whole


# --- chat and completions ---------------------------------------------------------------------------------------------


def test_texts_are_joined_and_a_role_is_not() -> None:
    said = message(
        {"role": "assistant", "content": "", "reasoning_content": None},
        {"role": "assistant", "reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"role": "assistant", "content": 'A"\\'},
        {"content": None},
        {"content": "ä😀"},
    )
    assert said == {"role": "assistant", "content": 'A"\\ä😀', "reasoning_content": "hm"}


def test_choices_are_told_apart_by_their_index() -> None:
    whole = chat(chunk({"content": "b"}, 1), chunk({"content": "a"}), chunk({"content": "B"}, 1, "stop"))
    assert [(choice["index"], choice["message"]["content"]) for choice in whole["choices"]] == [(0, "a"), (1, "bB")]
    assert [choice["finish_reason"] for choice in whole["choices"]] == [None, "stop"]


def test_tool_calls_are_put_together_by_their_index_which_is_dropped() -> None:
    first = {"index": 0, "id": "call", "type": "function", "function": {"name": "f", "arguments": ""}}
    other = {"index": 1, "id": "next", "type": "function", "function": {"name": "g", "arguments": "[]"}}
    said = message(
        {"role": "assistant", "content": "", "tool_calls": [first]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}, other]},
        {"tool_calls": [{"index": 0, "id": "", "type": "function", "function": {"name": "f", "arguments": '":1}'}}]},
    )
    assert said["content"] is None
    assert said["tool_calls"] == [
        {"id": "call", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "next", "type": "function", "function": {"name": "g", "arguments": "[]"}},
    ]


def test_tool_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    assert message({"tool_calls": calls[:1]}, {"tool_calls": calls[1:]})["tool_calls"] == calls
    more = message({"tool_calls": calls[:1]}, {"tool_calls": [{"function": {"arguments": " "}}]})["tool_calls"]
    assert more == [{"id": "a", "function": {"name": "a", "arguments": "{} "}}]


@pytest.mark.parametrize(
    "said", [{"refusal": "No"}, {"function_call": {"name": "f", "arguments": "{}"}}, {"audio": {"id": "a"}}], ids=str
)
def test_content_is_null_where_something_else_was_said_in_its_place(said: Json) -> None:
    assert message({"role": "assistant", "content": ""}, said) == {"role": "assistant", "content": None, **said}


def test_content_that_was_said_beside_a_tool_call_stays() -> None:
    said = message({"content": "See."}, {"tool_calls": [{"index": 0, "id": "a"}]})
    assert (said["content"], said["tool_calls"]) == ("See.", [{"id": "a"}])


def test_audio_a_function_call_and_annotations_grow() -> None:
    said = message(
        {"annotations": []},
        {"audio": {"id": "a", "data": "AA", "transcript": "H"}, "annotations": [{"n": 1}]},
        {"audio": {"id": "a", "data": "BB", "transcript": "i", "expires_at": 5}, "annotations": []},
        {"function_call": {"name": "f", "arguments": "{"}, "annotations": [{"n": 2}]},
        {"function_call": {"arguments": "}"}},
    )
    assert said["audio"] == {"id": "a", "data": "AABB", "transcript": "Hi", "expires_at": 5}
    assert said["function_call"] == {"name": "f", "arguments": "{}"}
    assert said["annotations"] == [{"n": 1}, {"n": 2}]


def test_log_probabilities_are_extended() -> None:
    parts: list[Json | None] = [None, {"content": [{"token": "a"}], "refusal": None}, {"content": [{"token": "b"}]}]
    chunks = [{"choices": [{"index": 0, "delta": {}, "logprobs": part}]} for part in parts]
    assert chat(*chunks)["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}


def test_a_completions_texts_and_parallel_lists_of_log_probabilities_are_joined() -> None:
    lists = [{"tokens": ["a"], "text_offset": [0]}, {"tokens": ["b"], "text_offset": [1]}]
    chunks = [
        {"choices": [{"index": 0, "text": text, "logprobs": part}]} for text, part in zip("ab", lists, strict=True)
    ]
    whole = answer(folded(Dialect.COMPLETIONS, events(*chunks) + DONE))
    both = {"tokens": ["a", "b"], "text_offset": [0, 1]}
    assert whole["choices"] == [{"text": "ab", "index": 0, "logprobs": both, "finish_reason": None}]
    assert whole["object"] == "text_completion"


def test_of_the_other_members_the_last_that_says_something_counts() -> None:
    whole = chat(
        chunk({"content": "a"}, created=7, model="m", service_tier=None, usage=None, mine=1, obfuscation="xx"),
        chunk({"content": "b"}, service_tier="default", mine=2, object="chat.completion.chunk"),
        {"id": "", "created": 0, "model": "", "object": "", "choices": [], "usage": {"total_tokens": 3}},
    )
    del whole["choices"]
    assert whole == {
        "id": "c",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "service_tier": "default",
        "mine": 2,
        "usage": {"total_tokens": 3},
    }


def test_a_choices_other_texts_are_not_joined() -> None:
    filtered = {"content_filter_results": {"hate": {"severity": "safe"}}, "native_finish_reason": "stop"}
    chunks = [{"choices": [{"index": 0, "delta": {"content": "a"}, **filtered}]} for _ in range(2)]
    choice = chat(*chunks)["choices"][0]
    assert {name: choice[name] for name in filtered} == filtered


def test_numbers_and_escapes_stay_as_the_origin_wrote_them() -> None:
    data = b'{"big":123456789012345678901234567890.10,"choices":[{"delta":{"content":"\\u00e4\\/"}}]}'
    whole = folded(Dialect.CHAT, b"data: " + data + b"\n\n" + DONE).answer() or b""
    assert b"123456789012345678901234567890.10" in whole
    assert b'"\\u00e4\\/"' in whole


# --- responses and messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_responses_last_event_has_the_answer(status: str) -> None:
    response = {"object": "response", "status": status, "error": {"code": "x"} if status == "failed" else None}
    delta = {"type": "response.output_text.delta", "delta": '"type":"error" response.completed'}
    end = {"type": f"response.{status}", "response": response}
    assert answer(folded(Dialect.RESPONSES, events(delta, end))) == response
    unnamed = b"data: " + json.dumps(end).encode() + b"\n\n"
    assert answer(folded(Dialect.RESPONSES, unnamed)) == response


START = {
    "type": "message_start",
    "message": {
        "type": "message",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    },
}
STOP = {"type": "message_stop"}


def started(block: Json, index: int = 0) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(kind: str, index: int = 0, **delta: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def stopped(index: int = 0) -> Json:
    return {"type": "content_block_stop", "index": index}


def blocks(*between: Json) -> Any:
    return answer(folded(Dialect.MESSAGES, events(START, *between, STOP)))["content"]


def test_a_messages_blocks_are_put_together() -> None:
    cited = {"cited_text": "x"}
    assert blocks(
        started({"type": "thinking", "thinking": "", "signature": ""}),
        block_delta("thinking_delta", thinking="h"),
        block_delta("thinking_delta", thinking="m"),
        block_delta("signature_delta", signature="early"),
        block_delta("signature_delta", signature="sig"),
        stopped(),
        {"type": "ping"},
        started({"type": "text", "text": "", "citations": None}, 1),
        block_delta("text_delta", 1, text="H"),
        block_delta("citations_delta", 1, citation=cited),
        block_delta("text_delta", 1, text="i"),
        block_delta("citations_delta", 1, citation=cited),
        stopped(1),
    ) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "Hi", "citations": [cited, cited]},
    ]


@pytest.mark.parametrize(
    ("pieces", "tool_input"), [(["", '{"a', '":"\\', 'u00e4"}'], {"a": "ä"}), ([""], {}), ([], {})], ids=str
)
def test_a_tools_input_is_read_from_its_pieces(pieces: list[str], tool_input: Json) -> None:
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    deltas = [block_delta("input_json_delta", partial_json=piece) for piece in pieces]
    assert blocks(started(tool), *deltas, stopped()) == [{**tool, "input": tool_input}]


def test_a_tools_input_that_was_cut_short_is_a_problem_and_no_answer() -> None:
    tool = started({"type": "tool_use", "id": "t", "name": "f", "input": {}})
    fold = folded(Dialect.MESSAGES, events(START, tool, block_delta("input_json_delta", partial_json='{"a'), stopped()))
    assert (fold.problem, fold.answer()) == (Problem.NOT_JSON, None)


def test_a_messages_end_tells_its_reason_and_counts_its_usage() -> None:
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}, "mine": 1}
    read = answer(folded(Dialect.MESSAGES, events(START, end, STOP)))
    usage = {"input_tokens": 9, "output_tokens": 5}
    assert read == {"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage, "mine": 1}


@pytest.mark.parametrize("dialect", STREAMED)
def test_events_of_an_origins_own_are_ignored(dialect: Dialect) -> None:
    said = origin(dialect, "gpt-4o-mini")
    own = b': comment\n\nevent: mine\ndata: {"type":"mine","index":"x"}\n\ndata:\n\nretry: 5\n\n'
    assert answer(folded(dialect, own + stream_of(said))) == answer(folded(dialect, stream_of(said)))


# --- ends, honest or not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", STREAMED)
def test_a_stream_that_broke_off_is_not_complete(dialect: Dialect) -> None:
    stream = stream_of(origin(dialect, "gpt-4o-mini"))
    fold = folded(dialect, stream[: len(stream) // 2])
    assert fold.problem is None and not fold.is_complete
    assert (fold.answer() is None) == (dialect is Dialect.RESPONSES)


def test_a_finish_reason_for_every_choice_is_an_end_too() -> None:
    begun = events(chunk({"content": "a"}), chunk({"content": "b"}, 1), chunk({}, 0, "stop"))
    assert not folded(Dialect.CHAT, begun).is_complete
    assert folded(Dialect.CHAT, begun + events(chunk({}, 1, "stop"))).is_complete


def test_a_last_event_without_its_blank_line_counts() -> None:
    assert folded(Dialect.CHAT, events(chunk({"content": "a"})) + b"data: [DONE]\n").is_complete


@pytest.mark.parametrize("dialect", STREAMED)
def test_what_comes_behind_the_terminal_is_dropped(dialect: Dialect) -> None:
    stream = stream_of(origin(dialect, "gpt-4o-mini"))
    assert answer(folded(dialect, stream + b"data: {nonsense\n\n", [9])) == answer(folded(dialect, stream))


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("stream", [b"", b": hello\n\n", b"data:\n\n"], ids=repr)
def test_of_a_stream_that_said_nothing_no_answer_is_made(dialect: Dialect, stream: bytes) -> None:
    fold = folded(dialect, stream)
    assert (fold.problem, fold.answer(), fold.is_complete) == (None, None, False)


@pytest.mark.parametrize("dialect", CHUNKED)
def test_of_usage_alone_no_answer_is_made(dialect: Dialect) -> None:
    assert folded(dialect, events({"choices": [], "usage": {"total_tokens": 1}}) + DONE).answer() is None


@pytest.mark.parametrize("dialect", STREAMED)
@pytest.mark.parametrize("at", [0, 3])
def test_an_error_event_is_a_problem_and_is_told(dialect: Dialect, at: int) -> None:
    said = origin(dialect, "gpt-4o-mini")
    before = [*demo_events.opening(said), *(demo_events.content(said, index) for index in range(3))][:at]
    error = demo_events.failure(said, at)
    fold = folded(dialect, b"".join(event.render() for event in [*before, error, *demo_events.closing(said)]))
    assert (fold.problem, fold.error, fold.answer(), fold.held_bytes) == (Problem.ERROR, error.data, None, 0)


@pytest.mark.parametrize(
    ("dialect", "stream", "problem"),
    [
        (Dialect.CHAT, b"data: {no\n\n", Problem.NOT_JSON),
        (Dialect.CHAT, b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', Problem.NOT_JSON),
        (Dialect.CHAT, b'data: {"choices":' + b"[" * 100_000 + b"\n\n", Problem.NOT_JSON),
        (Dialect.CHAT, b"data: 5\n\n", Problem.MISFIT),
        (Dialect.CHAT, b'data: {"choices":[{"index":-1}]}\n\n', Problem.MISFIT),
        (Dialect.CHAT, events(chunk({"content": "a"}), chunk({"content": ["b"]})), Problem.MISFIT),
        (Dialect.CHAT, events(chunk({"audio": {"id": "a"}}), chunk({"audio": "b"})), Problem.MISFIT),
        (Dialect.RESPONSES, b'data: {"type":"response.completed"}\n\n', Problem.MISFIT),
        (Dialect.MESSAGES, events(STOP), Problem.MISFIT),
        (Dialect.MESSAGES, events(START, block_delta("text_delta", text="a")), Problem.MISFIT),
        (Dialect.MESSAGES, events({"type": "message_delta", "delta": {"stop_reason": "x"}}), Problem.MISFIT),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_event_that_is_no_good_is_a_problem(dialect: Dialect, stream: bytes, problem: Problem) -> None:
    for sizes in ([1000], [len(stream)]):
        fold = folded(dialect, stream + DONE, sizes)
        assert (fold.problem, fold.answer(), fold.is_complete, fold.held_bytes) == (problem, None, False, 0)


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endless",
    [
        events(chunk({"content": "x" * 500})),
        events(chunk({"annotations": [{"n": 1}] * 50})),
        events(chunk({"a": {"b": {"c": "x" * 500}}})),
        b"data: " + b"x" * 500,
    ],
    ids=["text", "list", "objects", "one event"],
)
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_an_answer_that_grows_without_end_is_given_up(endless: bytes, size: int) -> None:
    fold = Fold(Dialect.CHAT, 20_000)
    for piece in cut(endless * 200, [size]):
        fold.feed(piece)
        assert fold.held_bytes <= 20_000 + 5_000 + size
    fold.finish()
    assert (fold.problem, fold.answer(), fold.held_bytes) == (Problem.TOO_LARGE, None, 0)


def test_an_event_that_is_too_long_is_given_up_before_its_end() -> None:
    fold = Fold(Dialect.CHAT, 20_000)
    fold.feed(b"data: " + b"x" * 30_000)
    assert (fold.problem, fold.held_bytes) == (Problem.TOO_LARGE, 0)


@pytest.mark.parametrize("dialect", STREAMED)
def test_an_event_that_is_too_long_is_given_up_even_if_it_comes_whole_and_says_nothing(dialect: Dialect) -> None:
    for length in (21_000, 30_000):
        fold = Fold(dialect, 20_000)
        fold.feed(events({"type": "mine", "x": "x" * length}))
        assert fold.problem is Problem.TOO_LARGE


def test_what_was_held_is_let_go_with_the_first_problem() -> None:
    fold = Fold(Dialect.CHAT)
    tracemalloc.start()
    for _ in range(100):
        fold.feed(events(chunk({"content": "x" * 10_000})))
    held, _ = tracemalloc.get_traced_memory()
    fold.feed(b"data: {no\n\n")
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held > 1_000_000
    assert left < 100_000


@pytest.mark.parametrize(
    "made",
    [
        lambda n: chunk({f"a{n}": 1}),
        lambda n: chunk({}, n),
        lambda n: chunk({"tool_calls": [{"index": n}]}),
        lambda n: {**chunk({"content": ""}), f"a{n}": 1},
    ],
    ids=["members", "choices", "calls", "tops"],
)
def test_many_small_things_count_as_what_they_cost(made: Any) -> None:
    fold = Fold(Dialect.CHAT, 1_000_000)
    tracemalloc.start()
    for number in range(20_000):
        fold.feed(events(made(number)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fold.problem is Problem.TOO_LARGE
    assert most < 3_000_000


def test_an_answer_of_many_chunks_is_no_larger_than_what_it_says() -> None:
    fold = Fold(Dialect.CHAT, 30_000)
    for _ in range(10_000):
        fold.feed(events(chunk({"content": "ab"}, usage={"total_tokens": 1})))
    fold.feed(DONE)
    assert answer(fold)["choices"][0]["message"]["content"] == "ab" * 10_000


NAMES = st.sampled_from(
    ["content", "role", "tool_calls", "audio", "index", "a", "id", "text", "type", "usage", "input"]
)
VALUE = st.recursive(
    st.none() | st.integers(-1, 3) | st.sampled_from(["", "x", "message_stop", "response.completed", '{"a"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
CHUNK = st.builds(chunk, st.dictionaries(NAMES, VALUE, max_size=3), st.integers(-1, 2), st.sampled_from([None, "stop"]))
PIECE = st.one_of(
    CHUNK.map(events),
    st.dictionaries(st.sampled_from(["choices", "usage", "error", "id"]), VALUE, max_size=3).map(events),
    st.builds(started, st.dictionaries(NAMES, VALUE, max_size=3), st.integers(0, 1)).map(events),
    st.builds(
        lambda index, delta: events({"type": "content_block_delta", "index": index, "delta": delta}),
        st.integers(0, 1),
        st.dictionaries(st.sampled_from(["text", "partial_json", "signature", "citation", "a"]), VALUE, max_size=2),
    ),
    st.sampled_from([events(START), events(START), events(STOP), events(stopped()), DONE, b"\n", b"data: ", b"\xff\r"]),
    VALUE.map(lambda value: events({"type": "response.completed", "response": value})),
    st.binary(max_size=30),
)


@settings(max_examples=300)
@example([events(chunk({"content": "a"})), events(chunk({"content": "b"}))], [3], Dialect.CHAT, MAX_BYTES)
@given(
    st.lists(PIECE, max_size=8),
    st.lists(st.integers(1, 40) | st.integers(40, 400), min_size=1, max_size=8),
    st.sampled_from(Dialect),
    st.sampled_from([300, 600, 2000, MAX_BYTES]),
)
def test_whatever_the_bytes_nothing_is_raised_and_any_cutting_says_the_same(
    pieces: list[bytes], sizes: list[int], dialect: Dialect, max_bytes: int
) -> None:
    stream = b"".join(pieces)
    whole = folded(dialect, stream, None, max_bytes)
    assert whole.held_bytes <= max_bytes
    for cutting in (sizes, [1]):
        fold = folded(dialect, stream, cutting, max_bytes)
        assert (fold.problem, fold.error, fold.is_complete) == (whole.problem, whole.error, whole.is_complete)
        assert fold.answer() == whole.answer()
    text = whole.answer()
    if text is not None:
        assert isinstance(json.loads(text), dict)
