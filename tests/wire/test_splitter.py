"""The splitter: its events in any cutting, beside a plain reading of the whole stream; what it keeps, what it costs."""

import itertools
import re
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy.wire import splitter
from trioproxy.wire.splitter import Splitter

BOM = b"\xef\xbb\xbf"
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
PLENTY = 1 << 20

Blocks = list[list[bytes]]


def meaning(stream: bytes) -> Blocks:
    """What the standard reads in a stream: the lines of each event, comments left out, a last unfinished one too."""
    text = stream.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    blocks = [[line for line in block.split(b"\n") if line and line[:1] != b":"] for block in text.split(b"\n\n")]
    return [lines for lines in blocks if lines]


class Plain(NamedTuple):
    """A whole stream, taken apart with all of it at hand."""

    events: list[bytes]
    last: bytes | None
    is_overlong: bool


def split_plainly(stream: bytes, max_bytes: int) -> Plain:
    lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", stream.removeprefix(BOM))
    events: list[bytes] = []
    block: list[bytes] = []
    for at, line in enumerate(lines):
        if line.strip(b"\r\n"):
            block.append(line)
            continue
        if not block:
            continue
        blank = b"\r" if line == b"\r\n" and block[-1][-1:] == b"\r" else line
        if line == b"\r" and block[-1][-1:] == b"\n" and at == len(lines) - 1:
            block.append(line)  # a LF may follow
            break
        if sum(map(len, block)) + len(blank) > max_bytes:
            return Plain(events, None, True)
        event = joined(block, blank)
        if event:
            events.append(event)
        block = []
    if sum(map(len, block)) > max_bytes:
        return Plain(events, None, True)
    if not block:
        return Plain(events, None, False)
    if block[-1] == b"\r":
        return Plain(events, joined(block[:-1], b"\r"), False)
    ends = [re.search(rb"[\r\n]+\Z", line) for line in block]
    if ends[-1] is None:
        block[-1] += ends[0].group() if ends[0] else b"\n"
    end = re.search(rb"[\r\n]+\Z", block[-1])
    assert end is not None
    return Plain(events, joined(block, end.group()), False)


def joined(lines: list[bytes], blank: bytes) -> bytes | None:
    kept = [line for line in lines if line[:1] != b":"]
    if kept and kept[-1][-1:] == b"\r" and blank == b"\n":
        blank = b"\r"
    return b"".join(kept) + blank if kept else None


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The stream in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def split(stream: bytes, sizes: list[int], max_bytes: int = PLENTY) -> Plain:
    one = Splitter(max_bytes)
    events = [event for piece in cut(stream, sizes) for event in one.feed(piece)]
    last = one.finish()
    return Plain(events, last, one.is_overlong)


LINE = st.sampled_from(
    [
        *[b"data: x", b"data:y", b"data", b"data: ", b"event: ping", b"id: 7", b"id:", b"retry: 10", b"what: x"],
        *[b":", b": keep-alive", b":data: x", b" : x", b" data: x", BOM + b"data: x", BOM, BOM + b": x", b"\xff"],
        *["data: \u2028 ä \x85".encode(), b'data: {"a":\xc3}', b"data: " + b"x" * 40],
    ]
)
PLAIN_EVENT = st.sampled_from([CONTENT, DONE, b"event: a\ndata: b\n\n", b"id: 7\ndata: x\n\n", b": keep-alive\n\n"])


@st.composite
def event_streams(draw: st.DrawFn) -> bytes:
    """A stream of events as origins write them, and as they had better not."""
    changes = draw(st.sampled_from(["never", "by event", "by line"]))  # the line ending
    ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
    end = draw(ends)
    pieces = [draw(st.sampled_from([b"", b"", b"\n", BOM, BOM + b"\r\n", b": hello\r\n\r\n"]))]
    for lines in draw(st.lists(st.lists(LINE, min_size=1, max_size=4), max_size=6)):
        end = draw(ends) if changes == "by event" else end
        for line in [*lines, *[b""] * draw(st.sampled_from([1, 1, 1, 2, 3]))]:
            pieces += (line, draw(ends) if changes == "by line" else end)
        pieces.append(b"".join(draw(st.lists(PLAIN_EVENT, max_size=3))))
    stream = b"".join(pieces)
    return stream[: len(stream) - draw(st.sampled_from([0, 0, 1, 2, 3, 5]))]


FRAGMENTS = [b"\r", b"\n", b"\r\n", b"\n\n", b"data: x", b":", b": x", b"x", b"\xef", b"\xbb", b"\xbf", BOM]
HOSTILE = st.binary(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join)
STREAM = event_streams() | HOSTILE | st.lists(PLAIN_EVENT, max_size=8).map(b"".join)
SIZES = st.lists(st.integers(1, 40) | st.integers(40, 400), min_size=1, max_size=8)
MAX_BYTES = st.sampled_from([4, 15, 50, PLENTY])


