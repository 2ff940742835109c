"""How long somebody has to wait who has shown wrong keys. PURE: `now` is in seconds of one clock that never goes back.

    nothing wrong lately            no wait
    n wrong keys in a row           the next attempt waits 0.25 s, 0.5 s … 4 s behind the last one's turn; one whose
                                    turn has not come counts as a wrong one
    more than 10 s to wait          no turn at all
    a right key, or a quiet minute  forgotten

Attempts of one address take turns, right ones too: what is answered only after its turn tells nothing before. Other
addresses do not wait. Used by `web/admin`.
"""

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 0.25
LONGEST_S: Final = 4.0
MOST_WAITING_S: Final = 10.0
FORGET_S: Final = 60.0
MAX_ADDRESSES: Final = 1000


@dataclass(slots=True)
class _Address:
    wrong: int = 0
    last: float = 0.0
    next_turn: float = 0.0

    @property
    def pause_s(self) -> float:
        return min(FIRST_S * 2.0 ** min(self.wrong - 1, 10), LONGEST_S)


class WrongKeys:
    """Of at most `MAX_ADDRESSES`: of more the one is forgotten that was wrong longest ago."""

    def __init__(self) -> None:
        self._addresses: dict[str, _Address] = {}

    def wait_s(self, who: str, now: float) -> float | None:
        """How long an attempt has to wait that is made now, in seconds; its turn is taken. None: too long."""
        address = self._addresses.get(who)
        if address is None:
            return 0.0
        if now - max(address.last, address.next_turn) > FORGET_S:
            del self._addresses[who]
            return 0.0
        wait_s = max(address.next_turn - now, 0.0)
        if wait_s > MOST_WAITING_S:
            return None
        address.wrong += 1
        address.next_turn = max(address.next_turn, now) + address.pause_s
        return wait_s

    def note(self, who: str, now: float, *, is_right: bool) -> None:
        """What the attempt came to."""
        address = self._addresses.pop(who, None)
        if is_right:
            return
        address = address or _Address(wrong=1, next_turn=now + FIRST_S)
        address.last = now
        self._addresses[who] = address  # the last one in the order of forgetting
        if len(self._addresses) > MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
