"""The order in which upstreams are tried: what each strategy promises, and what holds for all of them."""

from collections import Counter
from collections.abc import Callable
from itertools import permutations
from math import prod, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.plan import FORGOTTEN_AFTER_HALF_LIVES, Candidate, Ewma, Strategy, arrange

NO_DRAW: Callable[[], float] = iter(()).__next__
"""Fails if it is asked."""
DRAWS = 4000


def candidate(
    name: str = "a",
    weight: float = 1,
    in_flight: int = 0,
    first_content_s: float | None = 1.0,
    is_usable: bool = True,
) -> Candidate:
    return Candidate(name, weight, in_flight, first_content_s, is_usable)


def weighing(*weights: float) -> list[Candidate]:
    return [candidate(f"upstream-{at}", weight) for at, weight in enumerate(weights)]


def firsts(candidates: list[Candidate], strategy: Strategy) -> Counter[int]:
    """Who came first, how often, in so many requests."""
    draw = Random(7).random
    return Counter(arrange(candidates, strategy, draw=draw)[0] for _ in range(DRAWS))


def is_near(count: int, share: float, of: int = DRAWS) -> bool:
    """Within four standard deviations of what chance would give."""
    return abs(count - of * share) <= 4 * sqrt(of * share * (1 - share))


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.text(max_size=3),
        weight=st.just(0) | st.integers(0, 10) | st.floats(0, allow_infinity=False, allow_nan=False),
        in_flight=st.integers(0, 3),
        first_content_s=st.none() | st.floats(0, 100),
        is_usable=st.booleans(),
    ),
    max_size=6,
)
STRATEGIES = st.sampled_from(Strategy)
STICKY = st.none() | st.text(st.characters(), max_size=5)
DRAWN = st.sampled_from([0.0, 0.5, 1 - 2**-53]) | st.floats(0, 1, exclude_max=True)


# --- every strategy ---------------------------------------------------------------------------------------------------


@given(CANDIDATES, STRATEGIES, STICKY, st.data())
def test_every_usable_candidate_is_tried_once_and_no_other(
    candidates: list[Candidate], strategy: Strategy, sticky: str | None, data: st.DataObject
) -> None:
    order = arrange(candidates, strategy, draw=lambda: data.draw(DRAWN), sticky=sticky)
    assert sorted(order) == [at for at, one in enumerate(candidates) if one.is_usable]


@given(CANDIDATES, STRATEGIES.filter(lambda one: one is not Strategy.ORDERED), STICKY, st.randoms())
def test_weight_0_is_the_last_resort(
    candidates: list[Candidate], strategy: Strategy, sticky: str | None, random: Random
) -> None:
    order = arrange(candidates, strategy, draw=random.random, sticky=sticky)
    has_weight = [candidates[index].weight > 0 for index in order]
    assert has_weight == sorted(has_weight, reverse=True)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("sticky", [None, "user-1"])
def test_none_usable_is_no_order(strategy: Strategy, sticky: str | None) -> None:
    unusable = [candidate(is_usable=False), candidate("b", is_usable=False)]
    assert arrange(unusable, strategy, draw=NO_DRAW, sticky=sticky) == []
    assert arrange([], strategy, draw=NO_DRAW, sticky=sticky) == []


@pytest.mark.parametrize("strategy", ["ordered", "weighted", "least_busy", "fastest"])
def test_strategies_have_the_words_of_the_configuration(strategy: str) -> None:
    assert arrange([candidate()], Strategy(strategy), draw=NO_DRAW) == [0]


# --- each strategy ----------------------------------------------------------------------------------------------------


def test_ordered_keeps_the_order_of_the_file_whatever_else_is_known() -> None:
    candidates = [candidate("a", 0, 9, 9.0), candidate("b", is_usable=False), candidate("c", 5), candidate("d", 9)]
    assert arrange(candidates, Strategy.ORDERED, draw=NO_DRAW) == [0, 2, 3]


def test_weighted_draws_whole_orders_by_weight() -> None:
    """One after the other, each in proportion to its weight among those that are left."""
    weights = (5.0, 3.0, 2.0)
    draw = Random(1).random
    seen = Counter(tuple(arrange(weighing(*weights), Strategy.WEIGHTED, draw=draw)) for _ in range(DRAWS))
    for order in permutations(range(3)):
        left = [sum(weights[index] for index in order[at:]) for at in range(3)]
        assert is_near(seen[order], prod(weights[index] / left[at] for at, index in enumerate(order)))


def test_weighted_gives_last_resorts_an_order_by_chance() -> None:
    draw = Random(1).random
    seen = Counter(tuple(arrange(weighing(0, 0, 1), Strategy.WEIGHTED, draw=draw)) for _ in range(DRAWS))
    assert seen.keys() == {(2, 0, 1), (2, 1, 0)}
    assert is_near(seen[2, 0, 1], 0.5)


