"""Which events wait for others, so that several go out in one write. PURE.

    held       what comes                     what becomes of it
    nothing    the first content, or the end  (its caller writes it at once)
    nothing    anything else                  a window opens, and it is held
    something  the first content, or the end  (its caller writes it at once, behind what is held)
    something  anything else                  it is held too; if that is enough, all of it is written instead

It is enough when there are so many events, or so many bytes; else what is held is written when its window is over. So
nothing waits longer than a window, and what is held is bounded. Nothing is reordered, lost or cut: what is written is
what was held, whole. An unfinished event waits like any other, usually for its rest.

Driven by `relay`, which knows what is the first content and what is the end.
"""

from math import inf
from typing import Final

MAX_HELD_BYTES: Final = 65536
"""So many bytes are enough, unless told otherwise: while a window is open, fewer are held."""


class Joining:
    """What one stream holds. `window_s` above 0, the others at least 1.

    Attributes:
        due: when what is held has to be written, in the caller's clock, seconds; inf while nothing is.
    """

    __slots__ = ("_bytes", "_events", "_max_bytes", "_max_events", "_pieces", "_window_s", "due")

    def __init__(self, window_s: float, max_events: int, max_bytes: int = MAX_HELD_BYTES) -> None:
        self.due = inf
        self._window_s = window_s
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._events = 0

    @property
    def is_holding(self) -> bool:
        return bool(self._pieces)

    def has_room_for(self, data: bytes, events: int) -> bool:
        """Whether a piece in which so many events end can wait: with it there would not be enough yet."""
        return self._bytes + len(data) < self._max_bytes and self._events + events < self._max_events

    def hold(self, data: bytes, events: int, now: float) -> None:
        """Hold a piece, for which there is room. If nothing was held, its window opens."""
        if not self._pieces:
            self.due = now + self._window_s
        self._pieces.append(data)
        self._bytes += len(data)
        self._events += events

    def take(self, data: bytes = b"") -> bytes:
        """All that is held, in order, and `data` behind it. Nothing is held any more."""
        if not self._pieces:
            return data
        whole = b"".join([*self._pieces, data])
        self._pieces.clear()
        self._bytes = self._events = 0
        self.due = inf
        return whole
