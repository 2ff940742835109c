"""Upstreams' own lists of models: what is sent for them, what is kept and for whom, and what is no list."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.origin import Script, Visit
from tests.harness.wires import LIBRARY_WORDS, Net, open_net
from trioproxy.errors import ProxyError
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.model_list import FETCH_S, MAX_LIST_BYTES, ModelLists, Models
from trioproxy.upstream.pool import Pool
from trioproxy.wire.headers import Headers

KEY = [(b"authorization", b"Bearer own")]
CLIENT: Headers = [(b"authorization", b"Bearer client"), (b"x-team", b"blue")]


class Lists:
    """An origin that answers each request with the next answer, the last one again and again."""

    def __init__(self, *answers: bytes, pause_s: float = 0) -> None:
        self._answers = answers
        self._pause_s = pause_s
        self.got: list[bytes] = []

    async def __call__(self, visit: Visit) -> None:
        while True:
            self.got.append(await visit.read_request())
            await trio.sleep(self._pause_s)
            await visit.send(self._answers[min(len(self.got), len(self._answers)) - 1])


def answer(body: bytes, status: int = 200, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


def listing(*names: str) -> bytes:
    return answer(b'{"object":"list","data":[%b]}' % b",".join(b'{"id":"%b"}' % name.encode() for name in names))


def one(net: Net, keys: Sequence[tuple[bytes, bytes]] = KEY, *, is_anthropic: bool = False) -> Endpoint:
    return Endpoint(
        "a", "http://a/v1", pool=Pool(), connect_s=2, keys=keys, is_anthropic=is_anthropic, open_tcp=net.open_tcp
    )


async def ask(lists: ModelLists, headers: Headers = CLIENT) -> Models | ProxyError:
    (answer,) = (await lists.ask(["a"], headers)).values()
    return answer


async def names(lists: ModelLists, headers: Headers = CLIENT) -> list[str]:
    answer = await ask(lists, headers)
    assert not isinstance(answer, ProxyError), answer
    return list(answer)


async def fault_of(script: Script) -> ProxyError:
    """Why there is no list. Nothing is left of the fetch then, and the words are ours."""
    async with open_net(script) as net:
        endpoint = one(net)
        fault = await ask(ModelLists([endpoint]))
        assert isinstance(fault, ProxyError)
        assert [fault.__traceback__, fault.__cause__, fault.__context__] == 3 * [None], "it keeps no task alive"
        assert len(net.still_open) == endpoint.transport._pool.idle_connections
        assert endpoint.attempts.open == endpoint.keys._keys[0].in_use == 0
        assert LIBRARY_WORDS.search(fault.message) is None
    return fault


def lines(request: bytes) -> set[bytes]:
    return set(request.partition(b"\r\n\r\n")[0].split(b"\r\n"))


async def test_a_list_is_fetched_with_the_upstream_s_own_key_and_nothing_of_the_client_s() -> None:
    origin = Lists(listing("x", "y"))
    async with open_net(origin) as net:
        endpoint = one(net)
        assert await names(ModelLists([endpoint])) == ["x", "y"]
        assert endpoint.slots.taken == endpoint.attempts.open == endpoint.keys._keys[0].in_use == 0
    assert lines(origin.got[0]) == {
        b"GET /v1/models HTTP/1.1",
        b"host: a",
        b"accept: application/json",
        b"accept-encoding: identity",
        b"user-agent: trioproxy",
        b"authorization: Bearer own",
    }


async def test_anthropic_is_asked_for_more_than_a_page_and_in_its_version() -> None:
    origin = Lists(listing("claude"))
    async with open_net(origin) as net:
        await names(ModelLists([one(net, [(b"x-api-key", b"own")], is_anthropic=True)]))
    assert {b"GET /v1/models?limit=1000 HTTP/1.1", b"anthropic-version: 2023-06-01"} <= lines(origin.got[0])


async def test_a_failure_is_kept_for_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    origin = Lists(answer(b"", 503), listing("y"))
    async with open_net(origin) as net:
        lists = ModelLists([one(net)])
        assert isinstance(await ask(lists), ProxyError)
        await trio.sleep(4.9)
        assert isinstance(await ask(lists), ProxyError)
        await trio.sleep(0.2)
        assert await names(lists) == ["y"]
    assert len(origin.got) == 2


async def test_many_who_ask_share_one_fetch(autojump_clock: trio.testing.MockClock) -> None:
    origin = Lists(listing("x"), pause_s=1)
    async with open_net(origin) as net:
        lists = ModelLists([one(net)])
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(names, lists)
    assert len(origin.got) == 1 and trio.current_time() == pytest.approx(1)


async def test_whoever_stops_asking_takes_nothing_from_the_others(autojump_clock: trio.testing.MockClock) -> None:
    origin = Lists(listing("x"), pause_s=1)
    async with open_net(origin) as net:
        endpoint = one(net)
        lists = ModelLists([endpoint])
        async with trio.open_nursery() as nursery:

            async def hurry() -> None:
                with trio.move_on_after(0.5):
                    await ask(lists)

            nursery.start_soon(hurry)
            await trio.testing.wait_all_tasks_blocked()
            assert await names(lists) == ["x"]
        assert len(origin.got) == 2 and len(net.still_open) == 1
        assert endpoint.keys._keys[0].in_use == 0


async def test_what_a_client_s_own_key_brings_is_that_client_s_alone() -> None:
    origin = Lists(listing("x"), listing("y"))
    async with open_net(origin) as net:
        lists = ModelLists([one(net, [])])
        client: Headers = [*CLIENT, (b"if-none-match", b"1"), (b"accept-encoding", b"br"), (b"accept", b"text/html")]
        assert await names(lists, client) == ["x"]
        assert await names(lists, [(b"authorization", b"Bearer other"), (b"user-agent", b"curl")]) == ["y"]
    assert lines(origin.got[0]) == {
        b"GET /v1/models HTTP/1.1",
        b"host: a",
        b"authorization: Bearer client",
        b"x-team: blue",
        b"accept: application/json",
        b"accept-encoding: identity",
        b"user-agent: trioproxy",
    }
    assert {b"authorization: Bearer other", b"user-agent: curl"} < lines(origin.got[1])


async def test_where_every_key_is_set_aside_nothing_is_fetched() -> None:
    origin = Lists(listing("x"))
    async with open_net(origin) as net:
        endpoint = one(net, 2 * KEY)
        for _ in range(2):
            endpoint.keys.note(endpoint.keys.take(trio.current_time()), 401, None, trio.current_time())
        fault = await ask(ModelLists([endpoint]))
        assert isinstance(fault, ProxyError) and fault.code == "no_healthy_upstream"
    assert origin.got == []


NO_LISTS = {
    "an error": (answer(b'{"error":{"message":"no","code":"bad_key"}}', 401), "bad_key", 401),
    "a page of an error": (answer(b"<html>", 503), "upstream_error_in_stream", 503),
    "a redirect": (answer(b"", 302, b"location: /v2/models\r\n"), "upstream_protocol_error", 502),
    "a part": (answer(b'{"data":[]}', 206), "upstream_protocol_error", 502),
    "a page": (answer(b"<html>"), "upstream_protocol_error", 502),
    "a compressed list": (answer(b'{"data":[]}', fields=b"content-encoding: br\r\n"), "upstream_protocol_error", 502),
    "far too much": (answer(b'{"data":[%b]}' % (b" " * MAX_LIST_BYTES)), "upstream_protocol_error", 502),
    "no HTTP": (b"garbage\r\n\r\n", "upstream_protocol_error", 502),
}


@pytest.mark.parametrize(("sent", "code", "status"), NO_LISTS.values(), ids=NO_LISTS)
async def test_what_is_no_list_is_a_fault(sent: bytes, code: str, status: int) -> None:
    fault = await fault_of(Lists(sent))
    assert (fault.code, fault.status) == (code, status)


async def break_off(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(listing("x")[:-5])
    visit.cut()


async def drip(visit: Visit) -> None:
    """A byte a second: no gap is long, and no end ever comes."""
    await visit.read_request()
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        await visit.send(b" ")
        await trio.sleep(1)


async def accept_only(visit: Visit) -> None:
    await visit.read_request()


@pytest.mark.parametrize("script", [drip, accept_only])
async def test_a_fetch_takes_five_seconds_at_most(script: Script, autojump_clock: trio.testing.MockClock) -> None:
    fault = await fault_of(script)
    assert fault.code == "upstream_head_timeout"
    assert trio.current_time() == pytest.approx(FETCH_S)


async def test_a_list_that_broke_off_is_none() -> None:
    assert (await fault_of(break_off)).code == "upstream_truncated"


async def test_upstreams_are_asked_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    async def late(visit: Visit) -> None:
        await Lists(listing(f"of-{visit.host}"), pause_s=2)(visit)

    async with open_net(late) as net:
        net.origin.refusing = {"c"}
        lists = ModelLists(
            [Endpoint(name, f"http://{name}/v1", pool=Pool(), connect_s=2, open_tcp=net.open_tcp) for name in "abcd"]
        )
        answers = await lists.ask(["a", "b", "c"], CLIENT)
    assert trio.current_time() == pytest.approx(2)
    fault = answers.pop("c")
    assert isinstance(fault, ProxyError) and fault.code == "upstream_connect_failed"
    assert {name: list(one) for name, one in answers.items() if not isinstance(one, ProxyError)} == {
        "a": ["of-a"],
        "b": ["of-b"],
    }


def test_cancelled_at_any_step_nothing_is_left() -> None:
    async def main(instrument: AtStep) -> None:
        async with open_net(Lists(listing("x"), pause_s=1)) as net:
            endpoint = one(net)
            lists = ModelLists([endpoint])
            with trio.CancelScope() as scope:
                instrument.act = scope.cancel
                await ask(lists)
            instrument.act = None
            assert len(net.still_open) == endpoint.transport._pool.idle_connections
            assert endpoint.attempts.open == endpoint.keys._keys[0].in_use == 0
            with trio.fail_after(30):
                assert await names(lists) == ["x"]

    steps, step = 1, 0
    while step <= steps:
        instrument = AtStep(step)
        trio.run(main, instrument, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[instrument])
        steps = instrument.steps if step == 0 else steps
        step += 1
    assert steps > 10
