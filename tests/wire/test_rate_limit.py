import pytest

from trioproxy.wire.rate_limit import duration, fields


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"0ms"),
        (-3, b"0ms"),
        (0.0121, b"13ms"),
        (0.9999, b"1s"),
        (1, b"1s"),
        (1.2, b"2s"),
        (59.5, b"1m0s"),
        (360, b"6m0s"),
        (3725, b"1h2m5s"),
    ],
)
def test_a_duration_is_written_as_openai_does_and_never_too_short(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text


def test_how_a_limit_stands_is_told_in_three_fields() -> None:
    assert fields(b"tokens", 100, -3, 6) == [
        (b"x-ratelimit-limit-tokens", b"100"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"6s"),
    ]
