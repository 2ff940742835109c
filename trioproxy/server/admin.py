"""The admin address's own small server, in the supervisor's process."""

import socket

import trio

from trioproxy.config import Config, is_loopback, split_bind
from trioproxy.server.build import limits_of
from trioproxy.server.listener import Listener
from trioproxy.web.admin.app import AdminApp, AdminDesk, Staff
from trioproxy.web.admin.guard import Guard
from trioproxy.web.connection import render_crash


class AdminHouse:
    """Everything behind the admin address."""

    def __init__(self, config: Config, staff: Staff) -> None:
        key = config.admin.key
        guard = Guard(
            is_loopback=is_loopback(split_bind(config.admin.bind)[0]),
            key=None if key is None else key.get_secret_value(),
        )
        self.listener = Listener(
            AdminApp(AdminDesk(staff, guard)),
            limits_of(config),
            render_crash=render_crash,
        )

    async def serve(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await self.listener.accept(listening, nursery)
