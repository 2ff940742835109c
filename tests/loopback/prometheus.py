"""A real Prometheus as a process of ours, with the files of `conf/`: what it has read, what its rules say, what a query
brings. On a free port, with its data in a directory that is given; ended whatever happens."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.loopback.balancers import CONF, free_port, rendered
from tests.loopback.processes import PATIENCE_S, START_S, Running, until

_COMMENTED: Final = re.compile(r"(?m)^( *)#(?=authorization:|  credentials_file:)")


@dataclass(frozen=True)
class Rule:
    """An alert as Prometheus has read it, and what it thinks of it."""

    name: str
    query: str
    summary: str
    state: str
    fault: str
    is_evaluated: bool


class Prometheus(Running):
    """A Prometheus that listens on 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        super().__init__(process)
        self.port = port

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API. Fails with its words if it is an error; raises URLError if none comes."""
        try:
            with urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(query)}", timeout=PATIENCE_S
            ) as answer:
                return json.load(answer)["data"]
        except HTTPError as refused:
            with refused:
                raise AssertionError(f"{query or path}: {json.load(refused)['error']}") from None

    def values(self, expression: str) -> list[float]:
        """What an expression is now, one figure for each of its series; those that are no number are left out."""
        found = [float(one["value"][1]) for one in self.ask("query", query=expression)["result"]]
        return [value for value in found if not isnan(value)]

    def rules(self) -> list[Rule]:
        """All of them, in the file's order."""
        groups = self.ask("rules")["groups"]
        return [
            Rule(
                name=rule["name"],
                query=rule["query"],
                summary=rule["annotations"]["summary"],
                state=rule["state"],
                fault=rule.get("lastError", ""),
                is_evaluated=rule["health"] == "ok",
            )
            for group in groups
            for rule in group["rules"]
        ]

    def is_up(self) -> bool:
        """Whether the last time it asked the proxy it was told."""
        return self.values('up{job="trioproxy"}') == [1]

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=PATIENCE_S):
                return True
        except URLError:
            return False


@contextmanager
def prometheus(proxy_admin: str, directory: Path, key: str | None = None) -> Iterator[Prometheus]:
    """One that asks a proxy several times a second, at this host and port, with this key if there is one."""
    directory.mkdir()
    shutil.copy(CONF / "alerts.yml", directory)
    edits = {
        "scrape_interval: 15s": "scrape_interval: 250ms",
        "evaluation_interval: 15s": "evaluation_interval: 500ms",
        "127.0.0.1:9901": proxy_admin,
    }
    text = rendered(CONF / "prometheus.yml", edits)
    if key is not None:
        (directory / "key").write_text(f"{key}\n", "utf-8")
        text = _COMMENTED.sub(r"\1", text).replace("/etc/prometheus/trioproxy-admin-key", str(directory / "key"))
    (directory / "prometheus.yml").write_text(text, "utf-8")
    found = shutil.which("prometheus")
    assert found is not None, "prometheus is not installed; `make test` does it"
    port = free_port()
    process = subprocess.Popen(
        [
            found,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    started = Prometheus(process, port)
    try:
        until(lambda: process.poll() is not None or started._is_ready(), "Prometheus is ready", START_S)
        assert process.poll() is None, f"Prometheus has ended: {started.err}"
        yield started
        assert process.poll() is None, f"Prometheus has died: {started.err}"
        started.stop()
    finally:
        started.kill()
