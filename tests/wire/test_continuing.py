"""Streams that are cut and gone on from: what the client reads is one stream, whatever the cut and the cutting.

The client here is a plain reader of events and JSON (`Client`), and once the official library's own.
"""

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletionChunk as Chunk

from trioproxy.wire.continuing import MAX_HELD_BYTES, Transcript
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sse import Framer, fields

CHAT, MESSAGES = Dialect.CHAT, Dialect.MESSAGES
BOTH = [CHAT, MESSAGES]
ASKED = {"role": "user", "content": "Count."}
DONE = b"data: [DONE]\n\n"


def request(**more: object) -> JsonObject:
    return JsonObject.parse(json.dumps({"model": "m", "messages": [ASKED], "stream": True} | more).encode())


def transcript(dialect: Dialect = CHAT, **more: object) -> Transcript:
    return Transcript(dialect, request(**more))


# --- what origins send ------------------------------------------------------------------------------------------------


def event(data: object, name: str = "") -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + raw + b"\n\n"


def identity(origin: str) -> dict[str, object]:
    return {"id": origin, "object": "chat.completion.chunk", "created": len(origin), "model": f"m-{origin}"}


def chunk(origin: str, delta: object, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event(identity(origin) | {"choices": [choice]} | more)


def named(kind: str, **more: object) -> bytes:
    return event({"type": kind} | more, kind)


def start(index: int = 0, kind: str = "text", **more: object) -> bytes:
    block = {"type": kind, "text": ""} if kind == "text" else {"type": kind}
    return named("content_block_start", index=index, content_block=block | more)


def stop(index: int = 0) -> bytes:
    return named("content_block_stop", index=index)


def said(text: str, index: int = 0) -> bytes:
    return named("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def stream(dialect: Dialect, origin: str, words: Sequence[str]) -> list[bytes]:
    """The events of a whole answer."""
    if dialect is CHAT:
        usage = event(
            identity(origin) | {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}}
        )
        first = chunk(origin, {"role": "assistant", "content": ""}, system_fingerprint=f"f-{origin}")
        texts = [chunk(origin, {"content": word}, system_fingerprint=f"f-{origin}") for word in words]
        return [first, *texts, chunk(origin, {}, "stop"), usage, DONE]
    return [
        named("message_start", message={"id": origin, "role": "assistant", "content": []}),
        start(),
        named("ping"),
        *map(said, words),
        stop(),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": len(words)}),
        named("message_stop"),
    ]


# --- what the client reads --------------------------------------------------------------------------------------------


class Client:
    """Reads a stream as the API's reference describes it, and notes what must not be there."""

    def __init__(self, dialect: Dialect, data: bytes) -> None:
        self.text = ""
        self.roles = 0
        self.ends = 0
        self.names: list[str] = []
        self.identities: set[tuple[object, ...]] = set()
        self.blocks: list[str] = []
        assert data == b"" or data.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        for name, value in events_of(data):
            assert self.ends == 0 or value == "[DONE]" or name == "message_stop"
            if dialect is CHAT:
                self._chunk(value)
            else:
                self._named(name, value)

    def _chunk(self, value: Any) -> None:
        if value == "[DONE]":
            self.ends += 1
            return
        self.identities.add((value["id"], value["model"], value["created"]))
        for choice in value["choices"]:
            assert choice["index"] == 0
            self.roles += "role" in choice["delta"]
            self.text += choice["delta"].get("content") or ""

    def _named(self, name: str, value: Any) -> None:
        assert value["type"] == name
        self.names.append(name)
        match name:
            case "message_start":
                self.roles += 1
            case "content_block_start":
                assert value["index"] == len(self.blocks) and "open" not in self.blocks
                self.blocks.append("open")
            case "content_block_delta":
                assert self.blocks[value["index"]] == "open"
                self.text += value["delta"].get("text", "")
            case "content_block_stop":
                assert self.blocks[value["index"]] == "open"
                self.blocks[value["index"]] = "closed"
            case "message_delta":
                assert "open" not in self.blocks
            case "message_stop":
                self.ends += 1


def events_of(data: bytes) -> Iterator[tuple[str, Any]]:
    for block in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        name, raw = fields(block)
        if raw is not None:
            yield name.decode(), "[DONE]" if raw == b"[DONE]" else json.loads(raw)


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def fed(subject: Transcript, data: bytes, sizes: Sequence[int] = (1 << 30,)) -> bytes:
    return b"".join([subject.feed(piece) for piece in cut(data, sizes)])


def may_go_on(subject: Transcript) -> bool:
    return subject.can_continue


def asked_text(subject: Transcript) -> str:
    message = json.loads(subject.continued_request().body)["messages"][-1]
    assert message["role"] == "assistant"
    return str(message["content"])


def gone_on(dialect: Dialect, first: bytes, second: bytes, **more: object) -> Client:
    """The client's view of a first stream as far as it came, and a second one."""
    subject = transcript(dialect, **more)
    out = subject.feed(first)
    assert subject.can_continue
    subject.begin_attempt()
    return Client(dialect, out + subject.feed(second) + subject.finish())


CRLF_CUT = len(b"".join(stream(CHAT, "first", ["One"])[:2]).replace(b"\n", b"\r\n")) - 1

WORD = st.text(min_size=1, max_size=6)
WORDS = st.lists(WORD, min_size=1, max_size=6)
SIZES = st.lists(st.integers(1, 40) | st.integers(40, 400), min_size=1, max_size=6)
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])


