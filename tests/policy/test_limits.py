import pytest

from trioproxy.policy.limits import Kind, Limits

ALL = Limits(1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("limits", "kinds"),
    [
        (Limits(), set()),
        (Limits(rpm=1), {Kind.REQUESTS}),
        (Limits(tpm=1), {Kind.TOKENS}),
        (Limits(streams=1), {Kind.STREAMS}),
        (Limits(tokens_per_day=1), {Kind.BUDGETS}),
        (Limits(money_per_month=1), {Kind.BUDGETS}),
        (ALL, set(Kind)),
    ],
)
def test_limits_know_their_kinds(limits: Limits, kinds: set[Kind]) -> None:
    assert limits.kinds == kinds


@pytest.mark.parametrize("kind", list(Kind))
def test_a_kind_can_be_left_out_and_all_others_stay(kind: Kind) -> None:
    rest = ALL.without(frozenset({kind}))
    assert rest.kinds == set(Kind) - {kind}
    assert ALL.without(frozenset(Kind)) == Limits()


def test_tokens_have_to_be_known_for_tokens_and_budgets_only() -> None:
    assert not Limits(rpm=1, streams=1).needs_usage
    assert Limits(tpm=1).needs_usage and Limits(tokens_per_day=1).needs_usage and Limits(money_per_day=1).needs_usage
    assert Limits(money_per_day=1).has_money and not Limits(tokens_per_day=1).has_money
