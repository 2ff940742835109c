"""The framer: where events end, in any cutting of the bytes, beside a naive reader of the standard; what it keeps."""

import itertools
import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy.wire import sse
from trioproxy.wire.dialect import Dialect, StreamWatch
from trioproxy.wire.sse import MAX_EVENT_BYTES, Framer, Watch, fields

BOM = b"\xef\xbb\xbf"
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Reader:
    """Reads an event stream as WHATWG HTML 9.2.6 says it, one byte after the other and line by line."""

    def __init__(self) -> None:
        self.events: list[tuple[bytes, bytes | None]] = []
        self.line_end = b"\n"
        self.saw_id = False
        self._count = 0
        self._line = b""
        self._lines: list[tuple[bytes, bytes]] = []  # the event under way: each line, and what ended it
        self._was_cr = False

    @property
    def at_border(self) -> bool:
        return not self._line and not self._lines

    def take(self, byte: bytes) -> None:
        was_cr, self._was_cr = self._was_cr, byte == b"\r"
        self._count += 1
        if byte == b"\n" and was_cr:
            if self._lines:
                self._lines[-1] = (self._lines[-1][0], b"\r\n")
        elif byte not in b"\r\n":
            self._line += byte
            if self._count == 3 and self._line == BOM:
                self._line = b""
        elif self._line:
            self._lines.append((self._line, byte))
            self._line = b""
        else:
            self._end_event()

    def _end_event(self) -> None:
        if self._lines and not self.events:
            self.line_end = self._lines[-1][1]
        name, data, is_comment = b"", None, True
        for line, _ in self._lines:
            if line.startswith(b":"):
                continue
            is_comment = False
            field, value = line.split(b":", 1) if b":" in line else (line, b"")
            if value.startswith(b" "):
                value = value[1:]
            if field == b"data":
                data = value if data is None else data + b"\n" + value
            elif field == b"event":
                name = value
            elif field == b"id":
                self.saw_id = True
        if not is_comment:
            self.events.append((name, data))
        self._lines = []


def read(stream: bytes) -> Reader:
    reader = Reader()
    for at in range(len(stream)):
        reader.take(stream[at : at + 1])
    return reader


class Recorder:
    """A watch that is shown everything, and hints at nothing once it is settled (after `settles_after` looks)."""

    def __init__(self, settles_after: float = float("inf"), hint: bytes | None = None) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self.is_settled = False
        self._settles_after = settles_after
        self._hint = hint

    def hints(self, block: bytes) -> bool:
        return self._hint is not None and self._hint in block

    def look(self, name: bytes, data: bytes) -> None:
        self.seen.append((name, data))
        self.is_settled = len(self.seen) >= self._settles_after


class Fickle:
    """A watch that answers whatever comes into its mind."""

    def __init__(self, answers: list[bool]) -> None:
        self._answers = itertools.cycle(answers)

    @property
    def is_settled(self) -> bool:
        return next(self._answers)

    @is_settled.setter
    def is_settled(self, value: bool) -> None:
        raise AssertionError("nobody but a watch itself sets this")

    def hints(self, block: bytes) -> bool:
        return next(self._answers)

    def look(self, name: bytes, data: bytes) -> None:
        assert isinstance(name, bytes) and isinstance(data, bytes)


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The stream in pieces of these sizes, over and over."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def followed(stream: bytes, sizes: list[int], watch: Watch, max_event_bytes: int = MAX_EVENT_BYTES) -> Framer:
    framer = Framer(watch, max_event_bytes)
    for piece in cut(stream, sizes):
        framer.feed(piece)
    return framer


def state(framer: Framer) -> tuple[object, ...]:
    return (framer.at_border, framer.events, framer.line_end, framer.saw_id)


def told(watch: StreamWatch) -> tuple[object, ...]:
    return (watch.saw_first, watch.first_error, watch.saw_content, watch.saw_done, watch.may_end)


def chunk(index: int = 0, finish: str | None = None, **delta: object) -> bytes:
    return json.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}).encode()


