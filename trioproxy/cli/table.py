"""Prints a table: with lines round it on a terminal, as plain columns into a pipe."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows, each with a cell for every column, on standard output."""
    console = Console(markup=False, emoji=False)  # an address in brackets is an address
    if console.is_terminal:
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        typer.echo(_aligned([columns, *rows]))


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows as plain text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
