"""Headless Chromium as a process of ours, without a profile and without a network but loopback.

Either nobody drives it: it opens a page, and the page tells its own server what it has seen. Or `browser_page` does.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.loopback.processes import STOP_S, Running

PROGRAM: Final = "chromium-headless-shell"
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # tests may run as root, and in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def browsing(url: str, directory: Path, *flags: str) -> Iterator[Running]:
    """A browser that shows this page, started with further flags; its profile is in the directory. All its processes
    are gone afterwards."""
    found = shutil.which(PROGRAM)
    assert found is not None, f"{PROGRAM} is not installed; `make test` does it"
    process = subprocess.Popen(
        [found, *_FLAGS, *flags, f"--user-data-dir={directory / 'profile'}", url],
        cwd=directory,
        env={**os.environ, "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that its many processes can be ended at once
    )
    browser = Running(process)
    try:
        yield browser
        assert process.poll() is None, f"the browser has ended: {browser.err}"
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended, as they should
        browser.wait()
