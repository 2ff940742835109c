"""The live table as somebody sees it who follows it."""

from tests.harness.rows import over, row
from trioproxy.cli.live_table import LiveTable


def phases(table: LiveTable, now: float) -> dict[str, str]:
    return {each["id"]: each["phase"] for each in table.rows(now)}


def test_it_is_told_whole_and_then_in_changes() -> None:
    assert not LiveTable().is_known
    table = LiveTable()
    table.tell_all([row("a"), row("b")], 0.0)
    assert table.is_known
    table.tell([row("b", phase="waiting"), row("c")], [over("a")], 1.0)
    assert phases(table, 1.0) == {"a": "ended", "b": "waiting", "c": "flowing"}
    table.tell_all([row("d")], 9.0)
    assert phases(table, 9.0) == {"d": "flowing"}


def test_one_that_is_over_goes_after_a_while() -> None:
    table = LiveTable()
    table.tell([row("a")], [], 0.0)
    table.tell([], [over("a")], 1.0)
    assert phases(table, 3.9) == {"a": "ended"}
    assert phases(table, 4.0) == {}


def test_rows_grow_older_by_themselves_but_not_those_that_are_over() -> None:
    table = LiveTable()
    table.tell([row("a", age_s=5.0, blocked_s=1.0)], [over("b", age_s=5.0)], 10.0)
    live, ended = table.rows(12.5)
    assert (live["age_s"], live["blocked_s"]) == (7.5, 3.5)
    assert ended["age_s"] == 5.0
    assert table.rows(12.6)[0]["age_s"] == 7.6  # nothing was written into what was told


def test_two_workers_may_have_requests_of_one_id() -> None:
    table = LiveTable()
    table.tell([row("a", worker=0), row("a", worker=1)], [], 0.0)
    table.tell([], [over("a", worker=0)], 1.0)
    assert [(each["worker"], each["phase"]) for each in table.rows(1.0)] == [(1, "flowing"), (0, "ended")]


def test_it_does_not_grow_with_what_has_ended() -> None:
    table = LiveTable()
    table.tell([], [over(f"req_{number}") for number in range(1000)], 0.0)
    assert list(phases(table, 0.0)) == [f"req_{number}" for number in range(800, 1000)]
