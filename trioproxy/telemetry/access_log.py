"""The log: one JSON line per exchange, and the process's own few messages, written by a thread behind a bounded queue.

The event loop never waits for a disk or a pipe: when the queue is full, lines are dropped and counted, and the count is
the first thing that is written once there is room again. Bodies, keys and queries never get here.
"""

import os
import threading
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from time import time
from typing import Any

import structlog

from trioproxy.telemetry.record import Record

MAX_WAITING_LINES = 10_000
_BATCH_LINES = 500
_ATOMIC_BYTES = 4096
"""Whole lines of so many bytes are written at once (PIPE_BUF): several processes write into the same pipe."""
_STOP: dict[str, Any] = {}
_STDOUT = 1
_to_json = structlog.processors.JSONRenderer()


class AccessLog:
    """Writes lines to `target`: "-" for standard output, "off" for nowhere, else a file that is appended to.

    Raises OSError if the file cannot be opened.

    Attributes:
        dropped: lines lost because the queue was full or the target could not be written.
    """

    def __init__(self, target: str = "-") -> None:
        self.dropped = 0
        self._reported = 0
        self._is_off = target == "off"
        self._queue: Queue[dict[str, Any]] = Queue(MAX_WAITING_LINES)
        # No file object: its buffer would keep what could not be written, and fail with it again and again.
        self._file = None if target in ("-", "off") else target
        self._fd = _STDOUT if self._file is None else _open(self._file)
        self._is_in_line = False
        self._thread = threading.Thread(target=self._write_forever, name="access-log", daemon=True)

    def start(self) -> None:
        """Start the writing thread; lines that came before wait in the queue."""
        if not self._is_off:
            self._thread.start()

    def exchange(self, record: Record) -> None:
        """Log one exchange. Never waits."""
        self.put("exchange", record.line())

    def put(self, event: str, fields: dict[str, Any]) -> None:
        """Log a line. Never waits; drops and counts when too many lines wait."""
        if self._is_off:
            return
        try:
            self._queue.put_nowait({"time": time(), "event": event, **fields})
        except Full:
            self.dropped += 1

    def reopen(self) -> None:
        """Open the file anew, for one that was moved away. Raises OSError; then it goes on with the old one."""
        if self._file is not None:
            new = _open(self._file)
            os.dup2(new, self._fd, inheritable=False)
            os.close(new)

    def stop(self, timeout_s: float = 1.0) -> None:
        """Write what waits, at most for `timeout_s` seconds: a blocked pipe does not keep the process."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(_STOP, timeout=timeout_s / 2)
        except Full:
            return
        self._thread.join(timeout_s / 2)

    def _write_forever(self) -> None:
        while True:
            lines = [self._queue.get()]
            try:
                while len(lines) < _BATCH_LINES:
                    lines.append(self._queue.get_nowait())
            except Empty:
                pass
            self._write([line for line in lines if line is not _STOP])
            if any(line is _STOP for line in lines):
                return

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if self.dropped > self._reported:
            dropped, self._reported = self.dropped - self._reported, self.dropped
            lines.insert(0, {"time": time(), "event": "log lines dropped", "lines": dropped})
        data = b"\n" * self._is_in_line
        for line in [_render(line).encode() for line in lines]:
            if data and len(data) + len(line) > _ATOMIC_BYTES:
                self._write_out(data)
                data = b""
            data += line
        self._write_out(data)

    def _write_out(self, data: bytes) -> None:
        try:
            while data:
                written = os.write(self._fd, data)
                self._is_in_line = written < len(data)
                data = data[written:]
        except OSError:  # a full disk, a closed pipe: at least one line of these is lost
            self.dropped += max(1, data.count(b"\n"))


def _open(file: str) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _render(line: dict[str, Any]) -> str:
    line["time"] = datetime.fromtimestamp(line["time"], UTC).isoformat(timespec="milliseconds")
    return str(_to_json(None, "", line)) + "\n"


class _IntoLog:
    """structlog's last station: what the code logs with `structlog.get_logger()` goes the same way as exchanges."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def msg(self, *, event: str, **fields: Any) -> None:
        self._log.put(event, fields)

    debug = info = warning = error = critical = msg


def send_structlog_to(log: AccessLog) -> None:
    """Route every structlog message of this process into `log`."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info],
        logger_factory=lambda *_: _IntoLog(log),
        cache_logger_on_first_use=False,
    )
