"""A comment just before a stream's terminal event: where it stands, and that all else stays, in any cutting."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.event_filter import BOM
from trioproxy.wire.timing_filter import TimingFilter, wants_timing

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGE = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"message_stop"}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"[DONE]"}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'


def comment(line_end: bytes) -> bytes:
    return b": told" + line_end + line_end


def pieces(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def filtered(stream: bytes, sizes: list[int], dialect: Dialect = Dialect.CHAT, max_held_bytes: int = 65536) -> bytes:
    one = TimingFilter(dialect.watch(), comment, max_held_bytes)
    return b"".join([*map(one.feed, pieces(stream, sizes)), one.finish()])


@pytest.mark.parametrize(
    ("dialect", "before", "terminal"),
    [
        (Dialect.CHAT, WORD + LAST, DONE),
        (Dialect.COMPLETIONS, WORD + LAST, DONE),
        (Dialect.MESSAGES, MESSAGE * 2, STOP),
        (Dialect.RESPONSES, DELTA * 2, COMPLETED),
        (Dialect.CHAT, BOM + WORD, DONE),
        (Dialect.CHAT, BOM, DONE),
        (Dialect.CHAT, b"", DONE),
        (Dialect.CHAT, WORD, b"data: [DONE]\n"),
        (Dialect.CHAT, WORD, b"data: [DONE]"),
        (Dialect.CHAT, WORD + b": hm\n\n\n\n", DONE + b"\n\n"),
        (Dialect.CHAT, WORD, DONE + WORD),
    ],
)
def test_it_stands_before_the_terminal_event(dialect: Dialect, before: bytes, terminal: bytes) -> None:
    for size in (1, 2, 3, 7, 10_000):
        assert filtered(before + terminal, [size], dialect) == before + comment(b"\n") + terminal


def test_it_has_the_stream_s_own_line_ends() -> None:
    before, done = WORD.replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")
    for size in (1, 2, 3, 7, 10_000):
        assert filtered(before + done, [size]) == before + comment(b"\r\n") + done


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [
        (Dialect.CHAT, b"id: 1\n" + WORD + DONE),
        (Dialect.CHAT, WORD + b"data: x\nid\n\n" + DONE),
        (Dialect.CHAT, WORD + b"id: 9\n\n" + DONE),
        (Dialect.CHAT, BOM + b"id: 1\n" + WORD + DONE),
        (Dialect.CHAT, WORD + b"id: 9\n" + DONE),
        (Dialect.CHAT, WORD + LAST),
        (Dialect.CHAT, WORD + b'data: "[DONE]"\n\n'),
        (Dialect.OTHER, WORD + DONE),
        (Dialect.EMBEDDINGS, WORD + DONE),
    ],
)
def test_behind_an_id_or_without_a_terminal_nothing_is_added(dialect: Dialect, stream: bytes) -> None:
    for size in (1, 2, 3, 7, 10_000):
        assert filtered(stream, [size], dialect) == stream


def test_a_terminal_event_that_is_very_long_is_known_by_its_start() -> None:
    completed = b'event: response.completed\ndata: {"type":"response.completed","response":"%b"}\n\n' % (b"x" * 500)
    for size in (1, 7, 250, 10_000):
        told = filtered(DELTA + completed, [size], Dialect.RESPONSES, 200)
        assert told == DELTA + comment(b"\n") + completed


def test_behind_an_event_that_was_not_looked_at_nothing_is_added() -> None:
    long = b"data: %b\nid: 5\n\n" % (b"x" * 500)
    for size in (1, 7, 250, 10_000):
        assert filtered(long + DONE, [size], Dialect.CHAT, 200) == long + DONE


@given(
    st.lists(st.sampled_from([WORD, LAST, DONE, b": c\n\n", b"\n", b"\r\n", b"id: 4\n", b"data", BOM, b"x"])),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_in_any_cutting_it_is_the_same_and_every_other_byte_stays(parts: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(parts)
    told = filtered(stream, sizes)
    assert told.replace(comment(b"\n"), b"").replace(comment(b"\r\n"), b"") == stream
    assert told.count(b": told") <= 1
    assert told == filtered(stream, [len(stream) or 1])


def test_it_holds_no_more_than_one_event() -> None:
    one = TimingFilter(Dialect.CHAT.watch(), comment, 200)
    for piece in pieces(WORD * 50 + b"data: " + b"x" * 5000, [9]):
        one.feed(piece)
        assert one.held_bytes <= 202


@pytest.mark.parametrize(("said", "wants"), [(None, False), (b"1", True), (b"0", False)])
def test_a_client_asks_for_it(said: bytes | None, wants: bool) -> None:
    assert wants_timing([] if said is None else [(b"x-trioproxy-timing", said)]) is wants


def test_another_wish_is_refused() -> None:
    with pytest.raises(BadRequest, match="x-trioproxy-timing"):
        wants_timing([(b"x-trioproxy-timing", b"yes")])