# --- the events -------------------------------------------------------------------------------------------------------


@settings(max_examples=400)
@example(b"data: x\r\n\r\ndata: y\r\n\r\n", [10], PLENTY)
@example(b"data: x\r\r\ndata: y\r\r\n", [9], PLENTY)
@example(b"data: x\n\r\ndata: y\n\r", [9], PLENTY)
@example(b"data: x\r\n: y\r\r\n", [1], PLENTY)
@example(DONE + b": x\n\n" + DONE, [100], PLENTY)
@example(DONE + b"\n" + DONE, [100], PLENTY)
@example(b"x" * 50, [10], 50)
@example(DONE * 3, [len(DONE)], len(DONE))
@example(DONE * 3, [len(DONE)], len(DONE) - 1)
@example(CONTENT + DONE + CONTENT, [len(CONTENT + DONE)], len(DONE))
@given(STREAM, SIZES, MAX_BYTES)
def test_the_events_are_the_same_in_any_cutting(stream: bytes, sizes: list[int], max_bytes: int) -> None:
    plain = split_plainly(stream, max_bytes)
    for pieces in (sizes, [1], [len(stream) + 1]):
        assert split(stream, pieces, max_bytes) == plain


@settings(max_examples=200)
@given(STREAM, SIZES, st.data())
def test_a_reader_that_joins_anywhere_reads_the_events_from_there_on(
    stream: bytes, sizes: list[int], data: st.DataObject
) -> None:
    events, last, _ = split(stream, sizes)
    events = events if last is None else [*events, last]
    blocks = meaning(stream)
    assert len(events) == len(blocks)
    start = data.draw(st.integers(0, len(events)))
    # A line that begins with a byte order mark is none of ours to mend, if it comes to stand at the start.
    first = events[start] if start < len(events) else b""
    if not first.startswith(BOM):
        assert meaning(b"".join(events[start:])) == blocks[start:]
        assert meaning(b": keep-alive\n\n".join(events[start:])) == blocks[start:]


@settings(max_examples=200)
@given(STREAM)
def test_an_event_is_given_with_the_byte_that_makes_it_whole(stream: bytes) -> None:
    one, events = Splitter(PLENTY), list[bytes]()
    for at in range(len(stream)):
        events += one.feed(stream[at : at + 1])
        assert events == split_plainly(stream[: at + 1], PLENTY).events


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_pass_byte_for_byte_whatever_ends_their_lines(end: bytes) -> None:
    events = [
        b"event: a" + end + b"data:b" + end + b"data: c:" + end * 2,
        b"id: 1" + end + b"retry: 7" + end + b"unknown" + end * 2,
        b"data: [DONE]" + end * 2,
    ]
    for size in (1, 7, 1000):
        assert split(b"".join(events), [size]) == (events, None, False)
    one = Splitter(PLENTY)
    assert [one.feed(event) for event in events] == [[event] for event in events]  # none waits for the next


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b": keep-alive\n\n" + DONE, [DONE]),
        (DONE + b":\n:\n\n" + DONE, [DONE, DONE]),
        (b": a\ndata: x\n: b\ndata: y\n:\n\n", [b"data: x\ndata: y\n\n"]),
        (b":a\r\ndata: x\r\n:b\r\n\r\n", [b"data: x\r\n\r\n"]),
        (b":a\rdata: x\r:b\r\r", [b"data: x\r\r"]),
        (b"data: x\r: b\n\n", [b"data: x\r\r"]),  # what is left must not become one CRLF
        (b"data: x: y\n\ndata\n\n", [b"data: x: y\n\n", b"data\n\n"]),
    ],
)
def test_comments_are_left_out_and_nothing_else(stream: bytes, events: list[bytes]) -> None:
    for size in (1, 5, 1000):
        assert split(stream, [size]) == (events, None, False)


def test_blank_lines_between_events_are_no_part_of_them() -> None:
    for size in (1, 5, 1000):
        assert split(b"\n\r\n" + DONE + b"\n\n\n" + DONE + b"\r\r\n\n", [size]).events == [DONE, DONE]


