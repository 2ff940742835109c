"""Live streams as text: a row's cells, in which order rows stand, and which of them somebody means.

Rows are those of `/admin/streams`. Their words come from clients in part (ids, models): what is shown of them holds no
control character, so that nobody's terminal is told anything by a model's name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Row = Mapping[str, Any]

COLUMNS: Final = (
    "id",
    "phase",
    "age",
    "first content",
    "events",
    "rate",
    "waits for",
    "key",
    "upstream",
    "model",
)

_MAX_SHOWN: Final = 200
"""Characters of a word that are shown in a table."""
_SEARCHED: Final = ("id", "stream", "key", "model", "upstream", "endpoint", "client", "phase", "blocked_on", "outcome")


@dataclass(frozen=True)
class Order:
    """An order of rows; `comes_first` is larger the sooner a row comes."""

    name: str
    comes_first: Callable[[Row], Any]
    is_of_text: bool = False


ORDERS: Final = (
    Order("age", lambda row: row["age_s"]),
    # One that has no content yet has waited for it since it came.
    Order("first content", lambda row: row["age_s"] if row["first_content_s"] is None else row["first_content_s"]),
    Order("events", lambda row: row["events"]),
    Order("rate", lambda row: row["rate"]),
    Order("waiting", lambda row: row["blocked_s"]),
    Order("model", lambda row: row["model"] or "", is_of_text=True),
)


def ordered(rows: list[Row], order: Order, *, reverse: bool = False) -> list[Row]:
    """The rows in this order: large figures first, text as in a dictionary. Rows that are alike stand by their ids."""
    return sorted(sorted(rows, key=lambda row: row["id"]), key=order.comes_first, reverse=order.is_of_text is reverse)


def is_meant(row: Row, words: str) -> bool:
    """Whether each of these words is somewhere in what tells this row from others, in capitals or not."""
    told = "\n".join(str(row.get(name) or "") for name in _SEARCHED).lower()
    return all(word in told for word in words.lower().split())


def cells(row: Row) -> tuple[str, ...]:
    """One row, in the order of `COLUMNS`; "-" for what is not known."""
    is_over = row["phase"] == "ended"
    return (
        shown(row["id"]),
        row["outcome"] if is_over else row["phase"],
        span(row["age_s"]),
        "-" if row["first_content_s"] is None else f"{row['first_content_s']:.3f} s",
        str(row["events"]),
        "-" if is_over else f"{row['rate']:.1f}/s",
        "-" if is_over else f"{row['blocked_on']} {span(row['blocked_s'])}",
        shown(row["key"]),
        shown(row["upstream"]),
        shown(row["model"]),
    )


def ended(row: Row) -> str:
    """How one that is over has ended: "finished", or with the words for why not."""
    return ", ".join(shown(row[name]) for name in ("outcome", "code", "reason") if row[name])


def shown(text: str | None, longest: int = _MAX_SHOWN) -> str:
    """A word as a terminal may have it: on one line, without control characters, not long. "-" for none."""
    if not text:
        return "-"
    printable = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:longest])
    return printable if len(text) <= longest else printable + "…"


def span(seconds: float) -> str:
    """A time for people: "12.3 s", "2:05", "1:02:05"."""
    if seconds < 60:
        return f"{int(10 * seconds) / 10} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
