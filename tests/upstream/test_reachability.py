"""Whether an upstream can be reached: by a real connection, not more often than once a second."""

import ssl

import pytest
import trio
import trio.testing

from tests.harness.origin import Script, Visit
from tests.harness.wires import HOST, Net, open_net, serve_tls, tls_client
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.reachability import Reachability


def looked_after(
    net: Net, *, scheme: str = "http", connect_s: float = 5, tls: ssl.SSLContext | None = None
) -> tuple[Reachability, Pool]:
    pool = Pool()
    endpoint = Endpoint("name", f"{scheme}://{HOST}/v1", pool=pool, connect_s=connect_s, tls=tls, open_tcp=net.open_tcp)
    return Reachability([endpoint]), pool


async def silent(visit: Visit) -> None:
    """Accepts, and never says anything."""


async def tls(visit: Visit) -> None:
    await serve_tls(visit.stream)


@pytest.mark.parametrize(("scheme", "script"), [("http", silent), ("https", tls)])
async def test_an_upstream_that_accepts_a_connection_can_be_reached(scheme: str, script: Script) -> None:
    async with open_net(script) as net:
        reachability, pool = looked_after(net, scheme=scheme, tls=tls_client())
        assert await reachability.look() is None
        assert pool.idle_connections == len(net.still_open) == 1, "it is kept for a request"


async def test_one_that_refuses_cannot() -> None:
    async with open_net(silent) as net:
        net.origin.refuses = True
        reachability, _ = looked_after(net)
        assert await reachability.look() == "upstream_connect_failed"


async def test_one_that_is_not_trusted_cannot() -> None:
    async with open_net(tls) as net:
        reachability, _ = looked_after(net, scheme="https", tls=ssl.create_default_context())
        assert await reachability.look() == "upstream_connect_failed"
        assert net.still_open == []


@pytest.mark.parametrize(("connect_s", "waited"), [(0.5, 0.5), (60, 2)])
async def test_a_look_takes_no_longer_than_a_probe_waits(
    connect_s: float, waited: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net(silent) as net:
        reachability, _ = looked_after(net, scheme="https", connect_s=connect_s, tls=tls_client())
        started = trio.current_time()
        assert await reachability.look() == "upstream_connect_timeout"
        assert trio.current_time() == pytest.approx(started + waited)
        assert net.still_open == []


async def test_an_answer_is_kept_for_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(silent) as net:
        reachability, _ = looked_after(net)
        net.origin.refuses = True
        assert await reachability.look() == "upstream_connect_failed"
        net.origin.refuses = False
        await trio.sleep(0.9)
        assert await reachability.look() == "upstream_connect_failed"
        await trio.sleep(0.2)
        assert await reachability.look() is None
        net.origin.refuses = True
        for _ in range(50):
            assert await reachability.look() is None
        assert len(net.opened) == 1


async def test_one_that_is_known_to_be_unwell_is_not_asked_and_another_one_is_enough() -> None:
    async with open_net(silent) as net:
        pool = Pool()
        unwell, well = (
            Endpoint(name, f"http://{name}/v1", pool=pool, connect_s=5, open_tcp=net.open_tcp) for name in "ab"
        )
        for _ in range(2):
            unwell.health.note(False)
        assert await Reachability([unwell]).look() == "no_healthy_upstream"
        assert net.asked == []
        assert await Reachability([unwell, well]).look() is None
        assert net.asked == [("b", 80)]
        unwell.health.note(True)
        assert await Reachability([unwell, well]).look() is None
        assert net.asked == [("b", 80), ("a", 80)]


async def test_where_none_can_be_reached_the_first_one_s_lack_is_told() -> None:
    async with open_net(silent) as net:
        net.origin.refuses = True
        unwell, well = (
            Endpoint(name, f"http://{name}/v1", pool=Pool(), connect_s=5, open_tcp=net.open_tcp) for name in "ab"
        )
        for _ in range(2):
            unwell.health.note(False)
        assert await Reachability([unwell, well]).look() == "no_healthy_upstream"
        assert await Reachability([well, unwell]).look() == "upstream_connect_failed"


async def test_many_who_ask_share_one_look(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(silent) as net:
        reachability, _ = looked_after(net, scheme="https", connect_s=1, tls=tls_client())
        answers: list[str | None] = []

        async def ask() -> None:
            answers.append(await reachability.look())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert answers == ["upstream_connect_timeout"] * 20
        assert len(net.asked) == 1
        assert trio.current_time() == pytest.approx(1)


async def test_one_who_stops_asking_takes_nothing_from_the_others(autojump_clock: trio.testing.MockClock) -> None:
    async with open_net(silent) as net:
        reachability, _ = looked_after(net, scheme="https", connect_s=1, tls=tls_client())
        with trio.move_on_after(0.5):
            await reachability.look()
        assert net.still_open == []
        assert await reachability.look() == "upstream_connect_timeout"


async def test_looking_again_and_again_uses_no_connection_beyond_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_net(silent) as net:
        reachability, pool = looked_after(net)
        for _ in range(20):
            assert await reachability.look() is None
            assert pool.idle_connections == len(net.still_open) == 1
            await trio.sleep(1.5)
        ages = [later.opened - earlier.opened for earlier, later in zip(net.visits, net.visits[1:], strict=False)]
        assert len(ages) > 3
        assert max(ages) <= 4.5
