"""The `trioproxy` command. Each command is one small function; what it runs is imported by its own module."""

import typer

from trioproxy.cli import bench, chat, check, demo, keys, reload, serve, streams, upstreams

app = typer.Typer(
    name="trioproxy",
    help="A streaming proxy for OpenAI-compatible APIs: nothing leaks, nothing queues, nothing lies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(serve.serve)
app.command()(reload.reload)
app.command()(demo.demo_upstream)
app.command()(check.check)
app.command()(chat.chat)
app.command()(bench.bench)
app.add_typer(upstreams.app, name="upstreams")
app.add_typer(keys.app, name="keys")
app.add_typer(streams.app, name="streams")
