"""Whom a request waits for: the origin, its client, or us. Whose turn it is changes where a wait begins or ends, and
the time of each goes to one side only, so the three make up the whole time. Times are trio's clock, seconds.

    upstream    an origin was asked, and neither its head nor its next bytes are here
    client      it has to send its request, or to take bytes that are here
    proxy       everything else: our own work, and what we let it wait for (limits, a free place, a retry's pause)
"""

from array import array
from typing import Final

UPSTREAM: Final = "upstream"
CLIENT: Final = "client"
PROXY: Final = "proxy"
OVER: Final = ""

MAX_TURNS: Final = 200
"""How many turns are kept: the longest ones."""
_SHORTEST_S = 0.001
_SIDES = (UPSTREAM, CLIENT, PROXY)
_FIELDS = 3  # of a kept turn: since when, how long, whose
_NONE: "array[float]" = array("d")


class Flow:
    """One request's. `on` is whose turn it is, `since` when that began; what it came to so far is in the three sums,
    without the present turn."""

    __slots__ = ("_kept", "_shortest_s", "client_s", "on", "proxy_s", "since", "upstream_s")

    def __init__(self, now: float, on: str = PROXY) -> None:
        self.on = on
        self.since = now
        self.upstream_s = self.client_s = self.proxy_s = 0.0
        self._kept = _NONE
        self._shortest_s = _SHORTEST_S

    def turn(self, to: str, now: float) -> None:
        """From now on it is waited for `to`; `OVER` (""): for nobody any more."""
        on = self.on
        if to == on:
            return
        took_s = now - self.since
        if on == UPSTREAM:
            self.upstream_s += took_s
        elif on == CLIENT:
            self.client_s += took_s
        elif on == PROXY:
            self.proxy_s += took_s
        if took_s >= self._shortest_s and on:
            self._keep(took_s)
        self.on, self.since = to, now

    def waited(self, now: float) -> tuple[float, float, float]:
        """For how long it was waited for origin, client and us, the present turn included."""
        upstream_s, client_s, proxy_s = self.upstream_s, self.client_s, self.proxy_s
        took_s = now - self.since
        match self.on:
            case "upstream":
                upstream_s += took_s
            case "client":
                client_s += took_s
            case "proxy":
                proxy_s += took_s
        return upstream_s, client_s, proxy_s

    def turns(self) -> list[tuple[float, str, float]]:
        """The longest turns that are over, in their order: since when, whose, how long. At most `MAX_TURNS`."""
        kept = self._kept
        return [(kept[at], _SIDES[int(kept[at + 2])], kept[at + 1]) for at in _longest(kept)]

    def _keep(self, took_s: float) -> None:
        """Keep a turn. Once there are half as many again as are wanted the shortest ones go, and from then on none as
        short as those is kept."""
        if not self._kept:
            self._kept = array("d")  # few requests have a turn that is worth it
        kept = self._kept
        kept.extend((self.since, took_s, _SIDES.index(self.on)))
        if len(kept) >= _FIELDS * MAX_TURNS * 3 // 2:
            longest = _longest(kept)
            self._shortest_s = min(kept[at + 1] for at in longest)
            self._kept = array("d", [figure for at in longest for figure in kept[at : at + _FIELDS]])


def _longest(kept: "array[float]") -> list[int]:
    """Where the longest of the kept turns begin, in their order."""
    places = sorted(range(0, len(kept), _FIELDS), key=lambda at: -kept[at + 1])
    return sorted(places[:MAX_TURNS])
