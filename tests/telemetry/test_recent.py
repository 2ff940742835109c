"""The requests that have ended lately."""

from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.recent import KEPT_S, MAX_KEPT, Recent


def end(recent: Recent, name: str, now: float) -> None:
    recent.add(Exchange(name, "POST", "/", now).close(now))


def names(recent: Recent, now: float, after: int = 0) -> list[str]:
    return [one.record.request_id for one in recent.since(now, after)]


def test_the_last_ones_come_first_and_only_those_that_are_new() -> None:
    recent = Recent()
    for name in "abc":
        end(recent, name, 1.0)
    assert (recent.last, names(recent, 1.0)) == (3, ["c", "b", "a"])
    assert names(recent, 1.0, after=2) == ["c"]
    assert names(recent, 1.0, after=3) == []


def test_they_are_kept_for_a_minute() -> None:
    recent = Recent()
    end(recent, "a", 0.0)
    end(recent, "b", 30.0)
    assert names(recent, KEPT_S) == ["b", "a"]
    assert names(recent, KEPT_S + 1) == ["b"]
    end(recent, "c", 200.0)
    assert len(recent._kept) == 1


def test_there_are_never_more_than_a_thousand() -> None:
    recent = Recent()
    for number in range(2 * MAX_KEPT):
        end(recent, str(number), 0.0)
    assert len(names(recent, 0.0)) == MAX_KEPT
    assert recent.last == 2 * MAX_KEPT
