"""Live streams as text: what a row says, how rows are ordered, who is meant by words."""

import pytest

from tests.harness.rows import over, row
from trioproxy.cli.streams_text import COLUMNS, ORDERS, cells, ended, is_meant, ordered, shown, span

BY_NAME = {order.name: order for order in ORDERS}


def ids(rows: list[dict[str, object]], name: str, *, reverse: bool = False) -> list[object]:
    return [each["id"] for each in ordered(list(rows), BY_NAME[name], reverse=reverse)]


def test_a_row_has_a_cell_for_each_column() -> None:
    told = dict(zip(COLUMNS, cells(row("req_a", age_s=65.2, blocked_on="client", blocked_s=2.04)), strict=True))
    assert told == {
        "id": "req_a",
        "phase": "flowing",
        "age": "1:05",
        "first content": "0.250 s",
        "events": "40",
        "rate": "20.0/s",
        "waits for": "client 2.0 s",
        "key": "alice",
        "upstream": "openai",
        "model": "gpt-4o",
    }


def test_what_is_not_known_is_a_dash() -> None:
    told = cells(row("req_a", key=None, model=None, upstream=None, first_content_s=None))
    assert [told[COLUMNS.index(name)] for name in ("key", "model", "upstream", "first content")] == ["-"] * 4


def test_one_that_is_over_says_how() -> None:
    gone = over("req_a", "cancelled", reason="client_gone")
    assert (cells(gone)[1], ended(gone)) == ("cancelled", "cancelled, client_gone")
    assert (cells(over("req_a"))[1], ended(over("req_a"))) == ("finished", "finished")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("age", ["b", "c", "a"]),
        ("first content", ["b", "a", "c"]),
        ("events", ["c", "a", "b"]),
        ("rate", ["a", "c", "b"]),
        ("waiting", ["c", "b", "a"]),
        ("model", ["a", "c", "b"]),
    ],
)
def test_each_order_and_its_reverse(name: str, expected: list[str]) -> None:
    rows = [
        row("a", age_s=1.0, first_content_s=0.5, events=5, rate=9.0, blocked_s=0.0, model=None),
        row("b", age_s=3.0, first_content_s=None, events=0, rate=0.0, blocked_s=0.5, model="z"),
        row("c", age_s=2.0, first_content_s=0.1, events=50, rate=5.0, blocked_s=2.0, model="b"),
    ]
    assert ids(rows, name) == expected
    assert ids(rows, name, reverse=True) == expected[::-1]


def test_rows_that_are_alike_stand_still() -> None:
    assert ids([row("b"), row("a"), row("c")], "rate") == ["a", "b", "c"]
    assert ids([row("b"), row("a"), row("c")], "rate", reverse=True) == ["a", "b", "c"]


def test_all_words_have_to_be_there_in_any_case_and_any_place() -> None:
    told = row("req_a", model="GPT-4o", upstream="azure", key=None)
    assert is_meant(told, "")
    assert is_meant(told, "gpt AZURE")
    assert is_meant(told, "flow")
    assert not is_meant(told, "gpt openai")
    assert not is_meant(told, "none")


def test_words_of_clients_are_short_and_without_control_characters() -> None:
    assert shown("\x1b[2J\r\n\x9b1m\u202e\u200fa") == "\ufffd[2J\ufffd\ufffd\ufffd1m\ufffd\ufffda"
    assert shown("x" * 10_000) == "x" * 200 + "…"
    assert shown("") == shown(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (12.34, "12.3 s"), (59.99, "59.9 s"), (60, "1:00"), (125.9, "2:05"), (3725, "1:02:05")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text
