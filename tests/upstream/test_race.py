"""Two tries side by side: the first with content wins, and whatever comes between, no other attempt is kept."""

import gc
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.wires import Net, open_net
from trioproxy.errors import NoHealthyUpstream, Overloaded, ProxyError, UpstreamDisconnected, UpstreamTruncated
from trioproxy.telemetry.exchange import Exchange, Trying
from trioproxy.upstream.asking import Asker
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.race import Ask, Race
from trioproxy.upstream.request import Clocks, Form, OriginRequest
from trioproxy.upstream.way import Target, Way
from trioproxy.wire.dialect import Dialect

STREAM = OK_STREAM + chunk(b"data: x\n\n")
BROKEN = b"HTTP/1.1 500 Broken\r\ncontent-length: 6\r\n\r\n"
DELAY_S = 1.0


def answers(data: bytes, after_s: float = 0) -> Script:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(after_s)
        await visit.send(data)

    return script


class Side:
    """Our side of a net: endpoints `a` and `b`, and tries at them.

    Attributes:
        asked: who was asked, and when.
    """

    def __init__(self, net: Net, nursery: trio.Nursery) -> None:
        self.net = net
        self.pool = Pool()
        self.race = Race()
        self.asked: list[tuple[str, float]] = []
        self._targets = {
            name: Target(Endpoint(name, f"http://{name}/v1", pool=self.pool, connect_s=5, open_tcp=net.open_tcp))
            for name in "ab"
        }
        request = OriginRequest("POST", b"/v1/x", [], b"{}", Dialect.OTHER)
        self._asker = Asker(request, Exchange("req", "POST", "/v1/x", 0.0), Clocks(5, 60, 60, 60), nursery)

    def ask(self, name: str) -> Ask:
        """A try in a race, that is there with its first piece."""
        return partial(self._ask, name)

    async def _ask(self, name: str) -> Attempt:
        self.asked.append((name, trio.current_time()))
        target = self._targets[name]
        attempt = await self._asker.ask(
            target, Way([target]), Trying(name), model=None, form=Form.AS_ASKED, is_canary=False, hedge=None
        )
        try:
            if attempt.status < 300:
                await attempt.read_more()
        except BaseException:
            attempt.close()
            raise
        return attempt

    async def run(self, first: Ask | None = None, second: Ask | None = None, delay_s: float = DELAY_S) -> Attempt:
        return await self.race.run(first or self.ask("a"), lambda: second or self.ask("b"), delay_s)

    @property
    def held(self) -> list[str]:
        """Whose places are taken, and whose answers are open."""
        targets = self._targets.items()
        taken = [name for name, one in targets for _ in range(one.endpoint.slots.taken)]
        assert taken == [name for name, one in targets for _ in range(one.endpoint.attempts.open)]
        assert len(taken) == len(self.net.still_open) - self.pool.idle_connections
        return taken


Story = Callable[[Side], Awaitable[None]]


async def play(story: Story, a: Script, b: Script) -> None:
    """A race of origins that do as they are told."""
    async with open_net(a) as net, trio.open_nursery() as nursery:
        net.origin.scripts["b"] = b
        side = Side(net, nursery)
        await story(side)
        assert side.held == []
        side.pool.close_nowait()


def raising(error: ProxyError, after_s: float = 0) -> Ask:
    async def ask() -> Attempt:
        await trio.sleep(after_s)
        raise error

    return ask


