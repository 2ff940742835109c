"""What the stories of several upstreams begin with."""

from pathlib import Path

import pytest
import trio.testing

from tests.harness.plays import Ways


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
def keys(tmp_path: Path) -> str:
    """Two keys of one upstream."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"sk-{name}")
        (tmp_path / name).chmod(0o600)
    return 'api_key = ["file:one", "file:two"]'


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock
