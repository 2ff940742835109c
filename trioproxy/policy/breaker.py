"""When an endpoint is left alone for a while: a circuit breaker fed with what requests came to. PURE.

    closed     OK       → closed      the run of faults is over
    closed     FAULT    → open        if the run, or the share in the window, is too much; else closed
    open       (time)   → half open   when the ejection is over
    half open  OK       → closed      and the next ejection is short again
    half open  FAULT    → open        for twice as long
    any        NEUTRAL  → the same

A request is let in by `take` and reports with the turn it got there, so that a late report of a request from before a
change of state counts for nothing, and nobody else's probe is given back. All times are seconds of one clock that
never goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_SLOTS = 10
_MAX_DOUBLINGS = 64


class Outcome(Enum):
    """What a request says about its endpoint."""

    OK = "ok"
    FAULT = "fault"
    """No connection, a timeout, a cut, a 5xx."""
    NEUTRAL = "neutral"
    """A 4xx, a refused key of the client's, a 429: the endpoint works, or it is not known."""


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerRules:
    """When a breaker opens, and for how long."""

    failures: int = 5
    """So many faults in a row open it."""
    error_share: float = 0.5
    """So does this share of the requests in the window, if there were `min_requests`."""
    window_s: float = 10.0
    min_requests: int = 20
    eject_s: float = 5.0
    """How long it is open the first time; twice as long after each probe that failed."""
    max_eject_s: float = 300.0
    probes: int = 1
    """How many requests may try a half open endpoint at a time."""
    probe_s: float = 60.0
    """A probe that has said nothing for so long no longer keeps others from trying."""


class Turn:
    """A request's leave to use the endpoint. Given back once, by `record` or `release`; a second time does nothing."""

    __slots__ = ("era", "is_probe")

    def __init__(self, era: int, is_probe: bool) -> None:
        self.era = era
        self.is_probe = is_probe


class Breaker:
    """The breaker of one endpoint."""

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.eject_until: float | None = None
        """When the ejection is over; None while closed."""
        self.opened_at: float | None = None
        """Since when it has not been closed; None while closed."""
        self._window = _Window(rules.window_s)
        self._faults_in_a_row = 0
        self._ejections = 0
        self._era = 0  # how often it opened or closed
        self._probes: dict[Turn, float] = {}  # each probe, and when it is given up

    def state(self, now: float) -> State:
        """What it is, for decisions, metrics and tables."""
        if self.eject_until is None:
            return State.CLOSED
        return State.OPEN if now < self.eject_until else State.HALF_OPEN

    def allow(self, now: float) -> bool:
        """Whether `take` would give a turn. Changes nothing."""
        state = self.state(now)
        if state is State.HALF_OPEN:
            return sum(now < given_up for given_up in self._probes.values()) < self.rules.probes
        return state is State.CLOSED

    def take(self, now: float, *, by_force: bool = False) -> Turn | None:
        """Leave for one request, reserved as a probe if it is half open; None is no.

        `by_force` is for an endpoint that is used although it is ejected (see `usable`): it never gets None.
        """
        if not self.allow(now):
            return Turn(self._era, is_probe=False) if by_force else None
        turn = Turn(self._era, is_probe=self.state(now) is State.HALF_OPEN)
        if turn.is_probe:
            self._probes = {probe: given_up for probe, given_up in self._probes.items() if now < given_up}
            self._probes[turn] = now + self.rules.probe_s
        return turn

    def record(self, turn: Turn, outcome: Outcome, now: float) -> None:
        """What a request came to."""
        self._probes.pop(turn, None)
        if turn.era != self._era or outcome is Outcome.NEUTRAL:
            return
        if self.eject_until is None:
            self._count(outcome, now)
        elif outcome is Outcome.OK:
            self._close()
        elif turn.is_probe:
            self._open(now)

    def release(self, turn: Turn) -> None:
        """A request that was cancelled (its client left): it says nothing about the endpoint."""
        self._probes.pop(turn, None)

    def _count(self, outcome: Outcome, now: float) -> None:
        is_fault = outcome is Outcome.FAULT
        self._window.add(is_fault, now)
        self._faults_in_a_row = self._faults_in_a_row + 1 if is_fault else 0
        if not is_fault:
            return
        total, faults = self._window.counts(now)
        is_too_much = total >= self.rules.min_requests and faults >= self.rules.error_share * total
        if is_too_much or self._faults_in_a_row >= self.rules.failures:
            self._open(now)

    def _open(self, now: float) -> None:
        doublings = min(self._ejections, _MAX_DOUBLINGS)
        self.eject_until = now + min(self.rules.eject_s * 2**doublings, self.rules.max_eject_s)
        self.opened_at = now if self.opened_at is None else self.opened_at
        self._ejections += 1
        self._change()

    def _close(self) -> None:
        self.eject_until = self.opened_at = None
        self._ejections = 0
        self._change()

    def _change(self) -> None:
        self._era += 1
        self._probes.clear()
        self._faults_in_a_row = 0
        self._window = _Window(self.rules.window_s)


def usable(breakers: Sequence[Breaker], now: float, max_share: float = 0.5) -> list[bool]:
    """Which of these endpoints requests may use, in the same order.

    Of those that are ejected only `max_share` of all are really left out, those first that have been ejected longest,
    and never all: counting faults may be wrong about each of them (a bad request breaks them all), and to send nothing
    anywhere is the worst that can be done. The others are used by force.
    """
    out = [index for index, breaker in enumerate(breakers) if not breaker.allow(now)]
    out.sort(key=lambda index: breakers[index].opened_at or 0.0)
    most = min(int(max_share * len(breakers) + 1e-9), len(breakers) - 1)
    left_out = set(out[: max(most, 0)])
    return [index not in left_out for index in range(len(breakers))]


class _Window:
    """How many requests, and how many faults, in the last `length_s`; exact to a tenth of it."""

    def __init__(self, length_s: float) -> None:
        self._slot_s = length_s / _SLOTS
        self._slots: dict[int, tuple[int, int]] = {}

    def add(self, is_fault: bool, now: float) -> None:
        self._drop_old(now)
        slot = int(now // self._slot_s)
        total, faults = self._slots.get(slot, (0, 0))
        self._slots[slot] = (total + 1, faults + is_fault)

    def counts(self, now: float) -> tuple[int, int]:
        """All requests, and the faults among them."""
        self._drop_old(now)
        totals = [total for total, _ in self._slots.values()]
        return sum(totals), sum(faults for _, faults in self._slots.values())

    def _drop_old(self, now: float) -> None:
        oldest = int(now // self._slot_s) - _SLOTS + 1
        for slot in [slot for slot in self._slots if slot < oldest]:
            del self._slots[slot]
