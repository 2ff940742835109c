"""What holds for every test of the house.

Tests below `tests/loopback` use real sockets, processes and time; they get the mark `loopback`, so that they run one at
a time. Those that play a story very often get the mark `sweep`, so that the fast part can be run alone.
Nothing is ever skipped: a skip, or an expected failure, fails the run.
"""

from pathlib import Path

import hypothesis
import pytest

_TESTS = Path(__file__).resolve().parent
_LOOPBACK = _TESTS / "loopback"
_SWEEPS = {_TESTS / "way" / name for name in ("test_accounts.py", "test_cut_sweep.py", "test_garbage.py")}

# A law is checked on as many examples on a busy machine as on an idle one; how long one takes is not what it is about.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real network, and what is long."""
    for item in items:
        if _LOOPBACK in item.path.parents:
            item.add_marker("loopback")
        if item.path in _SWEEPS:
            item.add_marker("sweep")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which a test was skipped or expected to fail."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK:
        return
    not_run = [*reporter.stats.get("skipped", []), *reporter.stats.get("xfailed", [])]
    if not_run:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\n{len(not_run)} skipped or expected to fail: nothing may be skipped here", red=True)
