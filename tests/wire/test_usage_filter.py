"""A stream without what was asked for in its client's place: what goes, and that all else stays, in any cutting.

Run as a program, it says what an event costs: `python -m tests.wire.test_usage_filter`.
"""

import itertools
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy.wire.event_filter import MAX_HELD_BYTES
from trioproxy.wire.usage_filter import UsageFilter

BOM = b"\xef\xbb\xbf"
DONE = b"data: [DONE]\n\n"
TELLS = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
WORD = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"Hi"}}]%s}\n\n'
PLAIN, NULL = WORD % b"", WORD % b',"usage":null'


def filtered(stream: bytes, sizes: list[int], max_held_bytes: int = MAX_HELD_BYTES) -> bytes:
    one = UsageFilter(max_held_bytes)
    out: list[bytes] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return b"".join([*out, one.finish()])
        out.append(one.feed(stream[at : at + size]))
        at += size
    raise AssertionError


@pytest.mark.parametrize(
    ("stream", "left"),
    [
        (PLAIN + TELLS + DONE, PLAIN + DONE),
        (NULL + NULL + TELLS + DONE, PLAIN + PLAIN + DONE),
        (b'data: {"usage":null,"id":"x"}\n\n', b'data: {"id":"x"}\n\n'),
        (b'data: {"a":1, "usage" : null , "id":"x"}\n\n', b'data: {"a":1 , "id":"x"}\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data:{"a":1,"usage":null}\r\n\r\n' + DONE, b'data:{"a":1}\r\n\r\n' + DONE),
        (b": hi\nid: 7\ndata: {\"a\":1,\"usage\":null}\nretry: 1\n\n", b": hi\nid: 7\ndata: {\"a\":1}\nretry: 1\n\n"),
        (b'data: {"usage":{"x":1},"choices":[ ]}\n\n\n\n' + DONE, DONE),
        (b'data: {"choices":[],\ndata: "usage":{"x":1}}\n\n' + DONE, DONE),
        (BOM + NULL, BOM + PLAIN),
        (PLAIN + TELLS[:-2], PLAIN),
        (NULL[:-1], PLAIN[:-1]),
    ],
)  # fmt: skip
def test_what_was_added_is_left_out(stream: bytes, left: bytes) -> None:
    for size in (1, 2, 3, 7, len(stream)):
        assert filtered(stream, [size]) == left


STAYS = [
    pytest.param(PLAIN + DONE, id="nothing of it"),
    pytest.param(WORD % b',"usage":{"prompt_tokens":3}', id="usage beside choices"),
    pytest.param(b'data: {"choices":[],"prompt_filter_results":[]}\n\n', id="no choices and no usage"),
    pytest.param(b'data: {"usage":{"prompt_tokens":3}}\n\n', id="usage alone, not a chunk"),
    pytest.param(b'data: {"choices":[{"usage":null}]}\n\n', id="not at the top"),
    pytest.param(b'data: {"choices":[{"index":0,"usage":null}],"id":"x"}\n\n', id="last, not at the top"),
    pytest.param(b'data: {"a":"\\"usage\\":null"}\n\n', id="in a text"),
    pytest.param(b'data: {"usage":null,"usage":null}\n\n', id="twice"),
    pytest.param(b'data: {"usage":null\n\n', id="no JSON"),
    pytest.param(b'data: ["usage",null]\n\n', id="no object"),
    pytest.param(b': {"usage":null}\n\n', id="a comment"),
    pytest.param(b'event: {"usage":null}\n\n', id="no data"),
    pytest.param(b'data: {"a":1,\ndata: "usage":null}\n\n', id="in several lines"),
    pytest.param(b'data: {"choices":[],"us', id="half an event"),
    pytest.param(b"\n\n\r\n: x\n\n" + PLAIN + b"\n\n\n", id="blank lines"),
]


@pytest.mark.parametrize("stream", STAYS)
def test_all_else_stays(stream: bytes) -> None:
    for size in (1, 2, 5, len(stream)):
        assert filtered(stream, [size]) == stream


def test_an_event_passes_as_soon_as_it_is_whole() -> None:
    one = UsageFilter()
    assert one.feed(PLAIN) == PLAIN
    assert one.feed(NULL[:-1]) == b""
    assert (one.shows_whole_events, one.held_bytes) == (True, len(NULL) - 1)
    assert one.feed(NULL[-1:] + TELLS + PLAIN[:9]) == PLAIN
    assert (one.feed(PLAIN[9:] + DONE), one.left_out) == (PLAIN + DONE, 1)


