"""A scripted origin on memory streams: what it got, and what it does about it, step by step."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from trioproxy.net.tcp import close_nowait

OK_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_origin\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def content(text: str, ending: str = "null") -> bytes:
    """One event of a chat stream."""
    return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{ending}}}]}}\n\n'.encode()


DONE = b"data: [DONE]\n\n"


class Visit:
    """One connection to the origin, from the origin's end."""

    def __init__(self, stream: trio.abc.Stream, host: str = "") -> None:
        self.stream = stream
        self.host = host
        self.received = b""
        self.opened = trio.current_time()
        self.closed: float | None = None

    async def read_request(self) -> bytes:
        """One whole request; its head and body."""
        while b"\r\n\r\n" not in self.received:
            await self._read()
        head, _, _ = self.received.partition(b"\r\n\r\n")
        lower = head.lower()
        size = 0
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        end = len(head) + 4 + size
        if b"transfer-encoding: chunked" in lower:
            while not self.received.endswith(LAST_CHUNK):
                await self._read()
            end = len(self.received)
        while len(self.received) < end:
            await self._read()
        request, self.received = self.received[:end], self.received[end:]
        return request

    async def _read(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise trio.BrokenResourceError("the proxy left")
        self.received += data

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def wait_left(self) -> None:
        """Wait until the proxy has closed the connection."""
        try:
            while await self.stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        self.closed = trio.current_time()

    def cut(self) -> None:
        """Break the connection from outside."""
        close_nowait(self.stream)


Script = Callable[[Visit], Awaitable[None]]


class Origin:
    """Plays `script`, or that of the host if it has one, on every connection that the house opens; afterwards watches
    for the proxy leaving.

    Attributes:
        visits: the connections so far.
        scripts: those of some hosts.
        asked: the hosts that connections were asked for, refused or not.
        refuses: whether connections are refused; `refusing` names the hosts that do so alone.
        is_unreachable: whether opening a connection goes on for ever.
    """

    def __init__(self, nursery: trio.Nursery, script: Script, *, lockstep: bool = False) -> None:
        self._nursery = nursery
        self.script = script
        self._pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self.visits: list[Visit] = []
        self.scripts: dict[str, Script] = {}
        self.asked: list[str] = []
        self.refuses = False
        self.refusing: set[str] = set()
        self.is_unreachable = False

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Stands in for `upstream.connect.open_tcp`."""
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        if self.is_unreachable:
            await trio.sleep_forever()
        if self.refuses or host in self.refusing:
            raise OSError("refused")
        ours, theirs = self._pair()
        visit = Visit(ours, host)
        self.visits.append(visit)
        self._nursery.start_soon(self._play, visit)
        return theirs

    async def _play(self, visit: Visit) -> None:
        try:
            await self.scripts.get(visit.host, self.script)(visit)
            await visit.wait_left()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            visit.closed = trio.current_time()

    @property
    def still_open(self) -> int:
        """How many connections the house has not closed, as far as the origin has seen."""
        return sum(visit.closed is None for visit in self.visits)