@pytest.mark.parametrize(
    ("weights", "in_flight", "order"),
    [
        ((1, 1, 1), (2, 0, 1), [1, 2, 0]),
        ((4, 1, 1), (3, 1, 2), [0, 1, 2]),
        ((0, 1, 0), (0, 9, 1), [1, 0, 2]),
    ],
)
def test_least_busy_is_the_fewest_in_flight_for_the_weight(
    weights: tuple[float, ...], in_flight: tuple[int, ...], order: list[int]
) -> None:
    candidates = [
        candidate(str(at), weight, busy) for at, (weight, busy) in enumerate(zip(weights, in_flight, strict=True))
    ]
    for seed in range(20):
        assert arrange(candidates, Strategy.LEAST_BUSY, draw=Random(seed).random) == order


def test_equally_busy_ones_share_by_weight() -> None:
    seen = firsts([candidate("a", 3), candidate("b", 1), candidate("c", 1, in_flight=1)], Strategy.LEAST_BUSY)
    assert is_near(seen[0], 0.75)
    assert seen[2] == 0
    seen = firsts([candidate("a", 3, in_flight=3), candidate("b", 1, in_flight=1)], Strategy.LEAST_BUSY)
    assert is_near(seen[0], 0.75)


def test_fastest_takes_the_better_of_two_taken_by_chance() -> None:
    """With three, the best is in two of three pairs, the second best wins the third, the worst none."""
    seen = firsts([candidate(first_content_s=seconds) for seconds in (3.0, 1.0, 2.0)], Strategy.FASTEST)
    assert is_near(seen[1], 2 / 3) and is_near(seen[2], 1 / 3) and seen[0] == 0


def test_fastest_goes_on_in_the_same_way_with_those_that_are_left() -> None:
    candidates = [candidate(first_content_s=seconds) for seconds in (4.0, 1.0, 3.0, 2.0)]
    draw = Random(2).random
    orders = [arrange(candidates, Strategy.FASTEST, draw=draw) for _ in range(DRAWS)]
    assert all(order[-1] == 0 for order in orders)
    best_first = [order for order in orders if order[0] == 1]
    assert is_near(len(best_first), 1 / 2)
    assert is_near(sum(order[1] == 3 for order in best_first), 2 / 3, of=len(best_first))


def test_fastest_counts_what_is_in_flight() -> None:
    fast_and_busy, slow_and_idle = candidate(in_flight=4, first_content_s=1.0), candidate(first_content_s=4.0)
    for seed in range(20):
        assert arrange([fast_and_busy, slow_and_idle], Strategy.FASTEST, draw=Random(seed).random) == [1, 0]
    assert set(firsts([candidate(first_content_s=0.0), candidate(first_content_s=0.0)], Strategy.FASTEST)) == {0, 1}


def test_fastest_tries_an_unknown_one_first_but_one_request_finds_out() -> None:
    known, unknown = candidate(first_content_s=9.0), candidate(first_content_s=None)
    asked, asked_twice = candidate(first_content_s=None, in_flight=1), candidate(first_content_s=None, in_flight=2)
    for seed in range(20):
        order = arrange([asked_twice, known, asked, unknown], Strategy.FASTEST, draw=Random(seed).random)
        assert order == [3, 1, 2, 0]
    assert is_near(firsts([unknown, known, unknown], Strategy.FASTEST)[0], 1 / 2)


def test_fastest_leaves_last_resorts_behind_whatever_is_known_of_them() -> None:
    last = [candidate("a", 0, 0, None), candidate("b", 0, 0, 0.1), candidate("c", 0, 1, None)]
    for first in (candidate(first_content_s=None), candidate(first_content_s=9.0), candidate("d", 1, 9, None)):
        for seed in range(20):
            assert arrange([*last, first], Strategy.FASTEST, draw=Random(seed).random) == [3, 0, 1, 2]


def test_fastest_does_not_compare_with_last_resorts() -> None:
    """Else the slower one would win by being taken together with a last resort."""
    candidates = [candidate("a", 0, first_content_s=20.0), candidate("b", first_content_s=9.0), candidate("c")]
    for seed in range(20):
        assert arrange(candidates, Strategy.FASTEST, draw=Random(seed).random) == [2, 1, 0]


# --- sticky values ----------------------------------------------------------------------------------------------------

VALUES = [f"user-{number}" for number in range(DRAWS)]


def stick(candidates: list[Candidate], sticky: str, strategy: Strategy = Strategy.ORDERED) -> list[str]:
    return [candidates[index].name for index in arrange(candidates, strategy, draw=NO_DRAW, sticky=sticky)]