# --- the law ----------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@example(CHAT, ["haha"], [1], [0, 0], [False, False], [b"\n"] * 3)
@example(CHAT, ["One", "two"], [1], [CRLF_CUT], [False] * 3, [b"\r\n", *[b"\n"] * 3])  # in the midst of a blank line
@example(MESSAGES, ["One \n", "two"], [1], [650, 200], [False, True], [b"\n"] * 3)
@given(
    st.sampled_from(BOTH),
    WORDS,
    SIZES,
    st.lists(st.integers(0, 2000), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(LINE_END, min_size=4, max_size=4),
)
def test_a_stream_cut_at_any_byte_and_gone_on_from_reads_as_one(
    dialect: Dialect, words: list[str], sizes: list[int], cuts: list[int], repeats: list[bool], line_ends: list[bytes]
) -> None:
    whole = "".join(words)
    subject = transcript(dialect)
    first = b"".join(stream(dialect, "first", words)).replace(b"\n", line_ends[0])
    out = fed(subject, first[: cuts[0]], sizes)
    assert first.startswith(out)
    if not may_go_on(subject):
        return
    for attempt, end in enumerate([*cuts[1:], 1 << 30]):
        prefill = asked_text(subject)
        assert whole.startswith(prefill)
        rest = whole[len(prefill) :]
        said_again = [*prefill] if repeats[attempt % 3] and len(prefill.strip()) >= 4 else []
        if not said_again and rest.startswith(prefill) and len(prefill.strip()) >= 4:
            return  # nobody can tell that from a repetition
        next_words = [*said_again, *(rest[at : at + 3] for at in range(0, len(rest), 3))]
        subject.begin_attempt()
        origin = b"".join(stream(dialect, f"origin {attempt}", next_words)).replace(b"\n", line_ends[attempt + 1])
        out += fed(subject, origin[:end], sizes)
        if not may_go_on(subject):
            out += fed(subject, origin[end:], sizes)
            break
    out += subject.finish()
    client = Client(dialect, out)
    assert (client.text, client.roles, client.ends) == (whole, 1, 1)
    assert client.identities <= {("first", "m-first", 5)}
    assert set(re.findall(rb"\r\n|\n|\r", out)) == {line_ends[0]}
    watch = dialect.watch()
    Framer(watch).feed(out)
    assert watch.saw_done and watch.may_end


SOME = st.sampled_from(
    [
        *stream(CHAT, "a", ["One, ", "two"]),
        *stream(MESSAGES, "a", ["One, ", "two"]),
        start(1),
        start(3, "tool_use"),
        start(0, text="x"),
        said("x", 3),
        stop(7),
        chunk("b", {"tool_calls": [{"index": 0}]}),
        chunk("b", {"role": "assistant", "content": "One, two"}, "stop"),
        chunk("b", {"reasoning": "Hm"}),
        event({"error": {"message": "no"}}),
        named("error", error={"type": "overloaded_error"}),
        b": hello\n\n",
        b"data: \xff{\n\n",
        b'data: {"choices":[{"delta":{"content":"a","content":"b"}}],"choices":[]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","content":"b"}}]}\n\n',
        b'data: {"choices":[{"delta":\ndata: {"content":"a"}}]}\r\n\r\n',
        b'data: {"choices":[{"delta":null,"role":1}]}\n\n',
        b'data: {"type":"content_block_start","index":1e400}\n\n',
        b'data: {"type":[]}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b"data\n\nevent: x\rid: 1\n\n\n\n",
        b"\r",
        b"\n",
        b"\xef\xbb\xbf",
        b"data: x",
    ]
)
HOSTILE = st.lists(SOME | st.binary(max_size=20), max_size=12).map(b"".join)


def run(
    dialect: Dialect, streams: Sequence[bytes], sizes: Sequence[int], max_held: int = MAX_HELD_BYTES
) -> tuple[bytes, list[object]]:
    """All that the client gets of these attempts, and what is known behind each."""
    subject = Transcript(dialect, request(), max_held_bytes=max_held)
    out = b""
    known: list[object] = []
    for number, data in enumerate(streams):
        if number:
            if not subject.can_continue:
                break
            known.append(subject.continued_request().body)
            subject.begin_attempt()
        for piece in cut(data, sizes):
            out += subject.feed(piece)
            assert subject.held_bytes <= 3 * max_held
        known.append((subject.can_continue, subject.saw_error))
    return out + subject.finish(), known


@settings(max_examples=400)
@example(CHAT, [b"\xef\xbb\xbfdata: {}\r\n\r\n\n", b""], [1], 1000)
@example(CHAT, [b"x" * 50 + b"\r\n\r\n" + DONE, b""], [1], 52)
@example(CHAT, [b"x" * 51 + b"\r\n\r\n" + DONE, b""], [1], 52)
@given(
    st.sampled_from(BOTH),
    st.lists(HOSTILE, min_size=1, max_size=3),
    SIZES,
    st.sampled_from([20, 52, 150, 1000, MAX_HELD_BYTES]),
)
def test_the_cutting_of_the_bytes_does_not_matter_and_no_bytes_are_an_error(
    dialect: Dialect, streams: list[bytes], sizes: list[int], max_held: int
) -> None:
    first = stream(dialect, "a", ["One, ", "two"])
    for start_with in ([], first[:-3]):
        attempts = [b"".join(start_with) + streams[0], *streams[1:]]
        whole = run(dialect, attempts, [1 << 30], max_held)
        assert run(dialect, attempts, sizes, max_held) == whole
        assert run(dialect, attempts, [1], max_held) == whole


@settings(max_examples=200)
@given(st.sampled_from(Dialect), HOSTILE, SIZES, st.sampled_from([20, 1000, MAX_HELD_BYTES]))
def test_one_attempt_passes_byte_for_byte(dialect: Dialect, data: bytes, sizes: list[int], max_held: int) -> None:
    assert run(dialect, [data], sizes, max_held)[0] == data


# --- the official client ----------------------------------------------------------------------------------------------


def test_the_official_client_reads_one_answer() -> None:
    subject = transcript()
    first, second = stream(CHAT, "first", ["One, ", "two"]), stream(CHAT, "second", [", three"])
    out = subject.feed(b"".join(first[:3]) + first[3][:20])
    subject.begin_attempt()
    out += subject.feed(b"".join(second))

    events = [event.data for event in SSEDecoder().iter_bytes(iter([out]))]
    assert events.pop() == "[DONE]"
    chunks = [Chunk.model_validate_json(data) for data in events]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "One, two, three"
    assert {(one.id, one.model) for one in chunks} == {("first", "m-first")}
    assert {one.system_fingerprint for one in chunks} == {"f-first"}
    assert chunks[-1].usage is not None


# --- the seam ---------------------------------------------------------------------------------------------------------

CUT = {
    CHAT: b"".join(stream(CHAT, "first", ["One, ", "two"])[:3]),
    MESSAGES: b"".join(stream(MESSAGES, "first", ["One, ", "two"])[:5]),
}


@pytest.mark.parametrize("dialect", BOTH)
def test_half_an_event_is_held_and_dropped_at_the_seam(dialect: Dialect) -> None:
    subject = transcript(dialect)
    half = b'data: {"choices":[{"delta":{"content":", thr'
    assert subject.feed(CUT[dialect] + half) == CUT[dialect]
    assert subject.held_bytes == len(half)
    assert asked_text(subject) == "One, two"
    subject.begin_attempt()
    assert subject.held_bytes == 0
    client = Client(dialect, CUT[dialect] + subject.feed(b"".join(stream(dialect, "b", [", three"]))))
    assert (client.text, client.ends) == ("One, two, three", 1)


@pytest.mark.parametrize("dialect", BOTH)
def test_a_text_that_the_next_origin_repeats_is_shown_once(dialect: Dialect) -> None:
    for words in (["One, two, three"], ["One, two", ", three"], [*"One, two, three"], ["One, t", "wo, three"]):
        client = gone_on(dialect, CUT[dialect], b"".join(stream(dialect, "b", words)))
        assert client.text == "One, two, three"


@pytest.mark.parametrize("dialect", BOTH)
def test_a_text_that_only_starts_alike_is_shown(dialect: Dialect) -> None:
    for words in (["One, tw", "ice"], ["One", ", ", "t"], [*"One, tw"], ["one, two"], [" One, two"]):
        client = gone_on(dialect, CUT[dialect], b"".join(stream(dialect, "b", words)))
        assert client.text == "One, two" + "".join(words)


def test_no_event_is_left_of_what_was_repeated_nor_of_what_was_held_when_the_next_was_cut() -> None:
    for words in (["One, two"], ["One", ", two"], ["One", ", t"]):
        subject = transcript()
        subject.feed(CUT[CHAT])
        subject.begin_attempt()
        assert subject.feed(b"".join(chunk("b", {"content": word}) for word in words)) == b""
        subject.begin_attempt()
        assert subject.feed(DONE) == DONE

    subject = transcript()
    subject.feed(CUT[CHAT])
    subject.begin_attempt()
    assert subject.feed(b"".join(chunk("b", {"content": word}) for word in ("One", ", two")) + DONE) == DONE


def test_text_that_is_held_goes_before_an_event_that_is_too_long() -> None:
    subject = transcript()
    subject.feed(CUT[CHAT])
    subject.begin_attempt()
    long = b"x" * (MAX_HELD_BYTES + 1)
    out = subject.feed(chunk("b", {"content": "One"}) + long)
    assert out.endswith(long)
    assert Client(CHAT, out.removesuffix(long)).text == "One"


def test_a_byte_order_mark_stands_only_at_the_start_of_each_stream() -> None:
    mark = b"\xef\xbb\xbf"
    text = chunk("a", {"content": "One, two"})
    subject = transcript()
    assert subject.feed(mark + text) == mark + text and may_go_on(subject)
    subject.begin_attempt()
    assert subject.feed(mark + chunk("a", {"content": "!"})) == chunk("a", {"content": "!"})
    assert asked_text(subject) == "One, two!"
    for before in (b"\n", b": x\n\n"):  # there it is a part of the field's name
        subject = transcript()
        assert subject.feed(before + mark + text) == before + mark + text and not may_go_on(subject)


def test_a_short_text_is_not_taken_for_a_repetition() -> None:
    client = gone_on(CHAT, chunk("a", {"content": "10"}), b"".join(stream(CHAT, "b", ["10", "1"])))
    assert client.text == "10101"


def test_nothing_but_its_length_is_kept_of_what_may_be_repeated() -> None:
    subject = transcript()
    subject.feed(b"".join(chunk("a", {"content": "x" * 1000}) for _ in range(1000)))
    subject.begin_attempt()
    assert fed(subject, b"".join(chunk("b", {"content": "x" * 100}) for _ in range(9999))) == b""
    assert subject.held_bytes < 1000
    assert Client(CHAT, subject.feed(chunk("b", {"content": "x" * 100 + "!"}))).text == "!"


def test_what_the_client_had_begun_and_the_next_origin_repeats_is_not_shown() -> None:
    own = {"messages": [ASKED, {"role": "assistant", "content": "Well: "}]}
    subject = transcript(CHAT, **own)
    subject.feed(CUT[CHAT])
    assert asked_text(subject) == "Well: One, two"
    client = gone_on(CHAT, CUT[CHAT], b"".join(stream(CHAT, "b", ["Well: One", ", two, three"])), **own)
    assert client.text == "One, two, three"


@pytest.mark.parametrize("again", ["", " ", " \n"])
def test_white_space_that_messages_leave_out_is_shown_once(again: str) -> None:
    first = b"".join(stream(MESSAGES, "a", ["One,", " \n"])[:5])
    for words in ([again + "two"], [*again, "two"], ["One," + again, "two"]):
        client = gone_on(MESSAGES, first, b"".join(stream(MESSAGES, "b", words)))
        assert client.text == "One, \ntwo"


@pytest.mark.parametrize("dialect", BOTH)
def test_a_next_origin_with_nothing_to_add_ends_the_answer(dialect: Dialect) -> None:
    events = stream(dialect, "b", [])
    if dialect is MESSAGES:  # as it is sent when there is no text at all: no block
        events = [events[0], *events[-2:]]
    client = gone_on(dialect, CUT[dialect], b"".join(events))
    assert (client.text, client.roles, client.ends) == ("One, two", 1, 1)
    assert client.blocks == (["closed"] if dialect is MESSAGES else [])


def test_a_block_of_text_that_was_ended_is_followed_by_one_of_its_own() -> None:
    client = gone_on(MESSAGES, CUT[MESSAGES] + stop(), b"".join(stream(MESSAGES, "b", [", three"])))
    assert (client.text, client.blocks) == ("One, two, three", ["closed", "closed"])


def test_a_tool_of_the_next_origin_gets_the_next_index_behind_our_ended_block() -> None:
    tool = [start(0, "tool_use", id="x"), named("content_block_delta", index=0, delta={"partial_json": "{}"}), stop()]
    end = [named("message_delta", delta={"stop_reason": "tool_use"}), named("message_stop")]
    text = [start(), said(", three"), stop()]
    moved = [event.replace(b'"index": 0', b'"index": 1') for event in tool]
    for events in (tool, [*text, *moved]):
        subject = transcript(MESSAGES)
        out = subject.feed(CUT[MESSAGES])
        subject.begin_attempt()
        out += subject.feed(stream(MESSAGES, "b", [])[0] + b"".join(events))
        assert not subject.can_continue
        client = Client(MESSAGES, out + subject.feed(b"".join(end)))
        assert (client.blocks, client.ends) == (["closed", "closed"], 1)


def test_a_role_beside_the_text_is_taken_out_and_all_else_stays_as_it_came() -> None:
    subject = transcript()
    subject.feed(b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"One, two"}}]}\n\n')
    subject.begin_attempt()
    fitted = subject.feed(
        b'id: 7\ndata: { "id" : "b", "x" : 1.10,"choices":[ {"delta":{"role":"assistant","content":"\\u0041","y":[ ]},'
        b' "index":0}], "usage":null}\r\n\r\n'
    )
    assert fitted == (
        b'id: 7\ndata: { "id" : "a", "x" : 1.10,"choices":[{"delta":{"content":"\\u0041","y":[ ]},'
        b' "index":0}], "usage":null}\n\n'
    )


