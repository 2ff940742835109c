"""Stories of `GET /v1/models` where there are routes or several upstreams: which models a client is shown."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, Client, HouseUnderTest
from tests.harness.origin import Visit
from tests.harness.plays import OK, Plays, Ways, ask, code, cut, opened, route, status
from tests.harness.sweep import CUTS, DRAIN, Story, play
from trioproxy.errors import CancelReason

KEY = 'headers = { authorization = "Bearer own" }'


@pytest.fixture
def ways(tmp_path: Path) -> Ways:
    """Makes a configuration: upstreams by name, with what is said of each, and routes."""

    def write(routes: str = "", **upstreams: str) -> Path:
        file = tmp_path / "trioproxy.toml"
        tables = [
            f'[[upstream]]\nname = "{name}"\nbase_url = "http://{name}/v1"\n{more}\n'
            for name, more in (upstreams or {"a": "", "b": ""}).items()
        ]
        file.write_text("\n".join([*tables, routes]))
        return file

    return write


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


def listing(*names: str, **members: Any) -> bytes:
    """An upstream's answer: these models, each entry with these members."""
    body = json.dumps({"object": "list", "data": [{"id": name, **members} for name in names]}).encode()
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def ask_models(house: HouseUnderTest, headers: str = "", method: str = "GET", path: str = "/v1/models") -> Answer:
    return await ask(house, path=path, headers=headers, method=method)


def entries(answer: Answer) -> list[dict[str, Any]]:
    assert (answer.status, answer.is_complete) == (200, True)
    assert answer.headers["content-type"] == "application/json"
    shown = json.loads(answer.body)
    assert shown.keys() == {"object", "data"} and shown["object"] == "list"
    for entry in shown["data"]:
        assert {"id", "object", "created", "owned_by"} <= entry.keys()
    data: list[dict[str, Any]] = shown["data"]
    return data


def names(answer: Answer) -> list[str]:
    return [entry["id"] for entry in entries(answer)]


async def test_two_upstreams_without_a_route_are_listed_together(ways: Ways, clock: trio.testing.MockClock) -> None:
    a = Plays(listing("x", "y", object="model", created=7, owned_by="acme", extra=1.5))
    async with opened(ways(), a, listing("y", "z")) as house:
        answer = await ask_models(house)
    assert entries(answer) == [
        {"id": "x", "object": "model", "created": 7, "owned_by": "acme", "extra": 1.5},
        {"id": "y", "object": "model", "created": 7, "owned_by": "acme", "extra": 1.5},
        {"id": "z", "object": "model", "created": 0, "owned_by": "b"},
    ]
    (line,) = house.log.exchanges
    assert (line["endpoint"], line["status"], line["outcome"]) == ("other", 200, "finished")
    assert line["bytes_out"] == len(answer.body) and "left_out" not in line


async def test_what_routes_name_comes_first_and_globs_are_filled(ways: Ways, clock: trio.testing.MockClock) -> None:
    routes = (
        route('targets = [{ upstream = "a" }]', models="gpt-*")
        + route('targets = [{ upstream = "b", model = "big-2" }]', models="big")
        + route('targets = [{ upstream = "a", model = "gpt-4" }]', models="small-*")
        + route('targets = [{ upstream = "b" }]')
    )
    async with opened(ways(routes), listing("gpt-4", "small-1", "other"), listing("gpt-5", "big-2")) as house:
        answer = await ask_models(house)
    assert names(answer) == ["big", "gpt-4", "big-2"]
    assert entries(answer)[0] == {"id": "big", "object": "model", "created": 0, "owned_by": "b"}


async def test_whatever_is_listed_can_be_asked_for_where_it_was_listed(
    ways: Ways, clock: trio.testing.MockClock
) -> None:
    file = ways(route('targets = [{ upstream = "b" }]', models="b-*"))
    a, b = Plays(listing("a-1", "b-1"), OK), Plays(listing("b-2", "b-3"), OK)
    async with opened(file, a, b) as house:
        shown = entries(await ask_models(house))
        for entry in shown:
            await ask(house, json.dumps({"model": entry["id"]}).encode())
    assert [(entry["id"], entry["owned_by"]) for entry in shown] == [("b-2", "b"), ("b-3", "b"), ("a-1", "a")]
    assert [line["upstream"] for line in house.log.exchanges[1:]] == ["b", "b", "a"]


