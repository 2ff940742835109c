"""A collector of spans: OTLP over HTTP, as a real one would take it, in threads of the test's own process."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.harness.spans import spans_in


class Collector:
    """What it got, and how it answers.

    Attributes:
        spans: those that it took.
        paths, headers: of each request, in the order in which they came.
        statuses: of the next answers; behind them it is 200.
        rejects: so many spans of each request it says that it did not take.
        answers: cleared, it takes a request and says nothing.
    """

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.rejects = 0
        self.answers = threading.Event()
        self.answers.set()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """A request; returns the status and the body of the answer."""
        self.paths.append(path)
        self.headers.append(headers)
        self.answers.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            return status, b""
        assert headers["content-type"] == "application/x-protobuf"
        self.spans += spans_in(body)
        success = ExportTracePartialSuccess(rejected_spans=self.rejects)
        return 200, ExportTraceServiceResponse(partial_success=success).SerializeToString()


@contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """A collector that listens on 127.0.0.1."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = collector.take(self.path, headers, body)
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                pass  # whoever asked has no more time

        def log_message(self, *said: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    collector.url = f"{'http' if tls is None else 'https'}://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        collector.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()
