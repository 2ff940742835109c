"""What an exchange costs, in picodollars. PURE, and whole numbers only: sums are exact.

A price is the configuration's; there are no others. A model without one has no known cost, which is not zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trioproxy.policy.routing import Routes


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars for one token of input, of input that the origin had cached, and of output."""

    input: int
    cached: int
    output: int

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """The cost of so many tokens; `cached_tokens` are among those of the input."""
        fresh = input_tokens - cached_tokens
        return fresh * self.input + cached_tokens * self.cached + output_tokens * self.output


def dearest(prices: Sequence[Price | None]) -> Price | None:
    """The most that tokens may cost if any of these prices may come to count; None if one of them is not known."""
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return None
    if len(known) == 1:
        return known[0]
    return Price(*(max(getattr(price, part) for price in known) for part in ("input", "cached", "output")))


Prices = Routes[Price | None]
"""The price of each model by its name; None: it has none."""


def dollars(picodollars: int) -> str:
    """An amount as a decimal of dollars, exact: "0.00012345"; no exponent, no zeros behind."""
    whole, rest = divmod(abs(picodollars), 10**12)
    text = f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
    return f"-{text}" if picodollars < 0 else text