async def test_one_that_is_quick_enough_runs_alone(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.run() as attempt:
            assert (attempt.endpoint.name, side.held, side.race.is_decided) == ("a", ["a"], True)
        assert side.asked == [("a", 0)]

    await play(story, answers(STREAM, 0.9), answers(STREAM))


@pytest.mark.parametrize(("a_s", "b_s", "winner"), [(9, 0.5, "b"), (1.5, 9, "a")])
async def test_the_first_with_content_wins_and_the_other_is_gone_by_then(
    a_s: float, b_s: float, winner: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        with await side.run() as attempt:
            assert trio.current_time() == pytest.approx(1.5)
            assert (attempt.endpoint.name, side.held) == (winner, [winner])
        assert side.asked == [("a", 0), ("b", DELAY_S)]

    await play(story, answers(STREAM, a_s), answers(STREAM, b_s))


async def test_where_there_is_nobody_else_the_first_one_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.race.run(side.ask("a"), lambda: None, DELAY_S) as attempt:
            assert attempt.endpoint.name == "a"
            assert trio.current_time() == pytest.approx(9)

    await play(story, answers(STREAM, 9), answers(STREAM))


async def test_one_that_fails_before_the_other_begins_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with pytest.raises(UpstreamDisconnected):
            await side.run(raising(UpstreamDisconnected("no"), 0.5))
        assert trio.current_time() == pytest.approx(0.5)
        assert (side.asked, side.race.is_decided) == ([], False)

    await play(story, answers(STREAM), answers(STREAM))


@pytest.mark.parametrize("quick", ["a", "b"])
async def test_an_error_never_wins_while_the_other_runs(quick: str, autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.run() as attempt:
            assert (attempt.status, attempt.endpoint.name != quick) == (200, True)
            assert side.held == [attempt.endpoint.name]

    broken = answers(BROKEN, 2)
    scripts = {"a": answers(STREAM, 6), "b": answers(STREAM, 6)} | {quick: broken}
    await play(story, scripts["a"], scripts["b"])


async def test_the_last_of_two_answers_that_are_errors_is_returned(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.run() as attempt:
            assert (attempt.endpoint.name, attempt.status, side.held) == ("b", 500, ["b"])
            assert not side.race.is_decided

    await play(story, answers(BROKEN, 2), answers(BROKEN, 2))


TRUNCATED, GONE, BUSY, OUT = UpstreamTruncated("a"), UpstreamDisconnected("b"), Overloaded("c"), NoHealthyUpstream("d")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (TRUNCATED, GONE, GONE),
        (TRUNCATED, BUSY, TRUNCATED),
        (BUSY, TRUNCATED, TRUNCATED),
        (BUSY, OUT, OUT),
    ],
)
async def test_the_last_of_two_faults_is_raised_but_a_lack_of_ours_only_without_one(
    first: ProxyError, second: ProxyError, said: ProxyError, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        with pytest.raises(type(said)) as caught:
            await side.run(raising(first, 2), raising(second, 2))
        assert caught.value is said

    await play(story, answers(STREAM), answers(STREAM))


@pytest.mark.parametrize(("fault_s", "answer_s"), [(2, 4), (4, 2)])
async def test_an_answer_that_is_an_error_tells_more_than_a_fault(
    fault_s: float, answer_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        with await side.run(raising(TRUNCATED, fault_s)) as attempt:
            assert (attempt.status, side.held) == (500, ["b"])

    await play(story, answers(STREAM), answers(BROKEN, answer_s))


@pytest.mark.parametrize("winner", ["a", "b"])
async def test_of_two_that_win_in_one_moment_one_is_kept(winner: str, autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        both = trio.Event()

        async def ask(name: str) -> Attempt:
            attempt = await side._ask(name)
            if name == winner:
                both.set()  # who waits for it is woken, and cannot be cancelled any more
            else:
                await both.wait()
            return attempt

        with await side.run(partial(ask, "a"), partial(ask, "b")) as attempt:
            assert side.held == [attempt.endpoint.name] == [winner]

    await play(story, answers(STREAM, 3 if winner == "a" else 0), answers(STREAM))


@pytest.mark.parametrize("is_winner", [True, False])
async def test_an_attempt_that_comes_with_the_cancel_from_outside_is_not_kept(
    is_winner: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """It is returned all the same, or closed."""

    async def story(side: Side) -> None:
        with trio.CancelScope() as scope:

            async def ask() -> Attempt:
                attempt = await side._ask("a")
                scope.cancel()
                return attempt

            with await side.run(ask):
                pass
        assert side.held == []

    for _ in range(10):
        await play(story, answers(STREAM if is_winner else BROKEN, 2), answers(STREAM, 9))


async def test_who_is_cancelled_can_tell_a_lost_race_from_a_cancel(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        decided: list[bool] = []

        async def ask() -> Attempt:
            try:
                return await side._ask("a")
            except trio.Cancelled:
                decided.append(side.race.is_decided)
                raise

        (await side.run(ask)).close()
        side.race = Race()
        with trio.move_on_after(0.5):
            await side.run(ask)
        assert decided == [True, False]

    await play(story, answers(STREAM, 9), answers(STREAM))


async def test_a_bug_in_one_of_them_keeps_nothing_of_the_other(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        async def bug() -> Attempt:
            await trio.sleep(1)
            raise KeyError("bug")

        with pytest.raises(BaseExceptionGroup):
            await side.run(second=bug)

    await play(story, answers(BROKEN, 1.5), answers(STREAM))
    await play(story, answers(STREAM, 9), answers(STREAM))


ORIGINS = {
    "the first wins": (answers(STREAM, 1.5), answers(STREAM, 9)),
    "the second wins": (answers(STREAM, 9), answers(STREAM)),
    "both in one moment": (answers(STREAM, 1), answers(STREAM)),
    "the first is refused": (answers(BROKEN, 2), answers(STREAM, 3)),
    "the second is refused": (answers(STREAM, 3), answers(BROKEN)),
    "both are refused": (answers(BROKEN, 2), answers(BROKEN, 2)),
    "one is whole": (answers(STREAM + LAST_CHUNK, 2), answers(BROKEN)),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_a_race_that_is_cancelled_holds_nothing_at_any_step(name: str) -> None:
    def sweep(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def main() -> bool:
            is_cut = False

            async def story(side: Side) -> None:
                nonlocal is_cut
                with trio.CancelScope() as scope:
                    instrument.act = scope.cancel
                    attempt = await side.run()
                    instrument.act = None
                    with attempt:
                        assert side.held == [attempt.endpoint.name]
                instrument.act = None
                is_cut = scope.cancelled_caught
                assert side.held == []

            await play(story, *ORIGINS[name])
            return is_cut

        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps

    step, in_time = 1, 0
    while True:
        was_cancelled, steps = sweep(step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 20


async def test_a_fault_that_is_raised_leaves_no_ring_behind(autojump_clock: trio.testing.MockClock) -> None:
    async def cuts(visit: Visit) -> None:
        await visit.read_request()
        await trio.sleep(2)
        visit.cut()

    async def story(side: Side) -> None:
        for _ in range(3):
            side.race = Race()
            try:
                await side.run()
            except UpstreamDisconnected:
                pass

    await play(story, cuts, cuts)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await play(story, cuts, cuts)
        gc.collect()
        ours = {type(one).__module__ + "." + type(one).__qualname__ for one in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert {name for name in ours if name.startswith(("trioproxy.", "httpx."))} == set()
    assert ours & {"builtins.traceback", "builtins.frame"} == set()
