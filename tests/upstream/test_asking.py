"""Asking one target: what is held, what it is dressed in, and what endpoint, key, canary and hedge learn of it."""

import errno
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content
from tests.harness.wires import Net, open_net
from trioproxy.errors import (
    NoHealthyUpstream,
    Overloaded,
    UpstreamDisconnected,
    UpstreamErrorInStream,
    UpstreamFault,
    UpstreamFirstContentTimeout,
    UpstreamIdleTimeout,
    UpstreamProtocolError,
    UpstreamTruncated,
)
from trioproxy.policy.breaker import Outcome, State
from trioproxy.policy.canary import Canary, CanaryRules
from trioproxy.policy.hedge import Hedge, HedgeRules
from trioproxy.telemetry.exchange import Exchange, Trying
from trioproxy.upstream.asking import Asker
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.request import Clocks, Form, OriginRequest
from trioproxy.upstream.way import CanaryTarget, Target, Way
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import is_event_stream
from trioproxy.wire.json_object import JsonObject

OWN = b"authorization"
KEYS = ((OWN, b"Bearer one"), (OWN, b"Bearer two"))
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
STREAM = OK_STREAM + chunk(content("word")) + chunk(DONE) + LAST_CHUNK
BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
WHOLE = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def status(number: int, fields: str = "") -> bytes:
    return f"HTTP/1.1 {number} X\r\ncontent-length: 0\r\n{fields}\r\n".encode()


