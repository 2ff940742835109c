"""The admin address's own small server, in the supervisor's process."""

import socket

import trio

from trioproxy.config import Config, is_loopback, split_bind
from trioproxy.server.build import limits_of
from trioproxy.server.listener import Listener
from trioproxy.web.admin.app import AdminApp
from trioproxy.web.admin.desk import AdminDesk, Staff
from trioproxy.web.admin.guard import Guard
from trioproxy.web.admin.sessions import Sessions
from trioproxy.web.connection import render_crash


class AdminHouse:
    """Everything behind the admin address, which stays where it is for the life of the process."""

    def __init__(self, config: Config, staff: Staff) -> None:
        self._sessions = Sessions()
        self._desk = AdminDesk(staff, _guard(config, self._sessions))
        self.listener = Listener(
            AdminApp(self._desk),
            limits_of(config),
            render_crash=render_crash,
        )

    def take(self, config: Config) -> None:
        """Demand this configuration's key from now on; its address has to be the same."""
        self._desk.guard = _guard(config, self._sessions)

    async def serve(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await self.listener.accept(listening, nursery)


def _guard(config: Config, sessions: Sessions) -> Guard:
    key = config.admin.key
    return Guard(
        is_loopback=is_loopback(split_bind(config.admin.bind)[0]),
        key=None if key is None else key.get_secret_value(),
        hosts=config.server.hosts,
        sessions=sessions,
    )
