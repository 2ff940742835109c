"""What `trioproxy streams top` shows, and what each key changes of that. Pure: it knows no terminal and no service."""

from dataclasses import dataclass
from typing import Any, Final

from trioproxy.cli.streams_text import ORDERS, Order, Row, is_meant, ordered

_MAX_WORDS: Final = 200
"""Characters of a filter."""


@dataclass(frozen=True)
class Stop:
    """What a key asks for: this stream is to be ended."""

    stream_id: str


@dataclass(frozen=True)
class Leave:
    """What a key asks for: the program is to end."""


class View:
    """What is shown. `page` is how many rows fit; the screen sets it.

    Attributes:
        rows: the rows that are meant, in their order.
        total: how many there are besides.
        selected: the id of the row that keys mean. It stays with its stream wherever that moves to.
        asks: the id of the stream of which is asked whether it is to be ended, or None.
        is_typing: keys are the filter's at the moment.
        note: what came of the last thing that was ordered.
    """

    def __init__(self, order: Order, words: str = "") -> None:
        self.order = order
        self.is_reversed = False
        self.words = words
        self.rows: list[Row] = []
        self.total = 0
        self.selected: str | None = None
        self.asks: str | None = None
        self.is_typing = False
        self.note = ""
        self.page = 1
        self.first = 0
        self._place = 0  # of the selected row
        self._words_before = words

    def update(self, rows: list[dict[str, Any]]) -> None:
        """These are all rows now."""
        self.total = len(rows)
        self.rows = ordered([row for row in rows if is_meant(row, self.words)], self.order, reverse=self.is_reversed)
        places = {row["id"]: place for place, row in enumerate(self.rows)}
        self._select(places.get(self.selected or "", self._place))
        if self.asks is not None and not any(row["id"] == self.asks and row["phase"] != "ended" for row in rows):
            self.note = f"{self.asks} has ended by itself"
            self.asks = None

    @property
    def visible(self) -> list[Row]:
        """The rows of the page that is shown."""
        return self.rows[self.first : self.first + self.page]

    @property
    def selected_row(self) -> Row | None:
        """The row that keys mean; None if there is none at all."""
        return self.rows[self._place] if self.rows else None

    def press(self, key: str) -> Stop | Leave | None:
        """Take one key: a character, or a key's name as `cli/keyboard` has them. What it asks for, if anything."""
        if self.asks is not None:
            return self._answer(key)
        if self.is_typing:
            self._type(key)
            return None
        self.note = ""
        row = self.selected_row
        match key:
            case "q":
                return Leave()
            case "x" if row is not None and row["phase"] != "ended":
                self.asks = row["id"]
            case "/":
                self.is_typing, self._words_before = True, self.words
            case "escape":
                self.words = ""
            case "s":
                self._order_by(ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)])
            case "r":
                self.is_reversed = not self.is_reversed
            case "1" | "2" | "3" | "4" | "5" | "6":
                self._order_by(ORDERS[int(key) - 1])
            case _:
                self._move(key)
        return None

    def _answer(self, key: str) -> Stop | None:
        """Only a clear yes ends anything."""
        asked, self.asks = self.asks, None
        return Stop(asked) if asked is not None and key in ("y", "Y") else None

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.is_typing = False
            case "escape":
                self.is_typing, self.words = False, self._words_before
            case "backspace":
                self.words = self.words[:-1]
            case "clear":
                self.words = ""
            case _ if len(key) == 1:
                self.words = (self.words + key)[:_MAX_WORDS]

    def _order_by(self, order: Order) -> None:
        """Order the rows so; the other way round if they are already."""
        self.is_reversed = order is self.order and not self.is_reversed
        self.order = order

    def _move(self, key: str) -> None:
        match key:
            case "up" | "k":
                self._select(self._place - 1)
            case "down" | "j":
                self._select(self._place + 1)
            case "page up":
                self._select(self._place - self.page)
            case "page down":
                self._select(self._place + self.page)
            case "home":
                self._select(0)
            case "end":
                self._select(len(self.rows) - 1)

    def _select(self, place: int) -> None:
        """The row at this place, or the one that is nearest to it, which is then on the page."""
        self._place = max(0, min(place, len(self.rows) - 1))
        self.selected = self.rows[self._place]["id"] if self.rows else None
        lowest, highest = self._place - self.page + 1, self._place
        self.first = max(lowest, min(self.first, highest, len(self.rows) - self.page), 0)
