"""One connection to Redis that is made again when it breaks: coredis' connection, without its client and its pool.

That pool (6.9) loses a place with each blocking command that is cancelled and with each connection that breaks while it
is lent, and in the end waits for ever. A store needs three connections and no pool: commands of many tasks follow each
other on one of them without waiting for the answers, since the server takes one at a time anyway.

A command whose answer is late takes its connection along: nobody knows any more what the next answer belongs to, and
what waits to be written does not grow.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Never
from urllib.parse import unquote, urlsplit

import anyio
import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError

from trioproxy.state.streams import StateUnavailable

Value = bytes | int
Command = tuple[Value, ...]
"""A command's name and its arguments."""

_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_BREAKS: Final = (RedisError, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What coredis raises where a connection breaks; anyio's, if it breaks at that very moment."""


class NotSent(StateUnavailable):
    """There is no connection: nothing was done, and nothing will be."""


@dataclass(frozen=True)
class Address:
    """Where a server is and who we are there. `tls` None: in the clear."""

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def address_of(url: str, ca_file: str | None = None) -> Address:
    """Read `redis[s]://[[user]:password@]host[:port][/database]`. With `rediss` the server's certificate is checked,
    against `ca_file` or the system's authorities. Raises ValueError, which does not show the URL."""
    try:
        parts = urlsplit(url)
        port, database = parts.port or 6379, int(parts.path.strip("/") or "0")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError
    except ValueError:  # what it says itself would show a part of the URL, which may hold the password
        raise ValueError(
            "expected redis://[[user]:password@]host[:port][/database], or rediss:// for TLS; "
            "a password is percent-encoded where it holds / ? # @ or :"
        ) from None
    return Address(
        host=parts.hostname,
        port=port,
        database=database,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=ssl.create_default_context(cafile=ca_file) if parts.scheme == "rediss" else None,
    )


class RedisLink:
    """One connection, up or down. `keep` belongs in a nursery; without it every call says that there is none.

    `channel`: what it listens to, if anything; whoever hears calls `hear`. `greeting`: what each new connection says
    before anything else; where the server refuses that, there is no connection.
    """

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        channel: bytes | None = None,
        greeting: Callable[[], Sequence[Command]] | None = None,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._channel = channel
        self._greeting = greeting
        self._connection: TCPConnection | None = None
        self._fault: str | None = None  # why the last attempt to connect failed
        self._news = trio.Event()  # it came up, or an attempt failed

    async def keep(self) -> Never:
        """Connect, and connect again when the connection is lost, until cancelled."""
        pause_s = _PAUSE_S
        while True:
            connection = self._new_connection()
            try:
                await connection.run(task_status=_Started(self, connection))
                pause_s = _PAUSE_S
            except RedisError as error:
                self._fault = _words(error)
                self._tell()
            finally:
                self._connection = None
                _close_buffers(connection)
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def call(self, *command: Value, wait_s: float = 0.0) -> object:
        """Send a command and return its answer. `wait_s`: how long the command itself may block, at the server.

        Raises StateUnavailable: at once, as NotSent, if the last attempt to connect failed. Raises RedisError if the
        server says that it cannot do this. If cancelled, the command may have been done; its answer is dropped when it
        comes.
        """
        [answer] = await self.call_all([command], wait_s=wait_s)
        return answer

    async def call_all(self, commands: Sequence[Command], *, wait_s: float = 0.0) -> list[object]:
        """The same with several commands, one behind the other; all are done if one of them is refused."""
        connection = None
        try:
            with trio.fail_after(self._timeout_s + wait_s):
                connection = await self._wait_usable()
                requests = [
                    connection.create_request(
                        _as_bytes(name),
                        *rest,
                        timeout=self._timeout_s + wait_s + 1,  # ours, above, comes first
                        disconnect_on_cancellation=wait_s > 0,  # or the next command would wait for this one's end
                    )
                    for name, *rest in commands
                ]
                return [await request for request in requests]
        except trio.TooSlowError:
            if connection is None:
                raise NotSent(f"There was no connection to Redis within {self._timeout_s:g} s.") from None
            connection.invalidate()
            raise StateUnavailable(f"Redis did not answer within {self._timeout_s:g} s.") from None
        except _BREAKS as error:
            if connection is not None and connection.usable and isinstance(error, RedisError):
                raise  # it is what the server says
            raise StateUnavailable(f"Redis does not answer: {_words(error)}") from error

    async def hear(self, take: Callable[[bytes], None]) -> Never:
        """Give each message on the channel to `take`, until cancelled. What is said while the connection is down is
        missed."""
        while True:
            while self._usable is None:
                await self._news.wait()
            try:
                async for message in self._usable.push_messages:
                    if message[0] == b"message" and isinstance(message[2], bytes):
                        take(message[2])
            except _BREAKS:
                await trio.sleep(_PAUSE_S)  # `keep` knows it a little later than we do

    @property
    def _usable(self) -> TCPConnection | None:
        """The connection, if it is up. A connection knows that it broke before `keep` does."""
        return self._connection if self._connection is not None and self._connection.usable else None

    async def _wait_usable(self) -> TCPConnection:
        """The connection, once there is one. Raises NotSent if the last attempt to connect failed."""
        while (connection := self._usable) is None:
            if self._fault is not None:
                await trio.lowlevel.checkpoint()
                raise NotSent(f"There is no connection to Redis: {self._fault}")
            await self._news.wait()
        return connection

    def _new_connection(self) -> TCPConnection:
        address = self._address
        connection = TCPConnection(
            TCPLocation(address.host, address.port),
            stream_timeout=self._timeout_s,
            connect_timeout=self._timeout_s,
            username=address.username,
            password=address.password,
            db=address.database,
            ssl_context=address.tls,
        )
        if self._channel is not None:
            connection.register_connect_callback(partial(_subscribe, self._channel))
        if self._greeting is not None:
            connection.register_connect_callback(partial(_greet, self._greeting))
        return connection

    def _come_up(self, connection: TCPConnection) -> None:
        self._connection, self._fault = connection, None
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


class _Started:
    """What a connection tells that it can be used."""

    def __init__(self, link: RedisLink, connection: TCPConnection) -> None:
        self._link = link
        self._connection = connection

    def started(self, value: None = None) -> None:
        self._link._come_up(self._connection)


def _subscribe(channel: bytes, connection: TCPConnection) -> None:
    """Part of coming up: a link that is up hears."""
    connection.send_command(b"SUBSCRIBE", channel)


async def _greet(greeting: Callable[[], Sequence[Command]], connection: TCPConnection) -> None:
    """Part of coming up, too."""
    for request in [connection.create_request(_as_bytes(name), *rest) for name, *rest in greeting()]:
        await request


def _close_buffers(connection: TCPConnection) -> None:
    """coredis (6.9) leaves its channels open where connecting failed. They are a part of its insides."""
    for channel in (
        connection._write_buffer_in,
        connection._write_buffer_out,
        connection._push_message_buffer_in,
        connection._push_message_buffer_out,
        connection._streamed_message_buffer_in,
        connection._streamed_message_buffer_out,
    ):
        channel.close()


def _words(error: BaseException) -> str:
    """What an error says; of one that only wraps another, what that says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _as_bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value