def test_thoughts_pass_once_and_comments_always() -> None:
    thought, comment = chunk("b", {"reasoning_content": "Hm"}), b": ping\n\n"
    subject = transcript()
    assert subject.feed(thought) == thought and not subject.can_continue
    subject.feed(CUT[CHAT])
    subject.begin_attempt()
    assert subject.feed(comment + thought + comment) == comment * 2
    assert Client(CHAT, subject.feed(chunk("b", {"content": "!"}))).text == "!"


# --- when it can be gone on from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", BOTH)
def test_a_text_so_far_can_be_gone_on_from_until_its_end(dialect: Dialect) -> None:
    events = stream(dialect, "a", ["One, ", "two"])
    subject = transcript(dialect)
    can = []
    for one in events:
        assert subject.feed(one) == one
        can.append(subject.can_continue)
    assert can == (
        [False, True, True, False, False, False] if dialect is CHAT else [False] * 3 + [True] * 3 + [False] * 2
    )


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(chunk("a", {"tool_calls": [{"index": 0}]}), id="a tool"),
        pytest.param(chunk("a", {"function_call": {"name": "f"}}), id="a function"),
        pytest.param(chunk("a", {"refusal": "No"}), id="a refusal"),
        pytest.param(chunk("a", {"audio": {"data": ""}}), id="sound"),
        pytest.param(chunk("a", {"content": [{"type": "text"}]}), id="a text in blocks"),
        pytest.param(chunk("a", {"content": "!"}, "length"), id="an end beside a text"),
        pytest.param(event({"choices": [{"index": 0, "logprobs": {"content": []}}]}), id="log probabilities"),
        pytest.param(event({"choices": [{"index": 1, "delta": {"content": "x"}}]}), id="another choice"),
        pytest.param(event({"choices": [{}, {}]}), id="two choices"),
        pytest.param(event({"x": 1}), id="something else"),
        pytest.param(event(b"{"), id="no JSON"),
        pytest.param(event(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}'), id="half a character"),
        pytest.param(DONE, id="the end"),
    ],
)
def test_a_chat_that_was_more_than_a_text_cannot_be_gone_on_from(other: bytes) -> None:
    subject = transcript()
    assert subject.feed(CUT[CHAT] + other + b"data") == CUT[CHAT] + other + b"data"
    assert not subject.can_continue
    assert subject.feed(CUT[CHAT]) == CUT[CHAT] and not subject.can_continue


