"""`trioproxy streams top`: the live streams on a terminal, as they come, flow, wait and end."""

import os
import signal
import sys
from typing import Annotated, Final

import trio
import typer
from rich.console import Console, RenderableType
from rich.live import Live

from trioproxy.cli.admin import (
    AdminAddress,
    AdminKey,
    AdminUrl,
    NotReached,
    NotSaid,
    Refused,
    address_or_fail,
    settings_or_fail,
)
from trioproxy.cli.keyboard import Keys, read_keys, single_keys
from trioproxy.cli.live_table import LiveTable
from trioproxy.cli.running import EXIT_FAILED, EXIT_INTERRUPTED, fail
from trioproxy.cli.serve import ConfigFile
from trioproxy.cli.streams_text import COLUMNS, ORDERS, Order, cells, is_meant, ordered, shown
from trioproxy.cli.table import print_table
from trioproxy.cli.top_screen import rows_on, screen
from trioproxy.cli.top_view import Leave, Stop, View
from trioproxy.cli.watch import watch
from trioproxy.config.secrets import quoted, suggested

_FRAME_S: Final = 0.25
"""As often as the service tells of changes; a key is shown at once."""

Filter = Annotated[
    str, typer.Option("--filter", help="Only those with these words in their model, key, upstream, id, client, …")
]
Sort = Annotated[str, typer.Option("--sort", help=f"One of: {', '.join(order.name for order in ORDERS)}.")]


def top(
    words: Filter = "",
    sort: Sort = ORDERS[0].name,
    admin: AdminUrl = None,
    admin_key: AdminKey = None,
    config: ConfigFile = None,
) -> None:
    """The live streams, refreshed in place: select, sort, filter, stop one. q or Ctrl-C ends it, and nothing else.

    Where nobody looks at it, it is a list as `streams list` makes it, once.
    """
    order = order_or_fail(sort)
    address = address_or_fail(admin, admin_key, lambda: settings_or_fail(config))
    console = Console(markup=False, emoji=False, highlight=False)
    try:
        if not sys.stdin.isatty() or not console.is_terminal or console.is_dumb_terminal:
            rows = ordered([row for row in address.streams() if is_meant(row, words)], order)
            print_table(COLUMNS, [cells(row) for row in rows])
            return
    except (NotReached, NotSaid, Refused) as error:
        fail(str(error), EXIT_FAILED)
    shows = _Top(address, View(order, words), console)
    try:
        trio.run(shows.run)
    except* KeyboardInterrupt:
        shows.code = EXIT_INTERRUPTED
    if shows.failure is not None:
        fail(shows.failure, EXIT_FAILED)
    if shows.is_left_behind:
        os._exit(shows.code)  # nobody waits for that thread, and an interpreter that ends beside one may crash
    raise typer.Exit(shows.code)


def order_or_fail(name: str) -> Order:
    """The order of this name."""
    by_name = {order.name: order for order in ORDERS}
    if name not in by_name:
        fail(f"--sort: there is no {quoted(name)}, expected {suggested(name, list(by_name), ', '.join(by_name))}")
    return by_name[name]


class _Top:
    """The program on a terminal.

    Attributes:
        code: the exit code.
        failure: why it never came to show anything.
        is_left_behind: a thread of ours still waits for the service.
    """

    def __init__(self, address: AdminAddress, view: View, console: Console) -> None:
        self.code = 0
        self.failure: str | None = None
        self.is_left_behind = False
        self._address = address
        self._view = view
        self._console = console
        self._table = LiveTable()
        self._wake = trio.Event()

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes while we wait, not in the middle of a sequence to the terminal
    async def run(self) -> None:
        """Show the streams until a key or a signal ends that. The terminal is afterwards as it was."""
        terminal = sys.stdin.fileno()
        live = Live(
            console=self._console,
            get_renderable=self._screen,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with single_keys(terminal), live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                nursery.start_soon(self._end_at_signal, nursery.cancel_scope)
                nursery.start_soon(self._read_keys, terminal, nursery)
                await self._draw(live)

    async def _watch(self, all_of_it: trio.CancelScope) -> None:
        try:
            await watch(self._address, self._table)
        except (NotReached, NotSaid, Refused) as error:
            self.failure = str(error)
            all_of_it.cancel()

    async def _end_at_signal(self, all_of_it: trio.CancelScope) -> None:
        """Somebody ends it from elsewhere: the terminal has to be put back all the same."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for number in signals:
                self.code = 128 + number
                all_of_it.cancel()

    async def _read_keys(self, terminal: int, nursery: trio.Nursery) -> None:
        keys = Keys()
        while (pressed := await read_keys(terminal, keys)) is not None:
            for key in pressed:
                match self._view.press(key):
                    case Leave():
                        nursery.cancel_scope.cancel()
                    case Stop(stream_id):
                        nursery.start_soon(self._stop, stream_id)
            self._wake.set()
        nursery.cancel_scope.cancel()

    async def _stop(self, stream_id: str) -> None:
        """Have a stream ended. If cancelled, that goes on in its thread, and nobody waits for what came of it."""
        self._view.note = f"stopping {stream_id} …"
        try:
            await trio.to_thread.run_sync(self._address.stop_stream, stream_id, abandon_on_cancel=True)
            self._view.note = f"stopped: {stream_id}"
        except trio.Cancelled:
            self.is_left_behind = True
            raise
        except (NotReached, NotSaid, Refused) as error:
            self._view.note = f"{stream_id} was not stopped: {shown(str(error))}"
        self._wake.set()

    async def _draw(self, live: Live) -> None:
        while True:
            self._update()
            live.refresh()
            self._wake = trio.Event()
            with trio.move_on_after(_FRAME_S):
                await self._wake.wait()

    def _update(self) -> None:
        self._view.page = rows_on(self._console.height)
        self._view.update(self._table.rows(trio.current_time()))

    def _screen(self) -> RenderableType:
        table = self._table
        return screen(self._view, self._address.url, table.problem, table.is_known, self._console.width)
