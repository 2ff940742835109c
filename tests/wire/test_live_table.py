"""Rows of the live table, and what is written of them."""

import json
from typing import Any

import pytest

from trioproxy.wire.live_table import (
    EndedRow,
    Row,
    Told,
    change_event,
    lost_row,
    position_in,
    snapshot_event,
    table,
    told_as_text,
    told_from,
)

FIELDS: dict[str, Any] = {
    "id": "req_1",
    "stream": None,
    "worker": 2,
    "key": "team-a",
    "model": '"><script>\n\u2028',
    "upstream": "paid",
    "endpoint": "chat",
    "client": "192.0.2.7",
    "phase": "flowing",
    "age_s": 1.25,
    "first_content_s": 0.2,
    "events": 12,
    "bytes": 3456,
    "rate": 20.1,
    "blocked_on": "client",
    "blocked_s": 0.05,
    "upstream_s": 1.0,
    "client_s": 0.1,
    "proxy_s": 0.15,
    "subscribers": 0,
    "attempts": 1,
    "streaming": True,
}
LAST_WORD: dict[str, Any] = {
    "outcome": "failed",
    "code": "stream_stopped",
    "reason": "stopped_by_admin",
    "status": 200,
    "input_tokens": None,
    "output_tokens": None,
    "cost_usd": None,
}


def row(**other: Any) -> Row:
    return Row(**{**FIELDS, **other})


def ended() -> EndedRow:
    return EndedRow(**{**FIELDS, "phase": "ended"}, **LAST_WORD)


def data_of(event: bytes) -> Any:
    lines = event.split(b"\n")
    assert len(lines) == 5 and lines[3:] == [b"", b""]  # JSON has no line ends of its own
    return json.loads(lines[2].removeprefix(b"data: "))


def test_the_whole_table_is_json() -> None:
    assert json.loads(table([row()], 7)) == {"streams": [FIELDS], "at": 7}


def test_the_whole_table_is_an_event() -> None:
    event = snapshot_event([row()], 7)
    assert event.startswith(b"id: 7\nevent: snapshot\ndata: {")
    assert data_of(event) == {"streams": [FIELDS]}


def test_a_change_is_an_event() -> None:
    event = change_event([row()], [ended()], 8)
    assert event.startswith(b"id: 8\nevent: change\ndata: {")
    assert data_of(event) == {"set": [FIELDS], "gone": [{**FIELDS, "phase": "ended", **LAST_WORD}]}


def test_what_a_worker_tells_arrives() -> None:
    told = Told([row(), row(id="req_2")], [ended()], 17)
    assert told_from(told_as_text(told)) == told


def test_the_last_word_of_a_lost_worker_s_request_is_that_it_was_lost() -> None:
    lost = lost_row(row())
    assert (lost.phase, lost.blocked_on, lost.outcome, lost.reason) == ("ended", "", "failed", "worker_lost")
    assert (lost.id, lost.events, lost.age_s) == ("req_1", 12, 1.25)


@pytest.mark.parametrize(
    "other",
    [
        {"events": 13},
        {"bytes": 3457},
        {"phase": "ended"},
        {"blocked_on": "upstream"},
        {"attempts": 2},
        {"subscribers": 1},
        {"rate": 0.0},
        {"upstream": "other"},
        {"model": "m"},
        {"key": None},
        {"stream": "s"},
        {"age_s": 2.0},
    ],
)
def test_a_row_is_told_again_when_something_happened(other: dict[str, Any]) -> None:
    assert row(**other).differs(row())


def test_a_row_is_not_told_again_because_time_goes_by() -> None:
    assert not row(age_s=1.9, blocked_s=0.7, client_s=0.75).differs(row())


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"0", 0), (b"1795292734869", 1795292734869), (None, None), (b"", None), (b"x", None), (b"-1", None)],
)
def test_a_place_is_a_number(value: bytes | None, number: int | None) -> None:
    assert position_in(value) == number
