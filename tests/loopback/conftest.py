"""One demo upstream and one proxy in front of it for all tests that need nothing special; the same with a scripted
origin. The tests of one process share them, one after the other."""

from collections.abc import Iterator

import pytest

from tests.loopback.processes import Server, demo_upstream, serving
from tests.loopback.raw_http import Origin, open_origin


@pytest.fixture(scope="session")
def upstream() -> Iterator[Server]:
    """The demo upstream."""
    with demo_upstream() as server:
        yield server


@pytest.fixture(scope="session")
def proxy(upstream: Server) -> Iterator[Server]:
    """A proxy in front of the demo upstream, as it is without any configuration."""
    with serving(upstream.base_url) as server:
        yield server


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """An origin whose behaviour each test chooses."""
    with open_origin() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def scripted_proxy(origin: Origin) -> Iterator[Server]:
    """A proxy in front of the scripted origin."""
    with serving(origin.base_url) as server:
        yield server
