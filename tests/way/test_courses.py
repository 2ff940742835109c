"""Stories of requests that may go to several upstreams: which is asked, when another one is, and when nobody is."""

import json
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
import trio
import trio.testing

from tests.harness.house import CHAT, Answer, Client, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import (
    OK,
    PLAIN,
    STREAM,
    Both,
    Plays,
    Step,
    Ways,
    ask,
    ask_stream,
    code,
    cut,
    opened,
    route,
    status,
)
from tests.way.test_clocks import ROLE, WORD

ERROR_EVENT = b'data: {"error":{"message":"no","code":%s}}\n\n'
TOO_LONG = b'{"error":{"message":"much too long","code":"context_length_exceeded"}}'


async def break_off(visit: Visit) -> None:
    await visit.send(OK_STREAM)
    await cut(visit)


async def break_off_behind_role(visit: Visit) -> None:
    await visit.send(OK_STREAM + chunk(ROLE))
    await trio.sleep(1)
    await cut(visit)


async def break_off_behind_content(visit: Visit) -> None:
    await visit.send(OK_STREAM + chunk(WORD))
    await trio.sleep(1)
    await cut(visit)


async def take_long(visit: Visit) -> None:
    await trio.sleep(3)
    await visit.send(OK)


# The next target


async def test_a_second_upstream_answers_where_the_first_cannot_be_reached(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(), OK, STREAM) as house:
        house.origin.refusing = {"a"}
        answer = await ask_stream(house)
    assert (answer.status, answer.is_complete, answer.body) == (200, True, WORD + DONE)
    assert (answer.headers["x-trioproxy-upstream"], answer.headers["x-trioproxy-attempts"]) == ("b", "2")
    (line,) = house.log.exchanges
    assert (line["outcome"], line["upstream"], line["attempts"]) == ("finished", "b", 2)
    assert line["tries"] == ["a upstream_connect_failed", "b 200"]


@pytest.mark.parametrize("number", [408, 409, 429, 500, 503])
async def test_an_error_of_one_goes_on_to_the_other(number: int, ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), status(number)) as house:
        answer = await ask(house)
    assert (answer.status, answer.body) == (200, b'{"ok":1}')
    assert house.log.exchanges[0]["tries"] == [f"a {number}", "b 200"]


@pytest.mark.parametrize("number", [400, 401, 404, 422])
async def test_an_error_that_is_not_listed_passes(number: int, ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), status(number)) as house:
        answer = await ask(house)
    assert (answer.status, house.log.exchanges[0]["attempts"]) == (number, 1)


@pytest.mark.parametrize("number", [429, 500])
async def test_an_error_of_the_only_one_passes_untouched(
    number: int, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(a=""), status(number, b"words of its own", "retry-after: 7\r\n")) as house:
        answer = await ask(house)
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (number, b"words of its own", "7")
    assert house.log.exchanges[0]["attempts"] == 1


async def test_where_all_fail_the_last_answer_passes(ways: Ways, clock: trio.testing.MockClock) -> None:
    file = ways(route("retry = { tries = 2 }"))
    async with opened(file, status(500, b"first"), status(503, b"last")) as house:
        answer = await ask(house)
    assert (answer.status, answer.body, answer.is_complete) == (503, b"last", True)
    assert house.log.exchanges[0]["tries"] == ["a 500", "b 503"]


# Behind the head


@pytest.mark.parametrize(
    ("first", "tried"),
    [
        (OK_STREAM + chunk(ERROR_EVENT % b"429") + LAST_CHUNK, "a 200"),
        (OK_STREAM + LAST_CHUNK, "a 200"),
        (OK_STREAM + chunk(ROLE) + LAST_CHUNK, "a 200"),
        (OK_STREAM, "a 200"),
        (OK_STREAM + chunk(ROLE), "a 200"),
        (break_off, "a 200"),
        (break_off_behind_role, "a 200"),
    ],
    ids=["error", "nothing", "role and an end", "silence", "role and silence", "cut", "role and a cut"],
)
async def test_a_failure_before_any_content_goes_on(
    first: Step, tried: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(), first, STREAM, deadlines__first_content_s=3) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.is_complete, answer.body) == (200, True, WORD + DONE)
    (line,) = house.log.exchanges
    assert (line["upstream"], line["tries"], line["outcome"]) == ("b", [tried, "b 200"], "finished")


