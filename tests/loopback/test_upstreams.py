"""What an operator sees of the upstreams of a running service."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.loopback.processes import START_S, Server, running, serving, until
from tests.loopback.raw_http import ask, chat

CHAT = "/v1/chat/completions"
SECRETS = {"KEY_1": "sk-never-to-be-seen", "KEY_2": "sk-nor-this-one", "MORE": "sk-nor-a-header"}


@pytest.fixture(scope="module")
def service(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with two workers, one upstream that works and one where nobody listens."""
    folder: Path = tmp_path_factory.mktemp("service")
    (folder / "trioproxy.toml").write_text(
        f"""
[[upstream]]
name = "works"
base_url = "{upstream.base_url}"
api_key = ["env:KEY_1", "env:KEY_2"]
headers = {{ x-more = "env:MORE" }}
[[upstream]]
name = "down"
base_url = "http://127.0.0.1:1/v1"
dialect = "anthropic"
[[upstream]]
name = "far"
base_url = "http://[fd00::1]:9/v1"
[[route]]
models = ["nobody"]
targets = [{{ upstream = "down" }}]
"""
    )
    with serving(None, "--workers", "2", directory=folder, env=SECRETS) as proxy:
        for _ in range(2):
            assert ask(proxy.port, "POST", "/v1/messages", chat("nobody")).status >= 500
            assert ask(proxy.port, "POST", CHAT, chat("demo-n1")).is_clean
        yield proxy


def test_the_workers_figures_are_told_together_and_each(service: Server) -> None:
    with urlopen(f"{service.admin_url}/admin/upstreams", timeout=5) as answer:
        text = answer.read().decode()
    assert not any(secret in text for secret in SECRETS.values())
    works, down, _ = json.loads(text)["upstreams"]
    assert (works["name"], works["breaker"], works["dialect"]) == ("works", "closed", "openai")
    assert works["keys"] == {"total": 2, "usable": 2}
    assert 0 < works["first_content_s"] == max(one["first_content_s"] or 0 for one in works["workers"])
    assert (down["name"], down["dialect"], down["first_content_s"]) == ("down", "anthropic", None)
    assert sorted(one["pid"] for one in down["workers"]) == sorted(service.worker_pids())


def test_the_list_is_plain_text_where_nobody_looks_at_it(service: Server) -> None:
    with running("upstreams", "list", "--admin", service.admin_url, "--admin-key", "any") as command:
        assert command.wait(START_S) == 0
        assert command.err == []
        head, works, down, _ = command.out
    assert head.split("  ")[0] == "upstream" and head.endswith("base url")
    assert works.split()[:5] == ["works", "closed", "-", "0", "0"]
    assert works.split()[-4:-1] == ["2", "of", "2"]
    assert works.index("http:") == down.index("http:") == head.index("base url")
    assert down.split()[0] == "down" and down.endswith("http://127.0.0.1:1/v1")


def test_the_list_is_a_table_on_a_terminal(service: Server) -> None:
    ours, theirs = os.openpty()
    try:
        arguments = ("upstreams", "list", "--admin", service.admin_url, "--admin-key", "any")
        with running(*arguments, env={"TERM": "xterm"}, stdout=theirs) as command:
            assert command.wait(START_S) == 0
        text = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert text.startswith("┏━")
    assert "│ works " in text and "│ 2 of 2 " in text and "│ http://[fd00::1]:9/v1 " in text


def test_a_service_that_is_not_there_is_told(service: Server) -> None:
    with running("upstreams", "list", "--admin", "http://127.0.0.1:1", "--admin-key", "any") as command:
        assert command.wait(START_S) == 1
        assert command.err[0].startswith("cannot reach the admin address at http://127.0.0.1:1: ")
    with running("upstreams", "list", "--admin", service.url, "--admin-key", "any") as command:
        assert command.wait(START_S) == 1
        assert len(command.err) == 1 and "there is nothing here" in command.err[0].lower()


def test_an_upstream_that_is_left_alone_is_shown_with_its_time(upstream: Server, tmp_path: Path) -> None:
    (tmp_path / "trioproxy.toml").write_text(
        f"""
[[upstream]]
name = "down"
base_url = "http://127.0.0.1:1/v1"
[[upstream]]
name = "works"
base_url = "{upstream.base_url}"
"""
    )
    with serving(None, directory=tmp_path) as proxy:
        for _ in range(6):
            assert ask(proxy.port, "POST", CHAT, chat("demo-n1")).is_clean
        until(lambda: len(proxy.exchanges) == 6, "six requests")
        with running("upstreams", "list", "--admin", proxy.admin_url, "--admin-key", "any") as command:
            assert command.wait(START_S) == 0
            assert command.out[1].startswith("down") and "  open, " in command.out[1] and " s left" in command.out[1]