@pytest.mark.parametrize(
    "other",
    [
        start(1, "tool_use"),
        start(1, "thinking"),
        start(1, text="x"),
        said("x", 1),
        stop(1),
        named("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {}}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": 1}),
        named("message_delta", delta={"stop_reason": "max_tokens"}),
        named("message_stop"),
        named("something_new"),
    ],
)
def test_messages_that_were_more_than_a_text_cannot_be_gone_on_from(other: bytes) -> None:
    subject = transcript(MESSAGES)
    assert subject.feed(CUT[MESSAGES] + other + b"data") == CUT[MESSAGES] + other + b"data"
    assert not subject.can_continue


def test_what_cannot_be_gone_on_from_is_not_held_back() -> None:
    for subject in (
        transcript(n=2),
        transcript(Dialect.COMPLETIONS),
        transcript(MESSAGES, thinking={"type": "enabled"}),
    ):
        assert subject.feed(b"dat") == b"dat"
        assert subject.feed(CUT[CHAT]) == CUT[CHAT]
        assert not subject.can_continue


def test_nothing_but_white_space_is_no_text_to_go_on_from_in_messages() -> None:
    subject = transcript(MESSAGES)
    subject.feed(start() + said(" \n"))
    assert not subject.can_continue
    subject.feed(said("x"))
    assert may_go_on(subject)


