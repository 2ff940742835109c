"""What `conf/` holds for those who watch: a real Prometheus reads a running proxy with the very files, every expression
of the alerts and of the dashboard is one that it can answer, and every alert comes when it should and only then."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.harness.keys import key_table, secret
from tests.loopback.balancers import CONF
from tests.loopback.processes import PATIENCE_S, START_S, Server, serving, until
from tests.loopback.prometheus import Prometheus, Rule, prometheus
from tests.loopback.raw_http import Wire, ask, chat, request_bytes
from tests.loopback.streams import CHAT
from tests.loopback.test_routes import closed_port, upstream_at
from trioproxy import errors
from trioproxy.policy.limits import Kind

HERE: Final = Path(__file__).parent
WORDS_OF_GRAFANA: Final = {
    "$instance": ".*",
    "$upstream": ".*",
    "$__rate_interval": "1m",
    "$__range": "1m",
}
UNSEEN: Final = {"trioproxy_shed_total", "trioproxy_uncounted_total", "trioproxy_spans_dropped_total"}
"""What has no series until a service is overrun, loses its state, or has a collector: then there is nothing to show."""

_OURS = re.compile(r"\b(?:trioproxy|gen_ai)_[a-z0-9_]*[a-z0-9]")
_GROUPED = re.compile(r"\b(?:by|on|ignoring|without) ?\(([^)]*)\)")
_MATCHED = re.compile(r'([a-z_]+)(?:=~|!~|!=|=)"([^"]*)"')
_SAMPLE = re.compile(r"^([a-z_0-9]+)(?:\{(.*)\})? \S+$", re.MULTILINE)
_OF_PROMETHEUS: Final = {"instance", "job"}


@dataclass(frozen=True)
class Shown:
    """What a proxy shows: the names of its samples, also of those that have none yet, and the labels of each."""

    names: set[str]
    labels: dict[str, set[str]]


def shown_by(text: str) -> Shown:
    """What a page of /metrics holds."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    labels: dict[str, set[str]] = {}
    for name, pairs in _SAMPLE.findall(text):
        labels.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', pairs))
    return Shown(names, labels)


def names_in(expression: str) -> set[str]:
    """The names of ours that an expression reads."""
    return set(_OURS.findall(_GROUPED.sub("", expression)))


def named_labels(expression: str) -> set[str]:
    """The labels by which an expression groups or chooses."""
    grouped = {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",")}
    return (grouped | {label for label, _ in _MATCHED.findall(expression)}) - {""}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONF / "grafana.json").read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def shown_in(panel: dict[str, Any]) -> list[str]:
    """A panel's expressions, as Grafana sends them."""
    expressions = [target["expr"] for target in panel["targets"]]
    for word, value in WORDS_OF_GRAFANA.items():
        expressions = [each.replace(word, value) for each in expressions]
    return expressions


CONFIG: Final = """
[deadlines]
idle_s = 0.3

[[route]]
models = ["gone"]
targets = [{ upstream = "gone" }]

[[route]]
models = ["demo*"]
targets = [{ upstream = "demo" }]
shadow = { upstream = "demo", share = 1.0, max_concurrent = 10 }

[[price]]
model = "*"
input = 1000
cached = 1000
output = 1000
"""


def shown_key(name: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"authorization": f"Bearer {secret(name)}"}


def ask_as(
    proxy: Server, name: str, model: str, headers: Mapping[str, str] | None = None, *, stream: bool = True
) -> None:
    """A chat of a key's, read to its end, whatever that is."""
    ask(
        proxy.port,
        "POST",
        CHAT,
        chat(model, stream=stream),
        {"authorization": f"Bearer {secret(name)}", **(headers or {})},
    )


def leave(proxy: Server, name: str) -> None:
    """A chat of a key's that it leaves in the middle."""
    body = json.dumps(chat("demo-n1000-i5")).encode()
    with Wire.to(proxy.port) as wire:
        wire.send(request_bytes("POST", CHAT, body, shown_key(name)))
        wire.read_head()
        wire.read_chunk()


PLAYED: Final = 14
"""How many requests `play` makes."""


