"""Stories of events that are joined into one write (`coalesce_ms`), on direct streams and on shared ones."""

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Ways, opened, route
from tests.harness.sweep import CUTS, DRAIN, Story, play
from tests.way.test_clocks import ROLE, streams
from tests.way.test_cut_sweep import post_stream

CHAT = b'{"model":"m","messages":[],"stream":true}'
MESSAGES = "/v1/messages"
ME = "authorization: Bearer me\r\n"
SHARED = ME + "x-trioproxy-share: auto\r\n"
RESUMED = ME + "x-trioproxy-resume: 60\r\n"
HEARTBEAT = b": keep-alive\n\n"
WORDS = [content(f"word{number}") for number in range(20)]

Write = tuple[float, bytes]


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def ask(house: HouseUnderTest, headers: str = "", path: str = "/v1/chat/completions") -> Answer:
    client = house.connect()
    await client.post(CHAT, path, headers)
    answer = await client.answer()
    client.leave()
    return answer


def writes(answer: Answer) -> list[Write]:
    return list(zip([round(at, 3) for at in answer.times], answer.pieces, strict=True))


BOTH = pytest.mark.parametrize("headers", ["", SHARED], ids=["direct", "shared"])


@BOTH
async def test_events_of_one_window_go_out_together(headers: str, clock: trio.testing.MockClock) -> None:
    origin = streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2], 0.1, WORDS[3], 1, WORDS[4], 1, DONE)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
        assert answer.is_complete
    assert writes(answer) == [
        (0, WORDS[0]),
        (1.5, b"".join(WORDS[1:4])),
        (2.7, WORDS[4]),
        (3.2, DONE),
    ]
    assert house.log.exchanges[0]["events"] == 6


@BOTH
async def test_without_it_each_goes_out_by_itself(headers: str, clock: trio.testing.MockClock) -> None:
    async with open_house(streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2], DONE)) as house:
        answer = await ask(house, headers)
    assert [at for at, _ in writes(answer)][:3] == [0, 1, 1.1]


@BOTH
async def test_what_comes_up_to_the_first_content_never_waits(headers: str, clock: trio.testing.MockClock) -> None:
    origin = streams(ROLE, 1, ROLE, 1, WORDS[0], 1, WORDS[1], 0.1, DONE)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
    assert writes(answer) == [(0, ROLE), (1, ROLE), (2, WORDS[0]), (3.1, WORDS[1] + DONE)]


@BOTH
async def test_the_first_content_is_not_held_for_what_came_with_it(headers: str, clock: trio.testing.MockClock) -> None:
    origin = streams(ROLE, 1, ROLE + WORDS[0] + WORDS[1], 1, DONE)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
    assert [at for at, _ in writes(answer)] == [0, 1, 2]


@BOTH
async def test_the_terminal_takes_along_what_waits(headers: str, clock: trio.testing.MockClock) -> None:
    start = b'event: message_start\ndata: {"type":"message_start"}\n\n'
    delta = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n'
    )
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    origin = streams(start, delta, 1, delta, 0.1, stop)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers, MESSAGES)
    assert answer.is_complete
    assert writes(answer)[-1] == (1.1, delta + stop)


@BOTH
async def test_so_does_an_honest_end_without_one(headers: str, clock: trio.testing.MockClock) -> None:
    stop = content("", '"stop"')

    async def origin(visit: Visit) -> None:
        await streams(WORDS[0], 1, WORDS[1], 0.1, stop, 0.1)(visit)
        await visit.send(LAST_CHUNK)

    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
    assert answer.is_complete
    assert writes(answer) == [(0, WORDS[0]), (1.2, WORDS[1] + stop)]


@BOTH
async def test_so_many_events_do_not_wait_for_more(headers: str, clock: trio.testing.MockClock) -> None:
    steps = [step for word in WORDS[1:8] for step in (word, 0.1)]
    origin = streams(WORDS[0], 0.5, *steps, DONE)
    async with open_house(origin, stream__coalesce_ms=1000, stream__coalesce_events=3) as house:
        answer = await ask(house, headers)
    assert writes(answer) == [
        (0, WORDS[0]),
        (0.7, b"".join(WORDS[1:4])),
        (1.0, b"".join(WORDS[4:7])),
        (1.2, WORDS[7] + DONE),
    ]


@BOTH
async def test_a_large_piece_goes_out_at_once_with_what_waits(headers: str, clock: trio.testing.MockClock) -> None:
    large = content("x" * 65000)
    origin = streams(WORDS[0], 1, WORDS[1], 0.1, large, 0.1, WORDS[2], 1, DONE)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
    assert answer.body == WORDS[0] + WORDS[1] + large + WORDS[2] + DONE
    at = dict.fromkeys(at for at, _ in writes(answer))
    assert list(at)[:2] == [0, 1.1 if len(WORDS[1] + large) >= 65536 else 1.5]


