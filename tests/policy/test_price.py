from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.price import Price, dearest, dollars

AMOUNTS = st.integers(-(10**20), 10**20)


def test_cached_input_is_part_of_the_input() -> None:
    price = Price(input=2_500_000, cached=1_250_000, output=10_000_000)
    assert price.of(1000, 100) == 1000 * 2_500_000 + 100 * 10_000_000
    assert price.of(1000, 100, 400) == 600 * 2_500_000 + 400 * 1_250_000 + 100 * 10_000_000


@given(AMOUNTS)
def test_an_amount_is_shown_exactly_and_plainly(picodollars: int) -> None:
    text = dollars(picodollars)
    assert Decimal(text) * 10**12 == picodollars
    assert "e" not in text.lower() and not ("." in text and text.endswith("0"))


@given(st.lists(st.integers(0, 10**15), max_size=20))
def test_sums_of_amounts_are_those_of_decimals(amounts: list[int]) -> None:
    assert Decimal(dollars(sum(amounts))) == sum((Decimal(dollars(one)) for one in amounts), Decimal(0))


def test_the_dearest_is_the_most_that_each_part_may_cost() -> None:
    one, other = Price(1, 1, 9), Price(3, 2, 4)
    assert dearest([one, other]) == Price(3, 2, 9)
    assert dearest([one]) is one


def test_nothing_is_made_up_where_a_price_is_missing() -> None:
    assert dearest([Price(1, 1, 1), None]) is None
    assert dearest([]) is None
