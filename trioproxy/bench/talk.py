"""One chat over one connection: the request, what came back and when. The generator's every request, and `chat`'s.

Streamed or whole, an answer counts only if it is whole: a stream has to say `[DONE]`. What went wrong has a short name
of a closed kind ("connection cut", "HTTP 429 rate_limit_exceeded"), so that a million failures can be counted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from trioproxy.bench.events import DONE, Chunk, EventReader, TooLong, read_chunk
from trioproxy.bench.http_client import Connection, Failed

PATH = "/chat/completions"
MAX_WHOLE_BYTES = 64 * 1024 * 1024
_MAX_NAME = 60

Listener = Callable[[str], None]
"""Is given each piece of text as it comes. Must not raise."""


@dataclass(slots=True)
class Talk:
    """What became of one request. Times are trio's, in seconds; None: that never was.

    `tokens` is the origin's own count. `error` names what went wrong, None: nothing did; `message` is what the other
    side said of it, as it came.
    """

    started: float
    ended: float = 0.0
    first_content: float | None = None
    last_content: float | None = None
    contents: int = 0
    """Events with text in them; a whole answer with text is one."""
    tokens: int | None = None
    error: str | None = None
    message: str = ""

    @property
    def first_content_s(self) -> float | None:
        """From the request to its first content."""
        return None if self.first_content is None else self.first_content - self.started

    @property
    def total_s(self) -> float:
        return self.ended - self.started

    @property
    def tokens_per_s(self) -> float | None:
        """How fast a stream flowed once it did; each event with text counts as a token where the origin gives no
        figure. None where there is no telling."""
        if self.first_content is None or self.last_content is None or self.contents < 2:
            return None
        flowed_s = self.last_content - self.first_content
        return ((self.tokens or self.contents) - 1) / flowed_s if flowed_s > 0 else None


def request_body(model: str, messages: Sequence[Mapping[str, str]], *, streams: bool) -> bytes:
    """A chat request as JSON."""
    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if streams:
        body["stream"] = True
    return json.dumps(body).encode()


async def stream_chat(connection: Connection, body: bytes, listener: Listener) -> Talk:
    """Ask for a stream and read it to its end. Never raises for what goes wrong; if cancelled, the connection is
    closed."""
    talk = Talk(started=trio.current_time())
    try:
        if await _is_accepted(connection, body, talk):
            await _read_stream(connection, talk, listener)
    except Failed as failed:
        talk.error = talk.error or str(failed)
    talk.ended = trio.current_time()
    return talk


async def whole_chat(connection: Connection, body: bytes, listener: Listener) -> Talk:
    """The same for an answer in one piece: its content comes with its end."""
    talk = Talk(started=trio.current_time())
    try:
        if await _is_accepted(connection, body, talk):
            said = read_chunk(await _read_whole(connection))
            _take(said, talk, listener)
            if talk.error is None and not talk.contents:
                talk.error = "no chat in the answer"
    except Failed as failed:
        talk.error = talk.error or str(failed)
    talk.ended = trio.current_time()
    return talk


async def _is_accepted(connection: Connection, body: bytes, talk: Talk) -> bool:
    """Whether the answer's status is a good one; what else it says is taken down."""
    status = await connection.ask("POST", PATH, body)
    if status == 200:
        return True
    said = read_chunk(await _read_whole(connection))
    talk.error = _named(f"HTTP {status}", said)
    talk.message = said.message
    return False


async def _read_stream(connection: Connection, talk: Talk, listener: Listener) -> None:
    reader = EventReader()
    is_done = False
    while piece := await connection.read():
        try:
            events = reader.feed(piece)
        except TooLong:
            connection.close()
            raise Failed("an event without an end") from None
        for data in events:
            if data == DONE:
                is_done = True
            elif not is_done:
                _take(read_chunk(data), talk, listener)
    if talk.error is None and not is_done:
        talk.error = "ended without [DONE]"


def _take(said: Chunk, talk: Talk, listener: Listener) -> None:
    """Take down what an event or a whole answer says."""
    if said.error is not None:
        talk.error = talk.error or _named("in the stream:", said)
        talk.message = talk.message or said.message
    elif not said.is_readable:
        talk.error = talk.error or "not JSON"
    if said.tokens is not None:
        talk.tokens = said.tokens
    if said.text:
        talk.last_content = trio.current_time()
        if talk.first_content is None:
            talk.first_content = talk.last_content
        talk.contents += 1
        listener(said.text)


async def _read_whole(connection: Connection) -> bytes:
    """The whole body. Raises Failed, also if it is too large to be one."""
    pieces, size = [], 0
    while piece := await connection.read():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_WHOLE_BYTES:
            connection.close()
            raise Failed("an answer without an end")
    return b"".join(pieces)


def _named(prefix: str, said: Chunk) -> str:
    """A short name for an error, of plain characters whatever the other side calls it."""
    name = "".join(character for character in said.error or "" if character.isascii() and character.isprintable())
    return f"{prefix} {name}".strip()[:_MAX_NAME]
