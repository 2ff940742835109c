"""The metrics, the records and what really happened: a thousand exchanges that end in every way, to the unit."""

import json
from collections import Counter
from collections.abc import Iterable
from math import isclose
from random import Random

import trio

from tests.harness.house import HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Ways, route
from trioproxy.telemetry.gaps import BOUNDS_S
from trioproxy.telemetry.metrics import Family
from trioproxy.telemetry.record import Record

EXCHANGES = 1000
AT_ONCE = 20
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
WHOLE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
FATES = ("finish", "whole", "cancel", "cut", "stall", "refuse", "nonsense", "share")
OUTCOMES = {
    "finish": ("finished", "finished"),
    "whole": ("finished", "finished"),
    "cancel": ("cancelled", "client_gone"),
    "cut": ("failed", "upstream_truncated"),
    "stall": ("failed", "upstream_idle_timeout"),
    "refuse": ("finished", "finished"),
    "nonsense": ("failed", "invalid_body"),
    "share": ("finished", "finished"),
}
"""A fate → how its request ends, and its stream."""


async def origin(visit: Visit) -> None:
    """Does with each request what its model's name says."""
    draw = Random(0)
    while True:
        request = await visit.read_request()
        fate = json.loads(request.partition(b"\r\n\r\n")[2])["model"]
        await trio.sleep(draw.random())
        if fate == "refuse":
            await visit.send(b"HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\n{}")
            continue
        if fate == "whole":
            await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))
            continue
        await visit.send(OK_STREAM)
        for _ in range(5):
            await trio.sleep(draw.choice([0, 0.002, 0.5, 4]))
            await visit.send(chunk(content("word") * draw.randint(1, 3)))
        if fate == "cut":
            visit.cut()
            return
        if fate in ("stall", "cancel"):
            return  # it says no more, and waits until the proxy leaves
        await visit.send(chunk(USAGE + DONE) + LAST_CHUNK)


async def one(house: HouseUnderTest, fate: str) -> None:
    client = house.connect()
    request = {"model": fate, "messages": [], "stream": fate not in ("whole", "refuse")}
    body = b"nonsense" if fate == "nonsense" else json.dumps(request).encode()
    shares = "authorization: Bearer x\r\nx-trioproxy-share: auto\r\n"
    await client.post(body, headers=shares if fate == "share" else "")
    if fate == "cancel":
        await client.read_some()
        await trio.sleep(3)
    else:
        await client.answer()
    client.leave()


async def some(house: HouseUnderTest, fates: Iterable[str]) -> None:
    for fate in fates:
        await one(house, fate)


