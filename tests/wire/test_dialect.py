"""What starts, breaks and ends a stream in each dialect, as it is seen through the framer: whole and byte by byte."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.wire.dialect import Dialect, StreamWatch
from trioproxy.wire.sse import Framer

CHAT, COMPLETIONS, RESPONSES, MESSAGES = Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES
EVERY = list(Dialect)
STREAMING = [CHAT, COMPLETIONS, RESPONSES, MESSAGES]
UNKNOWN = [Dialect.EMBEDDINGS, Dialect.OTHER]
DONE = b"data: [DONE]\n\n"


def event(data: object, name: str = "") -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + raw + b"\n\n"


def named(kind: str, **more: object) -> bytes:
    return event({"type": kind, **more}, kind)


def chunk(*choices: tuple[int, str | None], **delta: object) -> bytes:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": end} for index, end in choices]})


TEXT = {
    CHAT: chunk((0, None), content="Hi"),
    COMPLETIONS: event({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]}),
    RESPONSES: named("response.output_text.delta", delta="Hi"),
    MESSAGES: named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
    Dialect.EMBEDDINGS: event({"x": 1}),
    Dialect.OTHER: event({"x": 1}),
}


def watched(dialect: Dialect, *events: bytes, is_over: bool = False) -> StreamWatch:
    """What a watch knows behind these events, which does not depend on how they came."""
    stream = b"".join(events)
    known: list[tuple[StreamWatch, tuple[object, ...]]] = []
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))], events):
        watch = dialect.watch()
        framer = Framer(watch)
        for piece in pieces:
            framer.feed(piece)
        if is_over:
            framer.finish()
        told = (watch.saw_first, watch.first_error, watch.saw_content, watch.saw_done, watch.may_end)
        known.append((watch, told))
    assert known[0][1] == known[1][1] == known[2][1]
    return known[0][0]


# --- the terminal -----------------------------------------------------------------------------------------------------

TERMINALS = [
    pytest.param(CHAT, DONE, id="chat"),
    pytest.param(CHAT, b"data:[DONE]\n\n", id="chat, no space"),
    pytest.param(CHAT, b": bye\ndata: [DONE]\n\n", id="chat, behind a comment"),
    pytest.param(CHAT, b"event: done\ndata: [DONE]\n\n", id="chat, with a name"),
    pytest.param(COMPLETIONS, DONE, id="completions"),
    *(
        pytest.param(RESPONSES, form, id=f"responses, {kind}, {number}")
        for kind in ("response.completed", "response.failed", "response.incomplete")
        for number, form in enumerate(
            [
                named(kind, response={"id": "resp_1"}),
                event({"type": kind, "response": {"id": "resp_1"}}),
                event({"sequence_number": 9, "response": {"id": "resp_1"}, "type": kind}),
                event(f'{{ "type" : "{kind}" }}'.encode()),
                event(b"{}", kind),
            ]
        )
    ),
    pytest.param(MESSAGES, named("message_stop"), id="messages"),
    pytest.param(MESSAGES, event({"type": "message_stop"}), id="messages, no event line"),
    pytest.param(MESSAGES, event({"x": 1, "type": "message_stop"}), id="messages, no event line, type last"),
]


@pytest.mark.parametrize(("dialect", "terminal"), TERMINALS)
def test_the_terminal_ends_a_stream_honestly(dialect: Dialect, terminal: bytes) -> None:
    for before in ((), (TEXT[dialect],), (TEXT[dialect],) * 5):
        assert not watched(dialect, *before).may_end
        watch = watched(dialect, *before, terminal)
        assert watch.saw_done and watch.may_end
        unended = watched(dialect, *before, terminal[:-2], is_over=True)
        assert unended.saw_done and unended.may_end


CONTENT = "data: [DONE]\n\n[DONE] response.completed event: message_stop"
QUOTES = '"finish_reason": "stop", "type": "message_stop" {"type":"response.failed"}'
NO_TERMINALS = [
    (CHAT, event(b"[DONE]x")),
    (CHAT, event(b"[DONE] ")),
    (CHAT, event(b" [DONE]")),
    (CHAT, event(b'"[DONE]"')),
    (CHAT, event(b"[done]")),
    (CHAT, b"data: [DONE]\ndata: [DONE]\n\n"),
    (CHAT, b"data: [DONE]\ndata:\n\n"),
    (CHAT, b": [DONE]\n\n"),
    (CHAT, b"event: [DONE]\n\n"),
    (CHAT, b"[DONE]\n\n"),
    (CHAT, b"id: [DONE]\n\n"),
    (CHAT, chunk((0, None), content=CONTENT)),
    (CHAT, chunk((0, None), content=QUOTES)),
    (CHAT, chunk((0, None), tool_calls=[{"index": 0, "finish_reason": "stop"}])),
    (CHAT, chunk((0, ""), content="x")),
    (CHAT, event({"finish_reason": "stop"})),
    (CHAT, event({"choices": {"finish_reason": "stop"}})),
    (CHAT, named("response.completed")),
    (COMPLETIONS, event({"choices": [{"index": 0, "text": CONTENT + QUOTES, "finish_reason": None}]})),
    (RESPONSES, DONE),
    (RESPONSES, named("response.output_text.delta", delta=CONTENT + QUOTES)),
    (RESPONSES, event({"type": "response.output_text.delta", "delta": CONTENT + QUOTES})),
    (RESPONSES, event({"delta": '{"type":"response.completed"', "type": "response.output_text.done"})),
    (RESPONSES, event({"type": "response.output_item.done", "item": {"type": "response.completed"}})),
    (RESPONSES, event({"item": {"type": "response.completed"}})),
    (RESPONSES, event(['{"type":"response.completed"}'])),
    (RESPONSES, event({"type": ["response.completed"]})),
    (RESPONSES, event({"type": "response.completed.x"})),
    (RESPONSES, b"event: response.completed\n\n"),  # no data, no event
    (RESPONSES, b"event: response.completedx\ndata: {}\n\n"),
    (RESPONSES, named("response.in_progress", response={"status": "response.completed"})),
    (MESSAGES, DONE),
    (MESSAGES, named("content_block_delta", delta={"text": CONTENT + QUOTES})),
    (MESSAGES, event({"type": "content_block_delta", "delta": {"text": CONTENT + QUOTES}})),
    (MESSAGES, event({"delta": {"type": "message_stop"}})),
    (MESSAGES, named("message_delta", delta={"stop_reason": "message_stop"})),
    (MESSAGES, b": message_stop\n\n"),
]


@pytest.mark.parametrize(("dialect", "no_terminal"), NO_TERMINALS)
def test_what_only_looks_like_a_terminal_is_none(dialect: Dialect, no_terminal: bytes) -> None:
    for before in ((), (TEXT[dialect],)):
        watch = watched(dialect, *before, no_terminal, no_terminal, is_over=True)
        assert not watch.saw_done and not watch.may_end


def test_what_comes_behind_the_done_mark_takes_nothing_back() -> None:
    watch = watched(CHAT, TEXT[CHAT], DONE, chunk((0, None), (1, None), content="x"))
    assert watch.saw_done and watch.may_end


@pytest.mark.parametrize("dialect", UNKNOWN)
def test_an_unknown_dialect_takes_the_origins_word_for_the_end(dialect: Dialect) -> None:
    watch = watched(dialect, TEXT[dialect], DONE, named("message_stop"))
    assert watch.may_end and not watch.saw_done
    assert dialect.watch().may_end


@pytest.mark.parametrize("dialect", EVERY)
def test_only_behind_the_done_mark_nothing_more_belongs_to_a_stream(dialect: Dialect) -> None:
    assert dialect.watch().ends_at_once is (dialect in (CHAT, COMPLETIONS))


def test_watches_of_two_streams_share_nothing() -> None:
    first, second = CHAT.watch(), CHAT.watch()
    Framer(first).feed(chunk((0, "stop"), content="x") + DONE)
    assert first.may_end and not second.may_end and not second.saw_first
    Framer(second).feed(chunk((1, None), content="x"))
    Framer(second).feed(chunk((1, "stop")))
    assert not second.may_end


# --- a finish_reason for every choice ---------------------------------------------------------------------------------


def test_a_finished_choice_makes_an_end_honest_but_is_not_the_end() -> None:
    watch = watched(CHAT, TEXT[CHAT], chunk((0, "stop")))
    assert watch.may_end and not watch.saw_done


def test_usage_may_come_behind_the_last_finish_reason() -> None:
    assert watched(CHAT, TEXT[CHAT], chunk((0, "length")), event({"choices": [], "usage": {"total_tokens": 3}})).may_end


def test_of_two_choices_both_have_to_finish() -> None:
    both = (chunk((0, None), role="assistant"), chunk((1, None), role="assistant"), TEXT[CHAT])
    assert not watched(CHAT, *both, chunk((0, "stop"))).may_end
    assert not watched(CHAT, *both, chunk((1, "stop"))).may_end
    assert watched(CHAT, *both, chunk((1, "stop")), chunk((0, "stop"))).may_end
    assert watched(CHAT, *both, chunk((0, "stop"), (1, "stop"))).may_end


def test_a_second_choice_that_begins_late_has_to_finish_too() -> None:
    late = (TEXT[CHAT], TEXT[CHAT], chunk((0, "stop")), chunk((1, None), content="Ho"))
    assert not watched(CHAT, *late).may_end
    assert watched(CHAT, *late, chunk((1, "stop"))).may_end


def test_the_first_choice_is_not_forgotten_over_the_second() -> None:
    assert not watched(CHAT, chunk((1, None), content="Hi"), chunk((1, "stop"))).may_end


def test_a_chunk_behind_a_finish_reason_does_not_open_the_choice_again() -> None:
    assert watched(CHAT, TEXT[CHAT], chunk((0, "stop")), chunk((0, None), content="")).may_end


def test_the_index_of_a_tool_call_is_no_choice() -> None:
    call = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools = (TEXT[CHAT], chunk((0, None), tool_calls=[call]), chunk((0, "tool_calls")))
    assert watched(CHAT, *tools).may_end


def test_a_choice_may_leave_its_index_out() -> None:
    assert watched(CHAT, TEXT[CHAT], event({"choices": [{"finish_reason": "stop"}]})).may_end


def test_completions_finish_in_the_same_way() -> None:
    end = {"index": 0, "text": "", "finish_reason": "length"}
    assert watched(COMPLETIONS, TEXT[COMPLETIONS], event({"choices": [end]})).may_end
    assert not watched(COMPLETIONS, TEXT[COMPLETIONS], event({"choices": [{**end, "index": 1}]})).may_end


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":null}',
        b'{"choices":[null]}',
        b'{"choices":[{"index":null,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":-1,"finish_reason":null}]}',
        b'{"choices":[{"index":99999999999999999999999999,"finish_reason":null}]}',
        b'{"choices":[{"index":0,"finish_reason":7}]}',
        b'{"choices":[{"index":0,"finish_reason":"stop"}]',
        b'{"choices":[{"index":0,"finish_reason":"\xff"}]}',
        b"[" * 10_000,
        b'{"finish_reason":"stop","x":' + b"[" * 10_000,
        b'{"choices":' + b"1" * 5000 + b',"finish_reason":"stop"}',
    ],
    ids=lambda data: repr(data[:45]),
)
def test_a_chunk_that_makes_no_sense_changes_nothing(data: bytes) -> None:
    assert not watched(CHAT, event(data)).may_end
    assert not watched(CHAT, TEXT[CHAT], event(data)).may_end
    assert watched(CHAT, event(data), TEXT[CHAT], chunk((0, "stop"))).may_end
    assert watched(CHAT, TEXT[CHAT], chunk((0, "stop")), event(data)).may_end


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Chunks of a chat with several choices; the first one belongs to choice 0."""
    indexes = st.integers(0, draw(st.integers(0, 12)))
    ends = st.sampled_from([None, None, "stop", "length"])
    choice = st.builds(
        lambda index, end: {"index": index, "delta": {"content": "x"}, "finish_reason": end}, indexes, ends
    )
    chunks = draw(st.lists(st.lists(choice, max_size=3).map(lambda choices: {"choices": choices}), max_size=8))
    return [{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": draw(ends)}]}, *chunks]


def every_choice_finished(chunks: list[dict[str, Any]]) -> bool:
    choices = [choice for one in chunks for choice in one["choices"]]
    finished = {choice["index"] for choice in choices if choice["finish_reason"]}
    return finished == {choice["index"] for choice in choices}


@settings(max_examples=100)
@given(chats(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :  ")]), st.booleans())
def test_an_end_is_honest_just_if_every_choice_seen_has_finished(
    chunks: list[dict[str, Any]], separators: tuple[str, str], is_sorted: bool
) -> None:
    events = [event(json.dumps(one, separators=separators, sort_keys=is_sorted).encode()) for one in chunks]
    watch = watched(CHAT, *events)
    assert watch.may_end is every_choice_finished(chunks)
    assert not watch.saw_done
    assert watched(CHAT, *events, DONE).may_end


# --- an error in the first event --------------------------------------------------------------------------------------

ERROR = {"message": "no", "type": "server_error", "param": None, "code": None}
OPENAI_ERRORS = [
    event({"error": ERROR}),
    event({"error": "overloaded"}),
    event({"error": ERROR}, "error"),
    event({"id": "x", "error": ERROR, "choices": []}),
]
NAMED_ERRORS = [
    *OPENAI_ERRORS,
    named("error", code="server_error", message="no"),
    event({"type": "error", "code": "server_error", "message": "no"}),
    event({"message": "no"}, "error"),
    event({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "error"),
    b"event: error\ndata: overloaded\n\n",
]
FIRST_ERRORS = [
    *((dialect, form) for dialect in (CHAT, COMPLETIONS, *UNKNOWN) for form in OPENAI_ERRORS),
    *((dialect, form) for dialect in (RESPONSES, MESSAGES) for form in NAMED_ERRORS),
]


@pytest.mark.parametrize(("dialect", "error"), FIRST_ERRORS)
def test_an_error_in_the_first_event_is_kept_as_it_came(dialect: Dialect, error: bytes) -> None:
    data = error.rpartition(b"data: ")[2].removesuffix(b"\n\n")
    for before in ((), (b": keep-alive\n\n", b":\n\n"), (b"\n\n",), (b"retry: 10\n\n",)):
        watch = watched(dialect, *before, error)
        assert watch.first_error == data and watch.saw_first
        assert watched(dialect, *before, error[:-2], is_over=True).first_error == data


@pytest.mark.parametrize(("dialect", "error"), FIRST_ERRORS)
def test_a_later_error_is_not_the_first_events(dialect: Dialect, error: bytes) -> None:
    assert watched(dialect, TEXT[dialect], error).first_error is None
    assert watched(dialect, event({}), error).first_error is None


@pytest.mark.parametrize("dialect", STREAMING)
@pytest.mark.parametrize(
    "data",
    [
        {"error": None},
        {"error": {}},
        {"error": ""},
        {"error": 0},
        {"error": []},
        {"x": {"error": ERROR}},
        [ERROR],
        "error",
    ],
)
def test_an_error_that_is_none_is_no_error(dialect: Dialect, data: object) -> None:
    assert watched(dialect, event(data)).first_error is None


def test_responses_and_messages_that_fail_later_are_no_first_errors() -> None:
    assert watched(RESPONSES, named("response.created", response={"error": ERROR})).first_error is None
    assert watched(RESPONSES, named("response.failed", response={"error": ERROR})).first_error is None
    assert watched(MESSAGES, named("ping"), named("error", error=ERROR)).first_error is None


def test_a_chat_event_named_error_is_judged_by_its_data() -> None:
    assert watched(CHAT, event({"choices": []}, "error")).first_error is None


# --- content ----------------------------------------------------------------------------------------------------------

TOOL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
CONTENT_EVENTS = [
    (CHAT, chunk((0, None), content="Hi")),
    (CHAT, chunk((0, None), role="assistant", content="Hi")),
    (CHAT, chunk((0, None), content=" ")),
    (CHAT, chunk((0, None), reasoning_content="Hm")),
    (CHAT, chunk((0, None), content="", reasoning="Hm")),
    (CHAT, chunk((0, None), tool_calls=[TOOL])),
    (CHAT, chunk((0, None), function_call={"name": "f"})),
    (CHAT, chunk((0, None), refusal="No")),
    (CHAT, chunk((0, None), audio={"id": "audio_1"})),
    (CHAT, chunk((0, "stop"))),
    (CHAT, event({"choices": [], "usage": {"total_tokens": 3}})),
    (CHAT, event({"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {"content": "Hi"}}]})),
    (CHAT, event({"anything": "else"})),
    (CHAT, event(b"text")),
    (CHAT, event(b'{"choices":[{"delta":{"content":"' + b"x" * 100_000 + b'"}}]}')),
    (COMPLETIONS, event({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]})),
    (COMPLETIONS, event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})),
    (RESPONSES, named("response.output_text.delta", delta="Hi")),
    (RESPONSES, event({"type": "response.reasoning_summary_text.delta", "delta": "Hm"})),
    (RESPONSES, named("response.function_call_arguments.delta", delta="{")),
    (RESPONSES, named("response.refusal.delta", delta="No")),
    (RESPONSES, named("response.completed", response={})),
    (RESPONSES, named("response.output_item.added", item={"type": "function_call", "name": "f"})),
    (RESPONSES, event(b"{}", "response.audio.delta")),
    (MESSAGES, named("content_block_delta", delta={"type": "text_delta", "text": "Hi"})),
    (MESSAGES, event({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm"}})),
    (MESSAGES, named("content_block_start", content_block={"type": "tool_use", "id": "toolu_1", "name": "f"})),
    (MESSAGES, named("message_delta", usage={"output_tokens": 3})),
    (MESSAGES, named("message_stop")),
    (Dialect.OTHER, event({})),
    (Dialect.OTHER, event(b"x")),
    (Dialect.EMBEDDINGS, event(b"x")),
]
NO_CONTENT_EVENTS = [
    *(
        (dialect, form)
        for dialect in EVERY
        for form in (b"data\n\n", b"data:\n\n", b": x\n\n", b"event: x\n\n", b"x: y\n\n")
    ),
    (CHAT, chunk((0, None), role="assistant")),
    (CHAT, chunk((0, None), role="assistant", content="")),
    (CHAT, chunk((0, None), role="assistant", content=None, refusal=None, tool_calls=[], audio={})),
    (CHAT, chunk((0, None))),
    (CHAT, event({"choices": [{"index": 0, "delta": None}]})),
    (CHAT, event({"choices": [{"index": 0}, None, "x"]})),
    (CHAT, event({"choices": []})),
    (CHAT, event({"choices": None})),
    (CHAT, event({"choices": [], "prompt_filter_results": [{}], "usage": None})),
    (CHAT, event({"choices": [], "obfuscation": "abc", "usage": {}})),
    (COMPLETIONS, event({"choices": [{"index": 0, "text": "", "finish_reason": None}]})),
    *(
        (RESPONSES, form)
        for kind in (
            "response.created",
            "response.in_progress",
            "response.queued",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_summary_part.added",
        )
        for form in (named(kind, x="response.completed"), event({"type": kind}), event(b"no json", kind))
    ),
    (MESSAGES, named("message_start", message={"content": []})),
    (RESPONSES, named("keepalive", sequence_number=3)),
    (RESPONSES, named("response.output_text.delta", delta="")),
    (RESPONSES, named("response.output_item.added", item={"type": "reasoning"})),
    (MESSAGES, named("content_block_delta", delta={"type": "text_delta", "text": ""})),
    (MESSAGES, named("content_block_delta", delta=None)),
    (MESSAGES, named("content_block_stop")),
    (MESSAGES, named("ping")),
    (MESSAGES, event({"type": "ping"})),
    (MESSAGES, event(b"", "ping")),
    (MESSAGES, event(b"no json", "ping")),
    (MESSAGES, named("content_block_start", content_block={"type": "text", "text": ""})),
    (MESSAGES, named("content_block_start", content_block={"type": "thinking", "thinking": ""})),
    (MESSAGES, named("content_block_start", content_block=None)),
]


@pytest.mark.parametrize(("dialect", "form"), CONTENT_EVENTS)
def test_what_a_user_waits_for_is_content(dialect: Dialect, form: bytes) -> None:
    watch = watched(dialect, form)
    assert watch.saw_content and watch.is_settled


@pytest.mark.parametrize(("dialect", "form"), NO_CONTENT_EVENTS)
def test_what_nobody_waits_for_is_no_content(dialect: Dialect, form: bytes) -> None:
    watch = watched(dialect, form, form)
    assert not watch.saw_content and not watch.is_settled
    assert watched(dialect, form, TEXT[dialect]).saw_content


WORD = st.sampled_from(
    ["choices", "delta", "index", "finish_reason", "error", "type", "content_block", "usage", "content", "text", "role"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=4),
    max_leaves=12,
)
NAME = st.sampled_from(
    ["", "error", "ping", "content_block_start", "response.completed", "message_stop", "\x00\xff\u2028"]
)


@settings(max_examples=100)
@given(st.sampled_from(Dialect), st.lists(st.tuples(NAME, st.dictionaries(WORD, JSON, max_size=5)), max_size=4))
def test_no_json_makes_a_watch_raise(dialect: Dialect, events: list[tuple[str, dict[str, Any]]]) -> None:
    watched(dialect, *(event(json.dumps(value).encode(), name) for name, value in events))


@settings(max_examples=200)
@given(st.sampled_from(Dialect), st.binary(max_size=30), st.binary(max_size=60))
def test_no_bytes_make_a_watch_raise(dialect: Dialect, name: bytes, data: bytes) -> None:
    watch = dialect.watch()
    for _ in range(2):
        watch.hints(data)
        watch.look(name, data)
    assert watch.saw_first
