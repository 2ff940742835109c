"""Where requests may go: each model's way, and which of its targets serve a dialect."""

from trioproxy.policy.routing import Routes
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.way import Target, Way
from trioproxy.wire.dialect import Dialect


def endpoint(name: str, *, is_anthropic: bool = False) -> Endpoint:
    return Endpoint(name, f"http://{name}/v1", pool=Pool(), connect_s=5, is_anthropic=is_anthropic)


def test_a_target_is_named_after_its_endpoint_and_its_model() -> None:
    assert Target(endpoint("a")).name == "a"
    assert Target(endpoint("a"), "small").name == "a/small"


def test_a_dialect_goes_to_the_targets_that_serve_it() -> None:
    openai, anthropic = Target(endpoint("openai")), Target(endpoint("anthropic", is_anthropic=True))
    way = Way([openai, anthropic])
    assert way.targets_for(Dialect.MESSAGES) == [anthropic]
    assert way.targets_for(Dialect.CHAT) == way.targets_for(Dialect.OTHER) == [openai]


def test_a_dialect_that_nobody_serves_goes_to_all() -> None:
    openai, anthropic = Target(endpoint("openai")), Target(endpoint("anthropic", is_anthropic=True))
    assert Way([openai]).targets_for(Dialect.MESSAGES) == [openai]
    assert Way([anthropic]).targets_for(Dialect.CHAT) == [anthropic]


def test_the_dispatcher_knows_the_way_of_each_model() -> None:
    a, b = endpoint("a"), endpoint("b")
    small, others = Way([Target(a)]), Way([Target(a), Target(b)])
    dispatcher = Dispatcher([a, b], Routes([(["small-*"], small)], others))
    assert dispatcher.endpoints == [a, b]
    assert dispatcher.ways.find("small-1") is small
    assert dispatcher.ways.find("large") is dispatcher.ways.find(None) is others
    assert 0 <= dispatcher.draw() < 1