def by_labels(families: Iterable[Family], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of this name, by these of their labels; those of 0 left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for _, _, _, samples in families:
        for sample, shown, value in samples:
            if sample == name:
                found[tuple(shown[label] for label in labels)] += value  # type: ignore[assignment]
    return {key: value for key, value in found.items() if value}


def buckets(families: Iterable[Family], name: str) -> list[int]:
    below = list(by_labels(families, f"{name}_bucket", "le").values())
    return [int(count - before) for count, before in zip(below, [0.0, *below], strict=False)]


async def test_metrics_records_and_what_happened_agree_to_the_unit(ways: Ways, clock: trio.testing.MockClock) -> None:
    fates = list(FATES * (EXCHANGES // len(FATES)))
    Random(1).shuffle(fates)
    file = ways(route("deadlines = {idle_s = 30}"), a="")
    async with open_house(origin, file=file) as house:
        async with trio.open_nursery() as nursery:
            for first in range(AT_ONCE):
                nursery.start_soon(some, house, fates[first::AT_ONCE])
        await trio.sleep(60)
        families = list(house.house.answer("metrics"))
        records = house.log.records
        productions = [line for line in house.log.lines if line["event"] == "stream"]

    # Records and what happened.
    assert len(records) == len(fates) == EXCHANGES
    happened = Counter(fates)
    shown = Counter((record.model or "nonsense", record.outcome) for record in records)
    assert shown == {(fate, OUTCOMES[fate][0]): count for fate, count in happened.items()}
    assert all(isclose(_whole(record), record.ended - record.accepted, abs_tol=1e-6) for record in records)

    # Metrics and records.
    requests = Counter((one.endpoint, one.upstream or "none", one.outcome) for one in records)
    assert by_labels(families, "trioproxy_requests_total", "endpoint", "upstream", "outcome") == requests
    ends = Counter(OUTCOMES[fate][1] for fate in fates if fate not in ("whole", "refuse", "nonsense"))
    assert by_labels(families, "trioproxy_stream_end_total", "reason") == {(end,): count for end, count in ends.items()}
    tries = [each for one in records for each in one.tries]
    assert sum(one.attempts for one in records) == len(tries)
    produced = len(productions)
    assert 0 < produced <= happened["share"]
    assert by_labels(families, "trioproxy_attempts_total", "result") == {("answered",): len(tries) + produced}
    assert len(tries) == EXCHANGES - happened["nonsense"] - happened["share"]

    with_content = [one for one in records if one.first_content_at is not None]
    assert by_labels(families, "trioproxy_time_to_first_content_seconds_count") == {(): len(with_content)}
    (total,) = by_labels(families, "trioproxy_time_to_first_content_seconds_sum").values()
    assert isclose(total, sum((one.first_content_at or 0) - one.accepted for one in with_content), rel_tol=1e-9)

    gaps = Counter(dict.fromkeys(range(len(BOUNDS_S) + 1), 0))
    for one_record in records:
        gaps.update(dict(enumerate(one_record.gaps or ())))
    own = buckets(families, "trioproxy_event_gap_seconds")
    between = sum(one.events - 1 for one in records if one.gaps is not None and one.events)
    assert sum(gaps.values()) == between
    assert sum(own) == between + sum(line["events"] - 1 for line in productions)
    assert all(count >= gaps[place] for place, count in enumerate(own))

    for side in ("upstream", "client"):
        (seconds,) = by_labels([_of(families, side)], "trioproxy_blocked_seconds_total").values() or (0.0,)
        assert isclose(seconds, sum(getattr(one, f"{side}_s") for one in records), rel_tol=1e-9, abs_tol=1e-6)
    assert by_labels(families, "trioproxy_overhead_seconds_count") == {(): EXCHANGES}
    assert by_labels(families, "trioproxy_cancel_seconds_count") == {(): happened["cancel"]}
    streams = happened["finish"] + produced
    assert by_labels(families, "trioproxy_tokens_total", "kind") == {
        ("input",): 7 * streams + 5 * happened["whole"],
        ("output",): 3 * streams + 2 * happened["whole"],
    }
    operation = by_labels(families, "gen_ai_client_operation_duration_seconds_count", "gen_ai_operation_name")
    assert operation == {("chat",): EXCHANGES}
    assert by_labels(families, "gen_ai_client_token_usage_sum", "gen_ai_token_type") == {
        ("input",): 7 * streams + 5 * happened["whole"],
        ("output",): 3 * streams + 2 * happened["whole"],
    }
    assert by_labels(families, "gen_ai_server_time_to_first_token_seconds_count") == {(): len(with_content)}
    assert by_labels(families, "gen_ai_server_time_per_output_token_seconds_count") == {(): streams}


async def test_what_an_origin_calls_its_error_is_no_label(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def fails(visit: Visit) -> None:
        while True:
            await visit.read_request()
            await trio.sleep(2)
            await visit.send(OK_STREAM + chunk(b'data: {"error":{"message":"no","code":"<script>"}}\n\n') + LAST_CHUNK)

    async with open_house(fails, file=ways(route("hedge = { after_s = 1, budget = 1 }"))) as house:
        await one(house, "finish")
        await trio.sleep(1)
        families = list(house.house.answer("metrics"))
    results = by_labels(families, "trioproxy_attempts_total", "result")
    assert results == {("upstream_error_in_stream",): 2, ("answered",): 1}  # the last try, which is passed on
    assert "<script>" not in str(families)


async def test_what_a_client_says_is_no_label(clock: trio.testing.MockClock) -> None:
    async with open_house(origin) as house:
        before = len(str(list(house.house.answer("metrics"))))
        for number in range(20):
            client = house.connect()
            body = json.dumps({"model": f'"><script>{number}' + "x" * 10_000, "stream": True}).encode()
            await client.post(body, f"/v1/<{number}>", "x-request-id: odd\r\nuser-agent: <odd>\r\n")
            await client.answer()
            client.leave()
        await trio.sleep(1)
        told = str(list(house.house.answer("metrics")))
    assert "script" not in told and "odd" not in told
    assert len(told) < before + 3000


def _whole(record: Record) -> float:
    return record.upstream_s + record.client_s + record.proxy_s


def _of(families: Iterable[Family], side: str) -> Family:
    """The family of waits, with the samples of one side alone."""
    ((name, says, kind, samples),) = [family for family in families if family[0] == "trioproxy_blocked_seconds"]
    return name, says, kind, [sample for sample in samples if sample[1] == {"by": side}]