@pytest.mark.parametrize("line", ["GET /v1/models", "HEAD /v1/models", "GET /v1/models?limit=2"])
async def test_the_only_upstream_s_list_passes_as_it_is(line: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    a = Plays(OK if line.startswith("GET") else OK.partition(b"{")[0])
    method, _, path = line.partition(" ")
    async with opened(ways(a=""), a) as house:
        answer = await ask_models(house, method=method, path=path)
    assert (answer.status, answer.body) == (200, b'{"ok":1}' if method == "GET" else b"")
    assert a.got[0].startswith(f"{line} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("line", ["GET /v1/models/x", "POST /v1/models", "DELETE /v1/models/x", "OPTIONS /v1/models"])
async def test_everything_else_about_models_passes(line: str, ways: Ways, clock: trio.testing.MockClock) -> None:
    a = Plays(OK)
    method, _, path = line.partition(" ")
    async with opened(ways(), a) as house:
        answer = await ask(house, path=path, method=method)
    assert (answer.status, answer.body) == (200, b'{"ok":1}')
    assert a.got[0].startswith(f"{line} HTTP/1.1\r\n".encode())


async def test_a_head_request_gets_the_head_only(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), listing("x"), listing("y")) as house:
        client = house.connect()
        await client.send(b"HEAD /v1/models HTTP/1.1\r\nhost: proxy\r\n\r\n")
        head = await client.answer("HEAD")
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: proxy\r\n\r\n")
        answer = await client.answer("GET")
        client.leave()
    assert (head.status, head.body, head.is_complete) == (200, b"", True)
    assert names(answer) == ["x", "y"]
    assert head.headers["content-length"] == str(len(answer.body))


async def test_a_list_is_kept_for_a_minute(ways: Ways, clock: trio.testing.MockClock) -> None:
    a, b = Plays(listing("x"), listing("y")), Plays(listing("z"))
    async with opened(ways(a=KEY, b=KEY), a, b) as house:
        shown = []
        for pause_s in (0, 59.9, 0.2):
            await trio.sleep(pause_s)
            shown.append(names(await ask_models(house)))
    assert shown == [["x", "z"], ["x", "z"], ["y", "z"]]
    assert len(a.got) == len(b.got) == 2
    assert a.field(b"authorization") == 2 * [b"Bearer own"]


async def test_what_one_client_s_key_lists_is_not_shown_to_another(ways: Ways, clock: trio.testing.MockClock) -> None:
    a, b = Plays(listing("public"), listing("secret")), Plays(listing("ours"))
    async with opened(ways(a="", b=KEY), a, b) as house:
        shown = [names(await ask_models(house, f"authorization: Bearer {one}\r\n")) for one in ("first", "second")]
    assert shown == [["public", "ours"], ["secret", "ours"]]
    assert a.field(b"authorization") == [b"Bearer first", b"Bearer second"]
    assert b.field(b"authorization") == [b"Bearer own"]


async def test_an_upstream_that_fails_is_left_out_and_logged(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), status(500), listing("z")) as house:
        answer = await ask_models(house)
        assert house.house.endpoints["a"].breaker.take(trio.current_time()) is not None
    assert names(answer) == ["z"]
    assert house.log.exchanges[0]["left_out"] == ["a upstream_error_in_stream"]
    assert house.log.exchanges[0]["outcome"] == "finished"


async def test_an_upstream_that_is_silent_keeps_nobody_for_long(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), b"", listing("z")) as house:
        started = trio.current_time()
        answer = await ask_models(house)
        assert trio.current_time() == pytest.approx(started + 5)
    assert names(answer) == ["z"]
    assert house.log.exchanges[0]["left_out"] == ["a upstream_head_timeout"]


async def test_named_models_are_listed_though_nobody_can_be_reached(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(route(models="named")), OK) as house:
        house.origin.refuses = True
        answer = await ask_models(house)
    assert entries(answer) == [{"id": "named", "object": "model", "created": 0, "owned_by": "a"}]
    assert house.log.exchanges[0]["left_out"] == ["a upstream_connect_failed", "b upstream_connect_failed"]


