"""`trioproxy demo` and `trioproxy demo-upstream`: everything without a key and without a network."""

from functools import partial
from typing import Annotated

import trio
import typer

from trioproxy.bench.demo_model import WORDS
from trioproxy.bench.demo_upstream import serve as serve_demo_upstream
from trioproxy.cli.running import bind_or_fail, build_or_fail, load_or_fail, run, url_of
from trioproxy.server.run import serve as serve_until_signal

_BODY = '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'


def demo(
    bind: Annotated[str, typer.Option(help="HOST:PORT of the proxy.")] = "127.0.0.1:8080",
    access_log: Annotated[str, typer.Option(help="Where log lines go: -, off, or a file.")] = "-",
) -> None:
    """A proxy in front of a built-in simulated upstream: no key, no network."""
    upstream = bind_or_fail("127.0.0.1:0")  # found here, so that the proxy can be configured before anything runs
    flags = {"upstream.base_url": f"{url_of(upstream)}/v1", "upstream.name": "demo", "server.bind": [bind]}
    settings = load_or_fail(None, {**flags, "telemetry.access_log": access_log})
    house = build_or_fail(settings)
    listening = bind_or_fail(bind)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_demo_upstream, listening=upstream))
            await serve_until_signal(house, [listening], on_ready=lambda: typer.echo(_welcome(url_of(listening))))
            nursery.cancel_scope.cancel()

    run(main)


def demo_upstream(
    bind: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:9100",
    words: Annotated[bool, typer.Option("--words", help="List what a model's name can ask for, and end.")] = False,
) -> None:
    """Only the simulated upstream; the model's name chooses pace, sizes and faults."""
    if words:
        for word, says in WORDS.items():
            typer.echo(f"{word:<10} {says}")
        return
    listening = bind_or_fail(bind)
    typer.echo(f"demo upstream on {url_of(listening)}/v1 (Ctrl-C ends it)")
    try:
        trio.run(partial(serve_demo_upstream, listening=listening))
    except* KeyboardInterrupt:
        pass


def _welcome(url: str) -> str:
    return f"""
Running, in front of a simulated upstream. Ctrl-C ends it.

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{_BODY}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="any")

The model's name chooses what the upstream does; `trioproxy demo-upstream --words` lists the words, for example:
  demo-i200  slow      demo-x5  dies after 5 events      demo-nodone  no [DONE]      demo-e429-r2  rate limited
"""
