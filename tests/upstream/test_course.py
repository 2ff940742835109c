"""One request's course along its targets. Its stories in the whole house are `tests/way/test_courses.py`."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.wires import Net, open_net
from trioproxy.errors import Overloaded, ProxyError, UpstreamDisconnected
from trioproxy.policy.hedge import Hedge, HedgeRules
from trioproxy.policy.routing import Routes
from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.course import Course
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.request import Clocks, OriginRequest
from trioproxy.upstream.way import Target, Way
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject

BROKEN = b"HTTP/1.1 500 Broken\r\ncontent-length: 6\r\n\r\nbroken"


def answers(data: bytes) -> Script:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(data)

    return script


async def cuts(visit: Visit) -> None:
    await visit.read_request()
    visit.cut()


class Side:
    """Our side of a net: endpoints `a` and `b`, and courses along them."""

    def __init__(self, net: Net, nursery: trio.Nursery, max_concurrent: int | None = None) -> None:
        self.pool = Pool()
        self.nursery = nursery
        self.exchange = Exchange("req", "POST", "/v1/x", 0.0)
        self.endpoints = [
            Endpoint(
                name,
                f"http://{name}/v1",
                pool=self.pool,
                connect_s=5,
                open_tcp=net.open_tcp,
                max_concurrent=max_concurrent,
            )
            for name in "ab"
        ]

    def course(
        self,
        body: bytes | AsyncIterator[bytes] = b"{}",
        method: str = "POST",
        hedge: Hedge | None = None,
        way: Way | None = None,
    ) -> Course:
        way = way or Way([Target(one) for one in self.endpoints], hedge=hedge)
        dispatcher = Dispatcher(self.endpoints, Routes([], way))
        request = OriginRequest(method, b"/v1/x", [], body, Dialect.OTHER)
        if hedge is not None and isinstance(body, bytes):
            request.json, request.wants_stream = JsonObject.parse(body), True
        return Course(
            dispatcher,
            request,
            self.exchange,
            Clocks(connect_s=5, head_s=9, first_content_s=20, idle_s=5),
            deadline=trio.current_time() + 100,
            nursery=self.nursery,
        )

    @property
    def taken(self) -> list[int]:
        return [one.slots.taken for one in self.endpoints]


async def test_the_next_target_answers_where_the_first_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_net(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")) as net,
        trio.open_nursery() as nursery,
    ):
        net.origin.scripts["a"] = answers(BROKEN)
        side = Side(net, nursery)
        with await side.course().open() as attempt:
            assert (attempt.endpoint.name, attempt.take_whole(), side.taken) == ("b", b"hi", [0, 1])
        assert side.taken == [0, 0]
        assert side.exchange.results == [("a", "500"), ("b", "200")]
        side.pool.close_nowait()


async def test_the_last_answer_passes_where_nobody_betters_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answers(BROKEN)) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with await side.course().open() as attempt:
            assert (attempt.status, attempt.take_whole()) == (500, b"broken")
        assert len(side.exchange.tries) == 3
        assert side.taken == [0, 0]
        side.pool.close_nowait()


@pytest.mark.parametrize(("named", "served"), [(None, "asked"), ("theirs", "theirs")])
async def test_the_record_says_which_model_was_asked(
    named: str | None, served: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_net(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")) as net,
        trio.open_nursery() as nursery,
    ):
        net.origin.scripts["a"] = answers(BROKEN)
        side = Side(net, nursery)
        side.exchange.model = "asked"
        way = Way([Target(side.endpoints[0], "other"), Target(side.endpoints[1], named)])
        with await side.course(way=way).open() as attempt:
            assert (attempt.model, side.exchange.served_model, side.exchange.model) == (served, served, "asked")
        side.pool.close_nowait()


async def test_what_may_be_worked_at_is_not_sent_twice(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(cuts) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with pytest.raises(UpstreamDisconnected):
            await side.course().open()
        assert side.exchange.results == [("a", "upstream_disconnected")]
        assert side.taken == [0, 0]


async def test_a_course_that_is_cancelled_holds_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answers(b"")) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with trio.move_on_after(3) as scope:
            await side.course().open()
        assert scope.cancelled_caught and side.taken == [0, 0] and not net.still_open


async def test_no_room_at_any_target_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_net(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")) as net,
        trio.open_nursery() as nursery,
    ):
        side = Side(net, nursery, max_concurrent=1)
        with await side.course().open() as first, await side.course().open() as second:
            assert (first.endpoint.name, second.endpoint.name) == ("a", "b")
            with pytest.raises(Overloaded):
                await side.course().open()
        side.pool.close_nowait()


# Two tries side by side

STREAM = OK_STREAM + chunk(b"data: x\n\n") + LAST_CHUNK


def after(seconds: float, data: bytes = STREAM) -> Script:
    """Silent for so long, then an answer; b"" is a cut."""

    async def script(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(seconds)
        if data:
            await visit.send(data)
        else:
            visit.cut()

    return script


async def begins(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    await trio.sleep(0.5)
    visit.cut()


def hedge(budget: float = 1) -> Hedge:
    return Hedge(HedgeRules(after_s=1, budget=budget))


def times(of: Hedge) -> list[float]:
    return [round(one, 2) for one in of._newest]


@pytest.mark.parametrize(
    ("a_s", "b_s", "tries", "noted"),
    [
        (0.5, 0, [("a", "200")], [0.5]),
        (1.5, 5, [("a", "200"), ("b", "hedge_lost")], [1.5]),
        (5, 1, [("a", "hedge_lost"), ("b", "200")], [2]),
    ],
)
async def test_what_late_means_is_learnt_from_first_tries_alone(
    a_s: float,
    b_s: float,
    tries: list[tuple[str, str]],
    noted: list[float],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One that lost took at least so long: left out, the slow ones would vanish."""
    async with open_net(after(a_s)) as net, trio.open_nursery() as nursery:
        net.origin.scripts["b"] = after(b_s)
        side, rules = Side(net, nursery), hedge()
        (winner,) = [name for name, result in tries if result == "200"]
        with await side.course(hedge=rules).open() as attempt:
            assert (attempt.endpoint.name, sum(side.taken)) == (winner, 1)
            assert side.exchange.upstream == winner
        assert (side.exchange.results, times(rules)) == (tries, noted)
        assert side.exchange.notes == ({"hedged": True} if len(tries) > 1 else {})
        side.pool.close_nowait()