async def test_a_failure_behind_content_never_goes_on(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), break_off_behind_content, Plays(STREAM)) as house:
        answer = await ask_stream(house)
        assert house.origin.asked == ["a"]
    assert answer.body.startswith(WORD) and b"error" in answer.body and not answer.is_complete
    assert (house.log.exchanges[0]["outcome"], house.log.exchanges[0]["attempts"]) == ("failed", 1)


async def test_an_error_inside_passes_where_nobody_betters_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    error = OK_STREAM + chunk(ERROR_EVENT % b"429") + LAST_CHUNK
    async with opened(ways(route("retry = { tries = 2 }")), error, error) as house:
        answer = await ask_stream(house)
    assert (answer.status, json.loads(answer.body)["error"]["message"]) == (429, "no")
    assert house.log.exchanges[0]["attempts"] == 2


async def role_first(visit: Visit) -> None:
    await visit.send(OK_STREAM + chunk(ROLE))
    await trio.sleep(4)
    await visit.send(chunk(WORD) + chunk(DONE) + LAST_CHUNK)


@pytest.mark.parametrize(
    ("upstreams", "commit_after_s", "shown"),
    [({"a": ""}, 10, 0), ({"a": "", "b": ""}, 10, 4), ({"a": "", "b": ""}, 2, 2)],
    ids=["alone", "until content", "not for ever"],
)
async def test_a_role_is_held_back_while_another_try_may_be_made(
    upstreams: dict[str, str], commit_after_s: float, shown: float, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(**upstreams), role_first, stream__commit_after_s=commit_after_s) as house:
        start = trio.current_time()
        answer = await ask_stream(house)
    assert answer.times[0] - start == pytest.approx(shown)
    assert (answer.body, answer.is_complete) == (ROLE + WORD + DONE, True)


async def test_what_was_held_back_is_not_lost_when_the_stream_ends(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), OK_STREAM + chunk(ROLE) + LAST_CHUNK, stream__end="lenient") as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body, answer.is_complete) == (200, ROLE, True)
    assert house.log.exchanges[0]["ended_without_terminal"] is True


async def fail_late(visit: Visit) -> None:
    await trio.sleep(3)
    await visit.send(status(500))


async def speak_late(visit: Visit) -> None:
    await trio.sleep(3)
    await visit.send(STREAM)


@pytest.mark.parametrize(
    ("first", "second"),
    [(fail_late, STREAM), (OK_STREAM + chunk(ERROR_EVENT % b"429"), speak_late)],
    ids=["the first is late", "the second is late"],
)
async def test_a_client_that_is_kept_company_sees_nothing_of_the_tries(
    first: Step, second: Step, ways: Ways, clock: trio.testing.MockClock
) -> None:
    early = {"stream__commit_before_head_s": 2, "stream__heartbeat_s": 2}
    async with opened(ways(), first, second, **early) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body, answer.is_complete) == (200, b": keep-alive\n\n" + WORD + DONE, True)
    assert house.log.exchanges[0]["attempts"] == 2


# Waits


@pytest.mark.parametrize("fields", ["retry-after-ms: 1700\r\n", "retry-after: 1.7\r\nx-should-retry: true\r\n"])
async def test_an_upstream_is_asked_again_when_it_says(fields: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(status(503, fields=fields), OK), Plays(status(503, fields=fields)))
    async with open_house(both, file=ways()) as house:
        answer = await ask(house)
    assert (answer.status, house.log.exchanges[0]["tries"]) == (200, ["a 503", "b 503", "a 200"])
    assert both.b.times[0] == pytest.approx(both.a.times[0])  # another one is asked at once
    assert both.a.times[1] - both.b.times[0] == pytest.approx(1.7)


async def test_an_upstream_that_asks_for_too_long_a_wait_is_not_waited_for(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    told = status(429, fields="retry-after: 3\r\n")
    async with opened(ways(), told, told) as house:
        start = trio.current_time()
        answer = await ask(house)
        assert trio.current_time() == pytest.approx(start)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert house.log.exchanges[0]["attempts"] == 2


async def test_an_upstream_may_say_that_a_second_try_is_in_vain(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), status(500, fields="x-should-retry: false\r\n")) as house:
        answer = await ask(house)
    assert (answer.status, house.log.exchanges[0]["attempts"]) == (500, 1)


