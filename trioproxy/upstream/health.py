"""Active health checks: an endpoint is asked at regular times, by a real request the way that the clients' go.

It only tells: what a check came to is in `endpoint.health`, and nothing else counts it, neither breaker, places nor
keys. Those who choose endpoints look there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

import httpx
import structlog
import trio

from trioproxy.errors import Overloaded
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.faults import fault_before_head, fault_in_body
from trioproxy.upstream.own_request import one_token_chat, own_fields
from trioproxy.upstream.transport import OriginBody

MAX_CHECK_S = 10.0
"""How long a check may take, if the interval is no shorter: one that is answered later would not help a client."""
MAX_BODY_BYTES = 65536
_JITTER = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What an endpoint is asked, every `interval_s` seconds. One of the two is given.

    `path` is a request target at the endpoint's host, beginning with "/", in visible ASCII; `model` gets a chat of one
    token, which shows that it works and not only that somebody listens, and costs money.
    """

    interval_s: float
    path: str | None = None
    model: str | None = None


async def watch_health(endpoint: Endpoint, check: HealthCheck, *, draw: Callable[[], float] = random) -> None:
    """Check at once and then for ever, until cancelled; belongs in the process nursery. A change is logged.

    The times between two checks differ by a tenth, so that those of many workers do not fall together. `draw` gives
    random numbers from 0 up to but not including 1.
    """
    while True:
        begun = trio.current_time()
        try:
            fault = await _fault_of(endpoint, check)
        except Overloaded:
            pass  # for want of a socket of ours: that says nothing about the endpoint
        else:
            _note(endpoint, fault)
        await trio.sleep_until(begun + check.interval_s * (1 + _JITTER * (2 * draw() - 1)))


def _note(endpoint: Endpoint, fault: str | None) -> None:
    if not endpoint.health.note(fault is None):
        return
    if fault is None:
        log.info("upstream healthy again", upstream=endpoint.name, reason="A health check succeeded.")
    else:
        log.warning("upstream unhealthy", upstream=endpoint.name, reason=fault)


async def _fault_of(endpoint: Endpoint, check: HealthCheck) -> str | None:
    """One check: what is wrong with the endpoint, None if nothing. Raises Overloaded if we had no socket for it. If
    cancelled, its connection is closed."""
    check_s = min(check.interval_s, MAX_CHECK_S)
    with trio.move_on_after(check_s):
        try:
            response = await endpoint.transport.handle_async_request(_request(endpoint, check))
        except httpx.TransportError as error:
            fault = fault_before_head(error, endpoint.name)
            if isinstance(fault, Overloaded):
                raise fault from error
            return fault.message
        body = response.stream
        assert isinstance(body, OriginBody)
        try:
            if not response.is_success:
                return f"The upstream '{endpoint.name}' answered with status {response.status_code}."
            return await _fault_in(body, endpoint.name)
        finally:
            body.close_nowait()
    return f"The upstream '{endpoint.name}' did not answer within {check_s:g} s."


async def _fault_in(body: OriginBody, upstream: str) -> str | None:
    """Read a body to its end and forget it; what is wrong with it."""
    length = 0
    try:
        while piece := await body.read():
            length += len(piece)
            if length > MAX_BODY_BYTES:
                return f"The upstream '{upstream}' sent an answer of more than {MAX_BODY_BYTES} bytes."
    except httpx.TransportError as error:
        return fault_in_body(error, upstream).message
    return None


def _request(endpoint: Endpoint, check: HealthCheck) -> httpx.Request:
    headers = own_fields(endpoint, b"*/*")
    if check.path is not None:
        method, target, content = "GET", check.path.encode("ascii"), b""
    else:
        target, fields, content = one_token_chat(endpoint, check.model)
        method, headers = "POST", headers + fields
    return httpx.Request(
        method,
        endpoint.url,
        headers=endpoint.dress(headers, endpoint.first_key(trio.current_time())),
        stream=httpx.ByteStream(content),
        extensions={"target": target, "timeout": {"connect": endpoint.connect_s}},
    )
