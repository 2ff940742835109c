"""Follows the live table of a running service, for as long as somebody looks at it."""

import json
from typing import Final

import trio

from trioproxy.cli.admin import AdminAddress, NotReached, NotSaid, Refused
from trioproxy.cli.live_table import LiveTable

_PATH: Final = "/admin/streams"
_PAUSE_S: Final = 1.0
"""Between two attempts to get a lost connection back."""


async def watch(address: AdminAddress, table: LiveTable) -> None:
    """Keep the table as the service has it; never returns. A connection that is lost is opened again, and goes on
    where it was. Raises NotReached, NotSaid or Refused if there never was one."""
    feed = _Feed(table)
    while True:
        try:
            await address.follow(_PATH, feed.take, feed.last_id)
            table.problem = "the service has ended the connection"
        except (NotReached, NotSaid, Refused) as error:
            if not table.is_known:
                raise
            table.problem = str(error)
        await trio.sleep(_PAUSE_S)


class _Feed:
    """Puts the events of the live table's stream into the table.

    Attributes:
        last_id: the last event's id, which a new connection goes on from.
    """

    def __init__(self, table: LiveTable) -> None:
        self.last_id: str | None = None
        self._table = table

    def take(self, event: bytes) -> None:
        """Take one event. Raises NotSaid if it is none of this service's."""
        fields = dict(line.split(": ", 1) for line in event.decode("utf-8", "replace").split("\n") if ": " in line)
        now = trio.current_time()
        try:
            match fields.get("event"), json.loads(fields.get("data", "null")):
                case "snapshot", {"streams": list(rows)}:
                    self._table.tell_all(rows, now)
                case "change", {"set": list(changed), "gone": list(gone)}:
                    self._table.tell(changed, gone, now)
        except ValueError:
            raise NotSaid("what came is no event of this service's") from None
        self.last_id = fields.get("id", self.last_id)
        self._table.problem = None