@given(CANDIDATES, STRATEGIES, st.text(st.characters(), max_size=5), st.integers(0, 9), st.floats(0, 9))
def test_a_sticky_value_has_one_order_under_every_strategy(
    candidates: list[Candidate], strategy: Strategy, sticky: str, in_flight: int, first_content_s: float
) -> None:
    later = [Candidate(one.name, one.weight, in_flight, first_content_s, one.is_usable) for one in candidates]
    assert stick(candidates, sticky) == stick(later, sticky, strategy)


def test_the_order_does_not_hang_on_the_order_of_the_file() -> None:
    candidates = weighing(1, 2, 3, 0)
    assert all(stick(candidates, value) == stick(candidates[::-1], value) for value in VALUES[:200])


def test_the_order_is_the_same_on_every_machine_and_in_every_release() -> None:
    """Another hash would move every user away from the caches that are warm for them."""
    orders = ["".join(name[-1] for name in stick(weighing(1, 1, 2), value)) for value in ("", "a", "ä\ud800", "user-1")]
    assert orders == ["021", "210", "201", "120"]


def test_sticky_values_are_spread_by_weight() -> None:
    seen = Counter(stick(weighing(5, 3, 2, 0), value)[0] for value in VALUES)
    assert is_near(seen["upstream-0"], 0.5) and is_near(seen["upstream-1"], 0.3) and is_near(seen["upstream-2"], 0.2)


def test_who_fails_over_spreads_by_weight_too() -> None:
    orders = [stick(weighing(5, 3, 1), value) for value in VALUES]
    moved = [order[1] for order in orders if order[0] == "upstream-0"]
    assert is_near(moved.count("upstream-1"), 3 / 4, of=len(moved))


def test_two_pairs_of_texts_are_not_one_text() -> None:
    orders = [stick([candidate("a"), candidate("ab")], value) for value in ("b" + value for value in VALUES)]
    swapped = [stick([candidate("a"), candidate("ab")], value) for value in VALUES]
    assert orders != swapped
    assert is_near(sum(order[0] == "a" for order in orders), 1 / 2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 5), st.text(max_size=3))
def test_one_that_is_not_usable_leaves_the_order_of_the_others_alone(
    weights: list[int], gone: int, sticky: str
) -> None:
    candidates = weighing(*weights)
    name = f"upstream-{gone}"
    without = [candidate(one.name, one.weight, is_usable=one.name != name) for one in candidates]
    assert stick(without, sticky) == [one for one in stick(candidates, sticky) if one != name]


def test_a_new_candidate_takes_its_share_and_moves_nobody_else() -> None:
    before, after = weighing(1, 1, 1, 1), weighing(1, 1, 1, 1, 1)
    moved = [(stick(before, value)[0], stick(after, value)[0]) for value in VALUES]
    assert {new for old, new in moved if old != new} == {"upstream-4"}
    assert is_near(sum(old != new for old, new in moved), 1 / 5)


# --- the mean that forgets --------------------------------------------------------------------------------------------


def test_the_mean_of_nothing_is_not_known() -> None:
    assert Ewma().value(0.0) is None


def test_samples_of_one_moment_weigh_the_same() -> None:
    mean = Ewma(10.0)
    for value in (1.0, 2.0, 6.0):
        mean.note(value, 5.0)
    assert mean.value(5.0) == pytest.approx(3.0)


def test_a_sample_weighs_half_after_a_half_life() -> None:
    mean = Ewma(10.0)
    mean.note(1.0, 0.0)
    mean.note(4.0, 10.0)
    assert mean.value(10.0) == mean.value(25.0) == pytest.approx((1 * 0.5 + 4) / 1.5)


def test_what_is_old_is_not_known_any_more() -> None:
    mean = Ewma(10.0)
    mean.note(1.0, 0.0)
    assert mean.value(10.0 * FORGOTTEN_AFTER_HALF_LIVES - 0.001) == 1.0
    assert mean.value(10.0 * FORGOTTEN_AFTER_HALF_LIVES) is None
    mean.note(3.0, 1e9)
    assert mean.value(1e9) == pytest.approx(3.0)


def test_a_sample_that_comes_late_does_not_turn_time_back() -> None:
    mean = Ewma(10.0)
    mean.note(1.0, 100.0)
    mean.note(3.0, 50.0)
    assert mean.value(100.0) == pytest.approx(2.0)
    assert mean.value(159.0) == pytest.approx(2.0)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=20))
def test_a_mean_lies_between_its_samples(samples: list[tuple[float, float]]) -> None:
    mean = Ewma(10.0)
    for value, now in samples:
        mean.note(value, now)
    last = max(now for _, now in samples)
    known = mean.value(last)
    values = [value for value, _ in samples]
    assert known is not None and min(values) - 1e-9 <= known <= max(values) + 1e-9