async def test_half_an_event_waits_for_its_other_half(clock: trio.testing.MockClock) -> None:
    half, other = WORDS[1][:20], WORDS[1][20:]
    origin = streams(WORDS[0], 1, half, 0.2, other, 1, half, 2, other, 1, WORDS[2] + half, 0.1, other, 1, DONE)
    async with open_house(origin, stream__coalesce_ms=500) as house:
        answer = await ask(house)
    assert writes(answer) == [
        (0, WORDS[0]),
        (1.5, WORDS[1]),
        (2.7, half),  # longer than the window
        (4.7, other),
        (5.7, WORDS[2] + WORDS[1]),
        (6.3, DONE),
    ]


@BOTH
async def test_what_waits_is_told_before_the_error(headers: str, clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2], 0.1)(visit)
        visit.cut()

    async with open_house(dies, stream__coalesce_ms=500) as house:
        answer = await ask(house, headers)
    assert not answer.is_complete
    assert answer.body.startswith(b"".join(WORDS[:3]) + b'data: {"error":')
    assert answer.times[-1] == pytest.approx(1.2)


@BOTH
async def test_so_it_is_when_the_request_is_stopped(headers: str, clock: trio.testing.MockClock) -> None:
    origin = streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2])
    async with open_house(origin, stream__coalesce_ms=500, deadlines__total_s=1.2) as house:
        answer = await ask(house, headers)
    assert not answer.is_complete
    assert answer.body.startswith(b"".join(WORDS[:3]) + b'data: {"error":')
    assert answer.times[-1] == pytest.approx(1.2)


async def test_half_an_event_that_waits_is_ended_before_the_error(clock: trio.testing.MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2][:20], 0.1)(visit)
        visit.cut()

    async with open_house(dies, stream__coalesce_ms=500) as house:
        answer = await ask(house)
    assert answer.body.startswith(WORDS[0] + WORDS[1] + WORDS[2][:20] + b'\n\ndata: {"error":')


async def test_a_stream_that_is_gone_on_with_loses_nothing_that_waits(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(ROLE + content("Rain")))
        for word in (" on", " the"):
            await trio.sleep(1)
            await visit.send(chunk(content(word)))
        visit.cut()

    rest = ROLE + content(" roof.") + content("", '"stop"') + DONE
    goes_on = OK_STREAM + chunk(rest) + LAST_CHUNK
    file = ways(route("continue_after_cut = true"))
    async with opened(file, dies, goes_on, stream__coalesce_ms=500) as house:
        client = house.connect()
        await client.post(b'{"model":"m","messages":[{"role":"user","content":"?"}],"stream":true}')
        answer = await client.answer()
        client.leave()
    assert answer.is_complete
    words = [b'"Rain"', b'" on"', b'" the"', b'" roof."']
    places = [answer.body.index(word) for word in words]
    assert places == sorted(places) and all(answer.body.count(word) == 1 for word in words)


@BOTH
async def test_no_heartbeat_is_needed_while_events_wait(headers: str, clock: trio.testing.MockClock) -> None:
    origin = streams(WORDS[0], 0.4, WORDS[1], 3, WORDS[2], 0.1, DONE)
    async with open_house(origin, stream__coalesce_ms=500, stream__heartbeat_s=0.6) as house:
        answer = await ask(house, headers)
    assert writes(answer)[:4] == [(0, WORDS[0]), (0.9, WORDS[1]), (1.5, HEARTBEAT), (2.1, HEARTBEAT)]
    assert answer.body.replace(HEARTBEAT, b"") == b"".join(WORDS[:3]) + DONE


@pytest.mark.parametrize(("coalesce_ms", "most"), [(None, 8), (1000, 64 + 8)])
async def test_a_client_that_does_not_read_stops_its_origin_all_the_same(
    coalesce_ms: int | None, most: int, clock: trio.testing.MockClock
) -> None:
    sent = 0
    word = content("x" * 950)

    async def endless(visit: Visit) -> None:
        nonlocal sent
        await visit.read_request()
        await visit.send(OK_STREAM)
        while True:
            await visit.send(chunk(word))
            sent += len(word)

    flags: dict[str, Any] = {"stream__coalesce_events": 10_000}
    if coalesce_ms is not None:
        flags["stream__coalesce_ms"] = coalesce_ms
    async with open_house(endless, lockstep=True, deadlines__client_stall_s=100, **flags) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        await trio.sleep(50)
        assert sent <= most * 1024
        client.leave()


