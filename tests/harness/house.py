"""The house under test: real rooms from accept to origin, on memory streams, with the log in a list."""

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import h11
import trio
import trio.testing

from tests.harness.counting import TaskCounter
from tests.harness.origin import Origin, Script
from trioproxy.config import load
from trioproxy.net.tcp import close_nowait
from trioproxy.server.build import House
from trioproxy.state.limits import LimitStore
from trioproxy.state.limits_memory import MemoryLimits
from trioproxy.state.streams import StreamStore
from trioproxy.telemetry.access_log import AccessLog
from trioproxy.telemetry.record import Record
from trioproxy.telemetry.tracer import Tracer

CHAT = b'{"model":"m","messages":[],"stream":true}'
HOSTS = ["proxy", "a", "my_host.example"]
"""What the stories call the proxy; it is bound to loopback, as usual."""


class ListLog(AccessLog):
    """The log without its thread: virtual time would run away while a thread works."""

    def __init__(self) -> None:
        super().__init__("off")
        self.lines: list[dict[str, Any]] = []
        self.records: list[Record] = []

    def exchange(self, record: Record) -> None:
        self.records.append(record)
        super().exchange(record)

    def put(self, event: str, fields: dict[str, Any]) -> None:
        self.lines.append({"event": event, **fields})

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """The exchanges so far, as their log lines say."""
        return [line for line in self.lines if line["event"] == "exchange"]


class FakeSocket:
    """The addresses that a connection's socket would tell."""

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return ("192.0.2.7", 5)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.1", 80)


class Client:
    """A client's end of one connection: sends bytes, reads answers with h11, may stall or leave."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)
        self.is_at_end = False

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def post(self, body: bytes = CHAT, path: str = "/v1/chat/completions", headers: str = "") -> None:
        """Send a request with a JSON body."""
        head = f"POST {path} HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\n{headers}"
        await self.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def read_some(self) -> bytes:
        """Some raw bytes; b"" at the end."""
        return bytes(await self.stream.receive_some(65536))

    async def read_raw(self) -> bytes:
        """Every raw byte until the proxy ends the connection."""
        data = b""
        try:
            while piece := await self.read_some():
                data += piece
        except trio.BrokenResourceError:
            pass
        return data

    async def answer(self, method: str = "POST") -> "Answer":
        """One answer, to its honest end or to its breaking off."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "proxy")]))
        connection.send(h11.EndOfMessage())
        answer = Answer()
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return answer  # cut in the middle
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(await self.read_some())
                except trio.BrokenResourceError:
                    return answer
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
                answer.pieces.append(bytes(event.data))
                answer.times.append(trio.current_time())
            elif isinstance(event, h11.EndOfMessage):
                answer.is_complete = True
                return answer
            elif isinstance(event, h11.ConnectionClosed):
                return answer

    def leave(self) -> None:
        """Close the connection."""
        close_nowait(self.stream)


class Answer:
    """An answer as the client saw it; `is_complete` only if its framing said so; its body also in `pieces`, one for
    each chunk unless that came in parts, and the `times` of each piece."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self.pieces: list[bytes] = []
        self.times: list[float] = []


class HouseUnderTest:
    """A house with a scripted origin. `tasks` counts what the house and its origin have running."""

    def __init__(
        self,
        nursery: trio.Nursery,
        script: Script,
        flags: Mapping[str, object],
        lockstep: bool,
        file: Path | None = None,
        store: StreamStore | None = None,
        limits: LimitStore | None = None,
        wall_clock: Callable[[], float] = time,
        tracer: Tracer | None = None,
    ) -> None:
        self._nursery = nursery
        self._lockstep = lockstep
        self.log = ListLog()
        self.origin = Origin(nursery, script, lockstep=lockstep)
        if file is None or "[[upstream]]" not in file.read_text():
            flags = {"upstream.base_url": "http://origin/v1", "upstream.name": "origin", **flags}
        config = load(file, flags={"server.hosts": HOSTS, **flags}, environ={})
        self.house = House(
            config,
            self.log,
            open_tcp=self.origin.open_tcp,
            store=store,
            limits=limits,
            wall_clock=wall_clock,
            tracer=tracer,
        )
        self._serving: list[trio.CancelScope] = []
        self.keeping = trio.CancelScope()
        nursery.start_soon(self._keep)

    async def _keep(self) -> None:
        """What runs beside the requests, but for those that would never let virtual time jump far."""
        with self.keeping:
            async with trio.open_nursery() as nursery:
                for keep in (*self.house.keepers()[2:], self.house.keep_accounts):
                    nursery.start_soon(keep)

    def connect(self) -> Client:
        """A new connection to the house."""
        make: Any = trio.testing.lockstep_stream_pair if self._lockstep else trio.testing.memory_stream_pair
        ours, theirs = make()
        theirs.socket = FakeSocket()
        self._nursery.start_soon(self._serve, theirs)
        return Client(ours)

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        with trio.CancelScope() as scope:
            self._serving.append(scope)
            await self.house.listener.serve(stream)

    def cancel_server(self) -> None:
        """Cancel every connection's task, as a process does that has no more time."""
        for scope in self._serving:
            scope.cancel()

    @property
    def crashes(self) -> int:
        """How many crashes the barrier caught."""
        return self.house.listener.barrier.crashes


@asynccontextmanager
async def open_house(
    script: Script,
    *,
    lockstep: bool = False,
    file: Path | None = None,
    store: StreamStore | None = None,
    limits: LimitStore | None = None,
    wall_clock: Callable[[], float] = time,
    tracer: Tracer | None = None,
    **flags: Any,
) -> AsyncIterator[HouseUnderTest]:
    """A house that is gone, with everything it started, when the block ends.

    At the end, once the client has left and all is quiet, nothing may be left: no task, connection,
    live request or place at an upstream, and all that was counted as opened was counted as released.
    Flags are configuration keys with `__` for the dot, for example `deadlines__idle_s=5`; `file` is a configuration
    file for what flags cannot say; it may have upstreams of its own, whose hosts are `origin.scripts`.
    """
    counter = TaskCounter()
    async with trio.open_nursery() as nursery:
        house = HouseUnderTest(
            nursery,
            script,
            {key.replace("__", "."): value for key, value in flags.items()},
            lockstep,
            file,
            store,
            limits,
            wall_clock,
            tracer,
        )
        trio.lowlevel.add_instrument(counter)
        try:
            yield house
            house.keeping.cancel()
            await trio.sleep(10)  # lingering, and idle connections' time in the pool
            house.house.pool.close_expired()
            await trio.testing.wait_all_tasks_blocked()
            assert house.crashes == 0, house.log.lines
            assert not house.house.service.live
            assert not house.house.listener.connections
            assert house.origin.still_open == 0
            assert not any(endpoint.slots.taken for endpoint in house.house.endpoints.values())
            if isinstance(house.house.limits, MemoryLimits):
                assert not house.house.limits.streams
            resources = house.house.answer("resources")
            assert not any(resources["open"].values()), resources["open"]
            assert resources["opened"] == resources["released"]
            assert not counter.alive, list(counter.alive.values())
        finally:
            trio.lowlevel.remove_instrument(counter)
            nursery.cancel_scope.cancel()
