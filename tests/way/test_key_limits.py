"""Stories of limits: what a key may use is taken before a request goes on, and settled when it is over, however."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, HouseUnderTest
from tests.harness.keys import bearer, key_table, price, streamed_answer, whole_answer
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import OK, Plays, Ways, ask, code, cut, opened, route, status
from trioproxy.policy.limits import Demand, Kind, Refusal, Scope
from trioproxy.state.limits import Grant, LimitsUnavailable, Spent

CHAT = "/v1/chat/completions"
DAY_S = 86_400


async def chat(house: HouseUnderTest, name: str = "ours", headers: str = "", **members: Any) -> Answer:
    body = json.dumps({"model": "m", "messages": [], **members}).encode()
    return await ask(house, body, CHAT, (bearer(name) if name else "") + headers)


async def spent(house: HouseUnderTest, name: str = "ours") -> dict[str, int]:
    """What a key has used, once all that has ended is settled."""
    await trio.testing.wait_all_tasks_blocked()
    gate = house.house.gate
    assert gate.keys is not None
    limits = gate.keys.by_name[name].limits
    return dict((await gate.books.store.spent([(name, limits)]))[name])


def limited(*limits: str) -> str:
    return key_table("ours", f"limits = {{ {', '.join(limits)} }}")


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
@pytest.mark.parametrize("whose", ["key", "all"])
async def test_so_many_requests_pass_in_any_minute_and_no_more(
    clock: trio.testing.MockClock, ways: Ways, path: str, whose: str
) -> None:
    tables = limited("rpm = 3") if whose == "key" else key_table("ours") + "[gate]\nlimits = { rpm = 3 }\n"
    async with opened(ways(tables, a=""), OK) as house:
        for left in (2, 1, 0):
            answer = await ask(house, b'{"model":"m"}', path, bearer("ours"))
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-requests"] == "3"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        refused = await ask(house, b'{"model":"m"}', path, bearer("ours"))
        assert (refused.status, code(refused)) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(house.origin.visits) <= 3
        # What it says is true: a moment before it is too early, and then it is not.
        wait_s = int(refused.headers["retry-after-ms"]) / 1000
        assert int(refused.headers["retry-after"]) == -(-wait_s // 1)
        await trio.sleep(wait_s - 0.5)
        assert (await ask(house, b'{"model":"m"}', path, bearer("ours"))).status == 429
        await trio.sleep(0.5)
        assert (await ask(house, b'{"model":"m"}', path, bearer("ours"))).status == 200


async def test_the_origins_own_fields_pass_where_we_have_no_limit_of_that_kind(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    fields = b"x-ratelimit-limit-requests: 9\r\nx-ratelimit-limit-tokens: 8\r\n"
    answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n", 1)
    async with opened(ways(limited("rpm = 3") + key_table("other"), a=""), answer) as house:
        ours = await chat(house)
        assert (ours.headers["x-ratelimit-limit-requests"], ours.headers["x-ratelimit-limit-tokens"]) == ("3", "8")
        assert (await chat(house, "other")).headers["x-ratelimit-limit-requests"] == "9"


@pytest.mark.parametrize("stream", [False, True])
async def test_so_many_requests_are_under_way_at_once_and_no_more(
    clock: trio.testing.MockClock, ways: Ways, stream: bool
) -> None:
    async with opened(ways(limited("streams = 2"), a=""), b"") as house:
        clients = [house.connect() for _ in range(3)]
        body = json.dumps({"model": "m", "stream": stream}).encode()
        for client in clients:
            await client.post(body, headers=bearer("ours"))
            await trio.sleep(1)
        refused = await clients[2].answer()
        assert (refused.status, code(refused)) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        assert await spent(house) == {"streams": 2}
        clients[0].leave()
        await trio.sleep(1)
        assert await spent(house) == {"streams": 1}
        again = house.connect()
        await again.post(body, headers=bearer("ours"))
        await trio.sleep(1)
        assert len(house.origin.visits) == 3
        for client in (*clients[1:], again):
            client.leave()
        await trio.sleep(1)
        assert await spent(house) == {"streams": 0}


async def test_bodies_that_come_slowly_keep_nobody_else_out(clock: trio.testing.MockClock, ways: Ways) -> None:
    file = ways(limited("streams = 2") + key_table("other"), a="")
    async with opened(file, OK, server__max_streams=4) as house:
        clients = [house.connect() for _ in range(6)]
        for client in clients:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: proxy\r\n{bearer('ours')}content-length: 30\r\n\r\n"
            await client.send(head.encode() + b"{")
        await trio.sleep(1)
        assert (await chat(house, "other")).status == 200
        for client in clients[2:]:
            answer = await client.answer()
            assert (answer.status, code(answer)) == (429, "rate_limit_exceeded")
            assert answer.headers["retry-after"] == "1"
        for client in clients:
            client.leave()
        await trio.sleep(1)
        assert (await chat(house)).status == 200


async def test_tokens_are_taken_by_an_estimate_and_settled_by_the_origins_figures(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    body = json.dumps({"model": "m", "messages": [], "max_tokens": 500}).encode()
    estimated = -(-len(body) // 4) + 500
    origin = Plays(whole_answer(7, 13))
    async with opened(ways(limited("tpm = 1000", "tokens_per_day = 1000"), a=""), origin) as house:
        first = await chat(house, max_tokens=500)
        assert first.headers["x-ratelimit-remaining-tokens"] == str(1000 - estimated)
        assert (await spent(house))["tokens_per_day"] == 20
        second = await chat(house, max_tokens=500)
        assert second.headers["x-ratelimit-remaining-tokens"] == str(1000 - 20 - estimated)
        assert (await spent(house))["tokens_per_day"] == 40
        too_large = await chat(house, max_tokens=5000)
        assert (too_large.status, too_large.headers["x-should-retry"]) == (429, "false")
        assert "retry-after" not in too_large.headers
    line = house.log.exchanges[0]
    assert (line["input_tokens"], line["output_tokens"]) == (7, 13) and "estimated" not in line


async def test_a_streams_figures_are_asked_for_and_kept_from_who_did_not_ask(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    origin = Plays(streamed_answer(7, 13))
    async with opened(ways(limited("tpm = 10_000"), a=""), origin) as house:
        answer = await chat(house, stream=True)
        assert answer.is_complete and b'"usage"' not in answer.body and b"[DONE]" in answer.body
        assert b'"include_usage":true' in origin.got[0].replace(b" ", b"")
        kept = await chat(house, stream=True, stream_options={"include_usage": True})
        assert b'"usage"' in kept.body
    assert [(line["input_tokens"], line["output_tokens"]) for line in house.log.exchanges] == [(7, 13)] * 2


async def test_an_answer_whose_figures_count_is_not_compressed(clock: trio.testing.MockClock, ways: Ways) -> None:
    origin = Plays(whole_answer(7, 13))
    async with opened(ways(limited("tokens_per_day = 10_000") + key_table("free"), a=""), origin) as house:
        assert (await chat(house, headers="accept-encoding: gzip, br\r\n")).status == 200
        assert (await chat(house, "free", headers="accept-encoding: gzip, br\r\n")).status == 200
    assert origin.field(b"accept-encoding") == [b"identity", b"gzip, br"]


async def test_figures_are_asked_for_whatever_the_clients_options_are(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    origin = Plays(streamed_answer(7, 13))
    twice = b'{"include_usage":true,"include_usage":false}'
    async with opened(ways(limited("tokens_per_day = 10_000"), a=""), origin) as house:
        for options in (b"[]", b'""', twice):
            body = b'{"model":"m","stream":true,"stream_options":' + options + b"}"
            assert (await ask(house, body, CHAT, bearer("ours"))).status == 200
    assert all(b'"stream_options":{"include_usage":true}' in request for request in origin.got)


async def test_where_tokens_are_limited_no_response_is_made_in_the_background(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    body = b'{"model":"m","input":"x","background":true}'
    async with opened(ways(limited("tpm = 10_000") + key_table("free", "limits = { rpm = 5 }"), a=""), OK) as house:
        refused = await ask(house, body, "/v1/responses", bearer("ours"))
        assert (refused.status, code(refused)) == (400, "request_refused") and b"background" in refused.body
        assert (await ask(house, body.replace(b"true", b"false"), "/v1/responses", bearer("ours"))).status == 200
        assert (await ask(house, body, "/v1/responses", bearer("free"))).status == 200


async def test_the_figures_of_a_response_are_found_in_front_of_long_words_of_the_client(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    """A response ends with the metadata that the client gave it, which may be sixteen words of 512 characters."""
    told = {"input_tokens": 10, "output_tokens": 5_000}
    response = {
        "output": ["x" * 100_000],
        "usage": told,
        "metadata": {f"{at:064}": "\U0001f600" * 512 for at in range(16)},
    }
    said = json.dumps({"type": "response.completed", "response": response}, ensure_ascii=False).encode()
    stream = OK_STREAM + chunk(b"event: response.completed\ndata: " + said + b"\n\n") + LAST_CHUNK
    async with opened(ways(limited("tokens_per_day = 100_000"), a=""), stream) as house:
        body = b'{"model":"m","input":"x","stream":true}'
        assert (await ask(house, body, "/v1/responses", bearer("ours"))).is_complete
        assert await spent(house) == {"tokens_per_day": 5_010}


async def test_an_error_behind_an_early_head_costs_nothing(clock: trio.testing.MockClock, ways: Ways) -> None:
    async def refuses_late(visit: Visit) -> None:
        await trio.sleep(5)
        await visit.send(status(400))

    file = ways(limited("tokens_per_day = 100_000"), a="")
    async with opened(file, Plays(refuses_late), stream__commit_before_head_s=1) as house:
        assert (await chat(house, stream=True)).status == 200
        assert await spent(house) == {"tokens_per_day": 0}


async def test_an_empty_budget_is_said_so_that_nobody_repeats(clock: trio.testing.MockClock, ways: Ways) -> None:
    async with opened(ways(limited("tokens_per_day = 600"), a=""), whole_answer(300, 290)) as house:
        assert (await chat(house, max_tokens=100)).status == 200
        refused = await chat(house, max_tokens=100)
        assert (refused.status, code(refused)) == (429, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
        assert len(house.origin.visits) == 1


async def test_days_and_months_are_those_of_utc_and_a_clock_that_jumps_gives_nothing_away(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    now = [20_000 * DAY_S + DAY_S - 10.0]  # ten seconds before a midnight
    file = ways(limited("tokens_per_day = 600"), a="")
    async with opened(file, whole_answer(300, 290), wall_clock=lambda: now[0]) as house:

        async def may() -> bool:
            return (await chat(house, max_tokens=100)).status == 200

        assert await may() and not await may()
        now[0] += 10  # the next day
        assert await may() and not await may()
        now[0] -= 20  # the clock is set back: that day is over
        assert not await may()
        now[0] += 40 * DAY_S
        assert await may()


async def test_money_is_taken_and_settled_to_the_last_digit(clock: trio.testing.MockClock, ways: Ways) -> None:
    tables = limited("usd_per_month = 1.5") + price("m", "2.5", "10", "1.25")
    async with opened(ways(tables, a=""), whole_answer(1_000, 3, 400)) as house:
        for _ in range(3):
            assert (await chat(house, max_tokens=10)).status == 200
        each = 600 * Decimal("2.5") + 400 * Decimal("1.25") + 3 * Decimal(10)
        assert (await spent(house))["money_per_month"] == int(3 * each * 10**6)
        assert [line["cost_usd"] for line in house.log.exchanges] == [f"{each / 10**6:f}".rstrip("0")] * 3
        refused = await chat(house, max_tokens=200_000)
        assert (refused.status, code(refused)) == (429, "insufficient_quota")
        families = {family[0]: family[3] for family in house.house.answer("metrics")}
        ((_, labels, value),) = families["trioproxy_cost_usd"]
        assert labels == {"key": "ours"} and value == pytest.approx(float(3 * each / 10**6))


async def test_a_model_without_a_price_has_no_cost_and_no_room_in_a_budget_of_money(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    tables = limited("usd_per_day = 1") + key_table("free") + price("known")
    async with opened(ways(tables, a=""), whole_answer(1, 1)) as house:
        refused = await chat(house)
        assert (refused.status, code(refused)) == (403, "model_not_allowed")
        assert (await chat(house, "free")).status == 200
        assert (await chat(house, model="known")).status == 200
    assert ["cost_usd" in line for line in house.log.exchanges] == [False, False, True]


async def test_a_request_is_reckoned_with_as_the_dearest_of_its_targets(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    targets = 'targets = [{ upstream = "a", model = "cheap" }, { upstream = "b", model = "dear" }]'
    tables = limited("usd_per_day = 1") + price("cheap", "1", "1") + price("dear", "1000", "1000") + route(targets)
    async with opened(ways(tables), whole_answer(1, 1), whole_answer(1, 1)) as house:
        assert (await chat(house, max_tokens=2000)).status == 429
        assert (await chat(house, max_tokens=500)).status == 200
        await trio.testing.wait_all_tasks_blocked()
        house.house.pool.close_nowait()
        house.origin.refusing = {"a"}
        assert (await chat(house, max_tokens=500)).status == 200
    assert [line.get("cost_usd") for line in house.log.exchanges] == [None, "0.000002", "0.002"]


@pytest.mark.parametrize(
    "lines",
    [
        'targets = [{ upstream = "a" }]\nfallback = { outage = ["alias"] }',
        'targets = [{ upstream = "a" }]\ncanary = { upstream = "b", model = "dear", share = 0.01 }',
    ],
    ids=["fallback", "canary"],
)
async def test_what_a_request_may_come_to_elsewhere_is_reckoned_with_too(
    clock: trio.testing.MockClock, ways: Ways, lines: str
) -> None:
    tables = limited("usd_per_day = 1") + price("cheap", "1", "1") + price("dear", "1000", "1000")
    routes = route(lines, models="cheap") + route('targets = [{ upstream = "b", model = "dear" }]', models="alias")
    async with opened(ways(tables + routes), status(500), whole_answer(10, 10)) as house:
        assert (await chat(house, model="cheap", max_tokens=2_000)).status == 429
        assert not house.origin.visits
        assert (await chat(house, model="cheap", max_tokens=200)).status in (200, 500)


def stream_of(words: int, *, ends: bool) -> Any:
    async def script(visit: Visit) -> None:
        await visit.send(OK_STREAM + b"".join(chunk(content("w ")) for _ in range(words)))
        if ends:
            visit.cut()

    return script


@pytest.mark.parametrize("fate", ["cut", "left"])
async def test_a_stream_that_ends_early_is_settled_by_what_went_by(
    clock: trio.testing.MockClock, ways: Ways, fate: str
) -> None:
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    tables = limited("tokens_per_day = 100_000") + price("m", "1", "1")
    async with opened(ways(tables, a=""), stream_of(5, ends=fate == "cut")) as house:
        client = house.connect()
        await client.post(body, headers=bearer("ours"))
        if fate == "cut":
            assert not (await client.answer()).is_complete
        await trio.sleep(1)
        client.leave()
        await trio.sleep(1)
        used = -(-len(body) // 4) + 5
        assert await spent(house) == {"tokens_per_day": used}
    (line,) = house.log.exchanges
    assert line["estimated"] is True and "output_tokens" not in line
    assert Decimal(line["cost_usd"]) * 10**6 == used
    families = {family[0]: family[3] for family in house.house.answer("metrics")}
    assert not families.get("trioproxy_tokens")


@pytest.mark.parametrize(
    "step", [status(500), status(400), cut, b"HTTP/1.1 200 OK\r\nbroken"], ids=["500", "400", "cut", "malformed"]
)
async def test_what_failed_is_settled_by_whether_a_model_may_have_worked(
    clock: trio.testing.MockClock, ways: Ways, step: Any
) -> None:
    body = json.dumps({"model": "m", "messages": []}).encode()
    async with opened(ways(limited("tokens_per_day = 100_000", "streams = 1"), a=""), step) as house:
        answer = await chat(house)
        assert answer.status >= 400
        is_answer = answer.status in (400, 500)
        expected = 0 if is_answer else -(-len(body) // 4) + 1_000
        assert await spent(house) == {"tokens_per_day": expected, "streams": 0}
        await trio.testing.wait_all_tasks_blocked()
        house.house.pool.close_nowait()
        house.origin.refuses = True
        await chat(house)
        assert (await spent(house))["tokens_per_day"] == expected


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 10**12, "completion_tokens": 1},
        {"prompt_tokens": "7", "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        [],
        "many",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_figures_that_cannot_be_are_not_believed(
    clock: trio.testing.MockClock, ways: Ways, told: Any, stream: bool
) -> None:
    said = json.dumps({"choices": [], "usage": told}).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
    if stream:
        events = [content("w "), content("", '"stop"'), b"data: " + said + b"\n\n", b"data: [DONE]\n\n"]
        answer = OK_STREAM + b"".join(map(chunk, events)) + LAST_CHUNK
    async with opened(ways(limited("tokens_per_day = 100_000"), a=""), answer) as house:
        assert (await chat(house, stream=stream)).is_complete
        assert 0 < (await spent(house))["tokens_per_day"] < 100
    (line,) = house.log.exchanges
    assert line["estimated"] is True and "input_tokens" not in line


async def test_of_figures_told_again_the_last_count_once(clock: trio.testing.MockClock, ways: Ways) -> None:
    events = [content("w "), content("", '"stop"')]
    events += [b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":2}}\n\n' % n for n in (5, 6)]
    answer = OK_STREAM + b"".join(map(chunk, [*events, b"data: [DONE]\n\n"])) + LAST_CHUNK
    async with opened(ways(limited("tokens_per_day = 100_000"), a=""), answer) as house:
        await chat(house, stream=True)
        assert await spent(house) == {"tokens_per_day": 8}


async def test_a_shared_stream_is_paid_for_once_and_each_reader_counts_as_a_request(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    origin = Plays(streamed_answer(7, 13))
    tables = limited("tokens_per_day = 100_000", "streams = 1", "rpm = 3")
    async with opened(ways(tables, a=""), origin) as house:
        share = "x-trioproxy-share: auto\r\nx-trioproxy-resume: 60\r\n"
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(chat_shared, house, share)
        assert len(origin.got) == 1
        assert await spent(house) == {"tokens_per_day": 20, "streams": 0}
        assert (await chat(house, headers=share, stream=True)).status == 429


async def chat_shared(house: HouseUnderTest, headers: str) -> None:
    assert (await chat(house, headers=headers, stream=True)).is_complete


async def test_coming_back_to_a_stream_counts_as_a_request(clock: trio.testing.MockClock, ways: Ways) -> None:
    async with opened(ways(limited("rpm = 2"), a=""), streamed_answer(7, 13)) as house:
        first = await chat(house, headers="x-trioproxy-resume: 60\r\n", stream=True)
        path = f"/v1/streams/{first.headers['x-trioproxy-stream']}"
        for expected in (200, 429):
            answer = await ask(house, path=path, headers=bearer("ours"), method="GET")
            assert answer.status == expected


async def test_a_whole_answer_that_nobody_waits_for_stays_as_it_was_reserved(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    body = json.dumps({"model": "m", "messages": [], "max_tokens": 500}).encode()
    async with opened(ways(limited("tokens_per_day = 100_000"), a=""), b"") as house:
        client = house.connect()
        await client.post(body, headers=bearer("ours"))
        await trio.sleep(1)
        client.leave()
        await trio.sleep(1)
        assert await spent(house) == {"tokens_per_day": -(-len(body) // 4) + 500}


async def test_a_producer_that_gets_no_place_is_told_to_its_readers(clock: trio.testing.MockClock, ways: Ways) -> None:
    async with opened(ways(limited("streams = 1"), a=""), b"") as house:
        client = house.connect()
        await client.post(b'{"model":"m"}', headers=bearer("ours"))
        await trio.sleep(1)
        refused = await chat(house, headers="x-trioproxy-resume: 60\r\n", stream=True)
        assert (refused.status, code(refused)) == (429, "rate_limit_exceeded")
        client.leave()


class Gone:
    """A store of limits of which some kinds cannot be counted."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = frozenset(kinds)
        self.asked: list[Sequence[Scope]] = []
        self.settles = True

    async def take(self, scopes: Sequence[Scope], demand: Demand) -> Grant | Refusal:
        self.asked.append(scopes)
        if any(limits.kinds & self.kinds for _, limits in scopes):
            raise LimitsUnavailable("gone", self.kinds)
        return Grant(None, None)

    async def settle(self, grant: Grant, tokens: int, money: int) -> None:
        if not self.settles:
            await trio.sleep_forever()

    async def spent(self, scopes: Sequence[Scope]) -> Spent:
        return {}

    async def run(self) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("gone", "says", "lets_in"),
    [
        (tuple(Kind), 'on_state_loss = "open"', True),
        (tuple(Kind), 'on_state_loss = "closed"', False),
        ((Kind.BUDGETS,), 'on_state_loss = "closed"', False),
        ((Kind.BUDGETS,), 'on_state_loss = { budgets = "open", requests = "closed" }', True),
        (tuple(Kind), 'on_state_loss = { budgets = "closed" }', False),
        ((Kind.STREAMS,), 'on_state_loss = "closed"', True),  # this key has none of that kind
    ],
)
async def test_when_the_state_is_gone_each_kind_of_limit_is_open_or_closed(
    clock: trio.testing.MockClock, ways: Ways, gone: tuple[Kind, ...], says: str, lets_in: bool
) -> None:
    file = ways(limited("rpm = 5", "tokens_per_day = 5000") + key_table("free") + f"[gate]\n{says}\n", a="")
    store = Gone(*gone)
    async with opened(file, whole_answer(1, 1), limits=store) as house:
        answer = await chat(house)
        assert answer.status == (200 if lets_in else 503)
        assert lets_in or (code(answer) == "state_unavailable" and answer.headers["retry-after"] == "1")
        assert (await chat(house, "free")).status == 200
        assert (await ask(house, path="/readyz", method="GET")).status == 200
        families = {family[0]: family[3] for family in house.house.answer("metrics")}
        skipped = {labels["kind"] for _, labels, _ in families["trioproxy_uncounted"]}
        assert skipped == (set(gone) & {Kind.REQUESTS, Kind.BUDGETS} if lets_in else set())


async def test_a_store_that_does_not_answer_holds_up_no_end(clock: trio.testing.MockClock, ways: Ways) -> None:
    store = Gone()
    store.settles = False
    async with opened(ways(limited("tokens_per_day = 5000"), a=""), whole_answer(1, 1), limits=store) as house:
        started = trio.current_time()
        assert (await chat(house)).status == 200
        assert trio.current_time() - started < 0.5
        await trio.sleep(2)
        families = {family[0]: family[3] for family in house.house.answer("metrics")}
        assert [value for _, _, value in families["trioproxy_unsettled"]] == [1]
