"""Between the pieces of a chunked body: sizes that all read alike, and trailers that say nothing of the message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.chunks import check_trailer, read_size


@pytest.mark.parametrize(
    ("line", "size", "extension"),
    [
        (b"0", 0, 0),
        (b"a", 10, 0),
        (b"FFFF", 65535, 0),
        (b"0000000000000010", 16, 0),
        (b"f" * 16, 2**64 - 1, 0),
        (b"5;", 5, 1),
        (b"5;a=b", 5, 4),
        (b'5 \t;a = "b;\tc"', 5, 13),
    ],
)
def test_a_size_is_read(line: bytes, size: int, extension: int) -> None:
    assert read_size(line) == (size, extension)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b";a",
        b"g",
        b"-1",
        b"+1",
        b"0x1",
        b"1_0",
        b"1.0",
        b" 1",
        b"1 ",
        b"1\t",
        b"1,1",
        b"1\r",
        b"1\n",
        b"1;a\r",
        b"1;a\nb",
        b"1;\0",
        b"1;\x7f",
        b"1;\xe4",
        b"0" * 17,
        b"1" * 17,
    ],
)
def test_what_somebody_could_read_differently_is_no_size(line: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_size(line)
    assert caught.value.status == 400


@pytest.mark.parametrize("line", [b"x-sum: 1", b"X-Sum:", b"x-sum: \xff\t1", b"expires: 0"])
def test_a_trailer_is_a_field(line: bytes) -> None:
    check_trailer(line)


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"x : y",
        b" x: y",
        b": y",
        b"x: y\0",
        b"x: y\nz: w",
        b"Content-Length: 1",
        b"TRANSFER-ENCODING: a",
        b"host: b",
    ],
)
def test_a_trailer_that_is_no_field_or_frames_the_message_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest):
        check_trailer(line)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_refusal(line: bytes) -> None:
    for read in (read_size, check_trailer):
        try:
            read(line)
        except BadRequest:
            pass


@given(st.integers(0, 2**64 - 1), st.integers(0, 16), st.booleans())
def test_every_size_that_fits_is_read(size: int, width: int, is_upper: bool) -> None:
    line = (b"%X" if is_upper else b"%x") % size
    assert read_size(line.zfill(width)) == (size, 0)
