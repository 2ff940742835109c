"""Copies of requests: what they hold, that it is bounded and given back, and what is measured of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content
from tests.harness.wires import Net, open_net
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.record import Record
from trioproxy.upstream import shadow as module
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.request import Clocks, OriginRequest
from trioproxy.upstream.shadow import Shadows
from trioproxy.upstream.way import ShadowTarget, Target
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject

BODY = b'{"model":"m","stream":true}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
STREAM = OK_STREAM + chunk(content("word")) + chunk(DONE)
KEYS = ((b"authorization", b"Bearer one"), (b"authorization", b"Bearer two"))


def answers(*pieces: bytes, pause: float = 0, ends: bool = False) -> Script:
    async def script(visit: Visit) -> None:
        while True:
            await visit.read_request()
            for piece in pieces:
                await trio.sleep(pause)
                await visit.send(piece)
            if ends:
                visit.cut()

    return script


async def plainly(run: Callable[[], Awaitable[None]]) -> None:
    """Stands for the crash barrier: here a crash is one."""
    await run()


class Side:
    """Our side of a net: shadows, one target, and the records of the copies."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.pool = Pool()
        self.endpoint = Endpoint(
            "b", "http://b/v1", pool=self.pool, connect_s=5, keys=KEYS, max_concurrent=3, open_tcp=net.open_tcp
        )
        self.target = ShadowTarget(Target(self.endpoint), 1.0, 2)
        self.records: list[Record] = []
        self.shadows = Shadows(self.records.append, plainly)

    def offer(self, body: bytes | AsyncIterator[bytes] = BODY, within_s: float = inf) -> None:
        read = JsonObject.parse(body) if isinstance(body, bytes) else None
        request = OriginRequest("POST", b"/v1/x", [(b"authorization", b"theirs")], body, Dialect.CHAT, read, True)
        exchange = Exchange("req", "POST", "/v1/x", 0.0, client="192.0.2.7", model="m", stream=True)
        self.shadows.offer(self.target, request, exchange, Clocks(5, 9, 20, 5), trio.current_time() + within_s)

    @property
    def is_free(self) -> bool:
        """Whether no copy holds anything."""
        is_closed = len(self.net.still_open) == self.pool.idle_connections
        keys = [one.in_use for one in self.endpoint.keys._keys]
        held = (self.shadows._held_bytes, self.target.under_way, self.endpoint.slots.taken, self.endpoint.attempts.open)
        return is_closed and not any((*held, *keys))

    @property
    def results(self) -> list[str | None]:
        return [one.code or one.reason or one.outcome for one in self.records]


Story = Callable[[Side], Awaitable[None]]


async def play(story: Story, script: Script) -> None:
    async with open_net(script) as net, trio.open_nursery() as nursery:
        side = Side(net)
        nursery.start_soon(side.shadows.run)
        await trio.testing.wait_all_tasks_blocked()
        await story(side)
        nursery.cancel_scope.cancel()
        side.pool.close_nowait()


async def test_a_copy_is_a_request_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        got.append(await visit.read_request())
        for piece in (OK_STREAM, chunk(content("word")), chunk(DONE)):
            await trio.sleep(1)
            await visit.send(piece)

    async def story(side: Side) -> None:
        side.target.target = Target(side.endpoint, "other")
        side.offer()
        assert side.target.under_way == 1
        await trio.sleep(2.5)
        assert side.endpoint.slots.taken == 0, "no client's place is taken"
        await trio.sleep(1)
        (record,) = side.records
        assert (record.request_id, record.upstream, record.model, record.client) == ("req", "b", "other", None)
        assert (record.status, record.outcome, record.attempts, record.events) == (200, "finished", 1, 2)
        times = [record.accepted, record.head_at, record.first_content_at, record.ended]
        assert times == [pytest.approx(one) for one in range(4)]
        assert (record.bytes_in, record.bytes_out) == (len(BODY), len(content("word") + DONE))
        assert side.is_free

    await play(story, script)
    assert b"authorization: Bearer one\r\n" in got[0] and b"theirs" not in got[0]
    assert got[0].endswith(b'{"model":"other","stream":true}')


HEAD = OK_STREAM
ENCODED = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")