def whole(body: bytes, fields: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{fields}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


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


class Side:
    """Our side of a net: one endpoint with two keys, and who asks it."""

    def __init__(self, net: Net, nursery: trio.Nursery, places: int | None = None, waiting: int = 0) -> None:
        self.net = net
        self.nursery = nursery
        self.pool = Pool()
        self.endpoint = Endpoint(
            "name",
            "http://origin.test/v1",
            pool=self.pool,
            connect_s=5,
            keys=KEYS,
            open_tcp=net.open_tcp,
            max_concurrent=places,
            max_waiting=waiting,
        )
        self.target = Target(self.endpoint)
        self.canary = Canary(CanaryRules())
        self.hedge = Hedge(HedgeRules(percentile=95))
        self.exchange = Exchange("req", "POST", "/v1/chat/completions", 0.0)
        self.is_canary = False
        self.way = Way([self.target], canary=CanaryTarget(self.target, self.canary))

    def asker(self, body: bytes | AsyncIterator[bytes] = BODY, dialect: Dialect = Dialect.CHAT) -> Asker:
        request = OriginRequest("POST", b"/v1/chat/completions", [], body, dialect, wants_stream=True)
        request.json = JsonObject.parse(body) if isinstance(body, bytes) else None
        return Asker(request, self.exchange, Clocks(5, 9, 20, 5), self.nursery)

    async def ask(self, form: Form = Form.AS_ASKED, model: str | None = None, asker: Asker | None = None) -> Attempt:
        return await (asker or self.asker()).ask(
            self.target,
            self.way,
            Trying(self.target.endpoint.name, model),
            model=model,
            form=form,
            is_canary=self.is_canary,
            hedge=self.hedge,
        )

    async def ask_for_content(self) -> Attempt:
        """As a race does."""
        asker = self.asker()
        attempt = await self.ask(asker=asker)
        try:
            await asker.wait_for_content(attempt)
        except BaseException:
            attempt.close()
            raise
        return attempt

    @property
    def is_free(self) -> bool:
        """Whether nothing is held at the endpoint."""
        is_closed = len(self.net.still_open) == self.pool.idle_connections
        keys = [one.in_use for one in self.endpoint.keys._keys]
        return is_closed and not (self.endpoint.slots.taken or self.endpoint.attempts.open or any(keys))

    @property
    def breaker(self) -> tuple[int, int]:
        """How many faults in a row it has counted, and of how many tries it was told what they came to."""
        breaker = self.endpoint.breaker
        return breaker._faults_in_a_row, breaker._window.counts(trio.current_time())[0]

    @property
    def compared(self) -> tuple[int, int, int]:
        """What the canary's side of its comparison knows: answers, errors, times."""
        figures = self.canary._canary if self.is_canary else self.canary._others
        return figures.answers, figures.errors, figures.times

    @property
    def hedge_times(self) -> list[float]:
        return [round(one, 2) for one in self.hedge._newest]

    async def open_half(self) -> None:
        """Bring the breaker to where it lets one probe in."""
        breaker = self.endpoint.breaker
        for _ in range(breaker.rules.failures):
            turn = breaker.take(trio.current_time())
            assert turn is not None
            breaker.record(turn, Outcome.FAULT, trio.current_time())
        await trio.sleep(breaker.rules.eject_s)
        assert breaker.state(trio.current_time()) is State.HALF_OPEN


Story = Callable[[Side], Awaitable[None]]


async def play(story: Story, script: Script, places: int | None = None, waiting: int = 0) -> None:
    async with open_net(script) as net, trio.open_nursery() as nursery:
        side = Side(net, nursery, places, waiting)
        await story(side)
        assert side.is_free
        side.pool.close_nowait()


# What is held


async def test_an_attempt_holds_a_place_and_a_key_until_it_is_let_go_of() -> None:
    async def script(visit: Visit) -> None:
        request = await visit.read_request()
        assert b"authorization: Bearer one\r\n" in request
        await visit.send(OK)

    async def story(side: Side) -> None:
        with await side.ask() as attempt:
            assert attempt.stay is not None
            assert (attempt.stay.key, side.endpoint.slots.taken, side.is_free) == (0, 1, False)
        assert (side.exchange.upstream, side.exchange.attempts) == ("name", 1)

    await play(story, script)


@pytest.mark.parametrize(
    ("form", "answer"),
    [(Form.AS_ASKED, OK), (Form.AS_ASKED, STREAM), (Form.WHOLE, whole(WHOLE)), (Form.WHOLE, OK), (Form.WHOLE, b"x")],
)
def test_who_is_cancelled_holds_nothing_at_any_step(form: Form, answer: bytes) -> None:
    def sweep(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def main() -> bool:
            is_cut = False

            async def story(side: Side) -> None:
                nonlocal is_cut
                with trio.CancelScope() as scope:
                    instrument.act = scope.cancel
                    asker = side.asker()
                    try:
                        attempt = await side.ask(form, asker=asker)
                    except UpstreamFault:
                        pass
                    else:
                        with attempt:
                            if is_event_stream(attempt.headers):
                                await asker.wait_for_content(attempt)
                instrument.act = None
                is_cut = scope.cancelled_caught
                assert side.is_free
                assert side.breaker[0] == (form is Form.WHOLE and answer != whole(WHOLE) and not is_cut)

            head, blank, body = answer.partition(b"\r\n\r\n")
            await play(story, answers(head + blank, body[:9], body[9:], pause=1), places=1)
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
    assert in_time > 5


async def test_who_leaves_while_waiting_for_a_place_has_none(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.ask():
            with trio.move_on_after(3) as scope:
                await side.ask()
            assert scope.cancelled_caught
            assert (side.endpoint.slots.taken, side.endpoint.slots.waiting, side.exchange.attempts) == (1, 0, 1)

    await play(story, answers(OK), places=1, waiting=1)


async def test_who_gets_a_place_when_the_last_key_is_out_gives_it_back(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        async def wait() -> None:
            with pytest.raises(NoHealthyUpstream):
                await side.ask()

        with await side.ask() as first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                for key in (0, 1):
                    side.endpoint.keys.note(key, 401, None, trio.current_time())
                first.close()
        assert side.exchange.attempts == 1

    await play(story, answers(OK), places=1, waiting=1)


async def test_no_room_for_a_socket_is_our_lack_and_no_fault_of_the_endpoint() -> None:
    async def story(side: Side) -> None:
        async def full(host: str, port: int) -> trio.abc.Stream:
            raise OSError(errno.EMFILE, "full")

        side.endpoint = Endpoint("name", "http://x/v1", pool=side.pool, connect_s=5, keys=KEYS, open_tcp=full)
        side.target = Target(side.endpoint)
        with pytest.raises(Overloaded):
            await side.ask()
        assert (side.breaker, side.compared) == ((0, 0), (0, 0, 0))

    await play(story, answers(OK))


# What is noted


@pytest.mark.parametrize(
    ("answer", "breaker", "compared", "usable_keys"),
    [
        (OK, (0, 1), (1, 0, 0), 2),
        (status(302), (0, 1), (1, 0, 0), 2),
        (status(400), (0, 0), (1, 1, 0), 2),
        (status(401), (0, 0), (1, 1, 0), 1),
        (status(402), (0, 0), (1, 1, 0), 1),
        (status(429, "retry-after: 100\r\n"), (0, 0), (1, 1, 0), 1),
        (status(500), (1, 1), (1, 1, 0), 2),
        (STREAM, (0, 0), (0, 0, 0), 2),
    ],
)
@pytest.mark.parametrize("is_canary", [True, False])
async def test_a_head_says_something_of_endpoint_and_key(
    answer: bytes,
    breaker: tuple[int, int],
    compared: tuple[int, int, int],
    usable_keys: int,
    is_canary: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def story(side: Side) -> None:
        side.is_canary = is_canary
        with await side.ask():
            assert side.breaker == breaker
            assert side.compared == (0, 0, 0), "only when the try is over"
            assert side.endpoint.keys.usable(trio.current_time() + 50) == usable_keys
        assert (side.compared, side.hedge_times) == (compared, [])

    await play(story, answers(answer))


@pytest.mark.parametrize(("ends", "code"), [(True, UpstreamDisconnected), (False, UpstreamFault)])
async def test_no_head_is_a_fault(
    ends: bool, code: type[UpstreamFault], autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        with pytest.raises(code) as caught:
            await side.ask()
        assert not caught.value.had_head
        assert (side.breaker, side.compared, side.is_free) == ((1, 1), (1, 1, 0), True)

    await play(story, answers(ends=ends))


async def test_a_probe_says_nothing_until_its_stream_brings_something(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        await side.open_half()
        breaker, asker = side.endpoint.breaker, side.asker()
        with await side.ask(asker=asker) as attempt:
            assert not breaker.allow(trio.current_time())
            await asker.wait_for_content(attempt)
            assert breaker.state(trio.current_time()) is State.CLOSED

    await play(story, answers(STREAM))


async def test_a_probe_that_leaves_lets_the_next_one_in(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        await side.open_half()
        with trio.move_on_after(1):
            await side.ask()
        assert side.endpoint.breaker.allow(trio.current_time())

    await play(story, answers())


# Waiting for the first content


async def test_what_was_read_ahead_is_read_again_and_its_time_is_known(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.ask_for_content() as attempt:
            assert attempt.ahead == ROLE + content("word")
            assert (side.breaker, side.hedge_times) == ((0, 1), [3.0])
            assert side.endpoint.first_content.value(trio.current_time()) == pytest.approx(3)
            assert await attempt.read() == ROLE + content("word")
            assert await attempt.read() == DONE
            assert await attempt.read() == b""
        assert side.compared == (1, 0, 1)

    await play(story, answers(OK_STREAM, chunk(ROLE), chunk(content("word")), chunk(DONE) + LAST_CHUNK, pause=1))


FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize("end", [DONE, FINISHED])
async def test_an_honest_end_without_any_content_is_one(end: bytes) -> None:
    async def story(side: Side) -> None:
        (await side.ask_for_content()).close()
        assert side.breaker == (0, 1)

    await play(story, answers(OK_STREAM + chunk(ROLE) + chunk(end) + LAST_CHUNK))


async def test_a_stream_of_an_unknown_dialect_may_be_empty() -> None:
    async def story(side: Side) -> None:
        asker = side.asker(dialect=Dialect.OTHER)
        with await side.ask(asker=asker) as attempt:
            await asker.wait_for_content(attempt)
            assert await attempt.read() == b""
        assert side.breaker == (0, 1)

    await play(story, answers(OK_STREAM + LAST_CHUNK))


@pytest.mark.parametrize(
    ("answer", "ends", "fault", "breaker"),
    [
        (chunk(b'data: {"error":{"message":"no","code":429}}\n\n'), False, UpstreamErrorInStream, (0, 0)),
        (chunk(b'data: {"error":{"message":"no","code":500}}\n\n'), False, UpstreamErrorInStream, (1, 1)),
        (chunk(b'data: {"error":{"message":"no"}}') + LAST_CHUNK, False, UpstreamErrorInStream, (1, 1)),
        (chunk(ROLE) + LAST_CHUNK, False, UpstreamTruncated, (1, 1)),
        (LAST_CHUNK, False, UpstreamTruncated, (1, 1)),
        (chunk(ROLE), True, UpstreamTruncated, (1, 1)),
        (chunk(ROLE) + b"no chunk", False, UpstreamProtocolError, (1, 1)),
    ],
)
async def test_a_stream_that_fails_before_its_first_content_is_a_fault(
    answer: bytes,
    ends: bool,
    fault: type[UpstreamFault],
    breaker: tuple[int, int],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def story(side: Side) -> None:
        with pytest.raises(fault) as caught:
            await side.ask_for_content()
        assert caught.value.had_head
        assert (side.breaker, side.compared, side.hedge_times) == (breaker, (1, 1, 0), [])

    await play(story, answers(OK_STREAM, answer, ends=ends))


@pytest.mark.parametrize(
    ("pieces", "pause", "fault", "at"),
    [
        ([], 2, UpstreamFirstContentTimeout, 20),
        ([ROLE], 2, UpstreamIdleTimeout, 9),
        ([ROLE, *[b": ping\n\n"] * 50], 2, UpstreamIdleTimeout, 9),
        ([ROLE] * 50, 2, UpstreamFirstContentTimeout, 20),
    ],
)
async def test_content_that_does_not_come_in_time_is_a_fault(
    pieces: list[bytes], pause: float, fault: type[UpstreamFault], at: float, autojump_clock: trio.testing.MockClock
) -> None:
    """As where it is waited for behind the client's head: a model may think for long before its first event."""

    async def story(side: Side) -> None:
        with pytest.raises(fault) as caught:
            await side.ask_for_content()
        assert trio.current_time() == pytest.approx(at)
        assert caught.value.had_head
        assert (side.breaker, side.compared) == ((1, 1), (1, 1, 0))

    await play(story, answers(OK_STREAM, *map(chunk, pieces), pause=pause))


async def test_a_model_may_think_longer_than_a_stream_may_be_idle(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.ask_for_content() as attempt:
            assert attempt.ahead == content("word")

    await play(story, answers(OK_STREAM, chunk(content("word")), pause=8))


async def test_so_much_without_content_counts_as_content(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        with await side.ask_for_content() as attempt:
            assert len(attempt.ahead) <= 2 * 65536
        assert side.breaker == (0, 1)

    await play(story, answers(OK_STREAM, *[chunk(b":" + b"x" * 9998 + b"\n")] * 8))


async def test_of_a_compressed_stream_nothing_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    packed = gzip.compress(content("word") + DONE)
    head = OK_STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")

    async def story(side: Side) -> None:
        with await side.ask_for_content() as attempt:
            assert await attempt.read() == packed
        assert (side.breaker, side.compared) == ((0, 1), (1, 0, 0))

    await play(story, answers(head, chunk(packed) + LAST_CHUNK))


async def test_who_is_cancelled_while_it_waits_keeps_what_was_read(autojump_clock: trio.testing.MockClock) -> None:
    async def story(side: Side) -> None:
        asker = side.asker()
        with await side.ask(asker=asker) as attempt:
            with trio.move_on_after(1):
                await asker.wait_for_content(attempt)
            assert attempt.ahead == ROLE
        assert (side.breaker, side.compared, side.hedge_times) == ((0, 0), (0, 0, 0), [])

    await play(story, answers(OK_STREAM + chunk(ROLE)))


# Streams of whole answers, and the other way round


async def test_a_whole_answer_becomes_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        got.append(await visit.read_request())
        await trio.sleep(3)
        await visit.send(whole(WHOLE, "x-a: b\r\n"))

    async def story(side: Side) -> None:
        asker = side.asker()
        with await side.ask(Form.WHOLE, "other", asker) as attempt:
            assert attempt.headers == [(b"x-a", b"b"), (b"content-type", b"text/event-stream; charset=utf-8")]
            assert not attempt.is_to_be_folded
            assert (side.breaker, side.hedge_times) == ((0, 1), [3.0])
            await asker.wait_for_content(attempt)  # it is there already
            stream = await attempt.read()
            assert stream.endswith(DONE) and b'"word"' in stream and b'"total_tokens":2' in stream
            assert await attempt.read() == b""
        assert (side.compared, side.hedge_times) == ((1, 0, 1), [3.0])

    await play(story, script)
    asked = json.loads(got[0].partition(b"\r\n\r\n")[2])
    assert asked == {"model": "other", "stream": False, "stream_options": None}


async def test_an_origin_that_streams_where_it_should_not_is_taken_at_its_word() -> None:
    async def story(side: Side) -> None:
        with await side.ask(Form.WHOLE) as attempt:
            assert (await attempt.read(), side.breaker) == (content("word"), (0, 0))

    await play(story, answers(OK_STREAM + chunk(content("word"))))


async def test_an_error_stays_one_in_any_form() -> None:
    async def story(side: Side) -> None:
        for form in Form:
            with await side.ask(form) as attempt:
                assert (attempt.status, attempt.take_whole(), attempt.is_to_be_folded) == (404, b"", False)

    await play(story, answers(status(404)))


@pytest.mark.parametrize(
    ("answer", "ends", "at"),
    [
        (OK, False, 0),
        (whole(b"no json"), False, 0),
        (whole(WHOLE, "content-encoding: gzip\r\n"), False, 0),
        (whole(WHOLE)[:-9], True, 0),
        (whole(WHOLE)[:-9], False, 20),
    ],
)
async def test_what_no_stream_can_be_made_of_is_a_fault(
    answer: bytes, ends: bool, at: float, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        with pytest.raises(UpstreamFault) as caught:
            await side.ask(Form.WHOLE)
        assert caught.value.had_head
        assert trio.current_time() == pytest.approx(at)
        assert (side.breaker, side.compared, side.is_free) == ((1, 1), (1, 1, 0), True)

    await play(story, answers(answer, ends=ends))


@pytest.mark.parametrize(
    ("answer", "is_to_be_folded"), [(STREAM, True), (whole(WHOLE), False), (status(500), False), (b"", False)]
)
async def test_only_a_stream_is_folded(
    answer: bytes, is_to_be_folded: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def story(side: Side) -> None:
        try:
            attempt = await side.ask(Form.STREAM)
        except UpstreamFault:
            assert not answer
            return
        with attempt:
            assert attempt.is_to_be_folded is is_to_be_folded

    await play(story, answers(answer) if answer else answers(ends=True))


# A body in pieces


async def test_a_body_in_pieces_may_be_sent_until_a_piece_was_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    class Pieces(AsyncIterator[bytes]):
        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

    async def story(side: Side) -> None:
        asker = side.asker(Pieces())
        before = asker.can_repeat
        side.net.origin.refuses = True
        with pytest.raises(UpstreamFault):
            await side.ask(asker=asker)
        refused = asker.can_repeat
        side.net.origin.refuses = False
        with pytest.raises(UpstreamFault):
            await side.ask(asker=asker)
        assert (before, refused, asker.can_repeat, side.asker().can_repeat) == (True, True, False, True)

    await play(story, answers(ends=True))
