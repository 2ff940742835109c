"""Many clients of one test process, and what their proxy and its origin hold for them."""

import json
import resource
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from tests.loopback.processes import Server
from tests.loopback.raw_http import WAIT_S, Wire, ask, chat, request_bytes
from trioproxy.bench import demo_events as say
from trioproxy.bench.demo_model import parse_model

CHAT: Final = "/v1/chat/completions"
_DIALECTS: Final = {
    CHAT: say.Dialect.CHAT,
    "/v1/completions": say.Dialect.COMPLETIONS,
    "/v1/responses": say.Dialect.RESPONSES,
    "/v1/messages": say.Dialect.MESSAGES,
}
_SEGMENT_BYTES: Final = 1460
_RECEIVE_BUFFER_BYTES: Final = 4096


def allow_files(count: int) -> None:
    """Let this process, and those that it starts, open at least so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert count <= hard, f"this test needs {count} file descriptors, and the hard limit is {hard}"
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def chat_request(model: str, request_id: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """A request for a stream."""
    given = {**({"x-request-id": request_id} if request_id else {}), **(headers or {})}
    return request_bytes("POST", CHAT, json.dumps(chat(model)).encode(), given)


def ask_and_stall(port: int, model: str, request_id: str = "", headers: Mapping[str, str] | None = None) -> Wire:
    """Ask for a stream and read nothing, as a client far away looks that has stopped.

    Its segments are Ethernet's: with loopback's 64 KiB the kernel would take a megabyte for it before it stalls.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    connection.settimeout(WAIT_S)
    try:
        connection.connect(("127.0.0.1", port))
        wire = Wire(connection)
        wire.send(chat_request(model, request_id, headers))
    except BaseException:
        connection.close()
        raise
    return wire


def stalled_readers(port: int, model: str, count: int, opened: ExitStack) -> list[Wire]:
    """So many clients that never read; the stack closes them."""
    return [opened.enter_context(ask_and_stall(port, model, f"stalled-{number}")) for number in range(count)]


def streams(upstream: Server) -> int:
    """How many generations run at the origin."""
    running: int = ask(upstream.port, "GET", "/stats").json["streams"]
    return running


class Received(Wire):
    """What was read of a connection, taken apart afterwards by the same code."""

    def __init__(self, data: bytes) -> None:
        self._kept = data

    def read_some(self) -> bytes:
        """What is left."""
        data, self._kept = self._kept, b""
        return data

    def _more(self) -> bytes:
        return b""


def sent_by_demo(target: str, body: bytes, origin_id: str) -> Iterator[bytes]:
    """What the demo upstream sends, event for event, for a request for a stream in which nothing goes wrong.

    `origin_id` is the answer's `x-request-id`: its number is in the ids of the events, and nothing else differs from
    one run to the next.
    """
    model = json.loads(body)["model"]
    behaviour = parse_model(model)
    number = int(origin_id.removeprefix("req_demo_"))
    answer = say.Answer(_DIALECTS[target], model, behaviour, body, number, include_usage=behaviour.usage)
    newline = behaviour.newline
    comment = f": ping{newline}{newline}".encode() if behaviour.comments else b""
    for event in say.opening(answer):
        yield comment + event.render(newline)
    index = 0
    while behaviour.flood or index < answer.count:
        yield comment + say.content(answer, index).render(newline)
        index += 1
    for event in say.closing(answer):
        yield comment + event.render(newline)


def is_beginning(received: bytes, events: Iterable[bytes]) -> bool:
    """Whether these bytes are the first of those events, whole ones or not."""
    at = 0
    for event in events:
        if at >= len(received):
            break
        if not event.startswith(received[at : at + len(event)]):
            return False
        at += len(event)
    return at >= len(received)
