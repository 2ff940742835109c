"""Several origins that do one step for each request, and requests to a house that knows them."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import trio

from tests.harness.house import CHAT, Answer, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content

WORD = content("word")
PLAIN = b'{"model":"m"}'
OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"ok":1}'
STREAM = OK_STREAM + chunk(WORD) + chunk(DONE) + LAST_CHUNK


def status(number: int, body: bytes = b'{"error":{"message":"no"}}', fields: str = "") -> bytes:
    """An origin's answer that is an error."""
    return f"HTTP/1.1 {number} No\r\ncontent-length: {len(body)}\r\n{fields}\r\n".encode() + body


async def cut(visit: Visit) -> None:
    visit.cut()


Step = bytes | Callable[[Visit], Awaitable[None]]


class Plays:
    """An origin that does one step for each request, the last one again and again; b"" is silence.

    Attributes:
        got: the requests, and `times` when they came.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.got: list[bytes] = []
        self.times: list[float] = []

    async def __call__(self, visit: Visit) -> None:
        while True:
            self.got.append(await visit.read_request())
            self.times.append(trio.current_time())
            step = self._steps[min(len(self.got), len(self._steps)) - 1]
            if isinstance(step, bytes):
                await visit.send(step)
            else:
                await step(visit)

    def field(self, name: bytes) -> list[bytes]:
        """A field's value in each request."""
        lines = [line for request in self.got for line in request.split(b"\r\n")]
        return [line.partition(b": ")[2] for line in lines if line.startswith(name + b": ")]


class Ways(Protocol):
    def __call__(self, routes: str = "", **upstreams: str) -> Path: ...


def route(*lines: str, models: str = "*") -> str:
    return "\n".join(["[[route]]", f'models = ["{models}"]', *lines, ""])


async def ask(
    house: HouseUnderTest, body: bytes = PLAIN, path: str = "/v1/embeddings", headers: str = "", method: str = "POST"
) -> Answer:
    """One request on a connection of its own."""
    client = house.connect()
    if method == "POST":
        await client.post(body, path, headers)
    else:
        await client.send(f"{method} {path} HTTP/1.1\r\nhost: proxy\r\n{headers}\r\n".encode())
    answer = await client.answer(method)
    client.leave()
    return answer


async def ask_stream(house: HouseUnderTest, headers: str = "") -> Answer:
    return await ask(house, CHAT, "/v1/chat/completions", headers)


def opened(file: Path, a: Step | Plays, b: Step | Plays = OK, **flags: Any) -> Any:
    """A house with the origins `a` and `b`, and scripts for them."""
    return open_house(Both(a, b), file=file, **flags)


class Both:
    """Plays the one or the other, by the host that was asked for."""

    def __init__(self, a: Step | Plays, b: Step | Plays) -> None:
        self.a = a if isinstance(a, Plays) else Plays(a)
        self.b = b if isinstance(b, Plays) else Plays(b)

    async def __call__(self, visit: Visit) -> None:
        await (self.b if visit.host == "b" else self.a)(visit)


def code(answer: Answer) -> str:
    error = json.loads(answer.body)["error"]
    return str(error["code"])
