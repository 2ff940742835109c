"""An endpoint's health: two failures in a row end it, one success brings it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.health import FAILURES, Health


def test_one_that_was_never_asked_is_healthy() -> None:
    assert Health().is_healthy


@pytest.mark.parametrize(
    ("checks", "states"),
    [
        ("+", "+"),
        ("-", "+"),
        ("--", "+-"),
        ("-+-", "+++"),
        ("-+--", "+++-"),
        ("---", "+--"),
        ("--+", "+-+"),
        ("--+-", "+-++"),
        ("--+--", "+-++-"),
        ("----+", "+---+"),
    ],
)
def test_a_row_of_checks_gives_a_row_of_states(checks: str, states: str) -> None:
    health = Health()
    seen = ""
    for check in checks:
        health.note(check == "+")
        seen += "+" if health.is_healthy else "-"
    assert seen == states


@given(st.lists(st.booleans(), max_size=30))
def test_it_says_each_change_and_nothing_else(checks: list[bool]) -> None:
    health = Health()
    for number, ok in enumerate(checks, 1):
        before = health.is_healthy
        assert health.note(ok) == (health.is_healthy is not before)
        last = checks[max(0, number - FAILURES) : number]
        assert health.is_healthy is not (len(last) == FAILURES and not any(last))
