"""The recorder: what of an answer gets into a stream's log, however it comes, and what of an answer that is none."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.live import PLENTY, STREAM_HEAD, event, live_stream
from trioproxy.errors import HubFull
from trioproxy.hub.live import Head, LiveStream, Outcome
from trioproxy.hub.recorder import MAX_ANSWER_BYTES, MAX_EVENT_BYTES, Recorder
from trioproxy.policy.replay import Slow

JSON_HEAD = [(b"content-type", b"application/json")]


def recorder(headers: list[tuple[bytes, bytes]] = STREAM_HEAD, status: int = 200) -> tuple[Recorder, LiveStream]:
    stream = live_stream()
    recorder = Recorder(stream)
    recorder.head(status, headers)
    return recorder, stream


def head_of(stream: LiveStream) -> Head | None:
    return stream.head


def recorded(stream: LiveStream) -> list[bytes]:
    return stream.log.reader(0, Slow.ERROR).take(PLENTY).events


async def test_events_are_kept_and_comments_are_not() -> None:
    writing, stream = recorder()
    assert head_of(stream) is None
    await writing.send(b": ping\n\ndata: 1\n\n: x\ndata:")
    assert (head_of(stream), writing.has_head) == (Head(200, STREAM_HEAD), True)
    await writing.send(b" 2\n\n")
    await writing.finish(b"data: 3\n")
    assert recorded(stream) == [event(1), event(2), event(3)]
    assert stream.log.outcome == Outcome(is_clean=True)
    assert writing.is_finished
    writing.close()
    assert stream.log.outcome == Outcome(is_clean=True)


@given(
    events=st.lists(st.sampled_from([event(1), b": note\n\n", b"event: x\ndata: {}\n\n", event(7, 300)]), max_size=9),
    cuts=st.lists(st.integers(0, 2000), max_size=9),
)
def test_however_an_answer_is_cut_into_pieces(events: list[bytes], cuts: list[int]) -> None:
    async def main() -> None:
        writing, stream = recorder()
        data, start = b"".join(events), 0
        for end in [*sorted(cuts), len(data)]:
            await writing.send(data[start:end])
            start = min(end, len(data))
        await writing.finish()
        assert recorded(stream) == [each for each in events if not each.startswith(b":")]
        assert stream.exchange.bytes_out == len(data)

    trio.run(main)


async def test_an_answer_without_an_end_has_the_one_of_its_record() -> None:
    writing, stream = recorder()
    await writing.send(event(1) + b"data: ha")
    await writing.send(b"\n\n" + event(2))
    writing.abort()
    assert stream.is_live
    stream.exchange.code = "upstream_truncated"
    writing.close()
    assert recorded(stream) == [event(1), b"data: ha\n\n", event(2)]
    assert stream.log.outcome == Outcome(is_clean=False, code="upstream_truncated")


async def test_half_an_event_is_none() -> None:
    writing, stream = recorder()
    await writing.send(event(1) + b"data: ha")
    writing.close()
    assert recorded(stream) == [event(1)]


async def test_an_answer_that_is_no_event_stream_is_kept_whole() -> None:
    writing, stream = recorder(JSON_HEAD, 429)
    await writing.send(b'{"error":')
    assert head_of(stream) is None
    await writing.finish(b"{}}")
    assert (head_of(stream), stream.log.last) == (Head(429, JSON_HEAD, b'{"error":{}}', is_whole=True), 0)
    assert not stream.can_be_joined


async def test_one_that_broke_off_says_so() -> None:
    writing, stream = recorder(JSON_HEAD, 500)
    await writing.send(b'{"error":')
    writing.abort()
    writing.close()
    assert stream.head is not None
    assert (stream.head.body, stream.head.is_whole) == (b'{"error":', False)


async def test_one_that_is_too_long_breaks_off() -> None:
    writing, stream = recorder(JSON_HEAD)
    await writing.send(b"x" * MAX_ANSWER_BYTES)
    with pytest.raises(HubFull):
        await writing.send(b"x")
    writing.close()
    assert stream.head is not None and stream.head.body is not None
    assert (len(stream.head.body), stream.head.is_whole) == (MAX_ANSWER_BYTES, False)


async def test_a_compressed_stream_is_not_taken_apart() -> None:
    packed = b"\x1f\x8b: \n\n\x00"
    writing, stream = recorder([*STREAM_HEAD, (b"content-encoding", b"gzip")])
    await writing.finish(packed)
    assert stream.head is not None and stream.head.body == packed


async def test_behind_an_event_that_is_too_long_there_is_room_to_say_so() -> None:
    writing, stream = recorder()
    await writing.send(event(1) + b"data: ")
    with pytest.raises(HubFull):
        await writing.send(b"x" * MAX_EVENT_BYTES)
    await writing.send(b"\n\ndata: error\n\n")
    writing.close()
    assert recorded(stream) == [event(1), b"data: error\n\n"]
    assert stream.log.outcome == Outcome(is_clean=False)


async def test_nothing_of_a_piece_is_lost_if_the_work_is_cancelled_while_a_reader_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = live_stream(max_events=2, client_stall_s=9)
    writing = Recorder(stream)
    writing.head(200, STREAM_HEAD)
    with stream.subscribed(0, Slow.BLOCK) as reader:
        with trio.move_on_after(1) as work:
            await writing.send(b"".join(map(event, range(1, 5))) + b"data: ha")
            assert trio.current_time() == 9
            await trio.sleep(1)
        assert work.cancelled_caught
        await writing.send(b"\n\n" + event(6))
        assert reader.take(PLENTY).is_overrun
    assert stream.log.reader(4, Slow.ERROR).take(PLENTY).events == [b"data: ha\n\n", event(6)]
