"""What clients are told when an origin, or the way to it, fails."""

import httpx
import pytest

from tests.harness.wires import LIBRARY_WORDS
from trioproxy.errors import (
    Overloaded,
    Source,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamDisconnected,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.upstream.connect import OutOfDescriptors
from trioproxy.upstream.faults import fault_before_head, fault_in_body

BEFORE: list[tuple[type[httpx.TransportError], type[UpstreamFault], int]] = [
    (httpx.ConnectTimeout, UpstreamConnectTimeout, 504),
    (httpx.ConnectError, UpstreamConnectFailed, 502),
    (httpx.RemoteProtocolError, UpstreamProtocolError, 502),
    (httpx.ReadError, UpstreamDisconnected, 502),
    (httpx.WriteError, UpstreamDisconnected, 502),
    (httpx.CloseError, UpstreamDisconnected, 502),
    (httpx.ReadTimeout, UpstreamDisconnected, 502),
    (httpx.LocalProtocolError, UpstreamDisconnected, 502),
]


@pytest.mark.parametrize(("error", "fault", "status"), BEFORE, ids=lambda value: getattr(value, "__name__", None))
def test_each_error_before_the_head_has_its_fault(
    error: type[httpx.TransportError], fault: type[UpstreamFault], status: int
) -> None:
    made = fault_before_head(error("[Errno 104] /usr/lib/ssl"), "origin")
    assert type(made) is fault
    assert (made.status, made.source) == (status, Source.UPSTREAM)
    assert "'origin'" in made.message


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (httpx.RemoteProtocolError, UpstreamProtocolError),
        (httpx.ReadError, UpstreamTruncated),
        (httpx.ReadTimeout, UpstreamTruncated),
    ],
)
def test_each_error_behind_the_head_has_its_fault(
    error: type[httpx.TransportError], fault: type[UpstreamFault]
) -> None:
    made = fault_in_body(error("[Errno 104] /usr/lib/ssl"), "origin")
    assert type(made) is fault
    assert "'origin'" in made.message
    assert LIBRARY_WORDS.search(made.message) is None


@pytest.mark.parametrize("error", [error for error, fault, _ in BEFORE if fault is not UpstreamConnectFailed])
def test_no_fault_repeats_a_library_s_words(error: type[httpx.TransportError]) -> None:
    assert LIBRARY_WORDS.search(fault_before_head(error("[Errno 104] /usr/lib/ssl"), "origin").message) is None


def test_a_failed_connection_says_at_which_step() -> None:
    """Its words are `upstream/connect`'s own."""
    made = fault_before_head(httpx.ConnectError("the origin's certificate is not trusted"), "origin")
    assert made.message == "Cannot connect to the upstream 'origin': the origin's certificate is not trusted."


def test_our_own_lack_is_not_the_upstream_s_fault() -> None:
    made = fault_before_head(OutOfDescriptors("[Errno 24] too many open files"), "origin")
    assert type(made) is Overloaded and (made.status, made.source) == (503, Source.PROXY)
    assert LIBRARY_WORDS.search(made.message) is None
