"""The bytes of an answer, and what its events say."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioproxy.bench.events import MAX_EVENT_BYTES, Chunk, EventReader, TooLong, read_chunk, read_models

EVENTS = [b'{"a": 1}', b"two\nlines", b"", b"[DONE]"]


def written(end: str) -> bytes:
    """The events, with comments between them and fields that nobody asks for."""
    text = ""
    for data in EVENTS:
        content = [f"data: {line}" for line in data.decode().split("\n")]
        lines = [": a comment", "", "event: e", "id: 7", *content, "", ""]
        text += end.join(lines)
    return text.encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@example(cuts=list(range(400)))
@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(end: str, cuts: list[int]) -> None:
    data = written(end)
    borders = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    reader = EventReader()
    found = [event for at, to in pairwise(borders) for event in reader.feed(data[at:to])]
    assert found == EVENTS


def test_an_event_is_there_with_its_last_byte() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\r\n\r") == [b"a"]
    assert reader.feed(b"\ndata: b\r\n\r\n") == [b"b"]
    assert reader.feed(b"data: c") == []


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"])
def test_an_event_without_an_end_is_given_up(piece: bytes) -> None:
    reader = EventReader()

    def feed_on() -> None:
        for _ in range(2 * MAX_EVENT_BYTES // len(piece)):
            reader.feed(piece)

    with pytest.raises(TooLong):
        feed_on()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"choices": [{"delta": {"content": "hi"}}]}', Chunk("hi")),
        (b'{"choices": [{"message": {"content": "hi"}}], "usage": {"completion_tokens": 3}}', Chunk("hi", 3)),
        (b'{"choices": [{"delta": {"role": "assistant", "content": null}}]}', Chunk()),
        (b'{"choices": [], "usage": {"completion_tokens": 0}}', Chunk(tokens=0)),
        (b'{"error": {"message": "No.", "type": "t", "code": "c"}}', Chunk(error="c", message="No.")),
        (b'{"error": {"message": null, "type": "t", "code": null}}', Chunk(error="t")),
        (b'{"error": {"code": 503}}', Chunk(error="503")),
        (b'{"error": {}}', Chunk(error="error")),
        (b'{"error": "No."}', Chunk(error="error", message="No.")),
        (b"{}", Chunk()),
        (b"[]", Chunk(is_readable=False)),
        (b"<html>", Chunk(is_readable=False)),
        (b"\xff", Chunk(is_readable=False)),
        (b"[" * 100_000, Chunk(is_readable=False)),
    ],
)
def test_what_is_said_is_read(data: bytes, said: Chunk) -> None:
    assert read_chunk(data) == said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "message", "content", "usage", "completion_tokens", "error", "code"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nothing_that_is_said_is_too_much(value: object) -> None:
    data = json.dumps(value).encode()
    assert isinstance(read_chunk(data), Chunk)
    assert isinstance(read_models(data), list)


def test_the_names_of_a_list_of_models_are_read() -> None:
    assert read_models(b'{"data": [{"id": "a"}, {"id": "b"}, 7, {"id": 8}]}') == ["a", "b"]
    assert read_models(b"nothing") == []
