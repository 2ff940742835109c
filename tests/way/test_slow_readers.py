"""Stories of a stream with two readers, one of which does not read for a while: what becomes of it is its own wish, and
the other one notices nothing, unless the first wished that too."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Plays
from tests.way.test_sharing import CHAT, PATH, SHARED
from trioproxy.policy.replay import Slow

EVENTS = [*(content(f"word{number}") for number in range(1, 13)), DONE]
KEPT = 4
STALL_S = 12.5
"""Then the stream is over, and the last four events are there."""


async def paced(visit: Visit) -> None:
    """Twelve words and the end, one a second."""
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await visit.send(chunk(event))
        await trio.sleep(1)
    await visit.send(LAST_CHUNK)


async def beside_one_that_stalls(slow: str, stall_s: float = STALL_S, **flags: Any) -> tuple[Answer, Answer, Any]:
    """What one that reads gets, what one that stalls, and the house when both are gone."""
    answers: list[Answer] = [Answer(), Answer()]
    plays = Plays(paced)
    flags = {"hub__max_events": KEPT, "deadlines__client_stall_s": 100, "stream__heartbeat_s": 100, **flags}
    async with open_house(plays, lockstep=True, **flags) as house:

        async def read(index: int, after_s: float, headers: str) -> None:
            client = house.connect()
            await client.post(CHAT, PATH, SHARED + headers)
            await trio.sleep(after_s)
            answers[index] = await client.answer()
            await trio.sleep(0.1)  # the network holds nothing: the last bytes are sent when they are read
            client.leave()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0, 0, "")
            nursery.start_soon(read, 1, stall_s, f"x-trioproxy-slow: {slow}\r\n")
    assert len(plays.got) == 1
    return answers[0], answers[1], house


# Its first event was on its way when it stalled, and reaches it in any case.
@pytest.mark.parametrize(
    ("slow", "gets"),
    [
        ("drop-oldest", [EVENTS[0], b": lost 8 events\n\n", *EVENTS[9:]]),
        ("drop-newest", [*EVENTS[:5], b": lost 4 events\n\n", *EVENTS[9:]]),
        ("block", EVENTS),
    ],
)
async def test_a_reader_loses_what_it_wished_and_sees_the_end(
    slow: str, gets: list[bytes], clock: trio.testing.MockClock
) -> None:
    steady, slow_one, house = await beside_one_that_stalls(slow)
    assert (steady.body, steady.is_complete) == (b"".join(EVENTS), True)
    assert (slow_one.body, slow_one.is_complete) == (b"".join(gets), True)
    counts = house.house.hub.counts[Slow(slow)]
    assert counts.dropped == sum(int(piece.split()[2]) for piece in gets if piece.startswith(b": lost"))
    assert {line["outcome"] for line in house.log.exchanges} == {"finished"}


@pytest.mark.parametrize("slow", ["error", "block"])
async def test_a_reader_that_may_lose_nothing_is_told_when_it_has(slow: str, clock: trio.testing.MockClock) -> None:
    if slow == "block":  # without it, no reader would be let go
        steady, slow_one, house = await beside_one_that_stalls(slow, deadlines__client_stall_s=7)
        assert (slow_one.body, slow_one.is_complete) == (EVENTS[0], False)
        ended = {"cancelled": "client_stalled", "finished": None}
    else:
        steady, slow_one, house = await beside_one_that_stalls(slow)
        assert slow_one.body.startswith(EVENTS[0] + b'data: {"error":') and not slow_one.is_complete
        assert slow_one.body.count(b"data: ") == 2 and b'"reader_too_slow"' in slow_one.body
        ended = {"failed": None, "finished": None}
        assert house.house.hub.counts[Slow.ERROR].overrun == 1
    assert (steady.body, steady.is_complete) == (b"".join(EVENTS), True)
    assert {line["outcome"]: line.get("reason") for line in house.log.exchanges} == ended


async def test_who_blocks_stops_the_origin_and_everyone(clock: trio.testing.MockClock) -> None:
    steady, _, house = await beside_one_that_stalls("block", stall_s=20)
    before = [time for time in steady.times if time < 20]
    assert len(before) == 1 + KEPT and before[-1] == KEPT
    assert steady.times[1 + KEPT] == 20
    counts = house.house.hub.counts[Slow.BLOCK]
    assert (counts.waits, counts.waited_s, counts.overrun) == (1, 15, 0)
    (produced,) = [line for line in house.log.lines if line["event"] == "stream"]
    assert (produced["client_ms"], produced["proxy_ms"]) == (15_000, 0)


async def test_who_blocks_is_waited_for_no_longer_than_a_client_may_stall(clock: trio.testing.MockClock) -> None:
    steady, _, house = await beside_one_that_stalls("block", stall_s=20, deadlines__client_stall_s=7)
    assert steady.times[1 + KEPT] == 7
    assert house.house.hub.counts[Slow.BLOCK].waited_s == 2


@pytest.mark.parametrize("slow", ["drop-oldest", "drop-newest", "error"])
async def test_nobody_else_notices(slow: str, clock: trio.testing.MockClock) -> None:
    steady, _, _ = await beside_one_that_stalls(slow)
    assert steady.times == [float(second) for second in range(len(EVENTS))]


async def test_a_short_stall_costs_nothing(clock: trio.testing.MockClock) -> None:
    for slow in Slow:
        steady, slow_one, _ = await beside_one_that_stalls(slow.value, stall_s=3.5)
        assert steady.body == slow_one.body == b"".join(EVENTS)
        assert len(slow_one.times) <= len(EVENTS) - 2  # what it lacked came in one piece
