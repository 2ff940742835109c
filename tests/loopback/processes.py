"""Starts the commands under test as processes of their own, and ends each of them whatever happens.

`running` starts any command; `serving` a proxy and `demo_upstream` an origin, ready for requests. What a process writes
is read at once by a thread, so that no pipe fills up, and kept: the tests read the log in it. A process that ends by
itself where it should not, or with another exit code than 0, fails the test that it belongs to.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final
from urllib.request import urlopen

START_S: Final = 20.0
STOP_S: Final = 8.0
PATIENCE_S: Final = 5.0
"""How long a test waits for something that should be there in milliseconds."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_PRINTED_URL: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.005) -> float:
    """Wait for a condition, and return how many seconds that took. Fails with `what` when it does not come true."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + patience_s, f"after {patience_s:g} s still not: {what}"
        time.sleep(pause_s)
    return time.monotonic() - start


class Running:
    """A process of ours.

    Attributes:
        out, err: the lines that it has written so far.
        log: those on standard output that are JSON, parsed.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self.log: list[dict[str, Any]] = []
        self._drains = [
            threading.Thread(target=self._drain, args=(stream, lines))
            for stream, lines in ((process.stdout, self.out), (process.stderr, self.err))
            if stream is not None
        ]
        for drain in self._drains:
            drain.start()

    def _drain(self, stream: IO[bytes], lines: list[str]) -> None:
        with stream:
            for line in stream:
                text = line.decode("utf-8", "replace").rstrip("\n")
                lines.append(text)
                if lines is self.out and text.startswith('{"'):
                    self.log.append(json.loads(text))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """The exchanges that were logged so far, in the order in which they ended."""
        return [line for line in list(self.log) if line["event"] == "exchange"]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The log line about this request; waits for it, and fails if there are two."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in list(self.log) if line.get("request_id") == request_id]

        until(lambda: bool(lines()), f"a line for {request_id}")
        (line,) = lines()
        return line

    def exchange(self, request_id: str) -> dict[str, Any]:
        """The same, for a request that was understood."""
        line = self.line_of(request_id)
        assert line["event"] == "exchange"
        return line

    def wait_for_text(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """The first line on standard output that holds `text`."""

        def found() -> list[str]:
            return [line for line in list(self.out) if text in line]

        until(
            lambda: bool(found()) or self.process.poll() is not None,
            f"'{text}' on standard output; there is {self.out} and {self.err}",
            patience_s,
        )
        assert found(), f"ended with {self.process.poll()} and never wrote '{text}': {self.out} {self.err}"
        return found()[0]

    def wait(self, patience_s: float = STOP_S) -> int:
        """The exit code, once the process has ended and everything that it wrote was read."""
        code = self.process.wait(patience_s)
        for drain in self._drains:
            drain.join(patience_s)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        self.process.kill()
        self.wait()

    def family(self) -> list[int]:
        """The ids of this process and of every process below it: a supervisor serves by its children."""
        return _family(self.pid)

    def memory_kib(self, field: str = "VmRSS") -> int:
        """A line of /proc/PID/status, summed over the family; VmHWM is the largest that VmRSS ever was."""
        return sum(_memory_kib(pid, field) for pid in self.family())

    def open_files(self) -> int:
        """How many file descriptors are open in the family."""
        return sum(len(open_descriptors(pid)) for pid in self.family())

    def open_sockets(self) -> int:
        """How many of them are sockets."""
        return sum(target.startswith("socket:") for pid in self.family() for target in open_descriptors(pid))


def _family(pid: int) -> list[int]:
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += _family(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended, or one of its threads has
    return found


def _memory_kib(pid: int, field: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found is not None else 0  # one that has ended and was not waited for has no such line


def open_descriptors(pid: int) -> list[str]:
    """What each file descriptor of a process leads to."""
    found = []
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.append(str(descriptor.readlink()))
            except FileNotFoundError:
                pass  # it was closed just now
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # the process has ended
    return found


class Server(Running):
    """A process that listens on 127.0.0.1."""

    port = 0

    @property
    def admin_url(self) -> str:
        """Where a proxy's admin address is."""
        port = json.loads(self.wait_for_text('"admin_port"', START_S))["admin_port"]
        return f"http://127.0.0.1:{port}"

    def resources(self) -> dict[str, Any]:
        """What a proxy says is open, and who runs."""
        with urlopen(f"{self.admin_url}/admin/resources", timeout=PATIENCE_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def worker_pids(self) -> list[int]:
        """The ids of the processes below a supervisor, those of its current workers first."""
        return self.family()[1:]

    def workers_memory_kib(self) -> int:
        """The resident memory of the processes that serve, without their supervisor's."""
        return sum(_memory_kib(pid, "VmRSS") for pid in self.worker_pids())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def running(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    own_group: bool = False,
) -> Iterator[Server]:
    """`trioproxy` with these arguments, in an empty directory unless one is given, without inherited configuration.

    It is dead when the context is left, and its exit code is the caller's business.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRIOPROXY_")}
    with TemporaryDirectory() as empty:
        process = subprocess.Popen(
            [sys.executable, "-m", "trioproxy", *arguments],
            cwd=directory or empty,
            env={**inherited, "PYTHONPATH": str(_ROOT), "NO_COLOR": "1", "COLUMNS": "200", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            process_group=0 if own_group else None,
        )
        server = Server(process)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def serving(
    upstream: str | None,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[Server]:
    """A proxy in front of `upstream`, listening; None: in front of those in the file of `directory`. Open streams may
    go on for a second after the end."""
    given = {"TRIOPROXY_DRAIN__TIMEOUT_S": "1", **(env or {})}
    flags = () if upstream is None else ("--upstream", upstream)
    with running("serve", *flags, "--bind", "127.0.0.1:0", *arguments, env=given, directory=directory) as proxy:
        proxy.port = int(json.loads(proxy.wait_for_text('"listening"', START_S))["port"])
        yield proxy
        assert proxy.process.poll() is None, f"the proxy has died: {proxy.err}"
        assert proxy.stop(signal.SIGTERM) == 0, proxy.err
        assert not [line for line in proxy.log if "crash" in line["event"]]
        assert proxy.err == []


@contextmanager
def demo_upstream() -> Iterator[Server]:
    """The demo upstream, listening."""
    with running("demo-upstream", "--bind", "127.0.0.1:0") as upstream:
        found = _PRINTED_URL.search(upstream.wait_for_text("http://", START_S))
        assert found is not None
        upstream.port = int(found[1])
        yield upstream
        assert upstream.process.poll() is None, f"the demo upstream has died: {upstream.err}"
        assert upstream.stop(signal.SIGINT) == 0, upstream.err