def play(proxy: Server) -> None:
    """Requests of every fate."""
    ask_as(proxy, "alice", "demo-n20-i2")
    ask_as(proxy, "alice", "demo-n20-i2", stream=False)
    ask_as(proxy, "alice", "demo-n5-i0", {"x-trioproxy-resume": "5"})
    ask_as(proxy, "alice", "demo-n9-i0-x5")
    ask_as(proxy, "alice", "demo-silent2")
    leave(proxy, "alice")
    for _ in range(2):
        ask_as(proxy, "bob", "demo-n1-i0")
    for _ in range(6):
        ask_as(proxy, "alice", "gone")


def wait_until_seen(watching: Prometheus, ended: int) -> None:
    """Until it knows of so many requests that have ended."""
    count = "sum(trioproxy_requests_total)"
    until(lambda: watching.values(count) == [ended], f"Prometheus has seen {ended} requests", START_S)


@pytest.fixture(scope="module")
def watched(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Prometheus]]:
    """A proxy that has had requests of every fate twice, and a Prometheus that saw both times."""
    folder = tmp_path_factory.mktemp("watched")
    with closed_port() as closed:
        upstreams = f"{upstream_at('demo', upstream.port)}\n{upstream_at('gone', closed)}"
        keys = key_table("alice", "limits = { usd_per_day = 1_000_000 }") + key_table("bob", "limits = { rpm = 1 }")
        (folder / "trioproxy.toml").write_text(f"{CONFIG}{upstreams}{keys}", "utf-8")
        with (
            serving(None, directory=folder) as proxy,
            prometheus(proxy.admin_url.removeprefix("http://"), folder / "prometheus") as watching,
        ):
            play(proxy)
            wait_until_seen(watching, PLAYED)
            play(proxy)
            wait_until_seen(watching, 2 * PLAYED)
            yield proxy, watching


@pytest.fixture(scope="module")
def shown(watched: tuple[Server, Prometheus]) -> Shown:
    """What the proxy shows behind that."""
    return shown_by(page_of(watched[0]))


@pytest.fixture(scope="module")
def rules(watched: tuple[Server, Prometheus]) -> list[Rule]:
    """The alerts, each evaluated at least once."""
    until(lambda: all(rule.is_evaluated for rule in watched[1].rules()), "all rules are evaluated", START_S)
    return watched[1].rules()


def page_of(proxy: Server) -> str:
    """The text of /metrics."""
    with urlopen(f"{proxy.admin_url}/metrics", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode("utf-8"))


def promtool(*arguments: str, given: str = "") -> None:
    """Run it, and fail with its words."""
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, timeout=60, check=False, cwd=HERE
    )
    assert done.returncode == 0, done.stdout + done.stderr