async def test_no_wait_goes_beyond_the_whole_time(ways: Ways, clock: trio.testing.MockClock) -> None:
    told = status(503, fields="retry-after-ms: 1700\r\n")
    async with opened(ways(), told, told, deadlines__total_s=1) as house:
        start = trio.current_time()
        answer = await ask(house)
        assert trio.current_time() == pytest.approx(start)
    assert (answer.status, house.log.exchanges[0]["attempts"]) == (503, 2)


async def test_a_client_that_leaves_during_a_wait_ends_it(ways: Ways, clock: trio.testing.MockClock) -> None:
    told = status(503, fields="retry-after-ms: 1700\r\n")
    both = Both(told, told)
    async with open_house(both, file=ways()) as house:
        client = house.connect()
        await client.post(PLAIN, "/v1/embeddings")
        await trio.sleep(1)
        assert [one.slots.taken for one in house.house.endpoints.values()] == [0, 0]
        client.leave()
        await trio.sleep(0.1)
        assert not house.house.service.live
        await trio.sleep(5)
    assert (len(both.a.got), len(both.b.got)) == (1, 1)
    assert (house.log.exchanges[0]["outcome"], house.log.exchanges[0]["attempts"]) == ("cancelled", 2)


async def test_the_budget_bounds_the_retries_of_all_requests(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(status(429), status(429))
    file = ways(route("retry = { budget = 0.1 }"))
    async with open_house(both, file=file) as house, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask, house)
    asked = len(both.a.got) + len(both.b.got)
    assert asked == 100 + 10 + 10  # a tenth, and one each second of the window whatever comes


# What may be sent again


@pytest.mark.parametrize(
    ("method", "repeat_sent", "expected"),
    [("POST", "false", 502), ("POST", "true", 200), ("GET", "false", 200), ("DELETE", "false", 200)],
)
async def test_what_may_be_worked_at_is_sent_again_only_if_that_does_no_harm(
    method: str, repeat_sent: str, expected: int, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(route(f"retry = {{ repeat_sent = {repeat_sent} }}")), cut) as house:
        path = "/v1/embeddings" if method == "POST" else "/v1/files/x"
        client = house.connect()
        if method == "POST":
            await client.post(PLAIN, path)
        else:
            await client.send(f"{method} {path} HTTP/1.1\r\nhost: proxy\r\n\r\n".encode())
        answer = await client.answer(method)
        client.leave()
    assert answer.status == expected
    assert house.log.exchanges[0]["attempts"] == (1 if expected == 502 else 2)


