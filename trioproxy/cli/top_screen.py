"""How `trioproxy streams top` looks: a table that fills the terminal, and what there is to press."""

from collections import Counter
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trioproxy.cli.streams_text import COLUMNS, Row, cells, ended, shown, span
from trioproxy.cli.top_view import View

_WIDTHS: Final = {
    "id": 14,
    "phase": 9,
    "age": 7,
    "first content": 13,
    "events": 7,
    "rate": 8,
    "waits for": 15,
    "key": 14,
    "upstream": 14,
    "model": 14,
}
"""Characters of each column; the last one that is shown has what is left beside."""
_LEAST_NEEDED: Final = ("key", "first content", "rate", "upstream", "events", "model", "waits for")
"""What goes first where there is no room for all."""
_FIGURES: Final = {"age", "first content", "events", "rate"}
_STYLES: Final = {"reading": "cyan", "waiting": "yellow", "thinking": "yellow", "flowing": "green", "ended": "dim"}
_OTHER_LINES: Final = 6
"""Lines of the screen that are no rows."""
_GAP: Final = 2
_MARK: Final = ">"
_KEYS: Final = "↑↓ select   1-6 or s sort   r reverse   / filter   x stop   q quit"


def rows_on(height: int) -> int:
    """How many rows fit a screen of so many lines."""
    return max(1, height - _OTHER_LINES)


def screen(view: View, where: str, problem: str | None, is_known: bool, width: int) -> RenderableType:
    """The whole screen. `where` is the service's address, `problem` why nothing is heard of it."""
    columns = _columns(width)
    return Group(
        _line(f"trioproxy streams: {_summary(view)}  {where}", "bold"),
        _line(problem, "bold red") if problem else _line(_order(view)),
        _table(view, columns),
        _line("" if view.rows else _nothing(view, is_known), "dim"),
        _line(_detail(view.selected_row)),
        _prompt(view),
    )


def _columns(width: int) -> list[str]:
    columns = list(COLUMNS)
    for least in _LEAST_NEEDED:
        if len(_MARK) + sum(_GAP + _WIDTHS[name] for name in columns) <= width:
            break
        columns.remove(least)
    return columns


def _table(view: View, columns: list[str]) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, expand=True, header_style="bold underline")
    table.add_column("", width=len(_MARK), no_wrap=True, overflow="crop")
    for name in columns:
        is_last = name == columns[-1]
        table.add_column(
            Text(name),
            width=None if is_last else _WIDTHS[name],
            ratio=1 if is_last else None,
            justify="right" if name in _FIGURES else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in view.visible:
        is_selected = row["id"] == view.selected
        of_name = dict(zip(COLUMNS, cells(row), strict=True))
        style = _STYLES.get(row["phase"], "")
        table.add_row(
            _MARK if is_selected else "",
            *(Text(of_name[name]) for name in columns),
            style=f"{style} reverse" if is_selected else style,
        )
    return table


def _summary(view: View) -> str:
    phases = Counter(row["phase"] for row in view.rows)
    return ", ".join(f"{phases[phase]} {phase}" for phase in _STYLES if phases[phase]) or "none"


def _order(view: View) -> str:
    order = f"sorted by {view.order.name}{', the other way round' if view.is_reversed else ''}"
    return f"{order}; {len(view.rows)} of {view.total} with: {shown(view.words)}" if view.words else order


def _nothing(view: View, is_known: bool) -> str:
    if not is_known:
        return "asking …"
    return "nothing is under way" if not view.total else "none of those under way is meant by the filter"


def _detail(row: Row | None) -> str:
    """What the columns do not show of the selected row."""
    if row is None:
        return ""
    sides = ", ".join(f"{side} {span(row[f'{side}_s'])}" for side in ("upstream", "client", "proxy"))
    end = f"  {ended(row)}" if row["phase"] == "ended" else ""
    return (
        f"{shown(row['id'])}{end}  {row['endpoint']} from {shown(row['client'])}  worker {row['worker']}"
        f"  waited for {sides}  tries {row['attempts']}  subscribers {row['subscribers']}  bytes {row['bytes']}"
    )


def _prompt(view: View) -> Text:
    if view.asks is not None:
        return _line(f"Stop {shown(view.asks)} for everyone who reads it? y: yes, any other key: no", "bold reverse")
    if view.is_typing:
        return _line(f"Filter: {view.words}_  (Enter keeps it, Escape does not)", "reverse")
    return _line(shown(view.note) if view.note else _KEYS, "bold" if view.note else "dim")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
