"""What origins say of their tokens: in each dialect's whole answer and events, whole or only the end of it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.wire.dialect import Dialect
from trioproxy.wire.sse import LAST_BYTES, MAX_EVENT_BYTES, Framer
from trioproxy.wire.usage import MAX_TOKENS, MessageFigures, Usage, message_figures, usage_at_end, usage_of

CHAT, RESPONSES, MESSAGES = Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES

CHAT_USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
RESPONSE_USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 37,
}
MESSAGE_USAGE = {
    "input_tokens": 15,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 10,
    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 7,
    "service_tier": "standard",
}
TOLD = Usage(30, 7, 10)


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


ANSWERS = [
    pytest.param(CHAT, {"id": "x", "choices": [], "usage": CHAT_USAGE}, id="chat"),
    pytest.param(Dialect.COMPLETIONS, {"choices": [{"text": "Hi"}], "usage": CHAT_USAGE}, id="completions"),
    pytest.param(RESPONSES, {"object": "response", "output": [], "usage": RESPONSE_USAGE, "user": None}, id="response"),
    pytest.param(
        RESPONSES, {"type": "response.completed", "response": {"usage": RESPONSE_USAGE}}, id="event of a response"
    ),
    pytest.param(MESSAGES, {"type": "message", "content": [], "usage": MESSAGE_USAGE}, id="message"),
    pytest.param(MESSAGES, {"type": "message_start", "message": {"usage": MESSAGE_USAGE}}, id="event of a message"),
]


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_an_answer_says_what_it_took(dialect: Dialect, answer: dict[str, Any]) -> None:
    assert usage_of(raw(answer), dialect) == TOLD
    assert usage_of(json.dumps(answer, indent=2).encode(), dialect) == TOLD


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_the_end_of_an_answer_says_so_too(dialect: Dialect, answer: dict[str, Any]) -> None:
    whole = raw(answer)
    for at in range(whole.index(b'"usage"') + 1):
        assert usage_at_end(whole[at:], dialect) == TOLD
    assert usage_at_end(whole[whole.index(b'"usage"') + 1 :], dialect) is None


def test_embeddings_have_no_output() -> None:
    answer = raw({"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert usage_of(answer, Dialect.EMBEDDINGS) == Usage(8, 0)
    assert usage_of(raw({"usage": {"prompt_tokens": 8, "completion_tokens": None}}), Dialect.EMBEDDINGS) == Usage(8, 0)


def test_what_is_not_said_of_the_cache_is_nothing() -> None:
    for details in ({}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {"cached_tokens": None}}):
        usage = {"prompt_tokens": 3, "completion_tokens": 4, **details}
        assert usage_of(raw({"usage": usage}), CHAT) == Usage(3, 4)
    assert usage_of(raw({"usage": {"input_tokens": 3, "output_tokens": 4}}), MESSAGES) == Usage(3, 4)


NO_FIGURES = [-1, 1.5, "3", None, True, [], MAX_TOKENS + 1, 10**30, 1e300]


@pytest.mark.parametrize("wrong", NO_FIGURES)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_figures_that_cannot_be_are_none(name: str, wrong: object) -> None:
    assert usage_of(raw({"usage": {**CHAT_USAGE, name: wrong}}), CHAT) is None
    assert usage_of(raw({"usage": {key: value for key, value in CHAT_USAGE.items() if key != name}}), CHAT) is None


def test_no_more_can_be_cached_than_there_was() -> None:
    too_much = {**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 31}}
    assert usage_of(raw({"usage": too_much}), CHAT) is None
    too_much = {**RESPONSE_USAGE, "input_tokens_details": {"cached_tokens": 31}}
    assert usage_of(raw({"usage": too_much}), RESPONSES) is None
    absurd = {**MESSAGE_USAGE, "input_tokens": MAX_TOKENS, "cache_read_input_tokens": 1}
    assert usage_of(raw({"usage": absurd}), MESSAGES) is None


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"[DONE]", b'{"usage":null}', b'{"usage":7}', b'{"usage":{}}', b"\xff", b"[" * 9999],
)
def test_what_says_nothing_is_nothing(dialect: Dialect, data: bytes) -> None:
    assert usage_of(data, dialect) is None
    assert usage_at_end(data, dialect) is None


def test_a_dialect_without_usage_has_none() -> None:
    assert usage_of(raw({"usage": CHAT_USAGE}), Dialect.OTHER) is None


@settings(max_examples=200)
@given(st.binary(max_size=300), st.sampled_from(list(Dialect)))
def test_it_never_raises(data: bytes, dialect: Dialect) -> None:
    usage_of(data, dialect)
    usage_of(b'{"usage":{' + data, dialect)
    usage_at_end(b'"usage":{' + data, dialect)
    message_figures(data)


@given(st.text(max_size=50))
def test_no_text_of_an_answer_is_taken_for_its_usage(said: str) -> None:
    injected = '"usage":{"prompt_tokens":0,"completion_tokens":0}'
    answer = raw({"choices": [{"message": {"content": said + injected + said}}], "x": injected})
    assert usage_at_end(answer, CHAT) is None


def test_of_several_the_last_one_that_can_be_counts() -> None:
    end = b'"usage":{"prompt_tokens":1,"completion_tokens":1},"tools":[{"usage":{"type":"string"}}],"usage":null}'
    assert usage_at_end(end, CHAT) == Usage(1, 1)
    assert usage_at_end(b'"usage":{"prompt_tokens":9,"completion_tokens":9},' + end, CHAT) == Usage(1, 1)


def test_later_figures_of_a_message_replace_earlier_ones() -> None:
    started = MessageFigures(input_tokens=15, cache_read_input_tokens=10, output_tokens=1)
    assert started.then(MessageFigures(output_tokens=7)).usage == Usage(25, 7, 10)
    assert started.then(MessageFigures(input_tokens=20, cache_read_input_tokens=0)).usage == Usage(20, 1, 0)
    assert MessageFigures(output_tokens=7).usage is None


# --- in streams -------------------------------------------------------------------------------------------------------


def event(value: object) -> bytes:
    name = f"event: {value['type']}\n".encode() if isinstance(value, dict) and "type" in value else b""
    return name + b"data: " + (value if isinstance(value, bytes) else raw(value)) + b"\n\n"


def told_by(dialect: Dialect, *events: object) -> Usage | None:
    """What a watch knows behind these events, which does not depend on how they came."""
    blocks = [event(value) for value in events]
    stream = b"".join(blocks)
    found = []
    for pieces in ([stream], blocks, [stream[at : at + 1] for at in range(len(stream))], [stream[:-1], stream[-1:]]):
        watch = dialect.watch()
        framer = Framer(watch, note_last=watch.note_last)
        for piece in pieces:
            framer.feed(piece)
        found.append(watch.usage)
    assert len(set(found)) == 1
    return found[0]


WORD = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}], "usage": None}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
TELLS = {"choices": [], "usage": CHAT_USAGE}


def test_a_chat_stream_says_it_behind_its_end() -> None:
    assert told_by(CHAT, WORD, WORD, STOP, TELLS, b"[DONE]") == TOLD
    assert told_by(CHAT, WORD, WORD, STOP, {"usage": CHAT_USAGE, "x": 1, "choices": []}, b"[DONE]") == TOLD
    assert told_by(CHAT, WORD, WORD, {**STOP, "usage": CHAT_USAGE}, b"[DONE]") == TOLD, "some say it with the end"
    assert told_by(CHAT, WORD, WORD, STOP, b"[DONE]") is None


def test_what_a_stream_says_last_counts_if_it_can_be() -> None:
    more = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    absurd = {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 2}}
    assert told_by(CHAT, WORD, TELLS, more, b"[DONE]") == Usage(1, 2)
    assert told_by(CHAT, WORD, TELLS, absurd, b"[DONE]") == TOLD
    assert told_by(CHAT, WORD, absurd, b"[DONE]") is None


def test_what_a_model_writes_is_not_taken_for_usage() -> None:
    said = {"choices": [{"index": 0, "delta": {"content": json.dumps(TELLS)}, "finish_reason": None}]}
    assert told_by(CHAT, WORD, said, said, b"[DONE]") is None


def test_a_response_says_it_with_its_end() -> None:
    delta = {"type": "response.output_text.delta", "delta": "Hi"}
    for kind in ("completed", "incomplete", "failed"):
        end = {"type": f"response.{kind}", "response": {"usage": RESPONSE_USAGE}}
        assert told_by(RESPONSES, {"type": "response.created", "response": {"usage": None}}, delta, end) == TOLD
    assert told_by(RESPONSES, delta, {"type": "response.completed", "response": {"usage": None}}) is None


MESSAGE_START = {"type": "message_start", "message": {"usage": {**MESSAGE_USAGE, "output_tokens": 1}}}
MESSAGE_TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}


def test_a_message_says_its_input_first_and_its_output_in_the_end() -> None:
    delta = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}}
    stop = {"type": "message_stop"}
    assert told_by(MESSAGES, MESSAGE_START, MESSAGE_TEXT, MESSAGE_TEXT, delta, stop) == TOLD
    all_again = {"type": "message_delta", "delta": {}, "usage": {**MESSAGE_USAGE, "input_tokens": 16}}
    assert told_by(MESSAGES, MESSAGE_START, MESSAGE_TEXT, all_again, stop) == Usage(31, 7, 10)
    nonsense = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": -7}}
    assert told_by(MESSAGES, MESSAGE_START, MESSAGE_TEXT, nonsense, stop) is None


def test_a_message_that_was_cut_has_not_said_it() -> None:
    assert told_by(MESSAGES, MESSAGE_START, MESSAGE_TEXT, MESSAGE_TEXT) is None, "its one token was only the start"


@pytest.mark.parametrize("size", [100, 4096, 70_000, 1 << 20])
def test_an_event_too_long_to_be_kept_says_it_with_its_end(size: int) -> None:
    text = "word " * (2 * MAX_EVENT_BYTES // 5)
    response: dict[str, Any] = {
        "output": [text],
        "text": {"format": {}},
        "usage": RESPONSE_USAGE,
        "user": None,
        "metadata": {"a": "b" * 500},
    }
    stream = event({"type": "response.completed", "response": response})
    delta = event({"type": "response.output_text.delta", "delta": "Hi"})
    watch = RESPONSES.watch()
    framer = Framer(watch, note_last=watch.note_last)
    for at in range(0, len(delta + stream), size):
        framer.feed((delta + stream)[at : at + size])
        assert framer.kept_bytes <= MAX_EVENT_BYTES
    assert watch.usage == TOLD and watch.may_end
    watch = RESPONSES.watch()
    framer = Framer(watch, note_last=watch.note_last)
    framer.feed(delta + stream[:-1])
    framer.finish()
    assert watch.usage == TOLD, "its blank line is missing"


def test_a_long_event_that_is_no_end_says_nothing_of_a_response() -> None:
    tools = "x" * MAX_EVENT_BYTES
    created = {"type": "response.created", "response": {"tools": tools, "usage": RESPONSE_USAGE}}
    delta = {"type": "response.output_text.delta", "delta": "Hi"}
    watch = RESPONSES.watch()
    Framer(watch, note_last=watch.note_last).feed(event(created) + event(delta))
    assert watch.usage is None


@settings(max_examples=50)
@given(st.integers(0, 2 * LAST_BYTES), st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_the_end_of_a_long_event_is_the_same_in_any_cutting(more: int, sizes: list[int]) -> None:
    stream = (
        b"data: "
        + bytes(b"abc"[at % 3] for at in range(MAX_EVENT_BYTES - LAST_BYTES - 100 + more))
        + b"\n\ndata: x\n\n"
    )
    ends: list[list[bytes]] = []
    for cuts in (sizes, [len(stream)]):
        seen: list[bytes] = []
        framer = Framer(CHAT.watch(), note_last=seen.append)
        at = turn = 0
        while at < len(stream):
            framer.feed(stream[at : at + cuts[turn % len(cuts)]])
            at += cuts[turn % len(cuts)]
            turn += 1
        ends.append(seen)
    assert ends[0] == ends[1]
    assert all(len(end) == LAST_BYTES for end in ends[0])