# --- failures and bounds ----------------------------------------------------------------------------------------------

ERROR = {
    CHAT: event({"error": {"message": "Overloaded", "code": 529}}),
    MESSAGES: named("error", error={"type": "overloaded_error"}),
}


@pytest.mark.parametrize("dialect", BOTH)
def test_an_error_behind_text_is_held_back_until_it_is_decided(dialect: Dialect) -> None:
    subject = transcript(dialect)
    assert subject.feed(CUT[dialect] + ERROR[dialect] + DONE) == CUT[dialect]
    assert subject.saw_error and subject.can_continue
    assert subject.feed(b"data: x") == b""
    assert subject.finish() == ERROR[dialect] + DONE + b"data: x"
    assert not may_go_on(subject)

    subject = transcript(dialect)
    out = subject.feed(CUT[dialect] + ERROR[dialect] + DONE)
    subject.begin_attempt()
    assert not subject.saw_error
    assert Client(dialect, out + subject.feed(b"".join(stream(dialect, "b", ["!"])))).text == "One, two!"


@pytest.mark.parametrize("dialect", BOTH)
def test_an_error_before_any_text_passes(dialect: Dialect) -> None:
    subject = transcript(dialect)
    assert subject.feed(ERROR[dialect]) == ERROR[dialect]
    assert not subject.saw_error and not subject.can_continue


