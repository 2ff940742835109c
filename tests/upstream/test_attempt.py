"""One try at one endpoint: its clocks, its faults, and what becomes of its connection."""

import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.wires import HOST, LIBRARY_WORDS, Net, open_net, serve_tls, tls_client, tls_server
from trioproxy.errors import (
    RequestTooLarge,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamDisconnected,
    UpstreamErrorInStream,
    UpstreamFault,
    UpstreamHeadTimeout,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.policy.canary import Canary, CanaryRules
from trioproxy.upstream.attempt import Attempt, open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.stay import Stay

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Side:
    """Our side of a net: an endpoint with its pool, and attempts at it."""

    def __init__(self, net: Net, scheme: str = "http", tls: ssl.SSLContext | None = None) -> None:
        self.pool = Pool()
        self.net = net
        url = f"{scheme}://{HOST}/v1"
        self.endpoint = Endpoint("name", url, pool=self.pool, connect_s=5, tls=tls, open_tcp=net.open_tcp)

    async def open(
        self, nursery: trio.Nursery, body: bytes | AsyncIterator[bytes] = b"", head_s: float = 10, method: str = "POST"
    ) -> Attempt:
        length = (
            (b"content-length", b"%d" % len(body)) if isinstance(body, bytes) else (b"transfer-encoding", b"chunked")
        )
        return await open_attempt(
            self.endpoint, method, b"/v1/x", [length], body, connect_s=2, head_s=head_s, nursery=nursery
        )


class Slow(AsyncIterator[bytes]):
    """A client that uploads a piece, then waits."""

    def __init__(self, pauses: list[float], failure: Exception | None = None) -> None:
        self._pauses = pauses
        self._failure = failure

    async def __anext__(self) -> bytes:
        if not self._pauses:
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        await trio.sleep(self._pauses.pop(0))
        return b"x"


def answering(*pieces: bytes, pause: float = 0, ends: bool = False, tls: bool = False) -> Script:
    async def script(visit: Visit) -> None:
        if tls:
            visit.stream = await serve_tls(visit.stream)
        await visit.read_request()
        for piece in pieces:
            await trio.sleep(pause)
            await visit.send(piece)
        if ends:
            visit.cut()

    return script


async def read_all(side: Side, nursery: trio.Nursery, body: bytes | AsyncIterator[bytes] = b"") -> bytes:
    """The whole body of an answer, piece by piece."""
    pieces = []
    with await side.open(nursery, body) as attempt:
        while piece := await attempt.read():
            pieces.append(piece)
        assert await attempt.read() == b""
    return b"".join(pieces)


async def fault_of(script: Script, body: bytes | AsyncIterator[bytes] = b"") -> UpstreamFault:
    """The fault of an attempt, before or behind its head. Its connection is closed then, and its words are ours."""
    async with open_net(script) as net:
        side = Side(net)
        async with trio.open_nursery() as nursery:
            with pytest.raises(UpstreamFault) as caught:
                await read_all(side, nursery, body)
        assert net.still_open == []
        assert side.pool.idle_connections == 0
    assert LIBRARY_WORDS.search(str(caught.value)) is None
    assert "'name'" in caught.value.message
    return caught.value


async def test_an_attempt_knows_its_answer_s_head_and_when_it_came(autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(3)
    answer = b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nX-A: b\r\ncontent-length: 2\r\n\r\nhi"
    async with open_net(answering(answer, pause=5)) as net, trio.open_nursery() as nursery:
        side = Side(net)
        with await side.open(nursery) as attempt:
            assert attempt.endpoint is side.endpoint
            assert attempt.status == 429
            assert attempt.headers == [(b"retry-after", b"1"), (b"x-a", b"b"), (b"content-length", b"2")]
            assert attempt.started == pytest.approx(3)
            assert attempt.answered == pytest.approx(8)
            assert attempt.take_whole() == b"hi"
        assert side.pool.idle_connections == 1


async def test_an_answer_is_read_piece_by_piece_to_its_honest_end() -> None:
    pieces = (OK_STREAM, chunk(b"a"), chunk(b"bc"), LAST_CHUNK)
    async with open_net(answering(*pieces)) as net, trio.open_nursery() as nursery:
        side = Side(net)
        assert await read_all(side, nursery) == b"abc"
        assert side.pool.idle_connections == len(net.still_open) == 1


async def test_leaving_an_attempt_early_closes_its_connection_at_once() -> None:
    async with open_net(answering(OK_STREAM, chunk(b"a"))) as net, trio.open_nursery() as nursery:
        side = Side(net)
        with await side.open(nursery) as attempt:
            assert attempt.take_whole() is None
            assert await attempt.read() == b"a"
        assert net.still_open == []
        assert side.pool.idle_connections == 0


async def test_leaving_an_attempt_ends_its_upload() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(OK)
        await trio.sleep_forever()

    async with open_net(script) as net:
        async with trio.open_nursery() as nursery:
            with await Side(net).open(nursery, Slow([1e9])) as attempt:
                assert attempt.take_whole() == b"hi"
        assert net.still_open == []


async def test_a_redirect_is_an_answer() -> None:
    answer = b"HTTP/1.1 307 X\r\nlocation: http://elsewhere.test/\r\ncontent-length: 0\r\n\r\n"
    async with open_net(answering(answer)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt:
            assert attempt.status == 307
        assert len(net.asked) == 1


async def test_a_head_without_a_body_is_all_there_is_to_head() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    async with open_net(answering(answer)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery, method="HEAD") as attempt:
            assert await attempt.read() == b""


# The time for the head


async def test_a_head_that_does_not_come_in_time_is_a_fault(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering()) as net, trio.open_nursery() as nursery:
        side = Side(net)
        with pytest.raises(UpstreamHeadTimeout, match=r"'name' did not begin to answer within 2\.5 s"):
            await side.open(nursery, head_s=2.5)
        assert trio.current_time() == pytest.approx(2.5)
        assert net.still_open == []


async def test_half_a_head_is_no_head(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering(*(OK[at : at + 1] for at in range(20)), pause=1)) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(UpstreamHeadTimeout):
                await Side(net).open(nursery)
        assert net.still_open == []


async def test_interim_answers_do_not_give_a_head_more_time(autojump_clock: trio.testing.MockClock) -> None:
    script = answering(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 10, OK, pause=4)
    async with open_net(script) as net, trio.open_nursery() as nursery:
        with pytest.raises(UpstreamHeadTimeout):
            await Side(net).open(nursery)


async def test_the_time_for_the_head_ends_with_the_head(autojump_clock: trio.testing.MockClock) -> None:
    script = answering(OK_STREAM, chunk(b"a"), LAST_CHUNK, pause=9)
    async with open_net(script) as net, trio.open_nursery() as nursery:
        assert await read_all(Side(net), nursery) == b"a"


async def test_each_uploaded_piece_gives_the_head_its_whole_time_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering(OK, pause=9)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery, Slow([9, 9, 9])) as attempt:
            assert attempt.take_whole() == b"hi"
        assert trio.current_time() == pytest.approx(36)


async def test_an_upload_that_stalls_for_too_long_is_no_excuse(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering(OK)) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(UpstreamHeadTimeout):
                await Side(net).open(nursery, Slow([9, 1e9]))
        assert trio.current_time() == pytest.approx(19)
        assert net.still_open == []


async def test_an_upload_that_the_origin_does_not_take_is_no_excuse(autojump_clock: trio.testing.MockClock) -> None:
    async def script(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit.received:
            visit.received += await visit.stream.receive_some()
        await trio.sleep_forever()

    async with open_net(script, lockstep=True) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(UpstreamHeadTimeout):
                await Side(net).open(nursery, Slow([1] * 100))
        assert trio.current_time() == pytest.approx(11)
        assert net.still_open == []


async def test_an_upload_behind_an_early_head_has_all_the_time(autojump_clock: trio.testing.MockClock) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        await visit.read_request()
        await visit.send(LAST_CHUNK)

    async with open_net(script) as net, trio.open_nursery() as nursery:
        side = Side(net)
        with await side.open(nursery, Slow([8, 20, 20])) as attempt:
            assert await attempt.read() == b""
        assert side.pool.idle_connections == 1


# Faults


async def test_an_origin_that_cannot_be_reached() -> None:
    async with open_net(answering()) as net, trio.open_nursery() as nursery:
        net.origin.refuses = True
        with pytest.raises(UpstreamConnectFailed) as caught:
            await Side(net).open(nursery)
    assert LIBRARY_WORDS.search(str(caught.value)) is None


async def test_an_origin_that_is_not_trusted() -> None:
    async with open_net(answering(tls=True)) as net, trio.open_nursery() as nursery:
        with pytest.raises(UpstreamConnectFailed, match="certificate") as caught:
            await Side(net, "https", ssl.create_default_context()).open(nursery)
    assert LIBRARY_WORDS.search(str(caught.value)) is None


async def test_an_origin_that_cannot_be_reached_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering()) as net, trio.open_nursery() as nursery:
        with pytest.raises(UpstreamConnectTimeout):
            await Side(net, "https", tls_client()).open(nursery)
        assert trio.current_time() == pytest.approx(2)


async def test_an_origin_that_leaves_before_its_head() -> None:
    for pieces in ([], [OK[:9]], [b"HTTP/1.1 100 Continue\r\n\r\n"]):
        assert type(await fault_of(answering(*pieces, ends=True))) is UpstreamDisconnected


async def test_an_origin_that_does_not_speak_http() -> None:
    for piece in (b"\0\0\0", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", b"x" * 100_000):
        assert type(await fault_of(answering(piece))) is UpstreamProtocolError


async def test_an_origin_that_leaves_in_the_middle() -> None:
    for pieces in ([OK[:-1]], [OK_STREAM, chunk(b"a")], [OK_STREAM, chunk(b"a")[:-1]], [OK_STREAM]):
        assert type(await fault_of(answering(*pieces, ends=True))) is UpstreamTruncated


async def test_an_origin_that_loses_its_framing_in_the_middle() -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + chunk(b"a"))
        await trio.testing.wait_all_tasks_blocked()
        await visit.send(b"not a chunk")

    assert type(await fault_of(script)) is UpstreamProtocolError


async def test_an_upload_whose_source_fails_is_its_own_fault() -> None:
    async with open_net(answering()) as net:
        async with trio.open_nursery() as nursery:
            with pytest.raises(RequestTooLarge):
                await Side(net).open(nursery, Slow([], RequestTooLarge("too large")))
        assert net.still_open == []


# Read ahead, read whole, changed


async def test_what_is_read_one_more_is_kept_and_read_again_in_order() -> None:
    script = answering(OK_STREAM, chunk(b"a"), chunk(b"b"), LAST_CHUNK)
    async with open_net(script) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt:
            assert (await attempt.read_more(), attempt.ahead, attempt.take_whole()) == (b"a", b"a", None)
            assert (await attempt.read_more(), attempt.ahead) == (b"b", b"ab")
            assert await attempt.read() == b"ab"
            assert (await attempt.read_more(), attempt.ahead) == (b"", b"")
            assert await attempt.read() == b""


async def test_one_that_was_read_to_its_end_ahead_is_whole() -> None:
    async with open_net(answering(OK_STREAM, chunk(b"a"), LAST_CHUNK)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt:
            while await attempt.read_more():
                pass
            assert (await attempt.read_more(), attempt.take_whole(), await attempt.read()) == (b"", b"a", b"")


async def test_a_fault_takes_nothing_of_what_was_read_ahead() -> None:
    async with open_net(answering(OK_STREAM, chunk(b"a"), ends=True)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt:
            await attempt.read_more()
            for _ in range(2):
                with pytest.raises(UpstreamTruncated):
                    await attempt.read_more()
                assert (attempt.ahead, attempt.take_whole()) == (b"a", None)


def test_who_is_cancelled_while_reading_one_more_loses_nothing_at_any_step() -> None:
    def play(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def main() -> bool:
            script = answering(OK_STREAM, chunk(b"a"), chunk(b"b"), chunk(b"c"), LAST_CHUNK, pause=1)
            async with open_net(script) as net, trio.open_nursery() as nursery:
                with await Side(net).open(nursery) as attempt:
                    with trio.CancelScope() as scope:
                        instrument.act = scope.cancel
                        while await attempt.read_more():
                            pass
                    instrument.act = None
                    assert b"abc".startswith(attempt.ahead)
                    while await attempt.read_more():
                        pass
                    assert attempt.take_whole() == b"abc"
                return scope.cancelled_caught

        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps

    step, in_time = 1, 0
    while True:
        was_cancelled, steps = play(step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 3


@pytest.mark.parametrize(
    "pieces", [(OK,), (OK[:-1], OK[-1:]), (OK_STREAM, chunk(b"h"), chunk(b"i"), LAST_CHUNK)], ids=len
)
async def test_an_answer_is_read_whole_up_to_a_bound(
    pieces: tuple[bytes, ...], autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net(answering(*pieces, pause=1)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt:
            assert await attempt.read_whole(2) == b"hi"
            assert await attempt.read() == b""
        too_long = pytest.raises(UpstreamProtocolError, match="'name' sent an answer of more than 1 bytes")
        with await Side(net).open(nursery) as attempt, too_long:
            await attempt.read_whole(1)


async def test_half_an_answer_is_none() -> None:
    async with open_net(answering(OK[:-1], ends=True)) as net, trio.open_nursery() as nursery:
        with await Side(net).open(nursery) as attempt, pytest.raises(UpstreamTruncated):
            await attempt.read_whole(100)


async def test_it_may_stand_for_another_answer() -> None:
    async with open_net(answering(OK)) as net, trio.open_nursery() as nursery:
        for read_with_take in (True, False):
            with await Side(net).open(nursery) as attempt:
                assert attempt.is_to_be_folded is False
                await attempt.read_whole(10)
                attempt.become([(b"x-a", b"b")], b"other")
                assert (attempt.status, attempt.headers) == (200, [(b"x-a", b"b")])
                assert (attempt.take_whole() if read_with_take else await attempt.read()) == b"other"
                assert await attempt.read() == b""


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        (UpstreamTruncated("x"), 1),
        (UpstreamErrorInStream("x", status=500), 1),
        (UpstreamErrorInStream("x", status=429), 0),
    ],
)
async def test_a_fault_behind_the_head_is_noted_with_what_the_attempt_holds(fault: UpstreamFault, faults: int) -> None:
    async with open_net(answering(OK)) as net, trio.open_nursery() as nursery:
        side = Side(net)
        endpoint, canary = side.endpoint, Canary(CanaryRules())
        with await side.open(nursery) as attempt:
            attempt.note_fault(fault)  # it holds nothing yet: nobody is told
            await endpoint.slots.take()
            turn = endpoint.breaker.take(trio.current_time())
            assert turn is not None
            attempt.stay = Stay(endpoint, None, turn, canary=canary)
            attempt.note_fault(fault)
            assert endpoint.breaker._window.counts(trio.current_time())[1] == faults
        attempt.note_fault(fault)
        attempt.note_first_content(trio.current_time())
        attempt.close()
        assert endpoint.breaker._window.counts(trio.current_time())[1] == faults
        assert (canary._others.answers, canary._others.errors, endpoint.slots.taken) == (1, 1, 0)


# Cancelled


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("is_upload", [False, True], ids=["held", "streamed"])
def test_a_cancelled_attempt_is_closed_before_anybody_else_runs(scheme: str, is_upload: bool) -> None:
    """At every step: the whole life of an attempt, left by its `with`."""
    tls_server()

    def play(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def main() -> bool:
            script = answering(OK_STREAM, chunk(b"a"), LAST_CHUNK, tls=scheme == "https")
            async with open_net(script) as net:
                side = Side(net, scheme, tls_client())
                with trio.CancelScope() as scope:
                    instrument.act = scope.cancel
                    async with trio.open_nursery() as nursery:
                        try:
                            body = Slow([0, 1]) if is_upload else b"{}"
                            with await side.open(nursery, body) as attempt:
                                while await attempt.read():
                                    pass
                        finally:
                            assert len(net.still_open) == side.pool.idle_connections
                instrument.act = None
                assert len(net.still_open) == side.pool.idle_connections == (not scope.cancelled_caught)
                side.pool.close_nowait()
            return scope.cancelled_caught

        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(main, clock=clock, instruments=[instrument]), instrument.steps

    step, in_time = 1, 0
    while True:
        was_cancelled, steps = play(step)
        in_time += was_cancelled
        if steps < step:
            break
        step += 1
    assert in_time > 5
