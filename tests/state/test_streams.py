"""What follows from positions and limits alone."""

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.state.streams import START, Batch, Fate, Head, Limits, batch_behind

HEAD = Head(200, ())


@given(st.sets(st.integers(1, 30)), st.integers(START, 30), st.booleans())
def test_batches_partition_the_numbers_behind_a_position(numbers: set[int], position: int, has_ended: bool) -> None:
    last = max(numbers, default=0)
    start = at = min(position, last)
    got, lost, fate = [], 0, None
    for _ in range(40):
        found = [(number, b"%d" % number) for number in sorted(numbers) if number > at]
        batch = batch_behind(at, found, last=last, fate=Fate.ENDED if has_ended else None)
        assert fate is None or batch.fate is fate
        got += list(batch.events)
        lost += batch.lost if fate is None else 0
        fate, at = batch.fate, batch.position_behind(at)
    assert got == [b"%d" % number for number in sorted(numbers) if number > start]
    assert len(got) + lost == last - max(start, 0)
    assert fate is (Fate.ENDED if has_ended else None)


def test_a_mirror_that_has_the_head_alone_stands_before_the_first_event() -> None:
    assert Batch(head=HEAD).position_behind(START) == 0
    assert Batch().position_behind(START) == START
    assert Batch(fate=Fate.FORGOTTEN).position_behind(7) == 7


def test_a_lease_outlasts_a_renewal_that_fails_and_its_end_is_noticed_in_time() -> None:
    limits = Limits(lease_s=10)
    assert limits.renew_s * 2 < limits.held_s
    assert limits.held_s + limits.look_s < limits.lease_s
