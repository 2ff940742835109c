"""Health checks: what is asked, what counts as an answer, and what becomes of the connection."""

import errno
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import LogCapture

from tests.harness.counting import AtStep
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Script, Visit, chunk
from tests.harness.wires import HOST, LIBRARY_WORDS, Net, open_net, serve_tls, tls_client, tls_server
from trioproxy.policy.breaker import State
from trioproxy.upstream.connect import OpenTcp
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.health import MAX_BODY_BYTES, HealthCheck, watch_health
from trioproxy.upstream.pool import Pool

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
BAD = b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno"
PATH = HealthCheck(10.0, path="/health")
Header = tuple[bytes, bytes]


@pytest.fixture
def log() -> Iterator[LogCapture]:
    """What was logged."""
    capture, before = LogCapture(), structlog.get_config()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield capture
    structlog.configure(**before)


class Side:
    """Our side of a net: an endpoint with its pool, of which a check is under way."""

    def __init__(
        self,
        net: Net,
        *,
        url: str = f"http://{HOST}/v1",
        headers: list[Header] | None = None,
        keys: list[Header] | None = None,
        is_anthropic: bool = False,
        open_tcp: OpenTcp | None = None,
    ) -> None:
        self.pool = Pool()
        self.endpoint = Endpoint(
            "name",
            url,
            pool=self.pool,
            connect_s=5,
            headers=headers or [],
            keys=keys or [],
            is_anthropic=is_anthropic,
            tls=tls_client() if url.startswith("https") else None,
            open_tcp=open_tcp or net.open_tcp,
        )

    def is_healthy(self) -> bool:
        return self.endpoint.health.is_healthy

    async def watch_for(
        self, seconds: float, check: HealthCheck = PATH, draw: Callable[[], float] | None = None
    ) -> None:
        """Watch for so long; the times between two checks are the interval, if nothing else is drawn."""
        with trio.move_on_after(seconds):
            await watch_health(self.endpoint, check, draw=draw or (lambda: 0.5))


def answering(*answers: bytes, requests: list[bytes] | None = None) -> Script:
    """Gives these answers in turn, the last again and again, over however many connections."""
    left = list(answers)

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.read_request()
            if requests is not None:
                requests.append(request)
            await visit.send(left.pop(0) if len(left) > 1 else left[0])

    return script


