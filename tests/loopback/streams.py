"""Many streams at once, each read to its end, whatever that is."""

import json
from dataclasses import dataclass, field

import trio

from tests.loopback.raw_http import chat, request_bytes

CHAT = "/v1/chat/completions"
_CLEAN_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
_BORDER = b"\n\n"


@dataclass
class Ends:
    """How streams ended: `whole` ones with their final event and HTTP's own end, `told` ones with an error event and a
    cut, `lost` ones in any other way (what each brought), `refused` connections."""

    whole: int = 0
    told: int = 0
    lost: list[bytes] = field(default_factory=list)
    refused: int = 0

    @property
    def all(self) -> int:
        return self.whole + self.told + len(self.lost) + self.refused


async def read_stream(port: int, model: str, ends: Ends, begun: trio.Event | None = None) -> None:
    """Read one stream to its end and note that in `ends`; sets `begun` at its first bytes."""
    data = b""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        ends.refused += 1
        return
    async with stream:
        try:
            await stream.send_all(
                request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), {"connection": "close"})
            )
            while piece := await stream.receive_some(65536):
                data += piece
                if begun is not None:
                    begun.set()
        except trio.BrokenResourceError:
            pass
    if data.endswith(_CLEAN_END):
        ends.whole += 1
    elif b'data: {"error"' in data.rpartition(_BORDER)[0].rpartition(_BORDER)[2] or b'{"error"' in data[-300:]:
        ends.told += 1
    else:
        ends.lost.append(data)


async def read_streams(port: int, model: str, number: int) -> Ends:
    """Read so many streams at once."""
    ends = Ends()
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(read_stream, port, model, ends)
    return ends
