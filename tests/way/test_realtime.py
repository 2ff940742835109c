"""Stories of WebSocket sessions that are passed through to an origin that agreed to them."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import Visit
from tests.harness.plays import Ways, route
from tests.harness.talk import Guest, Host, echo, hosting
from trioproxy.errors import CancelReason

MIB = 1024 * 1024
ACCEPTED = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"


def guest_of(house: HouseUnderTest) -> Guest:
    return Guest(house.connect().stream)


async def entered(house: HouseUnderTest, *arguments: Any, **more: Any) -> Guest:
    guest = guest_of(house)
    assert await guest.enter(*arguments, **more), guest.refusal
    return guest


def the_line(house: HouseUnderTest) -> dict[str, Any]:
    (line,) = house.log.exchanges
    return line


async def settled() -> None:
    """Until nothing happens any more but by the clock."""
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_messages_go_both_ways_as_they_are(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house)
        for message in ("Grüße, 世界", b"\x00\xff" * 500, "", b"", "x" * 100_000):
            await guest.send(message)
            assert await guest.hear() == message
        await guest.send("in many pieces", pieces=7)
        assert await guest.hear() == "in many pieces"
        await guest.close(1000, "done")
        assert await guest.hear() is None
        assert guest.closed == (1000, "done")
    line = the_line(house)
    assert (line["endpoint"], line["status"], line["outcome"], line["model"]) == ("realtime", 101, "finished", "m")
    assert line["bytes_in"] == line["bytes_out"] > 100_000
    assert (line["events"], line["messages_in"], line["client_close"]) == (6, 6, 1000)
    assert "upstream_close" not in line


async def test_the_origin_gets_the_query_the_key_and_the_fields_of_the_client(
    clock: trio.testing.MockClock, ways: Ways, keys: str
) -> None:
    hosts: list[Host] = []

    async def play(host: Host) -> None:
        hosts.append(host)
        await host.hear()

    secret = "openai-insecure-api-key.sk-guest"
    async with open_house(hosting(play, subprotocol="realtime"), file=ways(a=keys)) as house:
        guest = await entered(
            house,
            "/v1/realtime?x=%2F&model=gpt-r",
            subprotocols=("realtime", secret),
            headers=(("authorization", "Bearer mine"), ("openai-beta", "realtime=v1"), ("x-forwarded-for", "1.1.1.1")),
        )
        assert guest.subprotocol == "realtime"
        assert guest.headers["x-trioproxy-upstream"] == "a"
        await guest.close()
        await guest.hear()
    request = hosts[0].request
    assert request is not None
    assert (request.target, request.host, request.subprotocols) == ("/v1/realtime?x=%2F&model=gpt-r", "a", ["realtime"])
    assert request.extensions == []
    sent = {name.decode().lower(): value.decode() for name, value in request.extra_headers}
    assert sent["authorization"] == "Bearer sk-one"
    assert sent["openai-beta"] == "realtime=v1"
    assert "x-forwarded-for" not in sent


async def test_responses_is_a_socket_too(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house, "/v1/responses")
        await guest.send('{"type":"response.create"}')
        assert await guest.hear() == '{"type":"response.create"}'
        await guest.close(4001)
        await guest.hear()
    assert the_line(house)["endpoint"] == "responses_ws"


@pytest.mark.parametrize(("code", "passed"), [(1000, 1000), (1001, 1001), (3000, 3000), (4999, 4999), (None, 1011)])
async def test_a_closing_code_is_passed_on(clock: trio.testing.MockClock, code: int | None, passed: int) -> None:
    async def origin_closes(host: Host) -> None:
        await host.send("last")
        await host.close(code, None if code is None else "why")
        await host.hear_all()

    reason = "" if code is None else "why"
    async with open_house(hosting(origin_closes)) as house:
        guest = await entered(house)
        assert await guest.hear_all() == ["last"]
        assert guest.closed == (passed, reason)
        await trio.sleep(0.1)
        assert (the_line(house)["upstream_close"], the_line(house)["outcome"]) == (code or 1005, "finished")
    hosts: list[Host] = []

    async def client_closes(host: Host) -> None:
        hosts.append(host)
        await host.hear_all()

    async with open_house(hosting(client_closes)) as house:
        guest = await entered(house)
        await guest.close(code, None if code is None else "why")
        await guest.hear()
        await trio.sleep(0.1)
        assert hosts[0].closed == (passed, reason)
        assert the_line(house)["client_close"] == (code or 1005)


async def test_a_client_that_closes_and_leaves_at_once_is_heard(clock: trio.testing.MockClock) -> None:
    hosts: list[Host] = []

    async def play(host: Host) -> None:
        hosts.append(host)
        await host.hear_all()

    async with open_house(hosting(play)) as house:
        guest = await entered(house)
        await guest.close(4000)
        guest.leave()
        await trio.sleep(0.1)
        assert hosts[0].closed == (4000, "")
        assert the_line(house)["outcome"] == "finished"


async def test_a_client_that_is_gone_closes_the_origin_at_once(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house)
        before = trio.current_time()
        guest.leave()
        await settled()
        assert house.origin.still_open == 0
        assert trio.current_time() - before < 0.1
        line = the_line(house)
        assert (line["outcome"], line["reason"], line["status"]) == ("cancelled", "client_gone", 101)


async def test_an_origin_that_vanishes_is_1011(clock: trio.testing.MockClock) -> None:
    async def play(host: Host) -> None:
        await host.send("half")

    async def script(visit: Visit) -> None:
        await hosting(play)(visit)
        visit.cut()

    async with open_house(script) as house:
        guest = await entered(house)
        assert await guest.hear_all() == ["half"]
        assert guest.closed == (1011, "upstream_truncated")
    line = the_line(house)
    assert (line["outcome"], line["code"], line["upstream_close"]) == ("failed", "upstream_truncated", 1006)


async def test_a_drain_is_1012(clock: trio.testing.MockClock) -> None:
    hosts: list[Host] = []

    async def play(host: Host) -> None:
        hosts.append(host)
        await host.hear_all()

    async with open_house(hosting(play)) as house:
        guest = await entered(house)
        house.house.service.stop_all(CancelReason.DRAIN)
        assert await guest.hear_all() == []
        assert guest.closed == (1012, "draining")
        await trio.sleep(0.1)
        assert hosts[0].closed == (1001, "")
        assert the_line(house)["code"] == "draining"


async def test_the_whole_time_ends_a_session(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo), deadlines__total_s=610) as house:
        guest = await entered(house)
        before = trio.current_time()
        assert await guest.hear_all() == []
        assert guest.closed == (1011, "upstream_total_timeout")
        assert trio.current_time() - before == pytest.approx(610, abs=1)


async def test_a_refused_handshake_is_the_origins_answer(clock: trio.testing.MockClock) -> None:
    async def refuse(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(
            b"HTTP/1.1 403 No\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"error":1}'
        )

    async with open_house(refuse) as house:
        guest = guest_of(house)
        assert not await guest.enter()
        guest.leave()
        assert guest.refusal is not None
        status, headers, body = guest.refusal
        assert (status, headers["content-type"], body) == (403, "application/json", b'{"error":1}')
    assert (the_line(house)["status"], the_line(house)["endpoint"]) == (403, "realtime")


@pytest.mark.parametrize(
    "answer",
    [
        ACCEPTED + "\r\n",
        ACCEPTED + "sec-websocket-accept: AAAA\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    ],
    ids=["no accept", "another's accept", "another protocol"],
)
async def test_an_origin_that_agrees_to_something_else_is_502(clock: trio.testing.MockClock, answer: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(answer.encode())

    async with open_house(script) as house:
        guest = guest_of(house)
        assert not await guest.enter()
        guest.leave()
        assert guest.refusal is not None
        assert guest.refusal[0] == 502
        assert json.loads(guest.refusal[2])["error"]["code"] == "upstream_protocol_error"


async def test_an_origin_that_cannot_be_reached_is_passed_over(clock: trio.testing.MockClock, ways: Ways) -> None:
    async with open_house(hosting(echo), file=ways()) as house:
        house.origin.refusing = {"a"}
        guest = await entered(house)
        assert guest.headers["x-trioproxy-upstream"] == "b"
        await guest.send("hi")
        assert await guest.hear() == "hi"
        await guest.close()
        await guest.hear()
        house.origin.refusing = {"a", "b"}
        other = guest_of(house)
        assert not await other.enter()
        other.leave()
        assert other.refusal is not None
        assert other.refusal[0] == 502


async def test_the_models_route_says_where_and_what_it_is_called_there(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    hosts: list[Host] = []

    async def play(host: Host) -> None:
        hosts.append(host)
        await host.hear()

    routes = route('targets = [{upstream = "b", model = "gpt r"}]', models="voice")
    async with open_house(hosting(play), file=ways(routes)) as house:
        guest = await entered(house, "/v1/realtime?a=1&model=voice&b=2")
        await guest.close()
        await guest.hear()
    assert house.origin.asked == ["b"]
    assert hosts[0].request is not None
    assert hosts[0].request.target == "/v1/realtime?a=1&model=gpt%20r&b=2"


@pytest.mark.parametrize("who", ["client", "origin"])
async def test_a_message_of_16_mib_passes_and_a_larger_one_is_1009(clock: trio.testing.MockClock, who: str) -> None:
    hosts: list[Host] = []

    async def play(host: Host) -> None:
        hosts.append(host)
        if who == "origin":
            await host.send(b"x" * 16 * MIB)
            await host.send(b"x" * (16 * MIB + 1))
        await host.hear_all()

    async with open_house(hosting(play)) as house:
        guest = await entered(house)
        if who == "client":
            await guest.send(b"x" * 16 * MIB, pieces=3)
            await guest.send(b"x" * (16 * MIB + 1))
        heard = await guest.hear_all()
        assert guest.closed is not None
        assert guest.closed[0] == 1009
        await trio.sleep(0.1)
        if who == "origin":
            assert [len(one) for one in heard] == [16 * MIB]
        assert hosts[0].closed is not None
        assert hosts[0].closed[0] == 1009
    assert the_line(house)["outcome"] == "failed"
    assert the_line(house)["code"] == ("request_too_large" if who == "client" else "upstream_protocol_error")


async def test_a_client_that_breaks_the_rules_is_told_so(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house)
        await guest.stream.send_all(b"\x81\x01x")  # not masked
        await guest.hear_all()
        assert guest.closed is not None and guest.closed[0] == 1002
    assert the_line(house)["code"] == "invalid_body"


async def test_a_client_that_takes_nothing_stops_the_origin(clock: trio.testing.MockClock) -> None:
    sent = 0

    async def play(host: Host) -> None:
        nonlocal sent
        while True:
            await host.send(b"x" * 1000)
            sent += 1

    async with open_house(hosting(play), lockstep=True) as house:
        guest = await entered(house)
        await settled()
        before = sent
        assert sent <= 2
        await trio.sleep(20)
        assert sent == before
        await trio.sleep(15)  # client_stall_s
        assert house.origin.still_open == 0
        assert (the_line(house)["outcome"], the_line(house)["reason"]) == ("cancelled", "client_stalled")
        guest.leave()


async def test_an_origin_that_takes_nothing_stops_the_client(clock: trio.testing.MockClock) -> None:
    async def play(host: Host) -> None:
        await trio.sleep(250)
        await echo(host)

    async with open_house(hosting(play), lockstep=True, deadlines__idle_s=300) as house, trio.open_nursery() as nursery:
        guest = await entered(house)
        guest.answers_pings = False
        nursery.start_soon(guest.hear_all)
        sent = 0
        with trio.move_on_after(200):
            while True:
                await guest.send(b"x" * 1000)
                sent += 1
        assert 60 < sent < 140
        guest.leave()
        await trio.sleep(60)  # the origin listens again, and hears of it


async def test_who_gives_no_sign_of_life_is_let_go(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house)
        guest.answers_pings = False
        before = trio.current_time()
        await guest.hear_all()
        assert 20 < trio.current_time() - before <= 41
        assert guest.pings >= 1
        await trio.sleep(3)
        assert (the_line(house)["outcome"], the_line(house)["reason"]) == ("cancelled", "client_gone")

    async def mute(host: Host) -> None:
        host.answers_pings = False
        await host.hear_all()

    async with open_house(hosting(mute)) as house:
        guest = await entered(house)
        before = trio.current_time()
        await guest.hear_all()
        assert 20 < trio.current_time() - before <= 41
        assert guest.closed == (1011, "upstream_truncated")


async def test_pings_are_answered_and_keep_a_silent_session(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo)) as house:
        guest = await entered(house)
        with trio.move_on_after(1000):
            await guest.hear()
        assert 48 <= guest.pings <= 50
        await guest.ping(b"are you there")
        with trio.move_on_after(1):
            await guest.hear()
        assert guest.pongs == 1
        await guest.send("still here")
        assert await guest.hear() == "still here"
        await guest.close()
        await guest.hear()


async def test_bytes_before_the_handshake_was_answered_are_refused(clock: trio.testing.MockClock) -> None:
    async def slow(visit: Visit) -> None:
        await trio.sleep(1)
        await hosting(echo)(visit)

    async with open_house(slow) as house:
        client = house.connect()
        await client.send(
            b"GET /v1/realtime HTTP/1.1\r\nhost: proxy\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nhost: proxy\r\n\r\n"
        )
        raw = await client.read_raw()
        assert raw.startswith(b"HTTP/1.1 400 ")
        assert raw.count(b"HTTP/1.1 ") == 1
        client.leave()


@pytest.mark.parametrize(
    "fields",
    [
        "sec-websocket-version: 13\r\n",
        "sec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "sec-websocket-version: 13\r\nsec-websocket-key: short\r\n",
    ],
)
async def test_a_handshake_that_is_none_is_400(clock: trio.testing.MockClock, fields: str) -> None:
    async with open_house(hosting(echo)) as house:
        client = house.connect()
        await client.send(
            f"GET /v1/realtime HTTP/1.1\r\nhost: proxy\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
            f"{fields}\r\n".encode()
        )
        assert (await client.answer("GET")).status == 400
        client.leave()
        assert house.origin.asked == []


async def test_without_a_wish_for_a_socket_the_paths_are_what_they_were(clock: trio.testing.MockClock) -> None:
    async def script(visit: Visit) -> None:
        request = await visit.read_request()
        assert b"upgrade" not in request.lower()
        await visit.send(b"HTTP/1.1 426 No\r\ncontent-length: 0\r\n\r\n")

    async with open_house(script) as house:
        for path, status in (("/v1/realtime", 426), ("/v1/responses", 405)):
            client = house.connect()
            await client.send(f"GET {path} HTTP/1.1\r\nhost: proxy\r\nupgrade: websocket\r\n\r\n".encode())
            assert (await client.answer("GET")).status == status
            client.leave()


async def test_admission_is_asked_before_the_origin(clock: trio.testing.MockClock) -> None:
    async with open_house(hosting(echo), server__max_streams=1) as house:
        first = await entered(house)
        second = guest_of(house)
        assert not await second.enter()
        second.leave()
        assert second.refusal is not None
        assert second.refusal[0] == 503
        assert len(house.origin.asked) == 1
        await first.close()
        await first.hear()
