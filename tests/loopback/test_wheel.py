"""What a user gets: the wheel, installed with the locked dependencies into an empty environment, runs the demo."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S: Final = 2.0
"""The promise: from the start of the process until the proxy answers."""
BUSY_FACTOR: Final = 3
"""How much longer it may take where more tasks want a processor than there are processors."""
GIVES_UP_AFTER_S: Final = 20.0
STOPS_WITHIN_S: Final = 5.0

_BASE_URL = re.compile(r'base_url="(http://127\.0\.0\.1:\d+)/v1"')
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(*command: str | Path) -> None:
    """Run a command to its end; what it says is shown if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built by the environment's own hatchling."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "trioproxy", source / "trioproxy", ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-qq", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir")
    run(*pip, target, source)
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A new virtual environment with the lock file's packages and the wheel, which finds all that it needs there."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    pip = (sys.executable, "-m", "pip", "-qq", "--python", environment / "bin" / "python")
    run(*pip, "install", "--require-hashes", "--requirement", ROOT / "requirements.lock")
    run(*pip, "install", "--no-index", wheel)
    run(*pip, "check")
    return environment


class Demo:
    """A running `trioproxy demo`."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.output = output
        self.started = time.monotonic()
        self.url = ""

    def wait_until_it_answers(self) -> float:
        """Seconds since the process was started. Raises AssertionError when it takes far too long, or ends."""
        while time.monotonic() < self.started + GIVES_UP_AFTER_S:
            assert self.process.poll() is None, self.output.read_text()
            found = _BASE_URL.search(self.output.read_text())
            if found:
                self.url = found[1]
                with _direct.open(f"{self.url}/healthz", timeout=GIVES_UP_AFTER_S) as answer:
                    assert answer.status == 200
                return time.monotonic() - self.started
            time.sleep(0.005)
        raise AssertionError(f"no address within {GIVES_UP_AFTER_S} s: {self.output.read_text()}")

    def stream(self) -> list[str]:
        """The data of each event of a chat."""
        body = {"model": "demo-n20-i5", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with _direct.open(request, timeout=10) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            text = answer.read().decode()
        return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


@contextmanager
def open_demo(environment: Path, folder: Path) -> Iterator[Demo]:
    """Start the demo as a user would, away from the checkout; ends it if it has not ended."""
    output = folder / "output.txt"
    ours = ("PYTHON", "TRIOPROXY_")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with output.open("wb") as file:
        command: list[str | Path] = [environment / "bin" / "trioproxy", "demo", "--bind", "127.0.0.1:0"]
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Demo(process, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def is_busy() -> bool:
    """Whether more tasks want a processor than there are processors."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {"trioproxy", "trioproxy-0.1.0.dist-info"}


def test_the_wheel_holds_the_whole_dashboard(wheel: Path) -> None:
    folder = "trioproxy/web/admin/page"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith(f"{folder}/")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert f"{folder}/vendor/uplot/LICENSE" in packed


def test_the_wheel_runs_the_demo(empty_environment: Path, tmp_path: Path, say: Callable[[str], None]) -> None:
    with open_demo(empty_environment, tmp_path) as demo:
        took = demo.wait_until_it_answers()
        say(f"trioproxy demo answered {took:.2f} s after its start")
        assert took <= STARTS_WITHIN_S * (BUSY_FACTOR if is_busy() else 1)

        events = demo.stream()
        assert events[-1] == "[DONE]"
        contents = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1]]
        assert len([content for content in contents if content]) == 20

        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(STOPS_WITHIN_S) == 0, demo.output.read_text()
        assert "Traceback" not in demo.output.read_text()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells a figure on the terminal, also when the test passes."""

    def tell(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {text}\n")

    return tell
