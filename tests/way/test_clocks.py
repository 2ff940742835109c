"""The clocks: each has one meaning, fires with no traffic at all, and ends the request the way the README says."""

import json

import pytest
import trio

from tests.harness.house import open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Script, Visit, chunk, content

WORD = content("word")
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'


async def mute(visit: Visit) -> None:
    """Takes the request and never answers."""
    await visit.read_request()


def streams(*steps: bytes | float) -> Script:
    """An origin that sends its head, then pieces and pauses, and then is silent."""

    async def origin(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        for step in steps:
            if isinstance(step, bytes):
                await visit.send(chunk(step))
            else:
                await trio.sleep(step)

    return origin


async def test_no_head_in_time_is_a_504(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, deadlines__head_s=60) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(60)
        assert house.origin.still_open == 0
        client.leave()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "upstream_head_timeout")


async def test_no_first_content_in_time_is_told_in_band(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(ROLE, 5.0, ROLE), deadlines__first_content_s=20, stream__heartbeat_s=1000) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(20)
        client.leave()
    assert answer.status == 200 and not answer.is_complete
    assert b"upstream_first_content_timeout" in answer.body


async def test_first_content_late_before_the_head_went_out_is_a_status(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(), deadlines__first_content_s=5) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "upstream_first_content_timeout")


async def test_a_gap_that_is_too_long_is_told_in_band(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(WORD, 9.0, WORD), deadlines__idle_s=10, stream__heartbeat_s=1000) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(19)
        client.leave()
    assert b"upstream_idle_timeout" in answer.body and not answer.is_complete


async def test_comments_do_not_move_the_idle_clock(autojump_clock: trio.testing.MockClock) -> None:
    comments: list[bytes | float] = [WORD]
    for _ in range(20):
        comments += [1.0, b": still here\n\n"]
    async with open_house(streams(*comments), deadlines__idle_s=10, stream__heartbeat_s=1000) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        answer = await client.answer()
        assert trio.current_time() - start == pytest.approx(10)
        client.leave()
    assert b"upstream_idle_timeout" in answer.body


async def test_the_whole_time_fires_in_the_middle_of_traffic_and_of_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    busy: list[bytes | float] = []
    for _ in range(200):
        busy += [0.7, WORD]
    for script in (streams(*busy), streams(WORD)):
        async with open_house(script, deadlines__total_s=42) as house:
            client = house.connect()
            start = trio.current_time()
            await client.post()
            answer = await client.answer()
            assert trio.current_time() - start == pytest.approx(42)
            client.leave()
        assert b"upstream_total_timeout" in answer.body and not answer.is_complete


async def test_the_whole_time_before_the_head_is_a_504(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(mute, deadlines__total_s=30) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "upstream_total_timeout")


async def test_a_slow_client_does_not_use_up_the_origins_idle_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(
        streams(WORD, WORD, WORD, DONE), lockstep=True, deadlines__idle_s=10, deadlines__client_stall_s=1000
    ) as house:
        client = house.connect()
        await client.post()
        body = b""
        while b"[DONE]" not in body:
            await trio.sleep(30)
            body += await client.read_some()
        assert b"timeout" not in body
        client.leave()


async def test_a_client_that_takes_no_byte_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    endless: list[bytes | float] = [WORD] * 100
    async with open_house(streams(*endless), lockstep=True, deadlines__client_stall_s=7) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        stalled = trio.current_time()
        await trio.sleep(20)
        (exchange,) = house.log.exchanges
        assert (exchange["outcome"], exchange["reason"]) == ("cancelled", "client_stalled")
        closed = house.origin.visits[0].closed
        assert closed is not None and closed - stalled == pytest.approx(7)
        with trio.fail_after(1):
            await client.read_raw()  # its connection was closed


async def test_the_whole_time_also_ends_a_send_that_is_stuck(autojump_clock: trio.testing.MockClock) -> None:
    endless: list[bytes | float] = [WORD] * 100
    async with open_house(
        streams(*endless), lockstep=True, deadlines__client_stall_s=1000, deadlines__total_s=50
    ) as house:
        client = house.connect()
        start = trio.current_time()
        await client.post()
        await client.read_some()
        await trio.sleep(100)
        closed = house.origin.visits[0].closed
        assert closed is not None and closed - start == pytest.approx(50)
        client.leave()


async def test_an_origin_that_cannot_be_reached_is_a_502_after_some_tries(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_house(mute) as house:
        house.origin.refuses = True
        client = house.connect()
        await client.post()
        answer = await client.answer()
        await client.send(b"GET /readyz HTTP/1.1\r\nhost: proxy\r\n\r\n")
        probe = await client.answer("GET")
        client.leave()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "upstream_connect_failed")
    assert probe.status == 503 and b"upstream_connect_failed" in probe.body
    assert (house.log.exchanges[0]["upstream"], house.log.exchanges[0]["attempts"]) == ("origin", 3)
    assert house.log.exchanges[0]["tries"] == ["origin upstream_connect_failed"] * 3


async def test_heartbeats_stand_at_borders_only_and_in_the_streams_own_line_ending(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crlf = WORD.replace(b"\n", b"\r\n")
    script = streams(crlf, 40.0, b'data: {"half', 40.0, b'":1}\r\n\r\n', 20.0, DONE.replace(b"\n", b"\r\n"))
    async with open_house(script, stream__heartbeat_s=15) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    beat = b": keep-alive\r\n\r\n"
    assert answer.body == crlf + beat * 2 + b'data: {"half":1}\r\n\r\n' + beat + DONE.replace(b"\n", b"\r\n")
    assert house.log.exchanges[0]["heartbeats"] == 3


async def test_no_heartbeat_once_an_id_has_gone_by(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(streams(b"id: 7\n" + WORD, 100.0, DONE), stream__heartbeat_s=15) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.body == b"id: 7\n" + WORD + DONE


@pytest.mark.parametrize(
    ("agent", "beat"),
    [
        ("OpenAI/Go 3.42.0", b":\n"),
        ("OpenAI/Go 3.43.0", b": keep-alive\n\n"),
        ("OpenAI/Python 2.1", b": keep-alive\n\n"),
    ],
)
async def test_old_go_clients_get_a_heartbeat_they_survive(
    agent: str, beat: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_house(streams(WORD, 20.0, DONE), stream__heartbeat_s=15) as house:
        client = house.connect()
        await client.post(headers=f"user-agent: {agent}\r\n")
        answer = await client.answer()
        client.leave()
    assert answer.body == WORD + beat + DONE


async def test_an_hour_of_stream_passes_in_no_time(autojump_clock: trio.testing.MockClock) -> None:
    steps: list[bytes | float] = []
    for _ in range(350):
        steps += [10.0, WORD]
    async with open_house(streams(*steps, DONE)) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        client.leave()
    assert answer.is_complete and answer.body == WORD * 350 + DONE
    assert LAST_CHUNK not in answer.body
