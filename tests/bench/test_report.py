"""What was measured, side by side."""

import json

import pytest

from trioproxy.bench.figures import Figures
from trioproxy.bench.report import Series, as_json, places, table, titles


def series(place: int = 0, *, streams: bool = True, total_s: float = 2.0, busy: float = 0.1) -> Series:
    """Ten answers, with a gap between events where they are streams."""
    figures = Figures(finished=10, tokens=500, seconds=5.0, busy=[busy])
    figures.errors["connection cut"] = 2
    for _ in range(10):
        figures.total.note(total_s)
        figures.first_content.note(0.25)
        if streams:
            figures.gap.note(0.01)
            figures.rate.note(0.02)
    return Series(place, f"http://{'ab'[place]}/v1", streams, 4, "demo", figures, 0.5)


ALL = [series(), series(streams=False), series(1, total_s=3.0), series(1, streams=False)]


def test_series_are_told_apart_by_mode_and_of_two_urls_by_letter() -> None:
    assert titles(ALL[:2]) == ["stream", "batch"]
    assert places(ALL[:2]) == ["http://a/v1"]
    assert titles(ALL) == ["A stream", "A batch", "B stream", "B batch"]
    assert places(ALL) == ["A: http://a/v1", "B: http://b/v1"]


def test_a_table_has_a_column_for_each_and_one_for_each_pair() -> None:
    columns, rows = table(ALL)
    assert columns == ("", *titles(ALL), "stream: B to A", "batch: B to A")
    cells = {row[0]: row[1:] for row in rows}
    assert all(len(row) == len(columns) for row in rows)
    assert cells["finished"] == ("10", "10", "10", "10", "+0%", "+0%")
    assert cells["failed"] == ("2", "2", "2", "2", "+0%", "+0%")
    assert cells["tokens per second"][0] == "100.0/s"
    assert cells["gap p99"] == ("10 ms", "-", "10 ms", "-", "+0%", "-")
    assert cells["total p50"] == ("2 s", "2 s", "3 s", "2 s", "+50%", "+0%")
    assert cells["tokens per second, one stream (p50)"][:2] == ("50.0/s", "-")


def test_a_table_of_one_url_compares_nothing() -> None:
    columns, _ = table(ALL[:2])
    assert columns == ("", "stream", "batch")


def test_what_was_never_seen_is_not_zero() -> None:
    nothing = Series(0, "http://a/v1", True, 4, "demo", Figures(seconds=1.0), None)
    cells = {row[0]: row[1] for row in table([nothing])[1]}
    assert cells["finished"] == "0" and cells["total p50"] == "-"
    (shown,) = as_json([nothing])["series"]
    assert shown["total_s"] == {
        "count": 0,
        "mean": None,
        "p50": None,
        "p95": None,
        "p99": None,
        "min": None,
        "max": None,
    }


def test_json_holds_what_the_table_holds_and_is_plain() -> None:
    value = json.loads(json.dumps(as_json([series(busy=0.99), *ALL[1:]]), allow_nan=False))
    assert value["version"] == 1
    first, _, third, _ = value["series"]
    assert (first["url"], first["mode"], first["clients"], first["model"]) == ("http://a/v1", "stream", 4, "demo")
    assert (first["finished"], first["failed"], first["errors"]) == (10, 2, {"connection cut": 2})
    assert (first["tokens_per_s"], first["stream_tokens_per_s"]) == (100.0, 50.0)
    assert third["total_s"]["p99"] == pytest.approx(3.0, rel=0.01)
    assert third["machine_idle"] == 0.5
    assert len(first["limits"]) == 1 and third["limits"] == []