@pytest.mark.parametrize(
    ("a", "number", "word"),
    [
        (status(401, b'{"error":{"message":"no","code":"invalid_api_key"}}'), 401, "invalid_api_key"),
        (status(503, b"busy"), 503, "upstream_error_in_stream"),
        (OK, 502, "upstream_protocol_error"),
        (cut, 502, "upstream_disconnected"),
    ],
)
async def test_where_all_fail_the_first_one_s_fault_is_the_answer(
    a: Any, number: int, word: str, ways: Ways, clock: trio.testing.MockClock
) -> None:
    async with opened(ways(), a, cut) as house:
        answer = await ask_models(house)
    assert (answer.status, code(answer)) == (number, word)
    assert house.log.exchanges[0]["outcome"] == "failed"


async def test_a_fetch_takes_no_place(ways: Ways, clock: trio.testing.MockClock) -> None:
    async def wait_and_answer(visit: Visit) -> None:
        await trio.sleep(3)
        await visit.send(OK)

    one_place = "max_concurrent = 1\nmax_waiting = 0"
    plays = Plays(wait_and_answer, listing("x"))
    async with opened(ways(route(), a=one_place), plays) as house, trio.open_nursery() as nursery:
        nursery.start_soon(ask, house)
        await trio.sleep(1)
        assert names(await ask_models(house)) == ["x"]
        assert trio.current_time() < 3


async def test_a_client_s_own_deadline_holds(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), b"", listing("z")) as house:
        started = trio.current_time()
        answer = await ask_models(house, "x-trioproxy-deadline-ms: 1500\r\n")
        assert trio.current_time() == pytest.approx(started + 1.5)
    assert (answer.status, code(answer)) == (504, "upstream_total_timeout")


async def test_at_the_end_of_a_drain_the_client_is_told(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), b"", listing("z")) as house, trio.open_nursery() as nursery:

        async def ask_and_look() -> None:
            answer = await ask_models(house)
            assert (answer.status, code(answer)) == (503, "draining")
            assert trio.current_time() == pytest.approx(1)

        nursery.start_soon(ask_and_look)
        await trio.sleep(1)
        house.house.service.stop_all(CancelReason.DRAIN)


async def test_too_many_requests_are_refused(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), b"", listing("z"), server__max_streams=1) as house, trio.open_nursery() as nursery:
        nursery.start_soon(ask_models, house)
        await trio.testing.wait_all_tasks_blocked()
        answer = await ask_models(house)
        assert (answer.status, code(answer)) == (503, "overloaded")
    assert len(house.origin.asked) == 2


async def test_lists_leave_no_rings_behind(ways: Ways, clock: trio.testing.MockClock) -> None:
    async with opened(ways(), listing("x"), status(500)) as house:
        client = house.connect()

        async def get(times: int) -> None:
            for _ in range(times):
                await get_models(client)
            await trio.sleep(1)

        await get(3)
        gc.collect()
        gc.disable()
        try:
            await get(50)
            garbage = gc.collect()
        finally:
            gc.enable()
        client.leave()
    assert garbage / 50 < 2, f"{garbage / 50} objects a request"


CONFIG = f"""
[[upstream]]
base_url = "http://a/v1"
{KEY}
[[upstream]]
base_url = "http://b/v1"
"""


async def list_slowly(visit: Visit) -> None:
    await visit.read_request()
    await trio.sleep(1 if visit.host == "a" else 2)
    whole = listing(visit.host)
    await visit.send(whole[:-9])
    await trio.sleep(1)
    await visit.send(whole[-9:])


async def get_models(client: Client) -> None:
    await client.send(b"GET /v1/models HTTP/1.1\r\nhost: proxy\r\n\r\n")
    await client.answer()


@pytest.mark.parametrize("side", [*CUTS, DRAIN])
def test_whoever_is_cut_off_nothing_is_left_behind(side: str, tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(CONFIG)
    story = Story("the list of models", list_slowly, get_models, drains=True)
    steps = play(story, side, 0, file).steps
    assert steps > 10
    for step in range(1, steps + 1):
        outcome = play(story, side, step, file)
        ids = [line["request_id"] for line in outcome.exchanges]
        assert len(ids) == len(set(ids)), f"step {step}: logged twice"
        assert bool(ids) or outcome.origins == 0, f"step {step}: an origin was asked and nothing was logged"
