"""Spans get to a collector, well formed; one that is slow, gone or full of objections costs nothing but its spans."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import trustme
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.harness.house import ListLog
from tests.harness.spans import attributes, check_tree
from tests.loopback.collector import Collector, collecting
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import Wire, ask, chat, open_origin
from trioproxy.telemetry.access_log import send_structlog_to
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.record import Record
from trioproxy.telemetry.trace import Trace
from trioproxy.telemetry.tracer import MAX_WAITING, Tracer
from trioproxy.telemetry.tracing import Spans, count_rejected
from trioproxy.wire.trace_context import TraceContext

CALLER = TraceContext(bytes(range(1, 17)), b"callerid", 1)


def record(number: int = 1) -> Record:
    exchange = Exchange(request_id=f"req_{number}", method="POST", path="/v1/chat/completions", accepted=100.0)
    exchange.trace = Trace.below(CALLER)
    return exchange.close(101.0)


@contextmanager
def tracing(url: str, headers: dict[str, str] | None = None) -> Iterator[Tracer]:
    """A tracer that does not wait long before it sends."""
    tracer = Tracer(url, headers or {}, Spans("1.2.3", {}).encode, count_rejected, every_s=0.05)
    tracer.start()
    try:
        yield tracer
    finally:
        tracer.stop(0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_what_waits_is_sent_as_one_request(collector: Collector) -> None:
    with tracing(collector.url, {"Authorization": "Bearer t0p"}) as tracer:
        for number in range(100):
            tracer.exchange(record(number))
        until(lambda: len(collector.spans) == 100, "all spans")
    assert {attributes(span)["trioproxy.request_id"] for span in collector.spans} == {f"req_{n}" for n in range(100)}
    assert len(collector.paths) <= 2 and set(collector.paths) == {"/v1/traces"}
    assert collector.headers[0]["authorization"] == "Bearer t0p"
    assert tracer.dropped == 0


@pytest.mark.parametrize(("path", "asked"), [("/otlp", "/otlp/v1/traces"), ("/a/v1/traces", "/a/v1/traces")])
def test_the_path_is_the_standard_s_below_the_configured_one(collector: Collector, path: str, asked: str) -> None:
    with tracing(collector.url + path) as tracer:
        tracer.exchange(record())
        until(lambda: bool(collector.spans), "a span")
    assert collector.paths == [asked]


def test_what_waits_at_the_end_is_sent(collector: Collector) -> None:
    tracer = Tracer(collector.url, {}, Spans("1.2.3", {}).encode, count_rejected, every_s=3600)
    tracer.start()
    tracer.exchange(record())
    tracer.stop(5)
    assert len(collector.spans) == 1


def test_a_collector_that_has_no_time_is_asked_again(collector: Collector) -> None:
    collector.statuses = [503]
    with tracing(collector.url) as tracer:
        tracer.exchange(record())
        until(lambda: len(collector.spans) == 1, "a span")
    assert len(collector.paths) == 2 and tracer.dropped == 0


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500])
def test_what_it_refuses_is_counted_and_not_sent_again(collector: Collector, status: int) -> None:
    collector.statuses = [status]
    with tracing(collector.url) as tracer:
        tracer.exchange(record())
        until(lambda: tracer.dropped == 1, "one lost")
        tracer.exchange(record())
        until(lambda: len(collector.spans) == 1, "the next one")
    assert len(collector.paths) == 2 and tracer.dropped == 1


def test_the_log_says_why_from_time_to_time(collector: Collector) -> None:
    collector.statuses = [401, 401]
    log = ListLog()
    send_structlog_to(log)
    with tracing(collector.url) as tracer:
        for lost in (1, 2):
            tracer.exchange(record())
            until(lambda lost=lost: tracer.dropped == lost, "one lost")  # type: ignore[misc]
    assert [(line["event"], line["spans"], line["reason"]) for line in log.lines] == [("spans lost", 1, "401")]


def test_what_it_did_not_take_is_counted(collector: Collector) -> None:
    collector.rejects = 1
    with tracing(collector.url) as tracer:
        for _ in range(2):
            tracer.exchange(record())
        until(lambda: tracer.dropped == 1, "one lost")


def silent(collector: Collector) -> str:
    collector.answers.clear()
    return collector.url


def gone(collector: Collector) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def nameless(collector: Collector) -> str:
    return "http://a..b"


@pytest.mark.parametrize("how", [silent, gone, nameless])
def test_one_that_is_slow_or_gone_costs_spans_that_are_counted_and_never_a_moment(
    collector: Collector, how: Any
) -> None:
    records = [record(number) for number in range(2 * MAX_WAITING)]
    with tracing(how(collector)) as tracer:
        tracer.exchange(records[0])
        time.sleep(0.2)
        start = time.monotonic()
        for one in records:
            tracer.exchange(one)
        assert time.monotonic() - start < 1
        # The thread has a batch or two of them in its hands.
        assert MAX_WAITING / 2 < tracer.dropped <= MAX_WAITING
        start = time.monotonic()
        tracer.stop(0.2)
        assert time.monotonic() - start < 1


TOLD: list[dict[str, str]] = []
"""The fields of what came to the busy origin."""


def busy(wire: Wire) -> None:
    """An origin that has no time."""
    head, _ = wire.read_request()
    TOLD.append(head.headers)
    wire.send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")


def test_the_spans_of_a_proxy_hang_together_from_client_to_origin(
    collector: Collector, upstream: Server, tmp_path: Path
) -> None:
    TOLD.clear()
    with open_origin(busy) as origin:
        (tmp_path / "trioproxy.toml").write_text(
            f'[telemetry]\notlp_endpoint = "{collector.url}"\notlp_headers = {{ "X-Key" = "env:COLLECTOR_KEY" }}\n'
            f'[[upstream]]\nname = "busy"\nbase_url = "{origin.base_url}"\n'
            f'[[upstream]]\nname = "demo"\nbase_url = "{upstream.base_url}"\n'
        )
        with serving(None, directory=tmp_path, env={"COLLECTOR_KEY": "k3y"}) as proxy:
            fields = {"traceparent": CALLER.fields()[0][1].decode(), "tracestate": "vendor=1"}
            answer = ask(proxy.port, "POST", "/v1/chat/completions", chat("n5-i2-t50-usage"), fields)
            assert answer.status == 200 and answer.is_clean
    # It has ended by now, and its last spans came before.
    check_tree(collector.spans)
    root, failed, answered = collector.spans
    assert (root.trace_id, root.parent_span_id, root.kind) == (CALLER.trace_id, CALLER.span_id, Span.SPAN_KIND_SERVER)
    assert failed.parent_span_id == answered.parent_span_id == root.span_id
    [told] = TOLD
    assert told["traceparent"] == f"00-{CALLER.trace_id.hex()}-{failed.span_id.hex()}-01"
    assert told["tracestate"] == "vendor=1"
    about = attributes(answered)
    assert (about["trioproxy.upstream"], about["server.address"], about["server.port"]) == (
        "demo",
        "127.0.0.1",
        upstream.port,
    )
    assert about["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.05, abs=0.05)
    assert about["gen_ai.usage.output_tokens"] and attributes(root)["trioproxy.request_id"] == answer.request_id
    assert abs(root.end_time_unix_nano / 1e9 - time.time()) < 60
    assert {headers["x-key"] for headers in collector.headers} == {"k3y"}


def test_a_collector_may_speak_tls(upstream: Server, tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with collecting(tls) as collector:
        env = {"TRIOPROXY_TELEMETRY__OTLP_ENDPOINT": collector.url, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        with serving(upstream.base_url, env=env) as proxy:
            ask(proxy.port, "POST", "/v1/chat/completions", chat("n1-i0-t0"))
            until(lambda: len(collector.spans) == 2, "both spans")


def test_requests_do_not_feel_that_the_collector_is_gone(collector: Collector, upstream: Server) -> None:
    with serving(upstream.base_url, env={"TRIOPROXY_TELEMETRY__OTLP_ENDPOINT": gone(collector)}) as proxy:
        for _ in range(3):
            assert ask(proxy.port, "POST", "/v1/chat/completions", chat("n1-i0-t0")).is_clean
        time.sleep(1.2)
        assert ask(proxy.port, "POST", "/v1/chat/completions", chat("n1-i0-t0")).is_clean
        with urlopen(f"{proxy.admin_url}/metrics") as metrics:
            assert b"\ntrioproxy_spans_dropped_total " in metrics.read()
