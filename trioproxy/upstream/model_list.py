"""Each upstream's own list of models (`GET base_url/models`), asked for when a client wants to know all of them.

What an upstream tells its own key is the same for every client: it is kept for a minute, a failure for five seconds,
and one fetch at a time is under way. Where the client's key goes through the list is this client's, and is never kept.
A fetch takes no place at the upstream, and neither breaker nor key is told what it came to.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import trio

from trioproxy.errors import NoHealthyUpstream, ProxyError, UpstreamHeadTimeout, UpstreamProtocolError
from trioproxy.upstream.attempt import open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.own_request import own_fields
from trioproxy.wire import render
from trioproxy.wire.headers import Headers, is_encoded
from trioproxy.wire.models import read_models

FRESH_S = 60.0
FAILED_S = 5.0
"""How long a list, and a failure, is kept."""
FETCH_S = 5.0
MAX_LIST_BYTES = 4 * 1024 * 1024
"""How long a fetch may take in all, and how large a list may be."""

Models = Mapping[str, bytes]
"""A list: each model's entry, as JSON, by its name."""

_TARGET = b"/v1/models"
# Anthropic gives out twenty models at a time unless asked for more.
_ANTHROPIC_TARGET = b"/v1/models?limit=1000"
_NOT_ASKED = (b"accept", b"content-", b"if-", b"range")
"""What a client says of the answer that it wants, or of its body: it is not the client who gets this answer."""


class ModelLists:
    """The lists of some upstreams, by the upstreams' names."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._lists = {endpoint.name: _ModelList(endpoint) for endpoint in endpoints}

    async def ask(self, names: Iterable[str], headers: Headers) -> dict[str, Models | ProxyError]:
        """What each of these upstreams lists, or why it has no list for us; they are asked side by side. `headers` are
        the client's, for those that have no key of their own. If cancelled, nothing goes on."""
        answers: dict[str, Models | ProxyError] = {}

        async def ask_one(name: str) -> None:
            answers[name] = await self._lists[name].get(headers, nursery)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask_one, name)
        return answers


class _ModelList:
    """One upstream's list."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = trio.Lock()
        self._kept: Models | ProxyError = {}
        self._kept_until = -inf

    async def get(self, headers: Headers, nursery: trio.Nursery) -> Models | ProxyError:
        """The list, or why there is none. If cancelled, whoever waits for the same fetch begins it anew."""
        fields = own_fields(self._endpoint)
        if not self._endpoint.has_own_key:
            asked = [header for header in headers if not header[0].startswith(_NOT_ASKED)]
            names = {name for name, _ in asked}
            return await self._fetch([*asked, *(field for field in fields if field[0] not in names)], nursery)
        async with self._lock:
            if trio.current_time() >= self._kept_until:
                self._kept = await self._fetch(fields, nursery)
                kept_s = FAILED_S if isinstance(self._kept, ProxyError) else FRESH_S
                self._kept_until = trio.current_time() + kept_s
            return self._kept

    async def _fetch(self, headers: Headers, nursery: trio.Nursery) -> Models | ProxyError:
        endpoint, now = self._endpoint, trio.current_time()
        if not endpoint.has_key(now):
            return NoHealthyUpstream(f"No key of the upstream '{endpoint.name}' can be used now; try again later.")
        key = endpoint.keys.take(now)
        try:
            with trio.move_on_after(FETCH_S):
                return await self._read(headers, key, nursery)
        except ProxyError as error:
            return _bare(error)
        finally:
            endpoint.keys.give_back(key)
        return UpstreamHeadTimeout(f"The upstream '{endpoint.name}' did not list its models within {FETCH_S:g} s.")

    async def _read(self, headers: Headers, key: int | None, nursery: trio.Nursery) -> Models:
        endpoint = self._endpoint
        attempt = await open_attempt(
            endpoint,
            "GET",
            endpoint.target(_ANTHROPIC_TARGET if endpoint.is_anthropic else _TARGET),
            headers,
            b"",
            key=key,
            connect_s=endpoint.connect_s,
            head_s=inf,
            nursery=nursery,
        )
        with attempt:
            body = await attempt.read_whole(MAX_LIST_BYTES)
        if attempt.status >= 400:
            raise render.error_in_stream(attempt.status, body, endpoint.name)
        is_plain = attempt.status == 200 and not is_encoded(attempt.headers)
        models = read_models(body, endpoint.name) if is_plain else None
        if models is None:
            raise UpstreamProtocolError(f"The upstream '{endpoint.name}' was asked for its models and sent no list.")
        return models


def _bare(error: ProxyError) -> ProxyError:
    """The error without the tasks that it went through, which it would keep alive."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