async def asked(
    side: Side, requests: list[bytes], check: HealthCheck = PATH
) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The request of one check: its first line, its fields, its body."""
    await side.watch_for(1, check)
    assert side.is_healthy() and len(requests) == 1
    head, _, body = requests[0].partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    headers = [field.split(b": ", 1) for field in fields]
    assert len({name for name, _ in headers}) == len(headers)
    return line, {name.lower(): value for name, value in headers}, body


# What is asked


async def test_a_path_is_asked_for_at_the_host_and_not_below_the_base_url(
    autojump_clock: trio.testing.MockClock,
) -> None:
    requests: list[bytes] = []
    async with open_net(answering(OK, requests=requests)) as net:
        side = Side(net, headers=[(b"x-own", b"1")], keys=[(b"authorization", b"Bearer k")])
        line, headers, body = await asked(side, requests, HealthCheck(10, path="/health?deep=1"))
    assert line == b"GET /health?deep=1 HTTP/1.1" and body == b""
    assert headers[b"host"] == HOST.encode()
    assert (headers[b"x-own"], headers[b"authorization"]) == (b"1", b"Bearer k")
    assert b"content-length" not in headers


async def test_a_chat_asks_the_model_for_one_token(autojump_clock: trio.testing.MockClock) -> None:
    requests: list[bytes] = []
    async with open_net(answering(OK, requests=requests)) as net:
        side = Side(net, url=f"http://{HOST}/openai/v1", keys=[(b"authorization", b"Bearer k")])
        line, headers, body = await asked(side, requests, HealthCheck(10, model="gpt-ä"))
    assert line == b"POST /openai/v1/chat/completions HTTP/1.1"
    assert (headers[b"content-type"], headers[b"authorization"]) == (b"application/json", b"Bearer k")
    assert b"anthropic-version" not in headers
    said = json.loads(body)
    assert (said["model"], said["max_tokens"], "stream" in said) == ("gpt-ä", 1, False)
    assert [message["role"] for message in said["messages"]] == ["user"]


@pytest.mark.parametrize(("own", "version"), [([], b"2023-06-01"), ([(b"anthropic-version", b"x")], b"x")])
async def test_a_chat_in_the_other_dialect(
    own: list[Header], version: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    requests: list[bytes] = []
    async with open_net(answering(OK, requests=requests)) as net:
        side = Side(net, is_anthropic=True, headers=own, keys=[(b"x-api-key", b"k")])
        line, headers, body = await asked(side, requests, HealthCheck(10, model="claude"))
    assert line == b"POST /v1/messages HTTP/1.1"
    assert (headers[b"x-api-key"], headers[b"anthropic-version"]) == (b"k", version)
    assert json.loads(body)["max_tokens"] == 1


@pytest.mark.parametrize(("out", "key"), [([], b"k0"), ([0], b"k1"), ([0, 1], b"k2"), ([0, 1, 2], b"k0")])
async def test_the_first_usable_key_is_sent(out: list[int], key: bytes, autojump_clock: trio.testing.MockClock) -> None:
    requests: list[bytes] = []
    async with open_net(answering(OK, requests=requests)) as net:
        side = Side(net, keys=[(b"authorization", b"k0"), (b"authorization", b"k1"), (b"authorization", b"k2")])
        for index in out:
            side.endpoint.keys.note(index, 401, None, trio.current_time())
        _, headers, _ = await asked(side, requests)
    assert headers[b"authorization"] == key


# When


async def test_it_is_asked_at_once_and_then_at_every_interval_give_or_take_a_tenth(
    autojump_clock: trio.testing.MockClock,
) -> None:
    times: list[float] = []

    async def script(visit: Visit) -> None:
        while True:
            await visit.read_request()
            times.append(trio.current_time())
            await visit.send(OK)

    draws = iter([0.0, 0.5, 0.999999, 0.5])
    async with open_net(script) as net:
        await Side(net).watch_for(39.5, draw=lambda: next(draws))
    assert times == pytest.approx([0.0, 9.0, 19.0, 30.0], abs=0.01)


async def test_the_time_that_a_check_takes_is_part_of_the_interval(autojump_clock: trio.testing.MockClock) -> None:
    times: list[float] = []

    async def script(visit: Visit) -> None:
        while True:
            await visit.read_request()
            times.append(trio.current_time())
            await trio.sleep(7)
            await visit.send(OK)

    async with open_net(script) as net:
        side = Side(net)
        await side.watch_for(25)
        assert side.is_healthy()
    assert times == pytest.approx([0.0, 10.0, 20.0])


# What counts


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 204 X\r\n\r\n",
        OK_STREAM + chunk(b"a") + LAST_CHUNK,
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MAX_BODY_BYTES + b"x" * MAX_BODY_BYTES,
    ],
    ids=["short", "none", "chunked", "as long as may be"],
)
async def test_a_whole_answer_with_a_good_status_is_well_and_its_connection_is_kept(
    answer: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net(answering(answer)) as net:
        side = Side(net)
        await side.watch_for(1)
        assert side.is_healthy()
        assert side.pool.idle_connections == len(net.still_open) == 1
        await side.watch_for(15)
        assert side.is_healthy()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BAD, "answered with status 503"),
        (b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", "answered with status 404"),
        (b"HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", "answered with status 302"),
        (OK[:-1], "did not answer within 10 s"),
        (OK[:20], "did not answer within 10 s"),
        (OK_STREAM + chunk(b"a"), "did not answer within 10 s"),
        (OK_STREAM + b"not a chunk", "not valid HTTP"),
        (b"\0\0\0", "not valid HTTP"),
        (OK_STREAM + chunk(b"x" * (MAX_BODY_BYTES + 1)) + LAST_CHUNK, "more than 65536 bytes"),
    ],
)
async def test_everything_else_is_not(
    answer: bytes, reason: str, log: LogCapture, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net(answering(answer)) as net:
        side = Side(net)
        await side.watch_for(9.9)
        assert side.is_healthy(), "once is not enough"
        await side.watch_for(25)
        assert not side.is_healthy()
        assert len(net.still_open) == side.pool.idle_connections
    assert [entry["event"] for entry in log.entries] == ["upstream unhealthy"]
    assert (log.entries[0]["upstream"], log.entries[0]["log_level"]) == ("name", "warning")
    assert reason in log.entries[0]["reason"]
    assert LIBRARY_WORDS.search(log.entries[0]["reason"]) is None


async def test_an_endless_answer_is_not_read_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    sent: list[int] = []

    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        for _ in range(100):
            await visit.send(chunk(b"x" * 8192))
            sent.append(8192)

    async with open_net(script, lockstep=True) as net:
        await Side(net).watch_for(1)
        assert net.still_open == []
    assert MAX_BODY_BYTES <= sum(sent) <= MAX_BODY_BYTES + 2 * 16384


async def test_an_answer_that_breaks_off_is_none(log: LogCapture, autojump_clock: trio.testing.MockClock) -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK[:-1])
        visit.cut()

    async with open_net(script) as net:
        side = Side(net)
        await side.watch_for(15)
        assert not side.is_healthy() and net.still_open == []
    assert "ended its answer too early" in log.entries[0]["reason"]


async def test_an_endpoint_that_refuses_connections_is_not_well(
    log: LogCapture, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net(answering(OK)) as net:
        net.origin.refuses = True
        side = Side(net)
        await side.watch_for(15)
        assert not side.is_healthy()
    assert "Cannot connect to the upstream 'name'" in log.entries[0]["reason"]


@pytest.mark.parametrize(("interval_s", "check_s"), [(2.0, 2.0), (25.0, 10.0)])
@pytest.mark.parametrize("connects", [False, True])
async def test_a_check_takes_no_longer_than_its_interval_and_ten_seconds(
    interval_s: float, check_s: float, connects: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(visit: Visit) -> None:
        """Accepts, and never says anything."""

    async with open_net(silent) as net:
        net.origin.is_unreachable = not connects
        side = Side(net)
        side.endpoint.connect_s = 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(watch_health, side.endpoint, HealthCheck(interval_s, path="/"), draw=lambda: 0.75)
            )
            second = trio.current_time() + 1.05 * interval_s
            await trio.sleep(check_s - 0.05)
            assert len(net.still_open) == connects
            await trio.sleep(0.1)
            assert net.still_open == []
            await trio.sleep_until(second + check_s - 0.05)
            assert side.is_healthy() and len(net.asked) == 2
            await trio.sleep(0.1)
            assert not side.is_healthy()
            nursery.cancel_scope.cancel()


async def test_a_lack_of_our_own_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering(OK)) as net:
        tried: list[str] = []

        async def without_room(host: str, _: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            tried.append(host)
            raise OSError(errno.EMFILE, "too many open files")

        side = Side(net, open_tcp=without_room)
        await side.watch_for(55)
        assert side.is_healthy() and len(tried) == 6


async def test_one_success_makes_it_healthy_again(log: LogCapture, autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(answering(BAD, BAD, BAD, OK, BAD, OK)) as net:
        side = Side(net)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.watch_for, 28, HealthCheck(5, path="/"))
            states = []
            for _ in range(6):
                await trio.sleep(2)
                states.append(side.is_healthy())
                await trio.sleep(3)
        assert states == [True, False, False, True, True, True]
    assert [entry["event"] for entry in log.entries] == ["upstream unhealthy", "upstream healthy again"]
    assert log.entries[1]["log_level"] == "info" and log.entries[1]["reason"]


async def test_no_check_counts_against_breaker_places_keys_or_attempts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refused = b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n"
    for answer in (OK, BAD, refused):
        async with open_net(answering(answer)) as net:
            side = Side(net, keys=[(b"authorization", b"k0"), (b"authorization", b"k1")])
            await side.watch_for(50, HealthCheck(0.5, path="/"))
            endpoint, now = side.endpoint, trio.current_time()
            assert endpoint.breaker.state(now) is State.CLOSED
            assert endpoint.keys.is_usable(0, now) and endpoint.keys.is_usable(1, now)
            assert (endpoint.slots.taken, endpoint.attempts.opened, endpoint.first_content.value(now)) == (0, 0, None)
            assert [key.in_use for key in endpoint.keys._keys] == [0, 0]


# Cancelled


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_cancelled_check_leaves_nothing_open(scheme: str) -> None:
    """At every step: two checks, one that is answered with a stream and one with an error."""
    tls_server()

    def play(step: int) -> tuple[bool, int]:
        instrument = AtStep(step)

        async def script(visit: Visit) -> None:
            if scheme == "https":
                visit.stream = await serve_tls(visit.stream)
            await visit.read_request()
            for piece in (OK_STREAM, chunk(b"a"), LAST_CHUNK):
                await visit.send(piece)
            await visit.read_request()
            await visit.send(BAD)

        async def main() -> bool:
            async with open_net(script) as net:
                side = Side(net, url=f"{scheme}://{HOST}/v1")
                with trio.CancelScope() as scope:
                    instrument.act = scope.cancel
                    await side.watch_for(5.0, HealthCheck(3.0, path="/"))
                instrument.act = None
                assert side.is_healthy()
                assert len(net.still_open) == side.pool.idle_connections == side.pool.connections.open
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
    assert in_time > 10
