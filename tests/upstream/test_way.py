"""What a route says of its targets."""

import pytest

from trioproxy.policy.plan import Strategy
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.way import Target, Way, arranged
from trioproxy.wire.dialect import Dialect


def target(name: str, model: str | None = None, *, is_anthropic: bool = False) -> Target:
    url = f"http://{name}/v1"
    return Target(Endpoint(name, url, pool=Pool(), connect_s=5, is_anthropic=is_anthropic), model)


def test_two_models_of_one_endpoint_have_two_names() -> None:
    assert [target("a").name, target("a", "x").name, target("a", "y").name] == ["a", "a/x", "a/y"]


@pytest.mark.parametrize("dialect", Dialect)
def test_each_dialect_goes_to_those_that_speak_it(dialect: Dialect) -> None:
    way = Way([target("openai"), target("anthropic", is_anthropic=True), target("other")])
    names = [one.name for one in way.targets_for(dialect)]
    assert names == (["anthropic"] if dialect is Dialect.MESSAGES else ["openai", "other"])


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("is_anthropic", [True, False])
def test_where_nobody_says_that_it_speaks_a_dialect_all_are_asked(dialect: Dialect, is_anthropic: bool) -> None:
    way = Way([target("a", is_anthropic=is_anthropic), target("b", is_anthropic=is_anthropic)])
    assert [one.name for one in way.targets_for(dialect)] == ["a", "b"]


def test_a_way_that_says_nothing_does_nothing_special() -> None:
    way = Way([target("a")])
    assert (way.hedge, way.canary, way.shadow) == (None, None, None)
    assert not (way.aggregates or way.falls_back_to_batch or way.continues or way.sticky or way.fallback)


def test_a_canary_gets_what_it_speaks_like_the_others() -> None:
    openai, anthropic = target("a"), target("b", is_anthropic=True)
    mixed, alone = Way([openai, anthropic]), Way([openai])
    for dialect in Dialect:
        is_messages = dialect is Dialect.MESSAGES
        assert mixed.is_like_others(anthropic, dialect) is is_messages
        assert mixed.is_like_others(openai, dialect) is not is_messages
        assert alone.is_like_others(openai, dialect), "it is asked as the others are"
        assert not alone.is_like_others(anthropic, dialect)


def order_of(targets: list[Target], first: int | None = None) -> list[int]:
    return arranged(targets, Strategy.ORDERED, first=first, draw=lambda: 0.5, sticky=None, now=0.0)


def test_who_is_unhealthy_is_left_out_also_the_last_one() -> None:
    targets = [target("a"), target("b")]
    for one in targets:
        for _ in range(2):
            one.endpoint.health.note(False)
    assert order_of(targets) == []
    targets[1].endpoint.health.note(True)
    assert order_of(targets) == [1]


async def test_who_has_room_goes_first_and_a_canary_that_was_drawn_before_all() -> None:
    targets = [
        Target(Endpoint(name, f"http://{name}/v1", pool=Pool(), connect_s=5, max_concurrent=1, max_waiting=waiting))
        for name, waiting in (("full", 0), ("waits", 1), ("free", 1))
    ]
    for one in targets[:2]:
        await one.endpoint.slots.take()
    assert order_of(targets) == [2, 1, 0]
    assert order_of(targets, first=1) == [1, 2, 0]