def test_what_is_behind_an_error_is_held_up_to_the_bound() -> None:
    subject = transcript()
    subject.feed(CUT[CHAT] + ERROR[CHAT])
    rest = b"x" * MAX_HELD_BYTES
    assert subject.feed(rest) == ERROR[CHAT] + rest
    assert subject.held_bytes == 0 and not subject.can_continue


def test_the_end_of_a_stream_without_its_blank_line_is_given_at_the_end() -> None:
    subject = transcript()
    subject.feed(CUT[CHAT])
    assert subject.feed(b"data: [DONE]\n") == b""
    assert subject.finish() == b"data: [DONE]\n"

    subject = transcript()
    subject.feed(CUT[CHAT])
    subject.begin_attempt()
    assert subject.feed(b"data: [DONE]\n") == b""
    assert subject.finish() == DONE


def test_of_a_next_attempt_that_is_not_gone_on_from_what_can_be_read_is_given() -> None:
    subject = transcript()
    subject.feed(CUT[CHAT])
    subject.begin_attempt()
    assert subject.feed(chunk("b", {"content": "One"}) + b'data: {"choices":[') == b""
    assert Client(CHAT, subject.finish()).text == "One"


@pytest.mark.parametrize("size", [1000, MAX_HELD_BYTES, 1 << 21])
def test_a_longer_event_than_is_held_passes_as_it_comes(size: int) -> None:
    long = chunk("a", {"content": "x" * (1 << 20)})
    subject = transcript()
    subject.feed(CUT[CHAT])
    out = b""
    for piece in cut(long, [size]):
        out += subject.feed(piece)
        assert subject.held_bytes <= MAX_HELD_BYTES
    assert out == long and not subject.can_continue


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_bound_is_the_same_in_any_cutting(end: bytes, more: int) -> None:
    line = b": " + b"x" * (998 - len(end) + more)
    for sizes in ([1], [1 << 30]):
        subject = Transcript(CHAT, request(), max_held_bytes=1000)
        subject.feed(CUT[CHAT])
        assert fed(subject, line + end * 2, sizes) == line + end * 2
        assert subject.can_continue is (more <= 0)


def test_a_text_that_is_too_long_is_not_kept() -> None:
    subject = Transcript(CHAT, request(), max_text_bytes=10)
    subject.feed(chunk("a", {"content": "ä" * 5}))
    assert may_go_on(subject)
    subject.feed(chunk("a", {"content": "!"}))
    assert not may_go_on(subject)


def test_many_small_pieces_of_a_long_event_take_no_longer_than_they_are_many() -> None:
    long = event(b'{"choices":[],"x":"' + b"x" * 60_000 + b'"}')
    subject = transcript()
    began = time.perf_counter()
    assert fed(subject, CUT[CHAT] + long, [1]) == CUT[CHAT] + long
    assert time.perf_counter() - began < 2  # some tens of milliseconds; quadratic would be half a minute
    assert subject.can_continue
