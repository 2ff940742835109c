"""What `conf/` holds for an operator's machines fits the house: the systemd unit, the image, and what they start.

The load balancers' files are run for real, in tests/loopback.
"""

import json
import re
import shlex
import tomllib
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trioproxy.cli.main import app
from trioproxy.config import load
from trioproxy.config.schema import Drain

ROOT: Final = Path(__file__).resolve().parents[2]
UNIT: Final = ROOT / "conf/trioproxy.service"
DOCKERFILE: Final = ROOT / "conf/Dockerfile"
IGNORED: Final = ROOT / ".dockerignore"
LOCK: Final = ROOT / "requirements.lock"

UNIT_KEYS: Final = {
    "Unit": "Description Documentation Wants After",
    "Service": """
        Type ExecStart ExecReload LoadCredential EnvironmentFile Environment KillMode KillSignal TimeoutStopSec Restart
        RestartSec RestartPreventExitStatus OOMPolicy LimitNOFILE LimitCORE DynamicUser UMask NoNewPrivileges
        CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp PrivateDevices DevicePolicy
        ProtectProc ProtectClock ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables
        ProtectControlGroups RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID
        LockPersonality MemoryDenyWriteExecute RemoveIPC SystemCallArchitectures SystemCallFilter SystemCallErrorNumber
    """,
    "Install": "WantedBy",
}
"""What systemd 252 knows (`systemd-analyze verify` has nothing to say), as far as it is used."""

Unit = dict[str, dict[str, list[str]]]


def read_unit(text: str) -> Unit:
    """A unit's sections, keys and values. What is commented out without a blank is read too: it is there to be used."""
    unit: Unit = {}
    section = ""
    for line in re.sub(r"(?m)^#(?=[A-Z]\w+=)", "", text).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            unit[section] = defaultdict(list)
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            unit[section][key].append(value)
    return unit


def unknown_keys(unit: Unit) -> list[str]:
    return [
        f"[{section}] {key}" for section, keys in unit.items() for key in keys if key not in UNIT_KEYS[section].split()
    ]


