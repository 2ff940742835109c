"""One request's course along its targets. Its stories in the whole house are `tests/way/test_courses.py`."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.harness.origin import Script, Visit
from tests.harness.wires import Net, open_net
from trioproxy.errors import Overloaded, UpstreamDisconnected
from trioproxy.policy.routing import Routes
from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.course import Course, OriginRequest
from trioproxy.upstream.dispatch import Dispatcher, Target, Way
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.wire.dialect import Dialect

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

    def course(self, body: bytes | AsyncIterator[bytes] = b"{}", method: str = "POST") -> Course:
        dispatcher = Dispatcher(self.endpoints, Routes([], Way([Target(one) for one in self.endpoints])))
        request = OriginRequest(method, b"/v1/x", [], body, Dialect.OTHER)
        return Course(
            dispatcher,
            request,
            self.exchange,
            connect_s=5,
            head_s=9,
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
        assert side.exchange.tries == [("a", "500"), ("b", "200")]
        side.pool.close_nowait()


async def test_the_last_answer_passes_where_nobody_betters_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answers(BROKEN)) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with await side.course().open() as attempt:
            assert (attempt.status, attempt.take_whole()) == (500, b"broken")
        assert len(side.exchange.tries) == 3
        assert side.taken == [0, 0]
        side.pool.close_nowait()


async def test_what_may_be_worked_at_is_not_sent_twice(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(cuts) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery)
        with pytest.raises(UpstreamDisconnected):
            await side.course().open()
        assert side.exchange.tries == [("a", "upstream_disconnected")]
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
