"""Stories of `/v1/stream/ws`: a chat over a WebSocket, started, joined, resumed and stopped."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import DONE, OK_STREAM, Visit, chunk
from tests.harness.plays import Plays, Ways, ask, status
from tests.harness.talk import GONE, Guest
from tests.way.test_sharing import EVENTS, slowly
from trioproxy.errors import CancelReason
from trioproxy.relay.socket_answer import MAX_EVENT_BYTES

ASK: dict[str, Any] = {"model": "m", "messages": []}
ME = (("authorization", "Bearer me"),)
TOLD = [event[6:-2].decode() for event in [*EVENTS, DONE]]


async def entered(house: HouseUnderTest, headers: tuple[tuple[str, str], ...] = ME) -> Guest:
    guest = Guest(house.connect().stream)
    assert await guest.enter("/v1/stream/ws", headers=headers), guest.refusal
    return guest


async def say(guest: Guest, value: object) -> None:
    await guest.send(json.dumps(value))


async def hear_id(guest: Guest) -> str:
    """The id of the stream, which is told before its first event."""
    told = json.loads(await guest.hear() or "")["trioproxy"]
    assert told["type"] == "stream"
    return str(told["id"])


def code_of(message: object) -> str:
    return str(json.loads(str(message))["error"]["code"])


async def test_a_chat_is_told_event_by_event(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        guest = await entered(house)
        await say(guest, {**ASK, "trioproxy": {"slow": "block"}})
        assert await guest.hear_all() == TOLD
        assert guest.closed == (1000, "")
    sent = json.loads(plays.got[0].partition(b"\r\n\r\n")[2])
    assert sent == {**ASK, "stream": True}
    assert b"POST /v1/chat/completions" in plays.got[0]
    (line,) = house.log.exchanges
    assert (line["endpoint"], line["status"], line["outcome"], line["client_close"]) == (
        "stream_ws",
        101,
        "finished",
        1000,
    )


async def test_a_stream_is_shared_by_sockets_and_requests(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        heard: list[list[str | bytes]] = []

        async def listen(wait_s: float) -> None:
            await trio.sleep(wait_s)
            guest = await entered(house)
            await say(guest, {**ASK, "trioproxy": {"share": "room"}})
            await hear_id(guest)
            heard.append(await guest.hear_all())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, 0)
            nursery.start_soon(listen, 2.5)
        assert heard == [TOLD, TOLD]
    assert len(plays.got) == 1


async def test_a_stream_is_resumed_on_another_socket(clock: trio.testing.MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        guest = await entered(house)
        await say(guest, {**ASK, "trioproxy": {"resume": 60}})
        stream = await hear_id(guest)
        assert [await guest.hear(), await guest.hear()] == TOLD[:2]
        await guest.stream.aclose()
        await trio.sleep(1)
        again = await entered(house)
        await say(again, {"trioproxy": {"stream": stream, "after": 2}})
        assert await hear_id(again) == stream
        assert await again.hear_all() == TOLD[2:]
        assert again.closed == (1000, "")
    assert len(plays.got) == 1


async def test_closing_stops_the_generation(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        await say(guest, ASK)
        await guest.hear()
        await guest.close()
        await guest.hear_all()
        await trio.sleep(1.5)
        assert house.origin.visits[0].closed is not None
        (line,) = house.log.exchanges
        assert (line["outcome"], line["reason"]) == ("cancelled", "client_gone")


@pytest.mark.parametrize("trioproxy", [{}, {"resume": 60}])
async def test_stop_ends_it_for_everyone(trioproxy: dict[str, object], clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        await say(guest, {**ASK, "trioproxy": trioproxy})
        if trioproxy:
            await hear_id(guest)
        await guest.hear()
        await say(guest, {"trioproxy": {"stop": True}})
        *_, last = await guest.hear_all()
        assert code_of(last) == "stream_stopped"
        assert guest.closed == (1011, "stream_stopped")
        await trio.sleep(1.5)
        assert house.origin.visits[0].closed is not None


async def test_other_words_mean_nothing_while_it_is_told(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        await say(guest, ASK)
        for word in ("", "what", "{}", '{"trioproxy":{"stop":false}}', '{"trioproxy":{"x":1}}', "[1]"):
            await guest.send(word)
        assert await guest.hear_all() == TOLD


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", "invalid_body"),
        ("[]", "invalid_body"),
        ('{"trioproxy":{"unknown":1}}', "invalid_body"),
        ('{"trioproxy":{"share":"' + "x" * 300 + '"}}', "invalid_body"),
        ('{"trioproxy":{"stream":"nobody"}}', "stream_not_found"),
        ('{"model":5}', "invalid_body"),
    ],
)
async def test_what_cannot_be_understood_is_refused(message: str, code: str, clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        await guest.send(message)
        (told,) = await guest.hear_all()
        assert code_of(told) == code
        assert guest.closed == (1008, code)


async def test_who_says_nothing_is_not_waited_for(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        (told,) = await guest.hear_all()
        assert code_of(told) == "request_timeout"
        assert trio.current_time() == pytest.approx(10, abs=0.1)


async def test_an_error_of_the_origin_is_told_in_its_words(clock: trio.testing.MockClock) -> None:
    async with open_house(Plays(status(429, b'{"error":{"message":"slow down"}}'))) as house:
        guest = await entered(house)
        await say(guest, ASK)
        assert await guest.hear_all() == ['{"error":{"message":"slow down"}}']
        assert guest.closed == (1008, "")


async def test_a_cut_is_told(clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(1)
        visit.cut()

    async with open_house(dies) as house:
        guest = await entered(house)
        await say(guest, ASK)
        first, last = await guest.hear_all()
        assert (first, code_of(last)) == (TOLD[0], "upstream_truncated")
        assert guest.closed == (1011, "upstream_truncated")


async def test_a_drain_is_told_by_its_code(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        guest = await entered(house)
        await say(guest, ASK)
        await guest.hear()
        house.house.service.stop_all(CancelReason.DRAIN)
        *_, last = await guest.hear_all()
        assert (code_of(last), guest.closed) == ("draining", (1012, "draining"))


async def test_a_client_that_reads_nothing_stops_the_origin(clock: trio.testing.MockClock) -> None:
    sent = 0

    async def floods(visit: Visit) -> None:
        nonlocal sent
        await visit.send(OK_STREAM)
        while True:
            await visit.send(chunk(EVENTS[0] * 100))
            sent += 100 * len(EVENTS[0])

    async with open_house(Plays(floods), lockstep=True, deadlines__client_stall_s=5) as house:
        guest = await entered(house)
        await say(guest, ASK)
        await trio.sleep(3)
        stood_at = sent
        assert stood_at < 300_000
        await trio.sleep(1)
        assert sent == stood_at
        await trio.sleep(10)
        assert house.origin.visits[0].closed is not None
        guest.closed = guest.closed or (GONE, "")


async def test_over_http_it_says_what_it_is(clock: trio.testing.MockClock) -> None:
    async with open_house(slowly) as house:
        client = house.connect()
        await client.send(b"GET /v1/stream/ws HTTP/1.1\r\nhost: proxy\r\n\r\n")
        answer = await client.answer("GET")
        client.leave()
        assert (answer.status, b"WebSocket" in answer.body) == (400, True)


async def test_a_token_stands_for_its_caller(ways: Ways, keys: str, clock: trio.testing.MockClock) -> None:
    """A page can send no credentials with its handshake."""
    async with open_house(Plays(slowly), file=ways(a=keys)) as house:
        answer = await ask(house, b"", "/v1/stream/tokens", "authorization: Bearer me\r\n")
        token = json.loads(answer.body)["token"]
        mine, pages = await entered(house), Guest(house.connect().stream)
        assert await pages.enter(f"/v1/stream/ws?token={token}")
        for guest in (mine, pages):
            await say(guest, {**ASK, "trioproxy": {"share": "room"}})
        assert await hear_id(mine) == await hear_id(pages)
        assert await mine.hear_all() == await pages.hear_all() == TOLD


@pytest.mark.parametrize("path", ["/v1/stream/ws", "/v1/realtime?model=m", "/v1/responses?model=m"])
async def test_a_page_of_another_site_opens_no_socket_on_a_loopback_address(
    path: str, clock: trio.testing.MockClock
) -> None:
    """Browsers ask nobody before they open a WebSocket, and any page can reach a loopback port."""
    async with open_house(slowly) as house:
        for headers in ((("origin", "https://evil.example"),), (("sec-fetch-site", "cross-site"),)):
            guest = Guest(house.connect().stream)
            assert not await guest.enter(path, headers=headers)
            assert guest.refusal is not None
            assert (guest.refusal[0], code_of(guest.refusal[2].decode())) == (403, "foreign_origin")
            await guest.stream.aclose()
        assert not house.origin.visits
        mine = Guest(house.connect().stream)
        assert await mine.enter("/v1/stream/ws", headers=(("origin", "http://proxy"),))
        await mine.stream.aclose()


async def test_an_event_that_is_too_long_for_a_message_is_no_honest_end(clock: trio.testing.MockClock) -> None:
    async def says_too_much(visit: Visit) -> None:
        long = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * MAX_EVENT_BYTES + b'"}}]}\n\n'
        await visit.send(OK_STREAM + chunk(EVENTS[0]) + chunk(long) + chunk(EVENTS[1]) + chunk(DONE) + b"0\r\n\r\n")

    async with open_house(says_too_much) as house:
        guest = await entered(house)
        await say(guest, ASK)
        first, last = await guest.hear_all()
        assert (first, code_of(last)) == (TOLD[0], "upstream_protocol_error")
        assert guest.closed == (1011, "upstream_protocol_error")
