"""The breaker: its table, its numbers, and what holds whatever happens."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioproxy.policy.breaker import Breaker, BreakerRules, Outcome, State, Turn, usable

OK, FAULT, NEUTRAL = Outcome.OK, Outcome.FAULT, Outcome.NEUTRAL
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
RULES = BreakerRules()


def report(breaker: Breaker, outcome: Outcome, now: float, *, by_force: bool = False) -> None:
    """One request, from its start to its end."""
    turn = breaker.take(now, by_force=by_force)
    assert turn is not None
    breaker.record(turn, outcome, now)


def opened(now: float = 0.0, rules: BreakerRules = RULES) -> Breaker:
    breaker = Breaker(rules)
    for _ in range(rules.failures):
        report(breaker, FAULT, now)
    assert breaker.state(now) is OPEN
    return breaker


def ready_to_open() -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(RULES.failures - 1):
        report(breaker, FAULT, 0.0)
    return breaker


@pytest.mark.parametrize(
    ("made", "now", "outcome", "then"),
    [
        (lambda: Breaker(RULES), 0.0, OK, CLOSED),
        (lambda: Breaker(RULES), 0.0, FAULT, CLOSED),
        (lambda: Breaker(RULES), 0.0, NEUTRAL, CLOSED),
        (ready_to_open, 0.0, OK, CLOSED),
        (ready_to_open, 0.0, FAULT, OPEN),
        (ready_to_open, 0.0, NEUTRAL, CLOSED),
        (opened, 4.9, OK, CLOSED),  # used by force
        (opened, 4.9, FAULT, OPEN),
        (opened, 4.9, NEUTRAL, OPEN),
        (opened, 5.0, OK, CLOSED),
        (opened, 5.0, FAULT, OPEN),
        (opened, 5.0, NEUTRAL, HALF_OPEN),
    ],
)
def test_a_state_and_an_outcome_give_a_state(
    made: Callable[[], Breaker], now: float, outcome: Outcome, then: State
) -> None:
    breaker = made()
    report(breaker, outcome, now, by_force=True)
    assert breaker.state(now) is then


def test_faults_in_a_row_open_it_and_a_success_between_them_does_not_let_them() -> None:
    breaker = Breaker(RULES)
    for outcome in [FAULT] * 4 + [OK] + [FAULT] * 4:
        report(breaker, outcome, 0.0)
    assert breaker.state(0.0) is CLOSED
    report(breaker, FAULT, 0.0)
    assert (breaker.state(0.0), breaker.eject_until, breaker.opened_at) == (OPEN, 5.0, 0.0)
    assert not breaker.allow(4.9) and breaker.take(4.9) is None


def test_what_says_nothing_neither_ends_a_run_nor_makes_it_longer() -> None:
    breaker = Breaker(RULES)
    for outcome in [FAULT, NEUTRAL] * 4 + [NEUTRAL] * 9:
        report(breaker, outcome, 0.0)
    assert breaker.state(0.0) is CLOSED
    report(breaker, FAULT, 0.0)
    assert breaker.state(0.0) is OPEN


def test_a_share_of_faults_opens_it_once_there_were_enough_requests() -> None:
    breaker = Breaker(RULES)
    for number in range(18):
        report(breaker, FAULT if number % 2 else OK, 0.0)
    report(breaker, OK, 0.0)
    assert breaker.state(0.0) is CLOSED
    report(breaker, FAULT, 0.0)  # the twentieth, the tenth fault
    assert breaker.state(0.0) is OPEN


def test_a_smaller_share_does_not_open_it() -> None:
    breaker = Breaker(RULES)
    for number in range(100):
        report(breaker, OK if number % 5 < 3 else FAULT, 0.0)  # 40 of 100, never more than 45 of 100 on the way
    assert breaker.state(0.0) is CLOSED


def test_what_is_older_than_the_window_is_forgotten() -> None:
    breaker = Breaker(RULES)
    for number in range(19):
        report(breaker, OK if number % 2 else FAULT, 100.0)
    report(breaker, FAULT, 110.1)
    assert breaker.state(110.1) is CLOSED
    other = Breaker(RULES)
    for number in range(19):
        report(other, OK if number % 2 else FAULT, 100.0)
    report(other, FAULT, 108.9)
    assert other.state(108.9) is OPEN


def test_each_probe_that_fails_doubles_the_time_up_to_a_limit_and_a_success_makes_it_short_again() -> None:
    breaker, now, times = opened(), 0.0, []
    for _ in range(9):
        assert breaker.eject_until is not None
        times.append(breaker.eject_until - now)
        now = breaker.eject_until
        report(breaker, FAULT, now)
    assert times == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert breaker.opened_at == 0
    now = breaker.eject_until or 0
    report(breaker, OK, now)
    assert breaker.state(now) is CLOSED and {breaker.eject_until, breaker.opened_at} == {None}
    for _ in range(5):
        assert breaker.state(now) is CLOSED  # and the run starts anew
        report(breaker, FAULT, now)
    assert breaker.eject_until == now + 5


def test_a_great_many_failed_probes_overflow_nothing() -> None:
    breaker, now = opened(), 0.0
    for _ in range(3000):
        now = breaker.eject_until or 0
        report(breaker, FAULT, now)
    assert breaker.eject_until == now + 300


def test_only_so_many_try_a_half_open_endpoint_at_a_time() -> None:
    breaker = opened(rules=BreakerRules(probes=2))
    first, second = breaker.take(5.0), breaker.take(5.0)
    assert first is not None and second is not None and first.is_probe
    assert not breaker.allow(5.0) and breaker.take(5.0) is None
    breaker.release(first)
    assert breaker.allow(5.0)
    breaker.record(second, NEUTRAL, 5.0)
    assert breaker.take(5.0) and breaker.take(5.0) and breaker.take(5.0) is None


def test_looking_reserves_nothing() -> None:
    breaker = opened()
    assert [breaker.allow(5.0) for _ in range(3)] == [True] * 3


def test_a_probe_that_says_nothing_is_given_up_and_its_late_report_frees_nobody_elses() -> None:
    breaker = opened()
    lost = breaker.take(5.0)
    assert lost is not None and not breaker.allow(64.9)
    second = breaker.take(65.0)
    assert second is not None and not breaker.allow(65.0)
    breaker.release(lost)
    assert not breaker.allow(65.0)
    breaker.record(lost, NEUTRAL, 65.0)
    assert not breaker.allow(65.0)
    breaker.record(lost, OK, 65.0)  # late, but news: it works
    assert breaker.state(65.0) is CLOSED


def test_probes_that_never_report_pile_up_nowhere() -> None:
    breaker, now = opened(), 5.0
    for _ in range(10):
        assert breaker.take(now)
        now += RULES.probe_s
    assert len(breaker._probes) == 1


def test_a_probe_of_an_earlier_ejection_is_in_nobodys_way() -> None:
    breaker = opened(rules=BreakerRules(probes=2))
    first, second = breaker.take(5.0), breaker.take(5.0)
    assert first is not None and second is not None
    breaker.record(first, FAULT, 5.0)
    assert breaker.take(15.0) and breaker.take(15.0) and breaker.take(15.0) is None


def test_a_cancelled_request_counts_neither_way() -> None:
    breaker = ready_to_open()
    turn = breaker.take(0.0)
    assert turn is not None
    breaker.release(turn)
    assert breaker.state(0.0) is CLOSED
    report(breaker, FAULT, 0.0)
    assert breaker.state(0.0) is OPEN


@pytest.mark.parametrize("late", [OK, FAULT])
def test_a_request_from_before_it_opened_says_nothing_about_what_is_now(late: Outcome) -> None:
    breaker = Breaker(RULES)
    turns = [breaker.take(0.0) for _ in range(7)]
    old = [turn for turn in turns if turn is not None]
    for turn in old[:5]:
        breaker.record(turn, FAULT, 0.0)
    assert breaker.eject_until == 5
    breaker.record(old[5], late, 1.0)
    assert breaker.eject_until == 5
    probe = breaker.take(5.0)
    assert probe is not None
    breaker.record(old[6], late, 5.0)
    assert breaker.state(5.0) is HALF_OPEN and not breaker.allow(5.0)


def test_a_probe_that_fails_after_another_has_closed_it_counts_for_nothing() -> None:
    breaker = opened(rules=BreakerRules(probes=2))
    first, second = breaker.take(5.0), breaker.take(5.0)
    assert first is not None and second is not None
    breaker.record(first, OK, 5.0)
    breaker.record(second, FAULT, 5.0)
    assert breaker.state(5.0) is CLOSED


def test_a_request_by_force_is_no_probe_and_does_not_make_the_ejection_longer() -> None:
    breaker = opened()
    turn = breaker.take(1.0, by_force=True)
    assert turn is not None and not turn.is_probe
    breaker.record(turn, FAULT, 6.0)
    assert breaker.state(6.0) is HALF_OPEN and breaker.eject_until == 5 and breaker.allow(6.0)


@pytest.mark.parametrize(
    ("opened_at", "max_share", "expected"),
    [
        ([], 0.5, []),
        ([None], 0.5, [True]),
        ([3], 0.5, [True]),
        ([3], 1.0, [True]),
        ([3, None], 0.5, [False, True]),
        ([3, 2], 0.5, [True, False]),
        ([3, 2], 0.4, [True, True]),
        ([3, 2], 1.0, [True, False]),
        ([1, 2, 3], 0.5, [False, True, True]),
        ([3, 2, 1, 4], 0.5, [True, False, False, True]),
        ([None, 2, None, 4], 0.5, [True, False, True, False]),
        ([3, 2, 1, 4], 1.0, [False, False, False, True]),
        ([3, 2, 1, 4], 0.0, [True] * 4),
        ([1] * 10, 0.7, [False] * 7 + [True] * 3),
        ([1] * 10, 0.3, [False] * 3 + [True] * 7),
        ([1] * 50, 0.58, [False] * 29 + [True] * 21),  # 0.58 * 50 is 28.999…
    ],
)
def test_only_a_share_of_the_endpoints_is_left_out_the_longest_open_first_and_never_all(
    opened_at: list[float | None], max_share: float, expected: list[bool]
) -> None:
    breakers = [Breaker(RULES) if at is None else opened(at) for at in opened_at]
    assert usable(breakers, 4.5, max_share) == expected


def test_a_half_open_endpoint_is_used_while_it_has_a_probe_left() -> None:
    breakers = [opened(), Breaker(RULES)]
    assert usable(breakers, 5.0) == [True, True]
    assert breakers[0].take(5.0)
    assert usable(breakers, 5.0) == [False, True]


class AnyOrder(RuleBasedStateMachine):
    """A breaker that is used in any order, and what must hold then."""

    numbers = BreakerRules(failures=2, min_requests=4, max_eject_s=20.0, probes=2, probe_s=7.0)

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.numbers)
        self.now = 0.0
        self.turns: list[tuple[Turn, float]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 7.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(by_force=st.booleans())
    def take(self, by_force: bool) -> None:
        allowed, state = self.breaker.allow(self.now), self.breaker.state(self.now)
        turn = self.breaker.take(self.now, by_force=by_force)
        assert (turn is not None) == (allowed or by_force)
        if turn is not None:
            assert turn.is_probe == (allowed and state is HALF_OPEN)
            self.turns.append((turn, self.now))

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), outcome=st.sampled_from([*Outcome, None]))
    def end(self, data: st.DataObject, outcome: Outcome | None) -> None:
        turn, _ = self.turns.pop(data.draw(st.integers(0, len(self.turns) - 1)))
        before, until = self.breaker.state(self.now), self.breaker.eject_until
        if outcome is None:
            self.breaker.release(turn)
        else:
            self.breaker.record(turn, outcome, self.now)
        after = self.breaker.state(self.now)
        if before is not after:
            assert (before, outcome, after) in {
                (CLOSED, FAULT, OPEN),
                (HALF_OPEN, FAULT, OPEN),
                (HALF_OPEN, OK, CLOSED),
                (OPEN, OK, CLOSED),
            }
            assert after is not OPEN or before is CLOSED or turn.is_probe
        else:
            assert self.breaker.eject_until == until

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        probes = [turn for turn, since in self.turns if turn.is_probe and turn.era == self.breaker._era]
        young = [since for turn, since in self.turns if turn in probes and self.now < since + self.numbers.probe_s]
        assert len(young) <= self.numbers.probes
        if self.breaker.state(self.now) is HALF_OPEN:
            assert self.breaker.allow(self.now) == (len(young) < self.numbers.probes)
        assert len(self.breaker._probes) <= self.numbers.probes

    @invariant()
    def it_is_never_open_for_longer_than_its_rules_say(self) -> None:
        until = self.breaker.eject_until
        assert until is None or until <= self.now + self.numbers.max_eject_s
        assert (until is None) == (self.breaker.opened_at is None) == (self.breaker.state(self.now) is CLOSED)
        assert len(self.breaker._window._slots) <= 10


TestAnyOrder = AnyOrder.TestCase
