"""The table of live streams as somebody sees it who follows it: told anew or in changes, and aged between them."""

from collections.abc import Iterable
from typing import Any, Final

_ENDED_STAYS_S: Final = 3.0
"""How long one that is over is still shown."""
_MAX_ENDED: Final = 200
"""How many of those; with more, the oldest go at once."""


class LiveTable:
    """The rows, as they were told. Times are a clock's that never goes back, in seconds.

    Attributes:
        problem: why nothing is heard at the moment; None while all is well.
        is_known: whether the table has been told at all.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.is_known = False
        # Ids are each worker's own. With each row, the moment at which it was so.
        self._rows: dict[tuple[int, str], tuple[dict[str, Any], float]] = {}
        self._ended: dict[tuple[int, str], tuple[dict[str, Any], float]] = {}

    def tell_all(self, rows: Iterable[dict[str, Any]], now: float) -> None:
        """These are the rows, and there are no others."""
        self._rows = {_key(row): (row, now) for row in rows}
        self.is_known = True

    def tell(self, changed: Iterable[dict[str, Any]], gone: Iterable[dict[str, Any]], now: float) -> None:
        """These rows are new or other than they were, and those are over."""
        for row in changed:
            self._rows[_key(row)] = (row, now)
        for row in gone:
            self._rows.pop(_key(row), None)
            self._ended[_key(row)] = (row, now)
        while len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def rows(self, now: float) -> list[dict[str, Any]]:
        """The rows as they are by now: one of which nothing was heard has only grown older, and waited longer."""
        self._ended = {key: (row, at) for key, (row, at) in self._ended.items() if now - at < _ENDED_STAYS_S}
        ended = [row for key, (row, _) in self._ended.items() if key not in self._rows]
        return [_aged(row, now - at) for row, at in self._rows.values()] + ended


def _key(row: dict[str, Any]) -> tuple[int, str]:
    return row["worker"], row["id"]


def _aged(row: dict[str, Any], by_s: float) -> dict[str, Any]:
    return {**row, "age_s": row["age_s"] + by_s, "blocked_s": row["blocked_s"] + by_s}