async def test_each_request_that_may_be_hedged_adds_its_share_to_the_budget(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_net(after(3)) as net, trio.open_nursery() as nursery:
        rules = hedge(budget=0.5)
        side = Side(net, nursery)
        for _ in range(3):
            course = side.course(hedge=rules)
            assert course.may_hedge
        taken = [rules.take(), rules.take()]
        assert taken == [True, False]


async def test_a_fault_behind_the_head_is_tried_elsewhere_as_without_a_hedge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_net(begins) as net, trio.open_nursery() as nursery:
        net.origin.scripts["b"] = after(0)
        side, rules = Side(net, nursery), hedge()
        with await side.course(hedge=rules).open() as attempt:
            assert attempt.endpoint.name == "b"
        assert side.exchange.results == [("a", "upstream_truncated"), ("b", "200")]
        side.pool.close_nowait()


async def test_one_that_may_be_worked_at_is_not_sent_once_more_behind_a_lost_race(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_net(after(2, b"")) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with pytest.raises(UpstreamDisconnected):
            await side.course(hedge=hedge()).open()
        assert side.exchange.results == [("a", "upstream_disconnected"), ("b", "upstream_disconnected")]
        assert side.taken == [0, 0] and not net.still_open


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (after(5), after(1)),
        (after(2, BROKEN), after(2)),
        (after(2, BROKEN), after(1, BROKEN)),
        (begins, after(1)),
        (after(2, b""), after(1, BROKEN)),
    ],
)
def test_a_hedged_course_that_is_cancelled_holds_nothing_at_any_step(a: Script, b: Script) -> None:
    def sweep(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def main() -> bool:
            async with open_net(a) as net, trio.open_nursery() as nursery:
                net.origin.scripts["b"] = b
                side = Side(net, nursery, max_concurrent=1)
                with trio.CancelScope() as scope:
                    instrument.act = scope.cancel
                    try:
                        attempt = await side.course(hedge=hedge()).open()
                    except ProxyError:
                        pass
                    else:
                        with attempt:
                            await trio.sleep(1)
                instrument.act = None
                assert side.taken == [0, 0]
                assert len(net.still_open) == side.pool.idle_connections
                assert all(not one.attempts.open and one.slots.has_room for one in side.endpoints)
                side.pool.close_nowait()
                return scope.cancelled_caught

        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps

    step, in_time = 1, 0
    while True:
        was_cancelled, steps = sweep(step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 15
