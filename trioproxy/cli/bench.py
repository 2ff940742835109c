"""`trioproxy bench`: how a service streams under load, as its clients see it."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trioproxy.bench import plot as picture
from trioproxy.bench.generator import Plan
from trioproxy.bench.limit import machine_times
from trioproxy.bench.processes import GeneratorFailed, measure
from trioproxy.bench.processes import Progress as SoFar
from trioproxy.bench.report import Series, as_json, places, table, titles
from trioproxy.cli.running import EXIT_FAILED, EXIT_INTERRUPTED, fail
from trioproxy.cli.table import print_table
from trioproxy.cli.target import KeyReference, key_or_fail, url_or_fail
from trioproxy.config import environment_with

_STANDARD_OUTPUT = Path("-")
MAX_RATE = 1000.0
"""Events per second of one stream; the simulated upstream paces by the millisecond."""


def bench(
    url: Annotated[str, typer.Argument(help="Base URL, for example http://127.0.0.1:8080/v1.", show_default=False)],
    clients: Annotated[int, typer.Option(min=1, help="How many clients, each with one chat after the other.")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=MAX_RATE, help="Events per second of each stream, asked of the demo upstream."),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds, for each series.")] = 10.0,
    batch: Annotated[bool, typer.Option("--batch", help="Measure answers in one piece as well.")] = False,
    compare: Annotated[str | None, typer.Option(help="Another base URL, measured in turn.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask for; without it demo.")] = None,
    prompt: Annotated[str, typer.Option(help="What each client says.")] = "Tell me about streams.",
    key: KeyReference = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="How many processes make the load.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures into this file, - for standard output.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the distributions as PNG (extra plot).")] = None,
) -> None:
    """Load a service with streams and say what its clients saw: time to first content, gaps, totals, tokens, errors.

    Every client waits for its answer before it asks again. Series (URLs, streams and whole answers) are measured one
    after the other. A stream's tokens are its events with text, unless the origin says how many there were.
    """
    if rate is not None and model is not None:
        fail("--rate is asked of the demo upstream by the model's name; it cannot go with --model")
    if plot is not None:
        try:
            picture.check_installed()
        except picture.NoPlot as error:
            fail(f"--plot: {error}")
    for flag, file in (("--json", json_file), ("--plot", plot)):
        if file is not None and not file.parent.is_dir():
            fail(f"{flag}: there is no folder {file.parent}")
    chosen = model or ("demo" if rate is None else f"demo-i{round(1000 / rate)}")
    urls = [url_or_fail(url, "URL"), *([url_or_fail(compare, "--compare")] if compare is not None else [])]
    secret = key_or_fail(key)
    plans = [
        (place, Plan(one, chosen, prompt, streams, clients, duration, secret))
        for place, one in enumerate(urls)
        for streams in ([True, False] if batch else [True])
    ]
    series = _measured_or_fail(plans, processes)
    if json_file == _STANDARD_OUTPUT:
        typer.echo(_json_text(series))
    else:
        _print(series)
    _write_or_fail(series, json_file, plot)
    if not any(one.figures.finished for one in series):
        raise typer.Exit(EXIT_FAILED)


def _measured_or_fail(plans: Sequence[tuple[int, Plan]], processes: int) -> list[Series]:
    """Each plan done, one after the other, with a bar for all of them while somebody looks."""
    console = Console(stderr=True, markup=False, emoji=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)
    series: list[Series] = []

    async def main() -> None:
        for number, (place, plan) in enumerate(plans, 1):
            mode = "stream" if plan.streams else "batch"
            task = bar.add_task(f"{number} of {len(plans)}: {mode} {plan.url.text}", total=plan.seconds, said="")
            series.append(await _measured(place, plan, processes, partial(bar.update, task)))
            bar.update(task, completed=plan.seconds)

    try:
        with bar:
            trio.run(main)
    except* KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except* GeneratorFailed as failures:
        fail(f"cannot measure: {_first(failures)}", EXIT_FAILED)
    return series


async def _measured(place: int, plan: Plan, processes: int, update: Callable[..., None]) -> Series:
    """One plan done. `update` is the bar's."""
    started: float | None = None

    def told(so_far: SoFar) -> None:
        nonlocal started
        now = trio.current_time()
        started = now if started is None else started
        said = f"{so_far.finished} finished, {so_far.failed} failed, {so_far.tokens} tokens"
        update(completed=min(now - started, plan.seconds), said=said)

    path = os.pathsep.join(one for one in sys.path if one)  # it finds modules where we do
    before = machine_times()
    figures = await measure(plan, processes, environment_with(PYTHONPATH=path), told)
    after = machine_times()
    idle_share = after.idle_share(before) if before is not None and after is not None else None
    return Series(place, plan.url.text, plan.streams, plan.clients, plan.model, figures, idle_share)


def _first(failures: BaseExceptionGroup[GeneratorFailed]) -> BaseException:
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _print(series: Sequence[Series]) -> None:
    """The table, and below it what has to be known before it is believed."""
    print_table(*table(series))
    for place in places(series):
        typer.echo(place)
    for name, one in zip(titles(series), series, strict=True):
        for error, count in one.figures.errors.most_common():
            typer.echo(f"{name}: {count} failed: {error}")
        for limit in one.limits:
            typer.echo(f"{name}: {limit}")


def _json_text(series: Sequence[Series]) -> str:
    return json.dumps(as_json(series), indent=2)


def _write_or_fail(series: Sequence[Series], json_file: Path | None, plot: Path | None) -> None:
    """Write the files that were asked for."""
    try:
        if json_file is not None and json_file != _STANDARD_OUTPUT:
            json_file.write_text(_json_text(series) + "\n", "utf-8")
        if plot is not None:
            picture.draw(series, plot)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", EXIT_FAILED)
