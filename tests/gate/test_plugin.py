import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from trioproxy.errors import PluginTimeout, RequestRefused
from trioproxy.gate.plugin import MAX_NOTE, MAX_NOTES, Plugin, PluginRequest, Refuse, load_plugin

EXAMPLES = str(Path(__file__).resolve().parents[2] / "conf/examples")
REQUEST = PluginRequest(
    request_id="req_1",
    key="k",
    client=None,
    endpoint="chat",
    model="m",
    stream=True,
    headers=((b"x-team", b"blue"),),
    body=b'{"model":"m"}',
)


async def says_much(request: PluginRequest) -> Mapping[str, str]:
    return {f"{number}": "x" * 1000 for number in range(100)}


async def refuses(request: PluginRequest) -> None:
    raise Refuse("Not today.", status=429)


async def never_ends(request: PluginRequest) -> None:
    await trio.sleep_forever()


async def test_what_it_says_is_kept_and_bounded() -> None:
    noted = await Plugin(says_much, 1).ask(REQUEST)
    assert len(noted) == MAX_NOTES and {len(said) for said in noted.values()} == {MAX_NOTE}


async def test_it_refuses_in_its_own_words() -> None:
    with pytest.raises(RequestRefused, match=r"Not today\.") as caught:
        await Plugin(refuses, 1).ask(REQUEST)
    assert caught.value.status == 429


@pytest.mark.parametrize("status", [200, 302, 500])
def test_it_cannot_make_a_refusal_look_like_anything_else(status: int) -> None:
    assert Refuse("no", status=status).status == 403


async def test_it_has_so_long_and_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(PluginTimeout):
        await Plugin(never_ends, 2.5).ask(REQUEST)
    assert trio.current_time() == 2.5


@pytest.mark.parametrize("name", ["no_such_module:f", "trioproxy.gate.plugin:no_such_name", "trioproxy:__name__"])
def test_a_plugin_that_is_none_is_named(name: str) -> None:
    with pytest.raises(OSError, match=name):
        load_plugin(name, 1)


async def test_the_example_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "plugin", raising=False)
    plugin = load_plugin("plugin:check", 1)
    assert await plugin.ask(REQUEST) == {"team": "blue"}
    with pytest.raises(RequestRefused, match="leave the house"):
        await plugin.ask(replace(REQUEST, body=b"internal only"))
