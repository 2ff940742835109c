"""How limits are told to clients: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`. PURE.

Source: OpenAI's API reference ("Rate limits", headers); durations as it writes them: "12ms", "1s", "6m0s".
"""

from math import ceil

from trioproxy.wire.headers import Headers


def fields(kind: bytes, limit: int, remaining: int, reset_s: float) -> Headers:
    """The three fields for `requests` or `tokens`."""
    return [
        (b"x-ratelimit-limit-" + kind, b"%d" % limit),
        (b"x-ratelimit-remaining-" + kind, b"%d" % max(remaining, 0)),
        (b"x-ratelimit-reset-" + kind, duration(reset_s)),
    ]


def duration(seconds: float) -> bytes:
    """Seconds as OpenAI writes them, never less than they are."""
    if seconds < 1:
        millis = ceil(1000 * max(seconds, 0))
        return b"%dms" % millis if millis < 1000 else b"1s"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
