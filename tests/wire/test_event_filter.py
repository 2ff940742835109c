"""Events that go on otherwise, or not at all; what is derived from it is tested beside: `test_usage_filter`,
`test_timing_filter`."""

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.event_filter import EventFilter

PARTS = [b"data: x\n\n", b"data: y\r\n\r\n", b"data", b": hm", b"\n", b"\r", b"\r\n", b"x" * 40]


class Upper(EventFilter):
    """Makes events large, and leaves out those that are only y."""

    def _filtered(self, block: bytes) -> bytes | None:
        return None if block.startswith(b"data: y") else block.upper()


@given(st.lists(st.lists(st.sampled_from(PARTS)).map(b"".join)))
def test_what_nobody_changes_stays_in_any_cutting(pieces: list[bytes]) -> None:
    one = EventFilter(30)
    assert b"".join([*map(one.feed, pieces), one.finish()]) == b"".join(pieces)


def test_an_event_goes_on_as_soon_as_it_is_whole() -> None:
    one = Upper()
    assert [one.feed(piece) for piece in (b"da", b"ta: x\n", b"\nda", b"ta: y\n\n", b"\n", b"data: z")] == [
        *(b"", b"", b"DATA: X\n\n"),
        *(b"", b"", b""),
    ]
    assert not one.is_between
    assert one.finish() == b"DATA: Z"


def test_one_that_is_too_long_passes_as_it_comes() -> None:
    one = Upper(10)
    assert one.feed(b"data: " + b"x" * 20) == b"data: " + b"x" * 20
    assert not one.shows_whole_events
    assert one.feed(b"xx\n\ndata: a\n\n") == b"xx\n\nDATA: A\n\n"
    assert one.shows_whole_events
