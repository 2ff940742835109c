"""Whether an origin takes a key: asked with a real call, in the way in which the service will ask.

    GET base_url/models    with the key 2xx, without it not     it is proven
                           401, 403                             it is refused
                           404, 405, 501; or 2xx for anybody    the route says nothing: a chat of one token is asked
    POST a chat            2xx                                  it is proven
                           401, 403                             it is refused

All else (no connection, no answer in time, any other status) proves nothing, and a key that is not proven is not used.
"""

from collections.abc import Sequence
from typing import Final

import httpx
import trio

from trioproxy.config import Secret, Upstream
from trioproxy.server.build import endpoint_of
from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.faults import fault_before_head
from trioproxy.upstream.own_request import one_token_chat, own_fields
from trioproxy.upstream.pool import Pool

PATIENCE_S: Final = 15.0
_REFUSED: Final = (401, 403)
_NO_SUCH_ROUTE: Final = (404, 405, 501)
_ALONE: Final = (b"connection", b"close")


class NotProven(Exception):
    """The key cannot be used, or nobody knows; the message says which, and never holds it."""


def prove(upstream: Upstream, key: Secret, model: str | None) -> None:
    """Ask an upstream with a new key; `model` is for a chat, where one is needed. Raises NotProven."""
    trio.run(_prove, upstream.model_copy(update={"api_key": (key,)}), model)


async def _prove(upstream: Upstream, model: str | None) -> None:
    pool = Pool()
    try:
        with trio.fail_after(PATIENCE_S):
            await _ask(endpoint_of(upstream, pool, Tally(), PATIENCE_S), model)
    except trio.TooSlowError:
        raise NotProven(f"no answer within {PATIENCE_S:g} s") from None
    except httpx.TransportError as error:
        raise NotProven(str(fault_before_head(error, upstream.name))) from None
    finally:
        pool.close_nowait()


async def _ask(endpoint: Endpoint, model: str | None) -> None:
    models = endpoint.target(b"/v1/models")
    status = await _status(endpoint, "GET", models, key=0)
    _refuse(status)
    if 200 <= status < 300:
        if not 200 <= await _status(endpoint, "GET", models, key=None) < 300:
            return
        what = "GET /models is answered without a key too, and so proves none"
    elif status in _NO_SUCH_ROUTE:
        what = f"GET /models was answered with {status}"
    else:
        raise NotProven(f"GET /models was answered with {status}, which says nothing about the key")
    if model is None:
        raise NotProven(f"{what}; name a model with --model, and it is asked for one token instead")
    target, fields, body = one_token_chat(endpoint, model)
    status = await _status(endpoint, "POST", target, key=0, fields=fields, body=body)
    _refuse(status)
    if not 200 <= status < 300:
        raise NotProven(f"{what}, and a chat with {status}")


def _refuse(status: int) -> None:
    if status in _REFUSED:
        raise NotProven(f"the upstream refuses it, with {status}")


async def _status(
    endpoint: Endpoint,
    method: str,
    target: bytes,
    *,
    key: int | None,
    fields: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> int:
    """The answer's status, once the whole answer is here: what broke off proves nothing. Raises httpx.TransportError,
    and leaves no connection open."""
    request = httpx.Request(
        method,
        endpoint.url,
        headers=endpoint.dress([*own_fields(endpoint), *fields, _ALONE], key),
        stream=httpx.ByteStream(body),
        extensions={"target": target},
    )
    response = await endpoint.transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        async for _ in response.stream:
            pass
    finally:
        await response.stream.aclose()
    return response.status_code