def test_a_byte_order_mark_is_taken_off_the_start_and_nowhere_else() -> None:
    for size in (1, 2, 3, 4, 1000):
        assert split(BOM + DONE + BOM + DONE, [size]).events == [DONE, BOM + DONE]
        assert split(BOM + b": x\n\n" + DONE, [size]).events == [DONE]
        assert split(DONE + BOM + DONE, [len(DONE), size]).events == [DONE, BOM + DONE]
        assert split(BOM, [size]) == ([], None, False)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "last"),
    [
        (b"", None),
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data: [DONE]\n", b"data: [DONE]\n\n"),
        (b"data: [DONE]\r", b"data: [DONE]\r\r"),
        (b"data: [DONE]\r\n", b"data: [DONE]\r\n\r\n"),
        (b"data: [DONE]\r\n\r", b"data: [DONE]\r\n\r"),
        (b"event: x\r\ndata: y", b"event: x\r\ndata: y\r\n\r\n"),
        (b"event: x\rdata: y", b"event: x\rdata: y\r\r"),
        (b": x", None),
        (b": x\n", None),
        (b"data: y\n: x", b"data: y\n\n"),
        (b"\xef\xbb", b"\xef\xbb\n\n"),  # half a byte order mark is none
    ],
)
@pytest.mark.parametrize("before", [b"", DONE], ids=["alone", "behind another"])
def test_a_last_event_without_its_blank_line_gets_what_is_missing(
    before: bytes, rest: bytes, last: bytes | None
) -> None:
    for size in (1, 1000):
        one = Splitter(PLENTY)
        assert [event for piece in cut(before + rest, [size]) for event in one.feed(piece)] == [before] * bool(before)
        assert one.finish() == last
        assert one.finish() is None
        assert one.kept_bytes == 0


# --- too long, hostile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_nothing_is_given_from_an_event_on_that_is_too_long(size: int) -> None:
    one = Splitter(len(DONE))
    given_before = [event for piece in cut(DONE * 2, [size]) for event in one.feed(piece)]
    assert (given_before, one.is_overlong) == ([DONE] * 2, False)
    given_after = [event for piece in cut(b"data: [DONE]x\n\n" + DONE * 3, [size]) for event in one.feed(piece)]
    assert (given_after, one.is_overlong) == ([], True)
    assert (one.feed(DONE), one.feed(b": x\r\n\r\n" + DONE), one.kept_bytes) == ([], [], 0)
    assert (one.finish(), one.is_overlong, one.kept_bytes) == (None, True, 0)


def test_an_event_too_long_in_the_middle_of_a_piece_ends_it_there() -> None:
    assert split(DONE * 2 + CONTENT + DONE, [1000], len(DONE)) == ([DONE] * 2, None, True)


@settings(max_examples=200)
@given(STREAM, SIZES, MAX_BYTES)
def test_it_keeps_no_more_than_it_may_and_never_raises(stream: bytes, sizes: list[int], max_bytes: int) -> None:
    one = Splitter(max_bytes)
    for piece in cut(stream, sizes):
        one.feed(piece)
        one.feed(b"")
        assert one.kept_bytes <= max_bytes
    one.finish()
    one.finish()


@pytest.mark.parametrize(
    "piece", [b"x" * 4096, b"\n" * 4096, b"data\r" * 800, b"\r\n" * 2048, BOM * 1300, b":\n:" * 1300, b": x\n\n" * 800]
)
def test_hostile_megabytes_take_no_memory(piece: bytes) -> None:
    one = Splitter(1 << 16)
    one.feed(CONTENT)
    tracemalloc.start()
    for _ in range(300):
        one.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 16


# --- linear work ------------------------------------------------------------------------------------------------------


class Counting:
    """A compiled pattern that counts the bytes it is given."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.scanned = 0

    def finditer(self, text: bytes | bytearray, start: int = 0) -> Iterator[re.Match[bytes]]:
        self.scanned += len(text) - start
        return self._pattern.finditer(text, start)

    def findall(self, text: bytes | bytearray) -> list[bytes]:
        self.scanned += len(text)
        return self._pattern.findall(text)


def counted_patterns(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    patterns = {name: Counting(getattr(splitter, name)) for name in ("_BORDER", "_LINE")}
    for name, pattern in patterns.items():
        monkeypatch.setattr(splitter, name, pattern)
    return list(patterns.values())


@pytest.mark.parametrize(("length", "size"), [(64 << 10, 1), (4 << 20, 1 << 10)], ids=["byte by byte", "in kilobytes"])
@pytest.mark.parametrize("line", [b"data: xxxx xxxx\n", b"data: xxxx xxxx\r\n", b": xxxx\n"])
def test_the_patterns_see_each_byte_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch, length: int, size: int, line: bytes
) -> None:
    patterns = counted_patterns(monkeypatch)
    stream = line * (length // len(line)) + b"data: x\n\n"
    assert len(split(stream, [size], len(stream)).events) == 1
    assert 0 < sum(pattern.scanned for pattern in patterns) < 6 * len(stream)


def test_events_that_come_whole_are_not_looked_at_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = counted_patterns(monkeypatch)
    one = Splitter(PLENTY)
    for events in (1, 1, 7, 1000):
        assert one.feed(CONTENT * events) == [CONTENT] * events
    assert sum(pattern.scanned for pattern in patterns) == 0
    one.feed((CONTENT * 1000)[:-10])
    assert one.feed(CONTENT[-10:] + CONTENT * 1000) == [CONTENT] * 1001
    assert 0 < sum(pattern.scanned for pattern in patterns) < 4 * len(CONTENT)  # only what was cut