@pytest.mark.parametrize(
    ("pieces", "ends", "result"),
    [
        ([OK], False, "finished"),
        ([b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"], False, "finished"),
        ([OK[:-1]], True, "upstream_truncated"),
        ([], True, "upstream_disconnected"),
        ([], False, "upstream_head_timeout"),
        ([b"nonsense"], True, "upstream_protocol_error"),
        ([STREAM], False, "finished"),
        ([STREAM], True, "finished"),
        ([HEAD, chunk(content("word")), LAST_CHUNK], False, "upstream_truncated"),
        ([HEAD, chunk(content("word"))], True, "upstream_truncated"),
        ([HEAD, chunk(content("word"))], False, "upstream_total_timeout"),
        ([HEAD, chunk(b'data: {"error":{"message":"no"}}\n\n'), LAST_CHUNK], False, "upstream_error_in_stream"),
        ([HEAD, chunk(b'data: {"error":{"message":"no"}}'), LAST_CHUNK], False, "upstream_error_in_stream"),
        ([ENCODED, chunk(b"zz"), LAST_CHUNK], False, "finished"),
        ([HEAD.replace(b"200", b"400"), chunk(b"data: x\n\n"), LAST_CHUNK], False, "finished"),
        ([HEAD, *[chunk(b"data: " + b"x" * 60_000)] * 5, LAST_CHUNK], False, "upstream_truncated"),
    ],
)
async def test_whatever_becomes_of_it_is_measured_and_counts_for_nothing(
    pieces: list[bytes], ends: bool, result: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        side.offer(within_s=20)
        await trio.sleep(21)
        assert (side.results, side.is_free) == ([result], True)
        breaker = side.endpoint.breaker
        assert (breaker._faults_in_a_row, breaker._window.counts(trio.current_time())) == (0, (0, 0))
        assert side.endpoint.keys.usable(trio.current_time()) == 2

    await play(story, answers(*pieces, ends=ends))


async def test_one_that_cannot_connect_is_measured_too() -> None:
    async def story(side: Side) -> None:
        side.net.origin.refuses = True
        side.offer()
        await trio.testing.wait_all_tasks_blocked()
        assert (side.results, side.is_free) == (["upstream_connect_failed"], True)

    await play(story, answers(OK))


async def test_so_many_are_under_way_and_the_others_are_left_out(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        for _ in range(5):
            side.offer()  # all in one moment, before one of them has run
        assert (side.target.under_way, side.shadows.left_out) == (2, 3)
        await trio.sleep(2)
        assert (len(side.records), side.is_free) == (2, True)
        side.offer()
        assert (side.target.under_way, side.shadows.left_out) == (1, 3)

    await play(story, answers(OK, pause=1))


async def test_so_many_bytes_are_held(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 2 * len(BODY) - 1)

    async def story(side: Side) -> None:
        side.offer()
        side.offer()
        assert (side.target.under_way, side.shadows.left_out) == (1, 1)
        await trio.sleep(2)
        side.offer()
        assert side.shadows.left_out == 1

    await play(story, answers(OK, pause=1))


async def test_clients_go_first_where_places_are_few(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        for _ in range(3):
            await side.endpoint.slots.take()
        side.offer()
        assert (side.target.under_way, side.shadows.left_out) == (0, 1)
        for _ in range(3):
            side.endpoint.slots.give_back()

    await play(story, answers(OK))


async def test_nothing_is_sent_without_a_key_where_keys_are_needed(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        for key in (0, 1):
            side.endpoint.keys.note(key, 401, None, trio.current_time())
        side.offer()
        assert (side.target.under_way, side.shadows.left_out) == (0, 1)

    await play(story, answers(OK))


async def test_a_body_that_is_not_held_is_not_copied(autojump_clock: trio.testing.MockClock) -> None:
    class Pieces(AsyncIterator[bytes]):
        async def __anext__(self) -> bytes:
            raise AssertionError("it is the client's")

    async def story(side: Side) -> None:
        side.offer(Pieces())
        assert (side.target.under_way, side.shadows.left_out, side.records) == (0, 0, [])

    await play(story, answers(OK))


async def test_before_it_runs_and_once_it_was_stopped_no_copy_is_made(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answers(OK, pause=5)) as net, trio.open_nursery() as nursery:
        side = Side(net)
        side.shadows.stop()
        side.offer()
        assert (side.target.under_way, net.asked) == (0, [])
        nursery.start_soon(side.shadows.run)
        await trio.testing.wait_all_tasks_blocked()
        side.offer()
        await trio.sleep(1)
        side.shadows.stop()
        side.offer()  # it was stopped in this very moment, and its task did not run yet
        await trio.testing.wait_all_tasks_blocked()
        assert (side.results, side.is_free) == (["drain", "drain"], True)
        side.offer()
        side.shadows.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert (len(side.records), side.is_free, len(net.opened)) == (2, True, 1)


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
@pytest.mark.parametrize("pieces", [(OK[:9], OK[9:]), (STREAM[:99], STREAM[99:]), (HEAD, LAST_CHUNK), ()])
def test_nothing_is_held_at_whichever_step_it_ends(how: str, pieces: tuple[bytes, ...]) -> None:
    def sweep(step: int) -> tuple[list[str | None], int]:
        instrument = AtStep(step)

        async def main() -> list[str | None]:
            async with open_net(answers(*pieces, pause=1)) as net:
                side = Side(net)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(side.shadows.run)
                    await trio.testing.wait_all_tasks_blocked()
                    instrument.act = side.shadows.stop if how == "stopped" else nursery.cancel_scope.cancel
                    side.offer(within_s=8)
                    with trio.CancelScope(shield=True):
                        await trio.sleep(10)
                    instrument.act = None
                    assert side.is_free
                    assert len(side.records) == 1
                    assert side.records[0].ended is not None
                    nursery.cancel_scope.cancel()
                side.pool.close_nowait()
                return side.results

        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps

    step, drained = 1, 0
    while True:
        results, steps = sweep(step)
        drained += results == ["drain"]
        if steps < step:
            break
        step += 1
    assert drained > 3
