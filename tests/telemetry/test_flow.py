"""Whom a request waits for: every moment goes to one side, and the longest waits are kept."""

from hypothesis import given
from hypothesis import strategies as st

from trioproxy.telemetry.flow import CLIENT, MAX_TURNS, OVER, PROXY, UPSTREAM, Flow


def test_each_side_gets_the_time_that_was_waited_for_it() -> None:
    flow = Flow(10.0)
    for to, now in ((CLIENT, 11.0), (PROXY, 13.0), (UPSTREAM, 13.5), (CLIENT, 20.0), (OVER, 20.25)):
        flow.turn(to, now)
    assert (flow.proxy_s, flow.client_s, flow.upstream_s) == (1.5, 2.25, 6.5)
    flow.turn(PROXY, 99.0)
    assert flow.proxy_s == 1.5


def test_a_turn_to_the_same_side_goes_on() -> None:
    flow = Flow(0.0)
    flow.turn(UPSTREAM, 1.0)
    flow.turn(UPSTREAM, 2.0)
    assert flow.since == 1.0
    assert flow.waited(4.0) == (3.0, 0.0, 1.0)
    assert flow.turns() == [(0.0, PROXY, 1.0)]


@given(st.lists(st.tuples(st.sampled_from([UPSTREAM, CLIENT, PROXY]), st.floats(0, 1e4)), max_size=200))
def test_the_three_make_up_the_whole_time(turns: list[tuple[str, float]]) -> None:
    flow, now = Flow(5.0), 5.0
    for to, after_s in turns:
        now += after_s
        flow.turn(to, now)
        assert abs(sum(flow.waited(now + 1)) - (now + 1 - 5.0)) < 1e-6
    flow.turn(OVER, now)
    assert abs(flow.upstream_s + flow.client_s + flow.proxy_s - (now - 5.0)) < 1e-6


def test_of_many_turns_the_longest_are_kept_in_their_order() -> None:
    flow, now = Flow(0.0), 0.0
    lengths = [0.002 + (17 * number % 1000) / 1000 for number in range(3000)]
    for number, length in enumerate(lengths):
        now += length
        flow.turn(UPSTREAM if number % 2 else PROXY, now)
    turns = flow.turns()
    assert len(turns) == MAX_TURNS
    assert turns == sorted(turns)
    assert min(took for _, _, took in turns) >= sorted(lengths)[-2 * MAX_TURNS]
    longest = max(took for _, _, took in turns)
    assert abs(longest - max(lengths)) < 1e-9


def test_what_is_hardly_a_wait_is_not_kept() -> None:
    flow = Flow(0.0)
    flow.turn(UPSTREAM, 0.0001)
    flow.turn(OVER, 0.0009)
    assert flow.turns() == []
