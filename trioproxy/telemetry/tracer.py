"""Whoever hands spans to a collector: a thread behind a bounded queue, by OTLP over HTTP.

The event loop only puts a record down, and never waits nor wakes anybody. Now and then the thread takes what is there,
makes spans of it and sends them. When the collector is slow or gone, the queue fills up, and what has no place is
dropped and counted.
"""

import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from time import monotonic, sleep
from typing import Final
from urllib.parse import urlsplit

import structlog

from trioproxy.telemetry.record import Record
from trioproxy.telemetry.trace import Trace
from trioproxy.wire.headers import Headers
from trioproxy.wire.trace_context import read_context

MAX_WAITING: Final = 4096
"""Records that wait at most. One is a few kilobytes."""
BATCH: Final = 256
"""Records that are sent at once."""
EVERY_S: Final = 1.0
TRIES: Final = 5
"""How often the same spans are sent, if the collector cannot take them at the moment."""

log = structlog.get_logger()

Encode = Callable[[Sequence[Record]], bytes]
"""Makes spans of records, as the body of a request to a collector; bodies that are joined are one body."""
CountRejected = Callable[[bytes], int]
"""How many spans a collector says that it did not take, in the body of its answer."""

_PROBES = frozenset({b"/healthz", b"/health", b"/readyz"})
"""They come all the time, and a trace of them tells nothing."""
_PATH: Final = "/v1/traces"
_ANSWER_S: Final = 10.0
_MAX_ANSWER_BYTES: Final = 65536
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_TOLD_EVERY_S: Final = 60.0
_ENCODED_AT_ONCE: Final = 8
_MAKE_WAY_S: Final = 0.0005
"""Between so many records the event loop's thread is let in: it must not wait for as long as a whole batch takes."""
_CAN_COME_AGAIN = frozenset({429, 502, 503, 504})


class Tracer:
    """Sends to the collector at `endpoint`, a URL, to the standard's path below it unless it ends so already."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        encode: Encode,
        count_rejected: CountRejected,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path if parts.path.endswith(_PATH) else parts.path.rstrip("/") + _PATH
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._encode = encode
        self._count_rejected = count_rejected
        self._every_s = every_s
        self._waiting: deque[Record] = deque()
        self._overflowed = 0  # written by the event loop's thread only
        self._lost = 0  # and this by ours
        self._told, self._told_at = 0, -_TOLD_EVERY_S
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)

    @property
    def dropped(self) -> int:
        """Spans that were lost: there was no place for them, or the collector did not take them."""
        return self._overflowed + self._lost

    @staticmethod
    def begin(path: bytes, headers: Headers) -> Trace | None:
        """The trace of a request that comes in. None for one that nobody keeps: its context is passed on as it came."""
        if path in _PROBES:
            return None
        caller = read_context(headers)
        return Trace.below(caller) if caller is None or caller.is_sampled else None

    def exchange(self, record: Record) -> None:
        """Tell of a request that is over, if it is traced. Never waits; drops and counts when too many wait."""
        if record.trace is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._overflowed += _spans_in(record)
        else:
            self._waiting.append(record)

    def start(self) -> None:
        """Start the thread; what came before waits for it."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send what waits, for at most `timeout_s` seconds: a collector that is slow does not keep the process."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_stopping.wait(self._every_s):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._waiting:
            records = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._send(b"".join(self._encoded(records)), sum(map(_spans_in, records)))

    def _encoded(self, records: Sequence[Record]) -> list[bytes]:
        pieces = []
        for start in range(0, len(records), _ENCODED_AT_ONCE):
            pieces.append(self._encode(records[start : start + _ENCODED_AT_ONCE]))
            sleep(_MAKE_WAY_S)
        return pieces

    def _send(self, body: bytes, spans: int) -> None:
        """Send so many spans. Once the process ends nothing is sent again."""
        pause_s = _FIRST_PAUSE_S
        for _ in range(TRIES):
            try:
                status, answer = self._post(body)
                why = str(status)
            except (OSError, HTTPException, UnicodeError) as error:  # the last one: a host that can be no name
                status, answer, why = 503, b"", type(error).__name__
            if status < 300:
                spans, why = min(self._count_rejected(answer), spans), "rejected"
                break
            if status not in _CAN_COME_AGAIN or self._is_stopping.wait(pause_s):
                break
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if spans:
            self._lose(spans, why)

    def _lose(self, spans: int, why: str) -> None:
        """So many spans were not taken. The log says so from time to time, with those that found no place."""
        self._lost += spans
        now = monotonic()
        if now >= self._told_at + _TOLD_EVERY_S:
            log.warning("spans lost", spans=self.dropped - self._told, reason=why)
            self._told, self._told_at = self.dropped, now

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """One request on a connection of its own; the status, and the answer's body as far as it is looked at."""
        if self._tls is None:
            connection = HTTPConnection(self._host, self._port, timeout=_ANSWER_S)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=_ANSWER_S, context=self._tls)
        try:
            connection.request("POST", self._path, body, self._headers)
            with connection.getresponse() as response:
                return response.status, response.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


def _spans_in(record: Record) -> int:
    return 1 + len(record.tries)
