"""How long somebody has to wait who has shown wrong keys."""

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.wrong_keys import FORGET_S, MAX_ADDRESSES, WrongKeys


def test_who_has_shown_nothing_wrong_does_not_wait() -> None:
    keys = WrongKeys()
    assert [keys.wait_s("a", 0.0) for _ in range(100)] == [0.0] * 100
    keys.note("a", 0.0, is_right=True)
    assert keys.wait_s("a", 0.0) == 0.0


def test_each_wrong_key_makes_the_next_attempt_wait_twice_as_long() -> None:
    keys, now, waits = WrongKeys(), 0.0, []
    for _ in range(8):
        wait_s = keys.wait_s("a", now)
        assert wait_s is not None
        waits.append(wait_s)
        now += wait_s
        keys.note("a", now, is_right=False)
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_attempts_take_turns_until_too_many_wait() -> None:
    keys = WrongKeys()
    keys.note("a", 0.0, is_right=False)
    assert [keys.wait_s("a", 0.0) for _ in range(7)] == [0.25, 0.75, 1.75, 3.75, 7.75, None, None]
    assert keys.wait_s("a", 2.0) == 9.75


def test_others_do_not_wait() -> None:
    keys = WrongKeys()
    for _ in range(10):
        keys.note("a", 0.0, is_right=False)
    assert keys.wait_s("b", 0.0) == 0.0


def test_a_right_key_or_a_quiet_minute_is_forgiven() -> None:
    keys = WrongKeys()
    keys.note("a", 0.0, is_right=False)
    keys.note("a", 0.0, is_right=True)
    assert keys.wait_s("a", 0.0) == 0.0
    keys.note("a", 0.0, is_right=False)
    assert keys.wait_s("a", FORGET_S + 0.3) == 0.0
    keys.note("a", FORGET_S + 0.3, is_right=False)
    assert keys.wait_s("a", FORGET_S + 0.3) == 0.25


def test_only_so_many_addresses_are_remembered() -> None:
    keys = WrongKeys()
    for number in range(MAX_ADDRESSES + 5):
        keys.note(str(number), 0.0, is_right=False)
    waits = [keys.wait_s(str(number), 0.0) for number in range(MAX_ADDRESSES + 5)]
    assert waits.count(0.0) == 5 and waits[:5] == [0.0] * 5


@given(st.lists(st.floats(0, 1), max_size=200))
def test_a_guesser_gets_no_more_than_a_guess_in_four_seconds_in_the_long_run(pauses: list[float]) -> None:
    keys, now, looked_at = WrongKeys(), 0.0, []
    for pause in pauses:
        now += pause
        wait_s = keys.wait_s("a", now)
        if wait_s is not None:
            looked_at.append(now + wait_s)
            keys.note("a", now + wait_s, is_right=False)
    assert len(looked_at) <= 6 + (max(looked_at) if looked_at else 0) / 4
