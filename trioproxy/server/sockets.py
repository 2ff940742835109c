"""Listening sockets. The supervisor opens them, keeps them for life and hands them to its workers.

For each address there is one socket per worker slot, all on one port by `SO_REUSEPORT`: the kernel spreads connections
over them and no two workers wake for the same one. It counts those that listen, so a slot that is new listens only once
its worker is there. A closed listening socket resets the connections that wait in its queue, so none is ever closed
while its address is served: a worker that dies or is replaced leaves its queue to the next one of its slot.
"""

import socket

from trioproxy.net.tcp import guard_against_vanished_peers

BACKLOG = 4096
_ANYWHERE = ("0.0.0.0", "::")


def authority(host: str, port: int, here: str | None = None) -> str:
    """An address as it stands in a URL; one that means any of this machine's is called `here`, if that is given."""
    name = here if here is not None and host in _ANYWHERE else host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def bind(host: str, port: int, *, shared: bool = False, listens: bool = True) -> socket.socket:
    """A listening socket, or one that does not listen yet. Raises OSError, also if anybody listens there, unless both
    are `shared`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        guard_against_vanished_peers(listening)
        listening.bind(address)
        if listens:
            listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


class SlotSockets:
    """The listening sockets of one address, one per worker slot, all on one port."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError if somebody else listens there: with `SO_REUSEPORT` alone a second service of the same user
        would quietly take half of the connections, so the first bind is without it."""
        with bind(host, port) as alone:
            self.port: int = alone.getsockname()[1]
        self.host = host
        self._sockets = [bind(host, self.port, shared=True)]

    def for_worker(self, slot: int, workers: int) -> list[socket.socket]:
        """The sockets of one of so many workers. Opens what is missing, which does not listen yet; raises OSError. With
        fewer workers than there were before, each takes over the slots of those that are gone."""
        while len(self._sockets) < workers:
            self._sockets.append(bind(self.host, self.port, shared=True, listens=False))
        return self._sockets[slot::workers]

    def close(self) -> None:
        """Close them all; what waits in their queues is reset."""
        for listening in self._sockets:
            listening.close()
