"""What was opened and what was released: two numbers for each kind of thing that must not leak."""


class Tally:
    """Counts one kind of thing over the process's life; `opened - released` of them are there now."""

    __slots__ = ("opened", "released")

    def __init__(self) -> None:
        self.opened = 0
        self.released = 0

    @property
    def open(self) -> int:
        """How many are there now."""
        return self.opened - self.released

    def open_one(self) -> None:
        """One more is there."""
        self.opened += 1

    def release_one(self) -> None:
        """One is gone."""
        self.released += 1