DATA = [
    b"",
    b"[DONE]",
    b"[DONE]x",
    b" [DONE]",
    chunk(content="Hi"),
    chunk(role="assistant"),
    chunk(index=1, content="data: [DONE]"),
    chunk(finish="stop"),
    chunk(index=1, finish="length"),
    b'{"error":{"message":"no"}}',
    b'{"type":"response.completed","response":{}}',
    b'{"type":"response.output_text.delta","delta":"response.completed"}',
    b'{"type":"message_stop"}',
    "\u2028 ä \x85".encode(),
    b"\xff\xfe\x00",
    b'{"a":\xc3}',
]
FIELD = st.one_of(
    st.builds(lambda space, data: b"data:" + space + data, st.sampled_from([b"", b" ", b"  "]), st.sampled_from(DATA)),
    st.sampled_from(
        [b":", b": keep-alive", b":data: [DONE]", b"data", b"event", b"id", b"ident: 1", b"id : 4", b"idle"]
    ),
    st.sampled_from([b"id: 7", b"id:", b"retry: 10", b"unknown: x", b"\xffdata: [DONE]", b" data: x", b"Data: x"]),
    st.sampled_from(
        [b"event: message_stop", b"event:response.completed", b"event: error", b"event: ping", BOM + b"data: x"]
    ),
)
MANY_DATA = st.builds(lambda data: b"data: " + data, st.sampled_from(DATA))


@st.composite
def event_streams(draw: st.DrawFn) -> bytes:
    """A stream of events as origins write them, and as they had better not."""
    changes = draw(st.sampled_from(["never", "by event", "by line"]))  # the line ending
    ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
    start = draw(st.sampled_from([b"", BOM, b"\n", CONTENT, CONTENT, CONTENT, b": hello\r\n\r\n", b"\n\n" + BOM]))
    pieces = [start]
    end = draw(ends)
    for lines in draw(st.lists(st.one_of(MANY_DATA.map(lambda line: [line]), st.lists(FIELD, max_size=4)), max_size=7)):
        end = draw(ends) if changes == "by event" else end
        for line in [*lines, *[b""] * draw(st.sampled_from([1, 1, 1, 2, 3]))]:
            pieces += (line, draw(ends) if changes == "by line" else end)
    stream = b"".join(pieces)
    return stream[: len(stream) - draw(st.sampled_from([0, 0, 1, 2, 5]))]


FRAGMENTS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"data",
    b"data:",
    b":",
    b"id",
    b"id:",
    b"event:",
    b" ",
    BOM,
    *BOM.split(b"\xbb"),
    b"x",
]
HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([*FRAGMENTS, *DATA[:9]]), max_size=30).map(b"".join),
)
STREAM = st.one_of(event_streams(), HOSTILE)
SIZES = st.lists(st.integers(1, 40) | st.integers(40, 400), min_size=1, max_size=8)
MAX_BYTES = st.sampled_from([16, 50, MAX_EVENT_BYTES])


# --- any cutting ------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@example(b"\n\n" + BOM + DONE, [2], Dialect.CHAT, MAX_EVENT_BYTES)  # a byte order mark stands at the start, or is none
@example(b": a\n\n: b\r\n\r\n", [5], Dialect.CHAT, MAX_EVENT_BYTES)
@example(b"\r\n\r\n", [2], Dialect.CHAT, MAX_EVENT_BYTES)
@example(b"data: " + b" " * 30 + chunk(finish="stop") + b"\n\n", [1], Dialect.CHAT, 40)
@example(
    CONTENT + b'event: x\ndata: {"choices":[{"finish\\u005freason":"stop"}]}\n\n', [1], Dialect.CHAT, MAX_EVENT_BYTES
)
@example(CONTENT + b"data: 1\r\rdata: 2\n\n", [1], Dialect.CHAT, MAX_EVENT_BYTES)
@example(CONTENT + b"data: 1\n\n\n\n\ndata: 2\n\n", [1], Dialect.CHAT, MAX_EVENT_BYTES)
@example(b"data: 1\n\ndata: 2\n\nid: 7\ndata: 3\n\ndata: 4\n\n", [10], Dialect.OTHER, MAX_EVENT_BYTES)
@given(STREAM, SIZES, st.sampled_from(Dialect), MAX_BYTES)
def test_a_stream_says_the_same_in_any_cutting(
    stream: bytes, sizes: list[int], dialect: Dialect, max_bytes: int
) -> None:
    whole_watch = dialect.watch()
    whole = followed(stream, [max(1, len(stream))], whole_watch, max_bytes)
    for pieces in (sizes, [1]):
        watch = dialect.watch()
        framer = followed(stream, pieces, watch, max_bytes)
        assert state(framer) == state(whole)
        assert told(watch) == told(whole_watch)
        framer.finish()
        last = dialect.watch()
        ended = followed(stream, [max(1, len(stream))], last, max_bytes)
        ended.finish()
        assert (framer.events, framer.saw_id, told(watch)) == (ended.events, ended.saw_id, told(last))


