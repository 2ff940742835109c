"""Whether upstreams have the models that routes name for them: each is asked, in the way in which the service would.

A list need not be whole: aliases of a model are missing in some. So an upstream whose list lacks a model is also asked
for that model alone (`GET base_url/models/MODEL`), and a yes counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final
from urllib.parse import quote

import trio

from trioproxy.cli.running import run
from trioproxy.config import Config, NamedModel, Wrong, named_models, not_listed
from trioproxy.errors import ProxyError, UpstreamErrorInStream, UpstreamHeadTimeout
from trioproxy.server.build import endpoint_of
from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.attempt import open_attempt
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.model_list import FETCH_S, ModelLists
from trioproxy.upstream.own_request import own_fields
from trioproxy.upstream.pool import Pool

_ALONE: Final = (b"connection", b"close")


@dataclass
class Findings:
    """What asking has shown: `wrong` models, each with its key, and `warnings` about upstreams that did not tell."""

    wrong: list[tuple[str, Wrong]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def look_at_models(config: Config) -> Findings:
    """Ask each upstream for which a route names a model, and no other. Ctrl-C ends the command."""
    findings = Findings()
    run(partial(_look, config, named_models(config), findings))
    return findings


async def _look(config: Config, named: Sequence[NamedModel], findings: Findings) -> None:
    names = {one.upstream for one in named}
    pool = Pool()
    try:
        endpoints = {
            upstream.name: endpoint_of(upstream, pool, Tally(), FETCH_S)
            for upstream in config.upstream
            if upstream.name in names
        }
        lists = await ModelLists(list(endpoints.values())).ask(endpoints, [])
        silent = {name: answer for name, answer in lists.items() if isinstance(answer, ProxyError)}
        for one in named:
            answer = lists[one.upstream]
            if isinstance(answer, ProxyError) or one.model in answer or one.upstream in silent:
                continue
            try:
                if not await _has(endpoints[one.upstream], one.model):
                    findings.wrong.append((one.key, not_listed(one, list(answer))))
            except ProxyError as error:
                silent[one.upstream] = error
    finally:
        pool.close_nowait()
    findings.warnings += [
        f"upstream[{number}]: cannot be asked for its models: {_reason(silent[upstream.name])}"
        for number, upstream in enumerate(config.upstream)
        if upstream.name in silent
    ]


def _reason(error: ProxyError) -> str:
    # An origin's own words are not for a terminal, and could repeat the key.
    return f"it answered with status {error.status}" if isinstance(error, UpstreamErrorInStream) else error.message


async def _has(endpoint: Endpoint, model: str) -> bool:
    """Whether it has a model that it does not list. Raises ProxyError if it cannot be asked or is not in time."""
    fields = [*own_fields(endpoint), _ALONE]
    target = endpoint.target(b"/v1/models/" + quote(model, safe="/:").encode("ascii"))
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(FETCH_S):
            key = endpoint.keys.take(trio.current_time())
            attempt = await open_attempt(
                endpoint, "GET", target, fields, b"", key=key, connect_s=FETCH_S, head_s=inf, nursery=nursery
            )
            with attempt:
                return attempt.status == 200
    raise UpstreamHeadTimeout(
        f"The upstream '{endpoint.name}' did not say within {FETCH_S:g} s whether it has a model."
    )
