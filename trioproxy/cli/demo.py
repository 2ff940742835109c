"""`trioproxy demo` and `trioproxy demo-upstream`: everything without a key and without a network."""

from functools import partial
from typing import Annotated

import trio
import typer

from trioproxy.bench.demo_model import WORDS
from trioproxy.bench.demo_upstream import serve as serve_demo_upstream
from trioproxy.cli.running import bind_or_fail, loaded_or_fail, run, supervisor_or_fail, url, url_of
from trioproxy.config import load

_BODY = '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'


def demo(
    bind: Annotated[str, typer.Option(help="HOST:PORT of the proxy.")] = "127.0.0.1:8080",
    admin_bind: Annotated[str | None, typer.Option(help="HOST:PORT for metrics and resources, or off.")] = None,
    access_log: Annotated[str, typer.Option(help="Where log lines go: -, off, or a file.")] = "-",
) -> None:
    """A proxy in front of a built-in simulated upstream: no key, no network, no configuration file."""
    upstream = bind_or_fail("127.0.0.1:0")  # found here, so that the proxy can be configured before anything runs
    flags: dict[str, object] = {"upstream.base_url": f"{url_of(upstream)}/v1", "upstream.name": "demo"}
    flags |= {"server.bind": [bind], "admin.bind": admin_bind, "telemetry.access_log": access_log}
    # A file that lies about is meant for another upstream: its key and headers must not come here.
    load_again = partial(load, flags=flags, reads_file=False)
    supervisor = supervisor_or_fail(loaded_or_fail(load_again), load_again)

    def welcome() -> None:
        typer.echo(_welcome(url(*supervisor.addresses[0]), supervisor.admin_address))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_demo_upstream, listening=upstream))
            await supervisor.run(on_ready=welcome)
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


def _welcome(base: str, admin: tuple[str, int] | None) -> str:
    page = f"  The dashboard: {url(*admin)}/\n" if admin else ""
    return f"""
Running, in front of a simulated upstream. Ctrl-C ends it.

  curl -N {base}/v1/chat/completions -H 'content-type: application/json' -d '{_BODY}'

  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="any")

{page}
The model's name chooses what the upstream does; `trioproxy demo-upstream --words` lists the words, for example:
  demo-i200  slow      demo-x5  dies after 5 events      demo-nodone  no [DONE]      demo-e429-r2  rate limited
"""