def test_an_event_too_long_to_be_waited_for_passes_as_it_comes() -> None:
    one = UsageFilter(50)
    assert one.feed(b"data: " + b"x" * 60) == b"data: " + b"x" * 60
    assert (one.shows_whole_events, one.held_bytes) == (False, 0)
    assert one.feed(b'"usage":null\n') == b'"usage":null\n'
    assert one.feed(b"\ndata: 1") == b"\n"
    assert one.shows_whole_events
    assert one.feed(b"\n\n") == b"data: 1\n\n"


# --- any stream, any cutting ------------------------------------------------------------------------------------------

VALUE = st.sampled_from([b"1", b'"\\"usage\\":null"', b'"\xe2\x80\xa8"', b'{"usage":null}', b"[ ]", b"null", b'"x"'])
NAME = st.sampled_from(["id", "object", "model", "x usage"])
BEFORE = st.lists(st.sampled_from([b": usage", b"id: 1", b"event: x"]), max_size=2)
NO_CHUNKS = st.sampled_from([b"data: [DONE]", b'data: {"usage":null', b"data", b': "usage":null', b"x"])


def member(name: str, value: bytes, space: bytes = b"") -> bytes:
    return json.dumps(name).encode() + space + b":" + space + value


@st.composite
def events(draw: st.DrawFn, end: bytes) -> tuple[bytes, bytes]:
    """An event, and what is to be left of it."""

    def written(data: bytes) -> bytes:
        return b"".join(line + end for line in [*before, data]) + blank

    before, blank = draw(BEFORE), end * draw(st.integers(1, 3))
    space = draw(st.sampled_from([b"", b" "]))
    members = [member(name, draw(VALUE), space) for name in draw(st.lists(NAME, unique=True, max_size=3))]
    plain = b"data: {" + b",".join(members) + b"}"
    match draw(st.sampled_from(["null", "tells", "other", "no chunk"])):
        case "null":
            members.insert(draw(st.integers(0, len(members))), member("usage", b"null", space))
            return written(b"data: {" + b",".join(members) + b"}"), written(plain)
        case "tells":
            members += [member("choices", b"[]"), member("usage", b'{"prompt_tokens":1}')]
            return written(b"data: {" + b",".join(draw(st.permutations(members))) + b"}"), b""
        case "other":
            return written(plain), written(plain)
    line = draw(NO_CHUNKS)
    return written(line), written(line)


EVENTS = st.sampled_from([b"\n", b"\r\n", b"\r"]).flatmap(lambda end: st.lists(events(end), max_size=6))
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(max_examples=300)
@given(EVENTS, SIZES)
def test_nothing_but_that_is_gone_in_any_cutting(stream: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    assert filtered(b"".join(event for event, _ in stream), sizes) == b"".join(left for _, left in stream)


PARTS = [NULL, TELLS, PLAIN, DONE, BOM, b"\n", b"\r", b"\r\n", b": x", NULL[:20], b'"usage":null', b"data: x"]


@settings(max_examples=300)
@example(b"\n\n" + BOM + NULL, [2], 65536)
@example(TELLS[:-1] + b"\r\n\r\n\n" + DONE, [1], 65536)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join), SIZES, st.sampled_from([20, 70, 65536]))
def test_how_a_stream_is_cut_does_not_matter(stream: bytes, sizes: list[int], max_held_bytes: int) -> None:
    assert filtered(stream, sizes, max_held_bytes) == filtered(stream, [max(1, len(stream))], max_held_bytes)


@settings(max_examples=200)
@given(st.binary(max_size=200), SIZES, st.sampled_from([20, 65536]))
def test_it_never_raises_and_holds_no_more_than_it_may(stream: bytes, sizes: list[int], max_held_bytes: int) -> None:
    one = UsageFilter(max_held_bytes)
    for at in range(0, len(stream), sizes[0]):
        one.feed(stream[at : at + sizes[0]])
        assert one.held_bytes <= max_held_bytes + 2
    one.finish()


def main() -> None:
    for name, block in (("without", PLAIN), ("with null", NULL)):
        one = UsageFilter()
        started = time.perf_counter()
        for _ in range(100_000):
            one.feed(block)
        print(f"an event {name}: {(time.perf_counter() - started) * 10:.2f} us")


if __name__ == "__main__":
    main()