@settings(max_examples=200)
@example(b"data: 1\n\nevent: x\ndata: y\n\nevent: x\ndata: 3\n\n", [60], 1, b"y")
@given(STREAM, SIZES, st.integers(1, 3), st.sampled_from([None, b"[DONE]", b"x", b"event"]))
def test_a_settled_watch_is_shown_what_it_hints_at_and_nothing_else(
    stream: bytes, sizes: list[int], settles_after: int, hint: bytes | None
) -> None:
    everything = Recorder()
    framer = followed(stream, [max(1, len(stream))], everything)
    watch = Recorder(settles_after, hint)
    assert state(followed(stream, sizes, watch)) == state(framer)
    first, later = everything.seen[:settles_after], everything.seen[settles_after:]
    assert watch.seen[:settles_after] == first
    wanted = watch.seen[settles_after:]
    assert all(event in later for event in wanted)
    if hint is not None:  # it may stand in a comment of an event as well, so more may be shown
        assert [event for event in later if hint in event[1]] == [event for event in wanted if hint in event[1]]
    else:
        assert wanted == []


@settings(max_examples=200)
@given(STREAM, SIZES)
def test_it_agrees_with_a_naive_reader_of_the_standard(stream: bytes, sizes: list[int]) -> None:
    reader = read(stream)
    watch = Recorder()
    framer = followed(stream, sizes, watch)
    assert state(framer) == (reader.at_border, len(reader.events), reader.line_end, reader.saw_id)
    assert watch.seen == [(name, data) for name, data in reader.events if data is not None]


@settings(max_examples=100)
@given(STREAM, st.sampled_from(Dialect))
def test_at_every_byte_it_knows_whether_a_comment_may_stand_there(stream: bytes, dialect: Dialect) -> None:
    reader, framer = Reader(), Framer(dialect.watch())
    for at in range(len(stream)):
        reader.take(stream[at : at + 1])
        framer.feed(stream[at : at + 1])
        assert (framer.at_border, framer.events) == (reader.at_border, len(reader.events)), stream[: at + 1]


@settings(max_examples=100)
@given(event_streams(), SIZES)
def test_a_comment_block_at_a_border_harms_no_event(stream: bytes, sizes: list[int]) -> None:
    framer = Framer(Dialect.CHAT.watch())
    written = b""
    for piece in cut(stream, sizes):
        framer.feed(piece)
        written += piece
        if framer.at_border and not framer.saw_id:
            written += b": keep-alive" + framer.line_end * 2
    assert read(written).events == read(stream).events


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [100, 1 << 10, 1 << 16, 1 << 21])
def test_an_event_of_a_megabyte_is_one_event(size: int, end: bytes) -> None:
    stream = b"data: " + b"x" * (1 << 20) + end + end + b"data: [DONE]" + end + end
    watch = Dialect.CHAT.watch()
    framer = followed(stream, [size], watch)
    assert (framer.events, framer.at_border, framer.line_end) == (2, True, end)
    assert watch.saw_done and watch.saw_content


def test_a_thousand_events_in_one_piece_are_a_thousand_events() -> None:
    framer = followed(CONTENT * 1000, [1 << 20], Dialect.CHAT.watch())
    assert (framer.events, framer.at_border) == (1000, True)