async def test_a_reader_that_joins_late_gets_its_first_events_at_once(clock: trio.testing.MockClock) -> None:
    steps = [step for word in WORDS[:10] for step in (word, 1)]
    async with open_house(streams(*steps, DONE), stream__coalesce_ms=900, stream__coalesce_events=2) as house:
        late = Answer()

        async def join() -> None:
            nonlocal late
            await trio.sleep(4.5)
            late = await ask(house, SHARED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            whole = await ask(house, SHARED)
    assert whole.body == late.body == b"".join(WORDS[:10]) + DONE
    assert writes(late)[:2] == [(4.5, b"".join(WORDS[:5])), (5.9, WORDS[5])]


async def test_events_with_ids_are_joined_too_and_none_is_lost_for_waiting(clock: trio.testing.MockClock) -> None:
    steps = [step for word in WORDS for step in (word, 0.1)]
    async with open_house(streams(*steps, DONE), stream__coalesce_ms=1000, hub__max_events=2) as house:
        client = house.connect()
        await client.post(CHAT, headers=RESUMED)
        head = await client.read_some()
        stream = head.partition(b"x-trioproxy-stream: ")[2].partition(b"\r\n")[0].decode()
        client.leave()
        client = house.connect()
        request = f"GET /v1/streams/{stream} HTTP/1.1\r\nhost: proxy\r\n{ME}last-event-id: {stream}.1\r\n\r\n"
        await client.send(request.encode())
        answer = await client.answer()
        client.leave()
    numbered = [b"id: %b.%d\n%b" % (stream.encode(), n, event) for n, event in enumerate([*WORDS, DONE], 1)]
    assert answer.body == b"".join(numbered[1:])
    assert len(answer.pieces) <= 4


async def test_what_a_slow_reader_lost_stands_at_its_place(clock: trio.testing.MockClock) -> None:
    steps: list[bytes | float] = [WORDS[0], 1, WORDS[1], 0.1, WORDS[2] * 40, 0.1, WORDS[3], 1]
    async with open_house(streams(*steps, DONE), stream__coalesce_ms=500, hub__max_events=5) as house:
        answer = await ask(house, SHARED + "x-trioproxy-slow: drop-oldest\r\n")
    lost = answer.body.partition(b": lost ")[2].partition(b" events\n\n")[0]
    assert lost == b"35"
    assert answer.body.startswith(WORDS[0] + WORDS[1] + b": lost 35 events\n\n" + WORDS[2] * 5 + WORDS[3])


async def test_a_reader_that_is_too_slow_gets_what_waited_before_it_is_told(clock: trio.testing.MockClock) -> None:
    origin = streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2] * 40, 1, DONE)
    async with open_house(origin, stream__coalesce_ms=500, hub__max_events=5) as house:
        answer = await ask(house, SHARED)
    assert not answer.is_complete
    assert answer.body.startswith(WORDS[0] + WORDS[1] + b'data: {"error":') and b"reader_too_slow" in answer.body


@given(
    events=st.lists(st.sampled_from([*WORDS[:3], b": note\n\n", b"event: x\ndata: y\n\n"]), max_size=12),
    cuts=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.01, 0.2, 0.7])), min_size=1, max_size=12),
    coalesce_ms=st.sampled_from([20, 300, 1000]),
    coalesce_events=st.sampled_from([1, 2, 5, 100]),
    headers=st.sampled_from(["", SHARED]),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_reordered_lost_cut_or_late(
    events: list[bytes], cuts: list[tuple[int, float]], coalesce_ms: int, coalesce_events: int, headers: str
) -> None:
    whole = b"".join([WORDS[9], *events, DONE])
    came: list[tuple[int, float]] = []

    async def origin(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        sent, number = 0, 0
        while sent < len(whole):
            size, pause_s = cuts[number % len(cuts)]
            number += 1
            await visit.send(chunk(whole[sent : sent + size]))
            sent += size
            came.append((sent, trio.current_time()))
            await trio.sleep(pause_s)

    async def main() -> Answer:
        async with open_house(
            origin,
            stream__coalesce_ms=coalesce_ms,
            stream__coalesce_events=coalesce_events,
            stream__heartbeat_s=1000,  # an event in many slow pieces is a long silence
        ) as house:
            return await ask(house, headers)

    answer = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert answer.is_complete
    kept = whole if not headers else whole.replace(b": note\n\n", b"")
    assert answer.body == kept
    if not headers:
        got = 0
        written = []
        for at, piece in zip(answer.times, answer.pieces, strict=True):
            got += len(piece)
            written.append((got, at))
        for end, at in came:
            went_out = next(when for reached, when in written if reached >= min(end, len(whole)))
            head_at = written[0][1]  # it waits for the first event
            assert went_out <= max(at, head_at) + coalesce_ms / 1000 + 0.001


async def paced(visit: Visit) -> None:
    await streams(WORDS[0], 1, WORDS[1], 0.1, WORDS[2], 0.1, WORDS[3][:9], 1, WORDS[3][9:], DONE)(visit)


@pytest.mark.parametrize("cut", [*CUTS, DRAIN])
def test_whoever_is_cut_while_events_wait_leaves_nothing_behind(cut: str) -> None:
    story = Story("events that wait", paced, post_stream, (("stream__coalesce_ms", 500),))
    steps = play(story, cut, 0).steps
    for step in range(1, steps + 1):
        outcome = play(story, cut, step)
        assert len(outcome.exchanges) <= 1
