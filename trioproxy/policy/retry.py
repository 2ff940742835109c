"""Whether a failed request is tried again, and when. PURE: `now` and random draws are arguments.

    how far it was                     is tried again
    nothing was sent                   always: the origin knows nothing of it
    sent, no answer came               if it may be repeated: GET and the like, others only with `repeat_sent`
    an error status                    if the status is listed, or as `x-should-retry` says
    a head, but no content             yes: nobody has seen anything of it
    content                            never: text would be doubled, or code run twice

And all that only while there are tries left, the body can be sent once more, and the whole request has time.

Another candidate is tried at once. Where each has been tried, one that failed is tried again, after the time that the
origin asks for (`retry-after-ms`, `retry-after`), but at least after exponential back-off with full jitter. An origin
that asks for more than `max_wait_s` is not waited for: its answer is passed, with that field, and the client's SDK
decides. A route with a single candidate repeats only what was never sent and passes every status: SDKs repeat too, and
tries of both would multiply.

What this does not know: which candidate is next (`plan`), and how many retries all requests may make together
(`budget`). `upstream/course` asks `decide` after each failed try.

Sources: RFC 9110 sections 5.6.7 (dates), 9.2.2 (idempotent methods) and 10.2.3 (`retry-after`); what OpenAI's SDKs
read (`retry-after-ms`, `x-should-retry`); "Exponential backoff and jitter" (AWS, 2015) for the jitter.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import IntEnum

from trioproxy.errors import (
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamErrorInStream,
    UpstreamFault,
    UpstreamTotalTimeout,
)
from trioproxy.wire.headers import Headers, find

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""What may be sent twice, as RFC 9110 has it."""

_MAX_DOUBLINGS = 30
_NUMBER = re.compile(rb"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_MAX_DATE_CHARACTERS = 40


class Progress(IntEnum):
    """How far a try was when it ended."""

    NOTHING_SENT = 0
    SENT = 1
    HEAD = 2
    CONTENT = 3


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What a route allows.

    Attributes:
        tries: how many in all, the first one included.
        max_wait_s: no wait is longer.
        statuses: those of answers that another try may better.
        base_s, cap_s: the back-off's first and highest bound. Each wait is anything from 0 up to its bound, and each
            bound is twice the one before.
        repeat_sent: whether also a POST that an origin may have got is sent again, though it may be worked at, and
            paid for, twice.
    """

    tries: int = 3
    max_wait_s: float = 2.0
    statuses: frozenset[int] = frozenset({408, 409, 429, *range(500, 600)})
    base_s: float = 0.5
    cap_s: float = 8.0
    repeat_sent: bool = False


def progress_before_head(fault: ProxyError) -> Progress:
    """How far a try was that ended with this fault and had no head."""
    never_sent = isinstance(fault, (UpstreamConnectFailed, UpstreamConnectTimeout))
    return Progress.NOTHING_SENT if never_sent else Progress.SENT


def decide(
    failure: ProxyError | int,
    headers: Headers,
    progress: Progress,
    rules: RetryRules,
    *,
    method: str,
    can_repeat: bool,
    tries: int,
    candidates: int,
    has_other: bool,
    now: float,
    wall_now: float,
    deadline: float,
    draw: Callable[[], float],
) -> float | None:
    """Seconds to wait before the next try, 0.0 for at once; None to give up and pass what there is.

    Args:
        failure: the status of the origin's answer, or the fault that came instead of one. An error that stood in a
            stream before any content is judged as the status that it stands for.
        headers: the answer's, empty without one; names are lower case.
        can_repeat: whether the body is still there: it is held, or streamed and nothing of it was taken yet.
        tries: how many were made, 1 after the first.
        candidates: how many the plan has; `has_other`: whether one of them was not tried yet.
        wall_now: seconds since 1970, for a `retry-after` that is a date.
        deadline: the end of the whole request on the clock of `now`; `math.inf` for none.
        draw: gives a random number from 0 up to but not including 1.
    """
    if progress is Progress.CONTENT or tries >= rules.tries or not can_repeat:
        return None
    is_alone = candidates <= 1
    if not _is_worth_it(failure, headers, progress, rules, method=method, is_alone=is_alone):
        return None
    wait = 0.0 if has_other else _wait_s(headers, rules, waits=max(0, tries - candidates), wall_now=wall_now, draw=draw)
    return wait if wait <= rules.max_wait_s and now + wait < deadline else None


def _is_worth_it(
    failure: ProxyError | int, headers: Headers, progress: Progress, rules: RetryRules, *, method: str, is_alone: bool
) -> bool:
    status = failure.status if isinstance(failure, UpstreamErrorInStream) else failure
    if isinstance(status, int):
        told = should_retry(headers)
        return not is_alone and status >= 400 and (status in rules.statuses if told is None else told)
    if not isinstance(status, UpstreamFault) or isinstance(status, UpstreamTotalTimeout):
        return False  # nobody else could do better: our own lack, the client's doing, or no time left
    if progress is Progress.NOTHING_SENT:
        return True
    if progress is Progress.SENT and method not in IDEMPOTENT and not rules.repeat_sent:
        return False
    return not is_alone


def _wait_s(headers: Headers, rules: RetryRules, *, waits: int, wall_now: float, draw: Callable[[], float]) -> float:
    bound = min(rules.cap_s, rules.max_wait_s, rules.base_s * 2.0 ** min(waits, _MAX_DOUBLINGS))
    # Not only what was asked for: with `retry-after: 0` all tries would be spent in one moment.
    return max(draw() * bound, retry_after_s(headers, wall_now) or 0.0)


def should_retry(headers: Headers) -> bool | None:
    """What the origin says of trying again, None if nothing."""
    return {b"true": True, b"false": False}.get((find(headers, b"x-should-retry") or b"").strip().lower())


def retry_after_s(headers: Headers, wall_now: float) -> float | None:
    """The seconds to wait that an origin asks for, not below 0; None if it asks for nothing that can be read."""
    milliseconds = (find(headers, b"retry-after-ms") or b"").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = (find(headers, b"retry-after") or b"").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    date = _seconds_of(value)
    return None if date is None else max(0.0, date - wall_now)


def _seconds_of(date: bytes) -> float | None:
    """Seconds since 1970 of a date in any of the three forms of HTTP, None if it is none."""
    parsed = parsedate_tz(date.decode("latin-1")) if len(date) <= _MAX_DATE_CHARACTERS else None
    if parsed is None:
        return None
    try:
        return float(mktime_tz(parsed))
    except (ValueError, OverflowError):  # a month 13, a year 99999
        return None
