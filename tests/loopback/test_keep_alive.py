"""One client that keeps its connection and asks again as soon as it has its answer, or sooner."""

import json
import time
from collections import Counter

from tests.loopback.processes import Server, until
from tests.loopback.raw_http import Wire, chat, request_bytes

REQUESTS = 5000
LATE_S = 1.0


def numbered(number: int) -> bytes:
    """A request whose answer tells which one it belongs to: one that is passed through, or one that is read."""
    headers = {"x-request-id": f"keep-alive-{number}"}
    if number % 2:
        return request_bytes("GET", f"/v1/models/m-{number}", headers=headers)
    body = json.dumps(chat(f"m-n1-i0-t0-{number}", stream=number % 10 == 0)).encode()
    return request_bytes("POST", "/v1/chat/completions", body, headers)


def check(client: Wire, number: int) -> None:
    """Read the answer to a numbered request."""
    answer = client.read_answer()
    assert answer.is_clean
    assert answer.status == 200
    assert answer.headers["x-trioproxy-request-id"] == f"keep-alive-{number}"
    if number % 2:
        assert answer.json["id"] == f"m-{number}"
    elif number % 10:
        assert answer.json["model"] == f"m-n1-i0-t0-{number}"
    else:
        assert f'"model":"m-n1-i0-t0-{number}"'.encode() in answer.body
        assert answer.body.endswith(b"data: [DONE]\n\n")


def test_five_thousand_requests_back_to_back_and_none_is_lost_or_late(proxy: Server) -> None:
    before = len(proxy.exchanges)
    latest_s = 0.0
    start = time.monotonic()
    with Wire.to(proxy.port) as client:
        for number in range(REQUESTS):
            asked = time.monotonic()
            client.send(numbered(number))
            check(client, number)
            latest_s = max(latest_s, time.monotonic() - asked)
    print(f"{REQUESTS / (time.monotonic() - start):.0f} requests/s, the latest answer after {1000 * latest_s:.1f} ms")
    assert latest_s < LATE_S
    until(lambda: len(proxy.exchanges) - before >= REQUESTS, "a log line for each")
    lines = proxy.exchanges[before:]
    # A stream's line is written once its origin's rest was read, which may be after the next request's.
    expected = Counter(f"keep-alive-{number}" for number in range(REQUESTS))
    assert Counter(line["request_id"] for line in lines) == expected
    assert {line["outcome"] for line in lines} == {"finished"}


def test_fifty_requests_in_one_write_are_answered_in_order(proxy: Server) -> None:
    with Wire.to(proxy.port) as client:
        client.send(b"".join(numbered(number) for number in range(50)))
        start = time.monotonic()
        for number in range(50):
            check(client, number)
        assert time.monotonic() - start < LATE_S


def test_requests_that_come_while_an_answer_runs_are_answered_after_it(proxy: Server) -> None:
    with Wire.to(proxy.port) as client:
        slow = json.dumps(chat("m-n20-i10-t0")).encode()
        client.send(request_bytes("POST", "/v1/chat/completions", slow))
        head = client.read_head()
        assert head.status == 200
        for number in range(200):  # one after the other, in many small writes
            client.send(numbered(number))
        while client.read_chunk():
            pass
        for number in range(200):
            check(client, number)


def test_an_idle_client_is_answered_as_quickly_as_a_busy_one(proxy: Server) -> None:
    with Wire.to(proxy.port) as client:
        for number in range(5):
            time.sleep(0.1)
            asked = time.monotonic()
            client.send(numbered(number))
            check(client, number)
            assert time.monotonic() - asked < 0.2