class TestFiles:
    def test_the_configuration_and_its_rules_are_valid(self) -> None:
        promtool("check", "config", str(CONF / "prometheus.yml"))
        promtool("check", "rules", "--lint=all", "--lint-fatal", str(CONF / "alerts.yml"))

    @pytest.mark.parametrize("file", ["alerts_test.yml", "alerts_of_days_test.yml"])
    def test_every_alert_comes_when_it_should_and_only_then(self, file: str) -> None:
        promtool("test", "rules", file)

    def test_every_alert_is_tested(self) -> None:
        there = re.findall(r"^ +- alert: (\w+)$", (CONF / "alerts.yml").read_text("utf-8"), re.MULTILINE)
        tests = "".join(path.read_text("utf-8") for path in HERE.glob("alerts*_test.yml"))
        fired = re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:", tests)
        assert len(there) == len(set(there)) > 20
        assert set(fired) == set(there)

    def test_a_dashboard_has_its_panels_side_by_side_and_each_says_what_it_shows(self) -> None:
        places = {panel["id"]: panel["gridPos"] for panel in dashboard()["panels"]}
        assert len(places) == len(dashboard()["panels"])
        assert all(at["x"] >= 0 and at["x"] + at["w"] <= 24 for at in places.values())
        for one, other in combinations(places.values(), 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or below, (one, other)
        for panel in panels():
            assert panel["title"] and panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"

    def test_a_dashboard_asks_for_no_word_that_it_does_not_have(self) -> None:
        own = {f"${variable['name']}" for variable in dashboard()["templating"]["list"]}
        used = {word for panel in panels() for each in panel["targets"] for word in re.findall(r"\$\w+", each["expr"])}
        assert used <= own | {"$__rate_interval", "$__range"}
        assert used <= WORDS_OF_GRAFANA.keys()


class TestWatching:
    def test_prometheus_reads_the_proxy(self, watched: tuple[Server, Prometheus]) -> None:
        proxy, watching = watched
        assert watching.is_up()
        promtool("check", "metrics", given=page_of(proxy))

    def test_it_reads_one_that_wants_a_key_with_the_key_alone(self, upstream: Server, tmp_path: Path) -> None:
        with serving(upstream.base_url, env={"TRIOPROXY_ADMIN__KEY": "env:ADMIN_KEY", "ADMIN_KEY": "k" * 32}) as proxy:
            admin = proxy.admin_url.removeprefix("http://")
            with prometheus(admin, tmp_path / "with", "k" * 32) as watching:
                until(watching.is_up, "it is let in", START_S)
            with prometheus(admin, tmp_path / "without") as watching:
                until(lambda: watching.values("up") == [0], "it is refused", START_S)

    def test_every_alert_can_be_answered(self, rules: list[Rule]) -> None:
        assert [rule.fault for rule in rules] == [""] * len(rules)
        assert len(rules) > 20

    def test_every_name_is_one_that_the_proxy_shows(self, rules: list[Rule], shown: Shown) -> None:
        used = [rule.query for rule in rules] + [each for panel in panels() for each in shown_in(panel)]
        used += [variable["definition"] for variable in dashboard()["templating"]["list"] if "definition" in variable]
        names = set().union(*map(names_in, used))
        assert names - shown.names == set()
        assert len(names) > 30

    def test_every_metric_of_the_readme_is_there_and_the_other_way_round(self, shown: Shown) -> None:
        named = set(_OURS.findall((CONF.parent / "README.md").read_text("utf-8")))
        families = {re.sub("_(bucket|sum|count)$", "", name) for name in shown.names}
        assert named ^ families == set()

    def test_every_label_is_one_that_the_name_has(self, rules: list[Rule], shown: Shown) -> None:
        expressions = {rule.name: (rule.query, rule.summary) for rule in rules}
        expressions |= {f"{panel['title']} {each}": (each, "") for panel in panels() for each in shown_in(panel)}
        for title, (expression, summary) in expressions.items():
            names = names_in(expression) - UNSEEN
            labels = set().union(*(shown.labels.get(name, set()) for name in names), _OF_PROMETHEUS)
            used = named_labels(expression) | set(re.findall(r"\$labels\.(\w+)", summary))
            assert used <= labels or not names, (title, used - labels)

    def test_every_word_that_an_alert_looks_for_is_one_of_ours(self, rules: list[Rule]) -> None:
        words = {
            "deadline": {one.value for one in errors.Deadline},
            "reason": {one.code for one in subclasses(errors.ProxyError)} | {one.value for one in errors.CancelReason},
            "kind": {one.value for one in Kind},
        }
        found = [pair for rule in rules for pair in _MATCHED.findall(rule.query) if pair[0] in words]
        assert {label for label, _ in found} == words.keys()
        for label, value in found:
            assert set(value.split("|")) <= words[label], (label, value)

    def test_every_panel_has_something_to_show(self, watched: tuple[Server, Prometheus]) -> None:
        _, watching = watched
        empty = [
            each
            for panel in panels()
            for each in shown_in(panel)
            if not watching.values(each) and not names_in(each) & UNSEEN
        ]
        assert empty == []

    def test_an_upstream_that_is_gone_is_told(self, watched: tuple[Server, Prometheus]) -> None:
        _, watching = watched

        def state() -> str:
            (rule,) = [rule for rule in watching.rules() if rule.name == "TrioproxyBreakerOpen"]
            return rule.state

        until(lambda: state() == "pending", "the alert is about to come", START_S)
        (about,) = [
            one["labels"] for one in watching.ask("alerts")["alerts"] if "BreakerOpen" in one["labels"]["alertname"]
        ]
        assert about["upstream"] == "gone"


def subclasses(kind: type[errors.ProxyError]) -> list[type[errors.ProxyError]]:
    """An error class, and all below it."""
    return [kind, *(one for each in kind.__subclasses__() for one in subclasses(each))]
