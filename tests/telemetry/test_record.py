"""What is known of a request once it is over."""

from dataclasses import FrozenInstanceError

import pytest

from trioproxy.telemetry.exchange import MAX_WORD, Exchange, Trying
from trioproxy.telemetry.flow import CLIENT, UPSTREAM
from trioproxy.telemetry.gaps import Gaps


def test_it_says_who_was_waited_for_and_is_written_no_more() -> None:
    one = Exchange("req_1", "POST", "/v1/x", 10.0)
    one.flow.turn(UPSTREAM, 11.0)
    one.flow.turn(CLIENT, 13.0)
    record = one.close(13.5)
    assert (record.proxy_s, record.upstream_s, record.client_s, record.ended) == (1.0, 2.0, 0.5, 13.5)
    assert record.turns == [(10.0, "proxy", 1.0), (11.0, "upstream", 2.0), (13.0, "client", 0.5)]
    line = record.line()
    assert (line["upstream_ms"], line["client_ms"], line["proxy_ms"], line["total_ms"]) == (2000, 500, 1000, 3500)
    with pytest.raises(FrozenInstanceError):
        record.status = 5  # type: ignore[misc]


def test_a_try_that_came_to_nothing_was_cancelled_and_ends_with_its_request() -> None:
    one = Exchange("req_1", "POST", "/v1/x", 10.0)
    first, second = Trying("a", "m"), Trying("b")
    one.begin_try(first, 10.5)
    first.note_connected(10.6)
    first.ended, first.result = 11.0, "upstream_disconnected"
    one.begin_try(second, 11.0)
    tries = one.close(12.0).tries
    assert [(each.upstream, each.started, each.connected, each.ended, each.result) for each in tries] == [
        ("a", 10.5, 10.6, 11.0, "upstream_disconnected"),
        ("b", 11.0, None, 12.0, "cancelled"),
    ]
    assert (one.attempts, one.upstream) == (2, "b")


def test_words_of_a_client_are_cut() -> None:
    record = Exchange("req_1", "POST", "/" + "p" * 9000, 10.0, model="m" * 9000).close(11.0)
    assert record.model == "m" * MAX_WORD
    assert len(record.path) == MAX_WORD


def test_the_longest_silence_is_told_of_streams_alone() -> None:
    one = Exchange("req_1", "POST", "/v1/x", 10.0)
    assert "longest_gap_ms" not in one.close(11.0).line()
    one = Exchange("req_1", "POST", "/v1/x", 10.0, gaps=Gaps())
    assert one.gaps is not None
    one.gaps.note(0.05, 1)
    record = one.close(11.0)
    assert (record.line()["longest_gap_ms"], record.gaps_s, sum(record.gaps or ())) == (50.0, 0.05, 1)