async def upload(house: HouseUnderTest) -> Answer:
    client = house.connect()
    await client.send(b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ncontent-length: 4\r\n\r\nab")
    await trio.sleep(1)
    try:
        await client.send(b"cd")
    except trio.BrokenResourceError:
        pass  # it was refused early
    answer = await client.answer()
    client.leave()
    return answer


async def test_an_upload_of_which_nothing_was_taken_goes_to_the_next(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(OK, OK)
    async with open_house(both, file=ways()) as house:
        house.origin.refusing = {"a"}
        answer = await upload(house)
    assert (answer.status, house.log.exchanges[0]["attempts"]) == (200, 2)
    assert both.b.got[0].endswith(b"abcd")


async def test_an_upload_that_was_begun_is_not_sent_again(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(status(500, b"no"), OK)
    async with open_house(both, file=ways(route("retry = { repeat_sent = true }"))) as house:
        answer = await upload(house)
    assert (answer.status, answer.body, both.b.got) == (500, b"no", [])


# Models


async def test_a_target_may_call_the_model_by_another_name(ways: Ways, clock: trio.testing.MockClock) -> None:
    file = ways(route('targets = [{ upstream = "a", model = "größer-7b" }, { upstream = "b" }]'))
    body = b'{ "input" :"\\u00e9",\n "model":  "m" , "model2":"m"}'
    both = Both(status(500), OK)
    async with open_house(both, file=file) as house:
        await ask(house, body)
    named = b'{ "input" :"\\u00e9",\n "model":  %s , "model2":"m"}' % json.dumps("größer-7b").encode()
    assert both.a.got[0].partition(b"\r\n\r\n")[2] == named
    assert both.a.field(b"content-length") == [b"%d" % len(named)]
    assert both.b.got[0].partition(b"\r\n\r\n")[2] == body
    assert both.b.field(b"content-length") == [b"%d" % len(body)]
    assert house.log.exchanges[0]["model"] == "m"


BIG = route('targets = [{ upstream = "a" }]', 'fallback = { context_length = ["long"], outage = ["long"] }', models="m")
LONG = route('targets = [{ upstream = "b" }]', models="long")


@pytest.mark.parametrize(
    ("first", "tried"),
    [
        (status(400, TOO_LONG), "a 400"),
        (OK_STREAM + chunk(b"data: " + TOO_LONG + b"\n\n") + LAST_CHUNK, "a 200"),
        (status(500), "a 500"),
        (cut, "a upstream_disconnected"),
    ],
    ids=["too long", "too long in the stream", "outage", "cut"],
)
async def test_another_model_is_asked_by_the_kind_of_error(
    first: Step, tried: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    both = Both(first, STREAM)
    async with open_house(both, file=ways(BIG + LONG, a="", b="")) as house:
        answer = await ask_stream(house)
    assert (answer.status, answer.body) == (200, WORD + DONE)
    assert both.b.got[0].endswith(b'{"model":"long","messages":[],"stream":true}')
    (line,) = house.log.exchanges
    assert (line["tries"], line["fallback"], line["model"]) == ([tried, "b 200"], "long", "m")


async def test_an_error_that_no_fallback_helps_passes_with_its_body(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(BIG + LONG), status(400, b"wrong"), OK) as house:
        other = await ask(house)
        assert house.origin.asked == ["a"]
    assert (other.status, other.body) == (400, b"wrong")
    async with opened(ways(BIG + LONG), status(400, TOO_LONG), status(400, b"also too long")) as house:
        last = await ask(house)
    assert (last.status, last.body, last.is_complete) == (400, b"also too long", True)


async def test_fallbacks_are_asked_in_their_order_each_once(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(*[status(500)] * 9, OK), OK)
    file = ways(route('targets = [{ upstream = "a" }]', 'fallback = { outage = ["x", "y"] }'), a="", b="")
    async with open_house(both, file=file) as house:
        answer = await ask(house)
    assert answer.status == 500
    assert [json.loads(request.partition(b"\r\n\r\n")[2])["model"] for request in both.a.got] == ["m", "x", "y"]


async def explain_never(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\n{")


@pytest.mark.parametrize("leaves_after_s", [1, None])
async def test_an_error_that_is_not_told_to_its_end_is_not_waited_for(
    leaves_after_s: float | None, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(BIG + LONG), explain_never, OK) as house:
        client = house.connect()
        await client.post(PLAIN, "/v1/embeddings")
        if leaves_after_s is None:
            assert (await client.answer()).status == 200  # from the other model
        else:
            await trio.sleep(leaves_after_s)
        client.leave()
    assert house.log.exchanges[0]["outcome"] == ("finished" if leaves_after_s is None else "cancelled")


# The breaker


async def test_a_dead_upstream_is_left_alone_then_probed_and_used_again(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(), OK, OK) as house:
        house.origin.refusing = {"a"}
        for _ in range(30):
            assert (await ask(house)).status == 200
            await trio.sleep(0.1)
        assert house.origin.asked.count("a") == 5
        await trio.sleep(5)
        await ask(house)
        assert house.origin.asked.count("a") == 6  # the probe
        await ask(house)
        assert house.origin.asked.count("a") == 6
        house.origin.refusing = set()
        await trio.sleep(10)
        used = [(await ask(house)).headers["x-trioproxy-upstream"] for _ in range(3)]
    assert used == ["a", "a", "a"]


async def test_the_last_upstream_is_never_left_out(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(*[status(500)] * 30, OK), OK)
    async with open_house(both, file=ways(a="")) as house:
        statuses = [(await ask(house)).status for _ in range(31)]
    assert statuses == [500] * 30 + [200]


@pytest.mark.parametrize(("error", "is_left_alone"), [(b"429", False), (b"500", True)])
async def test_an_error_inside_a_stream_counts_as_its_status_does(
    error: bytes, is_left_alone: bool, ways: Ways, clock: trio.testing.MockClock
) -> None:
    both = Both(OK_STREAM + chunk(ERROR_EVENT % error) + LAST_CHUNK, STREAM)
    async with open_house(both, file=ways(route("retry = { budget = 1 }"))) as house:
        for _ in range(20):
            assert (await ask_stream(house)).status == 200
            await trio.sleep(0.1)
        assert (len(both.a.got) < 20) is is_left_alone


async def test_a_probe_whose_client_leaves_is_not_the_last(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(Plays(*[status(500)] * 5, b"", OK), OK)
    async with open_house(both, file=ways()) as house:
        for _ in range(5):
            await ask(house)
        await trio.sleep(5)
        client = house.connect()
        await client.post(PLAIN, "/v1/embeddings")
        await trio.sleep(1)
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "b"
        client.leave()
        await trio.sleep(0.1)
        assert (await ask(house)).headers["x-trioproxy-upstream"] == "a"


# Keys


async def test_the_least_used_key_is_taken(keys: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(take_long)
    async with opened(ways(a=keys), plays) as house, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask, house)
    assert Counter(plays.field(b"authorization")) == {b"Bearer sk-one": 3, b"Bearer sk-two": 3}


@pytest.mark.parametrize("number", [401, 429])
async def test_a_key_that_is_refused_or_limited_is_set_aside(
    number: int, keys: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    """The same request goes on with the next key: the client, whose key it is not, could do nothing about it."""
    plays = Plays(status(number, fields="retry-after: 9\r\n"), OK)
    async with opened(ways(a=keys), plays) as house:
        statuses = [(await ask(house)).status for _ in range(3)]
    assert statuses == [200, 200, 200]
    assert plays.field(b"authorization") == [b"Bearer sk-one"] + [b"Bearer sk-two"] * 3


async def test_an_upstream_that_says_so_gets_no_other_key(keys: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(status(429, fields="x-should-retry: false\r\n"), OK)
    async with opened(ways(a=keys), plays) as house:
        assert (await ask(house)).status == 429


async def test_without_a_usable_key_nothing_is_sent(keys: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(status(429, fields="retry-after: 9\r\n"))
    async with opened(ways(a=keys), plays) as house:
        answers = [await ask(house, headers="authorization: Bearer client\r\n") for _ in range(3)]
        assert [answer.status for answer in answers] == [429, 503, 503]
        assert code(answers[2]) == "no_healthy_upstream"
        assert len(plays.got) == 2
        await trio.sleep(9)
        assert (await ask(house)).status == 429
    assert b"Bearer client" not in plays.field(b"authorization")


async def test_without_a_usable_key_another_model_may_help(
    keys: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    routes = route('targets = [{ upstream = "a" }]', 'fallback = { rate_limit = ["long"] }', models="m") + LONG
    both = Both(status(429, fields="retry-after: 9\r\n"), OK)
    async with open_house(both, file=ways(routes, a=keys, b="")) as house:
        statuses = [(await ask(house)).status for _ in range(4)]
    assert statuses == [200] * 4
    assert (len(both.a.got), len(both.b.got)) == (2, 4)


async def test_a_second_try_is_never_sent_without_a_key(keys: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(status(401), status(500, b"last"))
    file = ways(route('retry = { tries = 5, statuses = [401, "5xx"] }'), a=keys, b="")
    async with open_house(both, file=file) as house:
        answer = await ask(house)
    assert (answer.status, answer.body) == (500, b"last")
    assert house.log.exchanges[0]["tries"] == ["a 401", "b 500", "a 401", "b 500", "b 500"]
    assert both.a.field(b"authorization") == [b"Bearer sk-one", b"Bearer sk-two"]


async def test_a_clients_own_key_never_counts(ways: Ways, clock: trio.testing.MockClock) -> None:
    plays = Plays(*[status(401)] * 20, OK)
    async with opened(ways(a=""), plays) as house:
        for _ in range(20):
            assert (await ask(house, headers="authorization: Bearer wrong\r\n")).status == 401
        assert (await ask(house, headers="authorization: Bearer right\r\n")).status == 200
    assert plays.field(b"authorization")[-1] == b"Bearer right"


# Places


async def test_places_are_bounded_and_go_to_who_waits_longest(ways: Ways, clock: trio.testing.MockClock) -> None:
    answers: dict[int, Answer] = {}
    ended: list[int] = []
    async with opened(ways(a="max_concurrent = 1\nmax_waiting = 2"), take_long) as house:

        async def come(number: int) -> None:
            await trio.sleep(number / 10)
            answers[number] = await ask(house)
            ended.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(come, number)
    assert ended == [3, 0, 1, 2]
    assert (answers[3].status, code(answers[3]), answers[3].headers["retry-after"]) == (503, "overloaded", "1")
    assert [answers[number].status for number in range(3)] == [200] * 3


async def test_who_finds_no_room_goes_elsewhere(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(take_long, take_long)
    async with open_house(both, file=ways(a="max_concurrent = 2", b="")) as house, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, house)
    assert (len(both.a.got), len(both.b.got)) == (2, 3)


async def left_at(house: HouseUnderTest, moment: float) -> None:
    client: Client = house.connect()
    await client.post(CHAT)
    await trio.sleep(moment)
    client.leave()


async def speak_slowly(visit: Visit) -> None:
    await trio.sleep(1)
    await visit.send(OK_STREAM + chunk(ROLE))
    await trio.sleep(1)
    await visit.send(chunk(content("x")))
    await trio.sleep(1)
    await visit.send(chunk(DONE) + LAST_CHUNK)


async def test_places_come_back_whenever_a_client_leaves(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(a="max_concurrent = 2"), speak_slowly) as house:
        async with trio.open_nursery() as nursery:
            for moment in range(40):
                nursery.start_soon(left_at, house, moment / 10)
        await trio.sleep(9)
        (endpoint,) = house.house.endpoints.values()
        assert endpoint.slots.taken == 0 and endpoint.slots.has_room
        assert (await ask_stream(house)).status == 200


# Which is first


def upstream_of(answer: Answer) -> str:
    return answer.headers["x-trioproxy-upstream"]


@pytest.mark.parametrize(
    ("sticky", "ask_as"),
    [
        ("header:x-session", lambda user: (PLAIN, f"x-session: {user}\r\n")),
        ("user", lambda user: (b'{"model":"m","user":"%d"}' % user, "")),
        ("prompt_cache_key", lambda user: (b'{"model":"m","prompt_cache_key":"%d"}' % user, "")),
    ],
    ids=["header", "user", "prompt_cache_key"],
)
async def test_requests_of_one_kind_stay_at_one_upstream(
    sticky: str, ask_as: Callable[[int], tuple[bytes, str]], ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(route(f'sticky = "{sticky}"')), OK) as house:
        first: list[str] = []
        for _ in range(2):
            for user in range(20):
                body, headers = ask_as(user)
                first.append(upstream_of(await ask(house, body, headers=headers)))
    assert first[:20] == first[20:]
    assert set(first) == {"a", "b"}


async def test_weights_share_the_requests(ways: Ways, clock: trio.testing.MockClock) -> None:
    targets = 'targets = [{ upstream = "a", weight = 3 }, { upstream = "b" }]'
    async with opened(ways(route(targets, 'strategy = "weighted"')), OK) as house:
        house.house.service.dispatcher.draw = Random(7).random
        used = Counter([upstream_of(await ask(house)) for _ in range(200)])
    assert 130 < used["a"] < 170


async def test_the_least_busy_is_first(ways: Ways, clock: trio.testing.MockClock) -> None:
    both = Both(take_long, take_long)
    file = ways(route('strategy = "least_busy"'))
    async with open_house(both, file=file) as house, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, house)
            await trio.testing.wait_all_tasks_blocked()
    assert (len(both.a.got), len(both.b.got)) == (5, 5)


async def test_the_fastest_is_first_once_both_are_known(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(route('strategy = "fastest"')), speak_late, STREAM) as house:
        used = [upstream_of(await ask_stream(house)) for _ in range(12)]
    assert set(used[:2]) == {"a", "b"}
    assert used[2:] == ["b"] * 10
