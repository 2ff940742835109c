"""When a failed request is tried again: the rules one by one, and what holds for all of them."""

import math
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import (
    ClientGone,
    Draining,
    Overloaded,
    ProxyError,
    RequestTimeout,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamDisconnected,
    UpstreamErrorInStream,
    UpstreamFirstContentTimeout,
    UpstreamHeadTimeout,
    UpstreamIdleTimeout,
    UpstreamProtocolError,
    UpstreamTotalTimeout,
    UpstreamTruncated,
)
from trioproxy.policy.retry import (
    IDEMPOTENT,
    Progress,
    RetryRules,
    decide,
    progress_before_head,
    retry_after_s,
    should_retry,
)
from trioproxy.wire.headers import Headers

WALL_NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example."""

NEVER_SENT = [UpstreamConnectFailed("No."), UpstreamConnectTimeout("No.")]
SENT = [UpstreamHeadTimeout("No."), UpstreamDisconnected("No."), UpstreamProtocolError("No.")]
BEFORE_CONTENT = [
    UpstreamFirstContentTimeout("No."),
    UpstreamIdleTimeout("No."),
    UpstreamTruncated("No."),
    UpstreamProtocolError("No."),
]
NOT_THE_ORIGINS = [Overloaded("No."), Draining("No."), ClientGone("No."), RequestTimeout("No.")]


@dataclass(frozen=True)
class Try:
    """A first try of a POST that failed, with another candidate left; each test changes what it is about."""

    failure: ProxyError | int = 503
    headers: Headers = field(default_factory=list)
    progress: Progress = Progress.HEAD
    rules: RetryRules = field(default_factory=RetryRules)
    method: str = "POST"
    can_repeat: bool = True
    tries: int = 1
    candidates: int = 2
    has_other: bool = True
    now: float = 100.0
    wall_now: float = WALL_NOW
    deadline: float = math.inf
    drawn: float = 0.5

    def decide(self, **changes: Any) -> float | None:
        one = replace(self, **changes)
        return decide(
            one.failure,
            one.headers,
            one.progress,
            one.rules,
            method=one.method,
            can_repeat=one.can_repeat,
            tries=one.tries,
            candidates=one.candidates,
            has_other=one.has_other,
            now=one.now,
            wall_now=one.wall_now,
            deadline=one.deadline,
            draw=lambda: one.drawn,
        )


FIRST = Try()
LAST = Try(tries=2, has_other=False, rules=RetryRules(tries=9))
"""Both candidates have failed; the next try is at one of them."""
ALONE = Try(candidates=1, has_other=False)


# --- what is tried again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529, 599])
def test_a_listed_status_is_tried_again(status: int) -> None:
    assert FIRST.decide(failure=status) == 0.0
    assert FIRST.decide(failure=status, rules=RetryRules(statuses=frozenset({418}))) is None


@pytest.mark.parametrize("status", [200, 307, 400, 401, 403, 404, 413, 422, 499, 600])
def test_another_status_is_passed(status: int) -> None:
    assert FIRST.decide(failure=status) is None
    if 400 <= status < 600:
        assert FIRST.decide(failure=status, rules=RetryRules(statuses=frozenset({status}))) == 0.0


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [(b"true", 400, 0.0), (b"True ", 400, 0.0), (b"false", 503, None), (b"maybe", 503, 0.0), (b"true", 200, None)],
)
def test_x_should_retry_beats_the_list(said: bytes, status: int, expected: float | None) -> None:
    assert FIRST.decide(failure=status, headers=[(b"x-should-retry", said)]) == expected
    assert should_retry([(b"x-should-retry", b"false")]) is False and should_retry([]) is None


@pytest.mark.parametrize("fault", NEVER_SENT)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_what_was_never_sent_is_tried_again(fault: ProxyError, method: str) -> None:
    assert progress_before_head(fault) is Progress.NOTHING_SENT
    assert FIRST.decide(failure=fault, progress=Progress.NOTHING_SENT, method=method) == 0.0


@pytest.mark.parametrize("fault", SENT)
def test_what_an_origin_may_have_got_is_sent_again_only_if_that_does_no_harm_or_is_allowed(fault: ProxyError) -> None:
    assert progress_before_head(fault) is Progress.SENT
    sent = replace(FIRST, failure=fault, progress=Progress.SENT)
    assert sent.decide() is None
    assert sent.decide(method="PATCH") is None
    assert sent.decide(rules=RetryRules(repeat_sent=True)) == 0.0
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert sent.decide(method=method) == 0.0


@pytest.mark.parametrize("fault", BEFORE_CONTENT)
def test_a_fault_before_the_first_content_is_tried_again(fault: ProxyError) -> None:
    assert FIRST.decide(failure=fault) == 0.0


@pytest.mark.parametrize(
    ("status", "candidates", "expected"), [(502, 2, 0.0), (429, 2, 0.0), (400, 2, None), (502, 1, None)]
)
def test_an_error_in_a_stream_before_content_is_judged_as_its_status(
    status: int, candidates: int, expected: float | None
) -> None:
    fault = UpstreamErrorInStream("No.", status=status)
    assert FIRST.decide(failure=fault, candidates=candidates) == expected


@pytest.mark.parametrize("fault", [*NOT_THE_ORIGINS, UpstreamTotalTimeout("No.")])
@pytest.mark.parametrize("progress", [Progress.NOTHING_SENT, Progress.SENT, Progress.HEAD])
def test_what_no_other_origin_would_better_is_not_tried_again(fault: ProxyError, progress: Progress) -> None:
    assert FIRST.decide(failure=fault, progress=progress, method="GET") is None


def test_a_single_candidate_is_tried_again_only_if_nothing_was_sent() -> None:
    """SDKs repeat too: three tries of theirs times three of ours would be nine."""
    for fault in NEVER_SENT:
        assert ALONE.decide(failure=fault, progress=Progress.NOTHING_SENT) is not None
    for method in ("POST", "GET"):
        for fault in SENT:
            assert ALONE.decide(failure=fault, progress=Progress.SENT, method=method) is None
        for fault in BEFORE_CONTENT:
            assert ALONE.decide(failure=fault, method=method) is None
        for headers in ([], [(b"x-should-retry", b"true")]):
            assert ALONE.decide(failure=503, headers=headers, method=method) is None


def test_tries_are_counted_with_the_first() -> None:
    assert [FIRST.decide(tries=tries) for tries in (1, 2, 3, 4)] == [0.0, 0.0, None, None]
    assert FIRST.decide(rules=RetryRules(tries=1)) is None


# --- when -------------------------------------------------------------------------------------------------------------


def test_another_candidate_is_tried_at_once_whatever_this_one_asks_for() -> None:
    assert FIRST.decide(headers=[(b"retry-after", b"60")]) == 0.0


def test_between_tries_at_the_same_candidate_is_exponential_back_off_with_full_jitter() -> None:
    patient = replace(LAST, rules=RetryRules(tries=99, max_wait_s=100.0), drawn=1.0)
    assert [patient.decide(tries=tries) for tries in range(2, 9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert patient.decide(tries=4, drawn=0.25) == 0.5
    assert patient.decide(tries=4, drawn=0.0) == 0.0
    connecting = replace(ALONE, failure=NEVER_SENT[0], progress=Progress.NOTHING_SENT, drawn=1.0)
    assert [connecting.decide(tries=tries) for tries in (1, 2, 3)] == [0.5, 1.0, None]


def test_back_off_neither_outgrows_the_longest_wait_nor_a_float() -> None:
    assert LAST.decide(tries=8, drawn=1.0) == 2.0
    endless = RetryRules(tries=10**9, max_wait_s=1e300, cap_s=1e300)
    assert LAST.decide(tries=10**8, rules=endless, drawn=1.0) == 0.5 * 2.0**30


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"retry-after", b"1")], 1.0),
        ([(b"retry-after", b"2")], 2.0),
        ([(b"retry-after", b"2.1")], None),
        ([(b"retry-after", b"3600")], None),
        ([(b"retry-after-ms", b"1500"), (b"retry-after", b"60")], 1.5),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:49:38 GMT")], 1.0),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:59:37 GMT")], None),
        ([(b"retry-after", b"0")], 0.25),
        ([(b"retry-after", b"0.1")], 0.25),
        ([(b"retry-after", b"soon")], 0.25),
    ],
)
def test_an_origin_is_not_asked_again_before_it_wants_to_be_nor_waited_for_too_long(
    headers: Headers, expected: float | None
) -> None:
    assert LAST.decide(headers=headers) == expected


def test_nothing_is_tried_beyond_the_deadline() -> None:
    assert FIRST.decide(deadline=100.001) == 0.0
    assert FIRST.decide(deadline=100.0) is None
    assert LAST.decide(deadline=100.26) == 0.25
    assert LAST.decide(deadline=100.25) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"120")], 120.0),
        ([(b"retry-after", b" 7 ")], 7.0),
        ([(b"retry-after", b"1.5")], 1.5),
        ([(b"retry-after-ms", b"20.5")], 0.0205),
        ([(b"retry-after-ms", b"x"), (b"retry-after", b"3")], 3.0),
        ([(b"retry-after", b"4"), (b"retry-after", b"5")], 4.0),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:50:00 GMT")], 23.0),
        ([(b"retry-after", b"Sunday, 06-Nov-94 08:50:00 GMT")], 23.0),
        ([(b"retry-after", b"Sun Nov  6 08:50:00 1994")], 23.0),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:00:00 GMT")], 0.0),
        ([(b"retry-after", b"Sun, 06 Nov 99999 08:00:00 GMT")], None),
        ([(b"retry-after", b"Sun, 06 Nov 1994 " + b" " * 40 + b"08:50:00 GMT")], None),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1e9")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", "\u0663".encode())], None),
        ([(b"retry-after", b"")], None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: Headers, seconds: float | None) -> None:
    assert retry_after_s(headers, WALL_NOW) == seconds


@given(
    st.binary(max_size=40)
    | st.text("0123456789 ,:-+SunNovGMT.", max_size=40).map(str.encode)
    | st.from_regex(
        rb"\A(Sun, )?[0-9]{1,3} (Nov|nov|Feb)[ -][0-9]{1,12} [0-9]{1,4}[:.][0-9]{1,4}(:[0-9]+)?( [+-][0-9]+)?\Z"
    )
)
def test_no_bytes_make_retry_after_fail(value: bytes) -> None:
    seconds = retry_after_s([(b"retry-after", value), (b"retry-after-ms", value)], WALL_NOW)
    assert seconds is None or 0 <= seconds < math.inf


# --- what holds for all -----------------------------------------------------------------------------------------------

TRIES = st.builds(
    Try,
    failure=st.sampled_from([200, 400, 408, 429, 500, 503, *NEVER_SENT, *SENT, *BEFORE_CONTENT, *NOT_THE_ORIGINS]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"retry-after", b"retry-after-ms", b"x-should-retry"]),
            st.sampled_from([b"0", b"1", b"1500", b"true", b"false", b"Sun, 06 Nov 1994 08:49:38 GMT", b"x"]),
        ),
        max_size=3,
    ),
    progress=st.sampled_from(Progress),
    rules=st.builds(RetryRules, tries=st.integers(0, 5), max_wait_s=st.floats(0, 5), repeat_sent=st.booleans()),
    method=st.sampled_from(["GET", "POST"]),
    can_repeat=st.booleans(),
    tries=st.integers(1, 6),
    candidates=st.integers(1, 4),
    has_other=st.booleans(),
    now=st.floats(0, 10),
    deadline=st.floats(0, 20),
    drawn=st.floats(0, 1, exclude_max=True),
)


@given(TRIES)
def test_no_try_comes_after_content_or_without_a_body_or_too_late_or_too_often(one: Try) -> None:
    wait = one.decide()
    assert one.decide(progress=Progress.CONTENT) is None
    assert one.decide(can_repeat=False) is None
    assert one.decide(tries=one.rules.tries) is None
    if wait is not None:
        assert 0 <= wait <= one.rules.max_wait_s
        assert one.now + wait < one.deadline
        assert wait == 0 or not one.has_other
        asked = retry_after_s(one.headers, one.wall_now)
        assert one.has_other or asked is None or wait >= asked


def test_a_post_that_was_sent_and_not_answered_is_never_sent_again_unasked() -> None:
    for fault, candidates, has_other in product([*SENT, *BEFORE_CONTENT], (1, 2, 3), (True, False)):
        one = replace(FIRST, failure=fault, progress=Progress.SENT, candidates=candidates, has_other=has_other)
        assert one.decide() is None
    assert not IDEMPOTENT & {"POST", "PATCH", "CONNECT"}
