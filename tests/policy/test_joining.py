"""Events that wait for others: what is held, for how long, and that nothing is reordered, lost or cut by it."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.joining import MAX_HELD_BYTES, Joining


def test_what_is_held_is_due_a_window_after_the_first_of_it() -> None:
    joining = Joining(0.5, 10)
    assert (joining.due, joining.is_holding, joining.take()) == (inf, False, b"")
    joining.hold(b"a", 1, 3.0)
    joining.hold(b"b", 1, 3.25)
    assert (joining.due, joining.is_holding) == (3.5, True)
    assert joining.take(b"c") == b"abc"
    assert (joining.due, joining.is_holding, joining.take(b"d")) == (inf, False, b"d")
    joining.hold(b"e", 1, 9.0)
    assert joining.due == 9.5


def test_there_is_no_room_for_what_would_be_enough() -> None:
    joining = Joining(1, 3, max_bytes=10)
    assert joining.has_room_for(b"x" * 9, 2)
    assert not joining.has_room_for(b"x" * 10, 0)
    assert not joining.has_room_for(b"", 3)
    joining.hold(b"x" * 5, 1, 0)
    assert joining.has_room_for(b"x" * 4, 1)
    assert not joining.has_room_for(b"x" * 5, 0)
    assert not joining.has_room_for(b"", 2)
    joining.take()
    assert joining.has_room_for(b"x" * 9, 2)


def test_of_one_event_at_once_none_waits_but_an_unfinished_one() -> None:
    joining = Joining(1, 1)
    assert not joining.has_room_for(b"data: x\n\n", 1)
    assert joining.has_room_for(b"data: ", 0)


PIECES = st.lists(
    st.tuples(
        st.binary(max_size=40),
        st.integers(0, 4),
        st.sampled_from([0.0, 0.125, 0.5, 2.0]),  # what goes by before it, seconds
        st.booleans(),  # whether it may wait
    ),
    max_size=40,
)


@given(PIECES, st.sampled_from([0.125, 0.5, 1.0]), st.integers(1, 6), st.integers(1, 100))
def test_nothing_is_reordered_lost_or_cut_and_nothing_waits_too_long(
    pieces: list[tuple[bytes, int, float, bool]], window_s: float, max_events: int, max_bytes: int
) -> None:
    joining = Joining(window_s, max_events, max_bytes)
    now = 0.0
    written = b""
    came: list[tuple[int, float]] = []  # what is held: where it ends in the stream, and when it came
    whole = b""
    borders = {0}
    for data, events, pause_s, may_wait in pieces:
        if joining.due <= now + pause_s:  # as its driver does
            assert all(joining.due <= at + window_s for _, at in came)
            written += joining.take()
            came.clear()
            assert len(written) in borders
        now += pause_s
        whole += data
        borders.add(len(whole))
        if may_wait and joining.has_room_for(data, events):
            joining.hold(data, events, now)
            came.append((len(whole), now))
            assert now <= joining.due <= came[0][1] + window_s
            assert len(whole) - len(written) < max_bytes
        else:
            written += joining.take(data)
            came.clear()
            assert written == whole
    assert written + joining.take() == whole
    assert joining.take() == b""


def test_by_default_less_than_64_kib_are_held() -> None:
    joining = Joining(1, 1000)
    assert MAX_HELD_BYTES == 65536
    assert joining.has_room_for(b"x" * (MAX_HELD_BYTES - 1), 1)
    assert not joining.has_room_for(b"x" * MAX_HELD_BYTES, 1)