# --- the stream's own line ending, ids, comments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "line_end"),
    [
        (b"", b"\n"),
        (b"data: x\r\n", b"\n"),  # it may still be anything
        (b"data: x\n\n", b"\n"),
        (b"data: x\r\n\r\n", b"\r\n"),
        (b"data: x\r\r", b"\r"),
        (b": hello\n\ndata: x\r\n\r\n", b"\r\n"),  # something in between spoke before the origin
        (b"\n\ndata: x\r\r", b"\r"),
        (b"data: x\n\ndata: y\r\n\r\n", b"\n"),  # the first event decides
        (BOM + b"data: x\r\n\r\n", b"\r\n"),
    ],
)
def test_the_first_event_shows_the_line_ending(stream: bytes, line_end: bytes) -> None:
    assert followed(stream, [1], Recorder()).line_end == line_end
    assert followed(stream, [100], Recorder()).line_end == line_end


@pytest.mark.parametrize("line", [b"id: 7", b"id:7", b"id:", b"id"])
@pytest.mark.parametrize(
    "stream", [b"%b\ndata: x\n\n", b"data: x\n%b\n\n", b"data: x\r\n%b\r\n\r\n", b": x\n%b\n\n", b"%b\n\n"]
)
def test_an_id_line_is_seen_wherever_it_stands(stream: bytes, line: bytes) -> None:
    for size in (1, 5, 1000):
        assert followed(CONTENT + stream % line, [size], Dialect.CHAT.watch()).saw_id
        assert followed(stream % line + CONTENT, [size], Dialect.CHAT.watch()).saw_id


@pytest.mark.parametrize(
    "stream", [b"data: id: 7\n\n", b": id: 7\n\n", b"data:\nidle: 7\n\n", b" id: 7\n\n", b"ID: 7\n\n"]
)
def test_what_only_looks_like_an_id_is_none(stream: bytes) -> None:
    for size in (1, 5, 1000):
        assert not followed(CONTENT + stream + CONTENT, [size], Dialect.CHAT.watch()).saw_id


def test_blocks_of_comments_are_no_events_and_no_first_event() -> None:
    watch = Dialect.CHAT.watch()
    framer = followed(b": a\n\n: b\n: c\n\n:\r\n\r\n", [3], watch)
    assert (framer.events, framer.at_border, watch.saw_first) == (0, True, False)


def test_comments_between_settled_events_are_not_counted() -> None:
    framer = followed(
        CONTENT + (CONTENT + b": keep-alive\n\n") * 3 + CONTENT, [len(CONTENT), 1000], Dialect.CHAT.watch()
    )
    assert framer.events == 5


def test_a_half_byte_order_mark_is_no_border() -> None:
    framer = Framer(Recorder())
    for byte, at_border in ((b"\xef", False), (b"\xbb", False), (b"\xbf", True)):
        framer.feed(byte)
        assert framer.at_border is at_border


# --- hostile bytes ----------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(STREAM, SIZES, st.lists(st.booleans(), min_size=1, max_size=9), MAX_BYTES)
def test_it_never_raises(stream: bytes, sizes: list[int], answers: list[bool], max_bytes: int) -> None:
    framer = followed(stream, sizes, Fickle(answers), max_bytes)
    framer.finish()
    framer.finish()
    framer.feed(b"")


@settings(max_examples=100)
@example(b"x" * 200, [1], 50)
@example(b"x" * 60 + b"\n" + b"x" * 60, [10], 50)
@given(STREAM, SIZES, MAX_BYTES)
def test_it_keeps_no_more_than_it_may(stream: bytes, sizes: list[int], max_bytes: int) -> None:
    framer = Framer(Dialect.CHAT.watch(), max_bytes)
    for piece in cut(stream, sizes):
        framer.feed(piece)
        assert framer.kept_bytes <= max_bytes


@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 4096,
        b"\n" * 4096,
        b"data\r" * 800,
        b"\r\n" * 2048,
        BOM * 1300,
        b"id:\n:" * 800,
        b'"finish_reason" ' * 256,
    ],
    ids=lambda piece: repr(piece[:5]),
)
def test_hostile_megabytes_take_no_memory(piece: bytes) -> None:
    framer = Framer(Dialect.CHAT.watch())
    framer.feed(CONTENT)
    tracemalloc.start()
    for _ in range(500):
        framer.feed(piece)
        assert framer.kept_bytes <= MAX_EVENT_BYTES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MAX_EVENT_BYTES