def read_dockerfile(text: str) -> list[tuple[str, str]]:
    """Each instruction and what stands behind it; continued lines joined, comments off."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    instructions = [line.split(None, 1) for line in joined if line.strip()]
    return [(name, rest.strip()) for name, rest in instructions]


def last(instructions: list[tuple[str, str]], name: str) -> str:
    """The instruction of this name that counts."""
    return [rest for each, rest in instructions if each == name][-1]


def is_sent(path: str) -> bool:
    """Whether a path is part of what the image is built from, as .dockerignore says; the last line that fits wins."""
    sent = True
    parts = (path, path.partition("/")[0])
    for line in IGNORED.read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(fnmatch(part, pattern) for part in parts):
            sent = line.startswith("!")
    return sent


def check_command(words: list[str]) -> None:
    """A command of ours: it exists, with these flags."""
    program, command, *rest = words
    assert program == "/opt/trioproxy/bin/trioproxy"
    known = typer.main.get_group(app).commands
    assert command in known
    flags = {flag for option in known[command].params for flag in option.opts}
    assert {word for word in rest if word.startswith("-")} <= flags


@pytest.fixture(scope="module")
def unit() -> Unit:
    return read_unit(UNIT.read_text("utf-8"))


@pytest.fixture(scope="module")
def image() -> list[tuple[str, str]]:
    return read_dockerfile(DOCKERFILE.read_text("utf-8"))


class TestUnit:
    def test_every_key_is_one_of_systemd(self, unit: Unit) -> None:
        assert unknown_keys(unit) == []

    def test_a_key_that_systemd_does_not_know_is_found(self) -> None:
        assert unknown_keys(read_unit("[Service]\nType=exec\n#NoNewPriviliges=yes\n# a comment=\n")) == [
            "[Service] NoNewPriviliges"
        ]

    def test_it_starts_and_reloads_what_is_there(self, unit: Unit) -> None:
        (start,) = unit["Service"]["ExecStart"]
        check_command(shlex.split(start))
        assert unit["Service"]["Type"] == ["exec"]
        assert unit["Service"]["ExecReload"] == ["/bin/kill -HUP $MAINPID"]

    def test_a_stop_waits_for_the_streams(self, unit: Unit) -> None:
        assert unit["Service"]["KillMode"] == ["mixed"]
        given = dict(each.split("=") for each in unit["Service"]["Environment"])
        longest_s = float(given["TRIOPROXY_DRAIN__DELAY_S"]) + Drain().timeout_s
        assert float(unit["Service"]["TimeoutStopSec"][0]) >= longest_s + 5

    def test_its_environment_is_a_configuration(self, unit: Unit) -> None:
        given = dict(each.split("=") for each in unit["Service"]["Environment"])
        assert load(flags={"upstream.base_url": "http://127.0.0.1:1/v1"}, environ=given).drain.delay_s == 5

    def test_it_is_not_root(self, unit: Unit) -> None:
        assert unit["Service"]["DynamicUser"] == ["yes"]
        assert unit["Service"]["NoNewPrivileges"] == ["yes"]


class TestImage:
    def test_its_bases_are_pinned_and_of_a_python_that_we_support(self, image: list[tuple[str, str]]) -> None:
        bases = [rest.split()[0] for name, rest in image if name == "FROM"]
        assert len(set(bases)) == 1
        found = re.fullmatch(r"python:3\.(\d+)-slim-[a-z]+", bases[0])
        assert found is not None and int(found[1]) >= 11

    def test_it_copies_what_is_there_and_is_sent(self, image: list[tuple[str, str]]) -> None:
        for name, rest in image:
            assert name != "ADD"
            if name == "COPY" and not rest.startswith("--from="):
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert is_sent(source), source

    def test_nothing_else_is_sent(self) -> None:
        sent = {path.name for path in ROOT.iterdir() if is_sent(path.name)}
        assert sent == {"LICENSE", "README.md", "pyproject.toml", "requirements.lock", "trioproxy"}

    def test_dependencies_come_by_their_hashes_and_the_package_alone(self, image: list[tuple[str, str]]) -> None:
        installs = [part for name, rest in image if name == "RUN" for part in rest.split("&&") if " install " in part]
        assert ["--require-hashes -r requirements.lock" in part for part in installs] == [True, False]
        assert "--no-deps --no-index" in installs[1]

    def test_it_runs_as_nobody_and_without_a_shell(self, image: list[tuple[str, str]]) -> None:
        user, group = last(image, "USER").split(":")
        assert int(user) > 0 and int(group) > 0
        check_command(json.loads(last(image, "ENTRYPOINT")))
        health = json.loads(last(image, "HEALTHCHECK").partition("CMD")[2])
        assert health[:2] == ["/opt/trioproxy/bin/python", "-c"]
        compile(health[2], "HEALTHCHECK", "exec")

    def test_it_is_stopped_by_the_signal_that_drains(self, image: list[tuple[str, str]]) -> None:
        assert last(image, "STOPSIGNAL") == "SIGTERM"

    def test_where_it_listens_is_what_it_exposes_and_asks(self, image: list[tuple[str, str]]) -> None:
        given = dict(each.split("=") for each in last(image, "ENV").split())
        config = load(flags={"upstream.base_url": "http://127.0.0.1:1/v1"}, environ=given)
        port = last(image, "EXPOSE")
        assert config.server.bind == (f"0.0.0.0:{port}",)
        assert f"http://127.0.0.1:{port}/healthz" in last(image, "HEALTHCHECK")


def test_the_lock_has_every_dependency_with_its_hashes() -> None:
    locked: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", LOCK.read_text("utf-8")):
        if not entry.startswith("#"):
            assert "--hash=sha256:" in entry, entry
            requirement = Requirement(entry.partition("\\")[0])
            (pin,) = requirement.specifier
            assert pin.operator == "==", entry
            locked[canonicalize_name(requirement.name)] = pin.version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for wanted in map(Requirement, project["dependencies"]):
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier, wanted
