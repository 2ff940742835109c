"""Stories of virtual keys: who is let in, to which models and upstreams, and that no key goes further than here."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.keys import bearer, key_table, secret
from tests.harness.origin import OK_STREAM, Visit, chunk, content
from tests.harness.plays import OK, STREAM, Plays, Ways, ask, code, opened, route
from tests.harness.talk import Guest, echo, hosting
from trioproxy.config import Key, load

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


async def chat(house: HouseUnderTest, headers: str = "", model: str = "m", **more: Any) -> Answer:
    body = json.dumps({"model": model, "messages": [], **more}).encode()
    return await ask(house, body, CHAT, headers)


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "authorization: Basic dXNlcjpwYXNz\r\n",
        "authorization: Bearer sk-some-other\r\n",
        f"authorization: Bearer {secret('nobody')}\r\n",
        f"authorization: {secret('ours')}\r\n",
        f"{bearer('ours')}x-api-key: {secret('other')}\r\n",
        f"{bearer('ours')}{bearer('other')}",
        bearer("late"),
        bearer("gone"),
    ],
    ids=["none", "basic", "foreign", "unknown", "bare", "two", "twice", "expired", "revoked"],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/files", "/v1/models", "/v1/streams/x", "/v1/stream/tokens", "/v1/odd"])
async def test_nobody_comes_in_without_one_good_key(
    clock: trio.testing.MockClock, ways: Ways, headers: str, path: str
) -> None:
    keys = [key_table("ours"), key_table("other"), key_table("late", "expires = 2001-01-01")]
    file = ways("".join([*keys, key_table("gone", 'revoked = "2001-01-01T00:00:00Z"')]), a="")
    async with opened(file, OK) as house:
        answer = await ask(house, BODY, path, headers)
        assert (answer.status, code(answer)) == (401, "invalid_api_key")
        assert answer.headers["content-type"] == "application/json" and "x-request-id" in answer.headers
        assert b"tpk_" not in answer.body
        assert not house.origin.visits


@pytest.mark.parametrize(
    "path", ["/v1/realtime/client_secrets", "/v1/realtime/sessions", "/v1/organization/admin_api_keys"]
)
async def test_no_key_is_changed_for_one_of_the_upstreams_own(
    clock: trio.testing.MockClock, ways: Ways, path: str
) -> None:
    async with opened(ways(key_table("ours"), a=""), OK) as house:
        answer = await ask(house, b"{}", path, bearer("ours"))
        assert (answer.status, code(answer)) == (403, "model_not_allowed")
        assert not house.origin.visits


@pytest.mark.parametrize("headers", [bearer("ours"), f"x-api-key: {secret('ours')}\r\n"])
@pytest.mark.parametrize("own", ["", 'headers = { authorization = "Bearer own" }'])
@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
async def test_a_good_key_lets_in_and_goes_no_further(
    clock: trio.testing.MockClock, ways: Ways, headers: str, own: str, path: str
) -> None:
    origin = Plays(OK)
    async with opened(ways(key_table("ours"), a=own), origin) as house:
        assert (await ask(house, BODY, path, headers)).status == 200
    (request,) = origin.got
    assert b"tpk_" not in request and b"x-api-key" not in request.lower()
    assert origin.field(b"authorization") == ([b"Bearer own"] if own else [])
    (line,) = house.log.exchanges
    assert line["key"] == "ours"
    assert "tpk_" not in json.dumps(house.log.lines)


async def test_without_keys_the_clients_own_credentials_go_through(clock: trio.testing.MockClock, ways: Ways) -> None:
    origin = Plays(OK)
    async with opened(ways(a=""), origin) as house:
        assert (await chat(house, "authorization: Bearer sk-own\r\n")).status == 200
    assert origin.field(b"authorization") == [b"Bearer sk-own"]


async def test_keys_can_be_put_in_force_and_taken_back_under_way(clock: trio.testing.MockClock, ways: Ways) -> None:
    file = ways(a="")
    made: tuple[Key, ...] = load(ways(key_table("ours"), a=""), environ={}).key
    file.write_text(file.read_text().replace(key_table("ours"), ""))
    async with opened(file, OK) as house:
        assert (await chat(house)).status == 200
        house.house.take_keys(made)
        assert (await chat(house)).status == 401
        assert (await chat(house, bearer("ours"))).status == 200
        house.house.take_keys(())
        assert (await chat(house, bearer("ours"))).status == 401
        house.house.take_keys(None)
        assert (await chat(house)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "may"),
    [
        ("POST", CHAT, b'{"model":"small-1"}', True),
        ("POST", CHAT, b'{"model":"large"}', False),
        ("POST", CHAT, b"{}", False),
        ("POST", "/v1/responses", b'{"model":"large"}', False),
        ("POST", "/v1/messages", b'{"model":"large"}', False),
        ("POST", "/v1/embeddings", b'{"model":"large"}', False),
        ("POST", CHAT, b'{"model":"large","stream":true}', False),
        ("POST", "/v1/audio/speech", b'{"model":"small-1"}', False),
        ("POST", "/v1/batches", b"{}", False),
        ("GET", "/v1/files", b"", True),
        ("GET", "/v1/chat/stream?model=large&prompt=x", b"", False),
    ],
)
async def test_a_key_may_ask_for_its_models_alone_whichever_way(
    clock: trio.testing.MockClock, ways: Ways, method: str, path: str, body: bytes, may: bool
) -> None:
    async with opened(ways(key_table("ours", 'models = ["small-*"]'), a=""), OK) as house:
        answer = await ask(house, body, path, bearer("ours"), method)
        assert answer.status == (200 if may else 403)
        assert may or b"may not ask" in answer.body or b"limited here" in answer.body
        assert len(house.origin.visits) == may


async def test_a_model_is_not_named_a_second_time_in_another_spelling(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    body = b'{"model":"small-1","Model":"large"}'
    async with opened(ways(key_table("ours", 'models = ["small-*"]'), a=""), OK) as house:
        answer = await ask(house, body, CHAT, bearer("ours"))
        assert (answer.status, code(answer)) == (400, "request_refused")
        assert not house.origin.visits
    async with opened(ways(a=""), OK) as house:
        assert (await ask(house, body, CHAT)).status == 200


async def test_a_key_may_use_its_upstreams_alone_also_when_others_fail(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    keys = key_table("b-only", 'upstreams = ["b"]') + key_table("all")
    async with opened(ways(keys + route("retry = { tries = 3 }")), OK, Plays(OK)) as house:
        assert (await chat(house, bearer("all"))).headers["x-trioproxy-upstream"] == "a"
        assert (await chat(house, bearer("b-only"))).headers["x-trioproxy-upstream"] == "b"
        await trio.testing.wait_all_tasks_blocked()
        house.house.pool.close_nowait()
        house.origin.refusing = {"b"}
        assert (await chat(house, bearer("b-only"))).status == 502
        assert set(house.origin.asked[-3:]) == {"b"}


async def test_a_key_whose_upstreams_have_not_the_model_is_told_so(clock: trio.testing.MockClock, ways: Ways) -> None:
    routes = key_table("b-only", 'upstreams = ["b"]') + route('targets = [{ upstream = "a" }]')
    async with opened(ways(routes), OK) as house:
        answer = await chat(house, bearer("b-only"))
        assert (answer.status, code(answer)) == (403, "model_not_allowed")
        assert not house.origin.visits


async def test_models_are_listed_as_far_as_a_key_may_use_them(clock: trio.testing.MockClock, ways: Ways) -> None:
    listed = json.dumps({"object": "list", "data": [{"id": "small-1"}, {"id": "large"}]}).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(listed) + listed
    keys = key_table("small", 'models = ["small-*"]') + key_table("all")
    async with opened(ways(keys, a='headers = { authorization = "Bearer own" }'), answer) as house:

        async def shown(name: str) -> list[str]:
            told = await ask(house, path="/v1/models", headers=bearer(name), method="GET")
            return [one["id"] for one in json.loads(told.body)["data"]]

        assert await shown("all") == ["small-1", "large"]
        assert await shown("small") == ["small-1"]


async def test_a_stream_is_its_keys_and_nobody_elses_also_with_another_secret(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    keys = key_table("ours") + key_table("other")
    async with opened(ways(keys, a=""), STREAM) as house:
        first = await chat(house, bearer("ours") + "x-trioproxy-resume: 60\r\n", stream=True)
        path = f"/v1/streams/{first.headers['x-trioproxy-stream']}"
        assert (await ask(house, path=path, headers=bearer("ours"), method="GET")).body == first.body
        assert (await ask(house, path=path, headers=bearer("other"), method="GET")).status == 404
        rotated = load(ways(key_table("ours").replace(_digest("ours"), _digest("new"))), environ={}).key
        house.house.take_keys(rotated)
        assert (await ask(house, path=path, headers=bearer("ours"), method="GET")).status == 401
        assert (await ask(house, path=path, headers=bearer("new"), method="GET")).body == first.body


def _digest(name: str) -> str:
    return key_table(name).partition('hash = "')[2].partition('"')[0]


async def test_a_token_is_no_better_than_its_key(clock: trio.testing.MockClock, ways: Ways) -> None:
    file = ways(key_table("ours", 'models = ["m"]'), a="")
    file.write_text(file.read_text().replace('name = "a"', 'name = "a"\napi_key = "file:own"'))
    (file.parent / "own").write_text("sk-own")
    origin = Plays(STREAM)
    async with opened(file, origin) as house:
        told = await ask(house, b"", "/v1/stream/tokens", bearer("ours"))
        token = json.loads(told.body)["token"]

        async def read(model: str) -> Answer:
            return await ask(house, path=f"/v1/chat/stream?model={model}&prompt=x&token={token}", method="GET")

        assert (await read("m")).status == 200
        assert (await read("large")).status == 403
        house.house.take_keys(())
        assert (await read("m")).status == 401
    assert [line.get("key") for line in house.log.exchanges] == ["ours", "ours", "ours", None]
    assert origin.field(b"authorization") == [b"Bearer sk-own"]


async def test_a_token_for_a_model_shares_no_stream_of_another_one(clock: trio.testing.MockClock, ways: Ways) -> None:
    file = ways(key_table("ours"), a='api_key = "file:own"')
    (file.parent / "own").write_text("sk-own")
    async with opened(file, OK_STREAM + chunk(content("large"))) as house:
        told = await ask(house, b'{"model":"m"}', "/v1/stream/tokens", bearer("ours"))
        target = f"/v1/chat/stream?model=m&prompt=x&token={json.loads(told.body)['token']}"
        first, second = house.connect(), house.connect()
        share = "x-trioproxy-share: k\r\n"
        await first.post(b'{"model":"large","messages":[],"stream":true}', CHAT, bearer("ours") + share)
        await trio.sleep(1)
        await second.send(f"GET {target} HTTP/1.1\r\nhost: proxy\r\n{share}\r\n".encode())
        await trio.sleep(1)
        assert len(house.origin.visits) == 2
        first.leave()
        second.leave()


@pytest.mark.parametrize(
    ("headers", "path", "may"),
    [
        (bearer("ours"), "/v1/realtime?model=m", True),
        ("", "/v1/realtime?model=m", False),
        (bearer("ours"), "/v1/realtime?model=large", False),
        (bearer("ours"), "/v1/realtime?model=m&model=large", False),
        (bearer("ours"), "/v1/realtime?model=m&mod%65l=large", False),
        (bearer("ours"), "/v1/responses", False),
        (bearer("counted"), "/v1/realtime?model=m", False),
    ],
)
async def test_sessions_are_let_in_as_requests_are(
    clock: trio.testing.MockClock, ways: Ways, headers: str, path: str, may: bool
) -> None:
    keys = key_table("ours", 'models = ["m"]') + key_table("counted", "limits = { tpm = 100 }")
    shown = [(name.strip(), value.strip()) for name, _, value in [line.partition(":") for line in headers.splitlines()]]
    async with open_house(hosting(echo), file=ways(keys, a="")) as house:
        guest = Guest(house.connect().stream)
        assert await guest.enter(path, headers=tuple(shown)) is may
        assert len(house.origin.visits) == may
        guest.leave()


async def test_a_key_among_the_subprotocols_lets_in_and_goes_no_further(
    clock: trio.testing.MockClock, ways: Ways
) -> None:
    requests: list[bytes] = []

    async def look(visit: Visit) -> None:
        requests.append(await visit.read_request())
        visit.cut()

    async with open_house(look, file=ways(key_table("ours"), a="")) as house:
        guest = Guest(house.connect().stream)
        offered = ["realtime", f"openai-insecure-api-key.{secret('ours')}"]
        await guest.enter("/v1/realtime?model=m", subprotocols=tuple(offered))
        guest.leave()
    assert requests and b"tpk_" not in requests[0] and b"realtime" in requests[0]
