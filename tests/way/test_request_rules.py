"""Stories of rules: what a route says of requests' parameters holds whichever way a request comes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.keys import bearer, key_table
from tests.harness.plays import OK, STREAM, Plays, Ways, ask, code, opened, route
from tests.harness.talk import Guest

CHAT = "/v1/chat/completions"
RULES = (
    "bounds = { max_tokens = 10, messages = 2, depth = 8 }",
    'params = { force = { temperature = 0.0 }, default = { user = "nobody" }, drop = ["logit_bias"] }',
)
JSON_OR_STREAM: tuple[dict[str, Any], ...] = ({}, {"stream": True})
BEYOND: tuple[dict[str, Any], ...] = ({"max_tokens": 11}, {"messages": [1, 2, 3]}, {"metadata": [[[[[[[[]]]]]]]]})
PLUGIN = '[gate]\nplugin = "{module}:check"\nplugin_s = 2\n'


def sent(origin: Plays) -> dict[str, Any]:
    """What the origin was asked last."""
    body: dict[str, Any] = json.loads(origin.got[-1].partition(b"\r\n\r\n")[2])
    return body


async def chat(house: HouseUnderTest, headers: str = "", **members: Any) -> Answer:
    return await ask(house, json.dumps({"model": "m", "messages": [], **members}).encode(), CHAT, headers)


async def test_parameters_are_changed_whichever_way_a_request_comes(clock: trio.testing.MockClock, ways: Ways) -> None:
    origin = Plays(STREAM)
    async with opened(ways(route(*RULES), a=""), origin) as house:
        for more in JSON_OR_STREAM:
            assert (await chat(house, logit_bias={"1": 1}, temperature=2, **more)).status == 200
            assert sent(origin)["temperature"] == 0 and sent(origin)["user"] == "nobody"
            assert "logit_bias" not in sent(origin)
        assert (await chat(house, "x-trioproxy-resume: 9\r\n", stream=True, logit_bias={})).status == 200
        assert "logit_bias" not in sent(origin)
        await ask(house, path="/v1/chat/stream?model=m&prompt=x&temperature=1", method="GET")
        assert sent(origin)["temperature"] == 0
        guest = Guest(house.connect().stream)
        assert await guest.enter("/v1/stream/ws")
        await guest.send(json.dumps({"model": "m", "messages": [], "logit_bias": {}}))
        await guest.hear_all()
        assert "logit_bias" not in sent(origin) and sent(origin)["temperature"] == 0
        guest.leave()
    assert len(origin.got) == 5


async def test_what_is_beyond_a_bound_goes_no_further_whichever_way(clock: trio.testing.MockClock, ways: Ways) -> None:
    async with opened(ways(route(*RULES), a=""), STREAM) as house:
        for members in BEYOND:
            for more in JSON_OR_STREAM:
                answer = await chat(house, **{**members, **more})
                assert (answer.status, code(answer)) == (400, "request_refused")
        answer = await ask(house, path="/v1/chat/stream?model=m&prompt=x&max_tokens=11", method="GET")
        assert (answer.status, code(answer)) == (400, "request_refused")
        guest = Guest(house.connect().stream)
        assert await guest.enter("/v1/stream/ws")
        await guest.send('{"model": "m", "messages": [], "max_tokens": 11}')
        (told,) = await guest.hear_all()
        assert json.loads(told)["error"]["code"] == "request_refused"
        assert guest.closed is not None and guest.closed[0] == 1008
        guest.leave()
        assert not house.origin.visits


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plugin that refuses, annotates, thinks or crashes, as the body says; it keeps what it has seen."""
    (tmp_path / "plugin_of_a_story.py").write_text(
        "import trio\n"
        "from trioproxy.gate.plugin import PluginRequest, Refuse\n"
        "seen = []\n"
        "async def check(request: PluginRequest):\n"
        "    seen.append(request)\n"
        "    if b'refuse' in request.body:\n"
        "        raise Refuse('Not this one.')\n"
        "    if b'think' in request.body:\n"
        "        await trio.sleep(3)\n"
        "    if b'crash' in request.body:\n"
        "        raise KeyError('a bug')\n"
        "    return {'team': request.key or 'nobody'}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_of_a_story", raising=False)
    return PLUGIN.format(module="plugin_of_a_story")


async def test_a_plugin_sees_every_request_that_is_read_and_no_secret(
    clock: trio.testing.MockClock, ways: Ways, plugin: str
) -> None:
    async with opened(ways(plugin + key_table("ours"), a=""), OK) as house:
        assert (await chat(house, bearer("ours") + "x-team: blue\r\n")).status == 200
        (request,) = sys.modules["plugin_of_a_story"].seen
        assert (request.key, request.model, request.endpoint, request.stream) == ("ours", "m", "chat", False)
        assert dict(request.headers)[b"x-team"] == b"blue" and "tpk_" not in repr(request)
        assert (await chat(house)).status == 401
        assert len(sys.modules["plugin_of_a_story"].seen) == 1
    assert house.log.exchanges[0]["plugin"] == {"team": "ours"}


@pytest.mark.parametrize(
    ("word", "status", "says"), [("refuse", 403, "request_refused"), ("think", 503, "plugin_timeout")]
)
async def test_a_plugin_refuses_and_has_its_time(
    clock: trio.testing.MockClock, ways: Ways, plugin: str, word: str, status: int, says: str
) -> None:
    async with opened(ways(plugin, a=""), OK) as house:
        answer = await chat(house, user=word)
        assert (answer.status, code(answer)) == (status, says)
        assert not house.origin.visits


async def test_a_plugin_that_thinks_is_cancelled_when_the_client_leaves(
    clock: trio.testing.MockClock, ways: Ways, plugin: str
) -> None:
    async with opened(ways(plugin, a=""), OK) as house:
        client = house.connect()
        await client.post(b'{"model":"m","user":"think"}')
        await trio.sleep(1)
        client.leave()
        await trio.sleep(0.1)
        (line,) = house.log.exchanges
        assert (line["outcome"], line["reason"]) == ("cancelled", "client_gone")


async def test_a_plugin_with_a_bug_lets_nothing_through(clock: trio.testing.MockClock, ways: Ways, plugin: str) -> None:
    async with opened(ways(plugin, a=""), OK) as house:
        answer = await chat(house, user="crash")
        assert (answer.status, code(answer)) == (500, "internal_error")
        assert not house.origin.visits
        assert (await chat(house)).status == 200
        assert house.crashes == 1
        house.house.listener.barrier.crashes = 0


async def test_a_plugin_that_cannot_be_loaded_stops_the_start(ways: Ways) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_house(Plays(OK), file=ways(PLUGIN.format(module="no_such_module"), a="")):
            pass
    assert "no_such_module" in repr(caught.value)


@pytest.mark.parametrize("model", [None, "x" * 2000])
async def test_a_rule_for_all_models_is_for_one_that_nobody_knows_too(
    clock: trio.testing.MockClock, ways: Ways, model: str | None
) -> None:
    body = json.dumps({"n": 3} if model is None else {"n": 3, "model": model}).encode()
    async with opened(ways(route("bounds = { n = 2 }"), a=""), OK) as house:
        answer = await ask(house, body, "/v1/chat/completions")
        assert (answer.status, code(answer)) == (400, "request_refused")
        assert not house.origin.visits