def test_a_stream_of_ever_new_choices_takes_no_memory() -> None:
    watch = Dialect.CHAT.watch()
    framer = Framer(watch)
    tracemalloc.start()
    for index in range(0, 30_000, 100):
        choices = [{"index": number, "delta": {"content": "x"}} for number in range(index, index + 100)]
        framer.feed(b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 300_000
    assert not watch.may_end


# --- linear work ------------------------------------------------------------------------------------------------------


class Counting:
    """A compiled pattern that counts the bytes it is given."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.scanned = 0

    def finditer(self, text: bytes | bytearray, start: int = 0) -> Iterator[re.Match[bytes]]:
        self.scanned += len(text) - start
        return self._pattern.finditer(text, start)

    def split(self, text: bytes | bytearray) -> list[bytes]:
        self.scanned += len(text)
        return self._pattern.split(text)

    def match(self, text: bytes | bytearray, start: int) -> re.Match[bytes] | None:
        return self._pattern.match(text, start)  # looks at one line end

    def search(self, text: bytes | bytearray) -> re.Match[bytes] | None:
        self.scanned += len(text)
        return self._pattern.search(text)


def counted_patterns(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    patterns = {name: Counting(getattr(sse, name)) for name in ("_BORDER", "_LINE_END", "_ID_LINE")}
    for name, pattern in patterns.items():
        monkeypatch.setattr(sse, name, pattern)
    return list(patterns.values())


BYTE_BY_BYTE = (64 << 10, 1)
IN_KILOBYTES = (4 << 20, 1 << 10)


@pytest.mark.parametrize(("length", "size"), [BYTE_BY_BYTE, IN_KILOBYTES], ids=["byte by byte", "in kilobytes"])
@pytest.mark.parametrize("line", [b"data: xxxx xxxx", b"id xxxx", b": xxxx"], ids=["data", "id", "comment"])
def test_the_patterns_see_each_byte_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch, length: int, size: int, line: bytes
) -> None:
    patterns = counted_patterns(monkeypatch)
    stream = (line + b"\n") * (length // len(line)) + b"\n"
    framer = followed(stream, [size], Dialect.OTHER.watch())
    assert framer.at_border
    assert 0 < sum(pattern.scanned for pattern in patterns) < 8 * len(stream)


def test_settled_events_that_come_whole_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    framer = Framer(Dialect.CHAT.watch())
    framer.feed(CONTENT)
    patterns = counted_patterns(monkeypatch)
    for events in (1, 1, 7, 1000):
        framer.feed(CONTENT * events)
    assert framer.events == 1010
    assert sum(pattern.scanned for pattern in patterns) == 0
    framer.feed((CONTENT * 1000)[:-10])
    framer.feed(CONTENT[-10:] + CONTENT * 1000)
    assert 0 < sum(pattern.scanned for pattern in patterns) < 4 * len(CONTENT)  # only what was cut


def cpu_s(run: Callable[[], object]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started


@pytest.mark.parametrize(("length", "size"), [BYTE_BY_BYTE, IN_KILOBYTES], ids=["byte by byte", "in kilobytes"])
@pytest.mark.parametrize("line", [b"data: xxxx xxxx\n", b"data: xxxx xxxx\r\n"], ids=["LF", "CRLF"])
def test_four_times_the_bytes_take_about_four_times_the_time(length: int, size: int, line: bytes) -> None:
    long = line * (length // len(line))
    short = long[: length // 4]
    for _ in range(5):  # a busy machine may spoil a measurement, but not five; quadratic work is sixteen times as much
        took = cpu_s(lambda: followed(short, [size], Recorder(), 1 << 30))
        if cpu_s(lambda: followed(long, [size], Recorder(), 1 << 30)) < 8 * took:
            return
    pytest.fail("the work grows faster than the stream")


# --- events that are too long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 60, 5000])
def test_the_end_of_a_long_event_and_what_comes_behind_it_are_seen(size: int, end: bytes) -> None:
    long = b"data: " + b"x" * 500 + end + b"data: y" + end + end
    watch = Recorder()
    framer = followed(b"data: a" + end * 2 + long + b"data: [DONE]" + end * 2, [size], watch, 100)
    assert framer.at_border and framer.events == 3
    assert [data for _, data in watch.seen] == [b"a", b"x" * 91, b"[DONE]"]


def test_in_the_middle_of_a_long_event_is_no_border() -> None:
    framer = Framer(Recorder(), 100)
    for piece in (b"data: " + b"x" * 500, b"\n", b"x" * 500, b"data: y\n\r", b"\nz"):
        framer.feed(piece)
        assert framer.at_border is piece.endswith(b"\n\r")


@pytest.mark.parametrize(
    ("dialect", "start"),
    [
        (Dialect.RESPONSES, b'event: response.completed\ndata: {"type":"response.completed","response":{"output":"'),
        (Dialect.RESPONSES, b'data: {"type":"response.failed","response":{"output":"'),
        (Dialect.RESPONSES, b'data: { "type" : "response.incomplete" , "response":{"output":"'),
        (Dialect.MESSAGES, b'event: message_stop\ndata: {"type":"message_stop","usage":"'),
    ],
)
def test_a_huge_last_event_is_known_by_its_start(dialect: Dialect, start: bytes) -> None:
    first = b'event: other\ndata: {"type":"other"}\n\n'
    for size in (1000, 1 << 20):
        watch = dialect.watch()
        framer = followed(first + start + b"x" * 300_000 + b'"}}\n\n', [size], watch)
        assert watch.saw_done and framer.events == 2


def test_a_huge_event_that_only_quotes_a_terminal_is_none() -> None:
    text = b"response.completed " * 10_000
    watch = Dialect.RESPONSES.watch()
    followed(b'event: response.output_text.done\ndata: {"text":"' + text + b'"}\n\n', [1000], watch)
    assert not watch.saw_done


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_id_behind_a_long_datum_is_seen(end: bytes) -> None:
    stream = b"data: " + b"x" * 200_000 + end + b"id: 7" + end + end
    for size in (1, 4, 1000, 1 << 20):
        assert followed(stream[-200:], [size], Recorder(), 100).saw_id
        assert followed(stream[-200:].replace(b"id: 7", b"idle:"), [size], Recorder(), 100).saw_id is False
        if size > 4:
            assert followed(stream, [size], Recorder()).saw_id


# --- the end of a stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_last_event_without_its_blank_line_is_looked_at(end: bytes, size: int) -> None:
    watch = Dialect.CHAT.watch()
    framer = followed(CONTENT + b"data: [DONE]" + end, [size], watch)
    assert framer.events == 1
    framer.finish()
    assert watch.saw_done and framer.events == 2
    framer.finish()
    assert framer.events == 2


def test_a_long_last_event_without_its_blank_line_is_looked_at() -> None:
    watch = Dialect.RESPONSES.watch()
    framer = followed(b"event: response.completed\ndata: " + b"x" * 100_000, [1000], watch)
    framer.finish()
    assert watch.saw_done and framer.kept_bytes <= MAX_EVENT_BYTES


def test_nothing_ends_with_nothing() -> None:
    watch = Recorder()
    Framer(watch).finish()
    assert watch.seen == []


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "name", "data"),
    [
        (b"", b"", None),
        (b": comment", b"", None),
        (b"event: x", b"x", None),
        (b"data", b"", b""),
        (b"data:", b"", b""),
        (b"data: a", b"", b"a"),
        (b"data:a", b"", b"a"),
        (b"data:  a ", b"", b" a "),
        (b"data: a\r\ndata\rdata:b\n", b"", b"a\n\nb"),
        (b"event: x\nevent:y\ndata: a:b", b"y", b"a:b"),
        (b"data: \xe2\x80\xa8\xff", b"", b"\xe2\x80\xa8\xff"),
        (b"Data: a\n data: b\ndata : c\ndatab", b"", None),
    ],
)
def test_fields_are_read_as_the_standard_says(block: bytes, name: bytes, data: bytes | None) -> None:
    assert fields(block) == (name, data)
