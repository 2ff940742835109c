"""A simulated origin with the APIs of OpenAI and Anthropic: no key, no network, and every fault on demand.

    serve → serve_connection → head → _reply_to (body, route → a Reply) → _perform (its steps)

What the model's name chooses is in `demo_model.WORDS`. The name is the request's `model`, or `?model=…` in the query,
which wins and is the only way on routes whose body names none.

Simulates no authentication, no limits and no WebSockets, and keeps nothing of what it is told. Called by
`cli` (`trioproxy demo`, `demo-upstream`) and by tests, on real sockets or on memory streams.
"""

import hashlib
import itertools
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import h11
import trio

from . import demo_events as say
from . import demo_script as script
from .demo_events import Answer, Dialect
from .demo_http import Connection, Gone, Malformed
from .demo_model import Behaviour, parse_model
from .demo_script import Pause, Raw, Reply, Send, Then

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Of a JSON body, which is held. Uploads have no limit and are not held."""

MAX_MODEL_CHARS: Final = 256

_DIALECTS: Final = {
    "/v1/chat/completions": Dialect.CHAT,
    "/v1/completions": Dialect.COMPLETIONS,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/messages": Dialect.MESSAGES,
}
_JSON_ROUTES: Final = (*_DIALECTS, "/v1/embeddings", "/v1/audio/speech")
_UPLOADS: Final = "/v1/files"
_READABLE: Final = ("/v1/models", "/stats")
_POST: Final = ("POST", "OPTIONS")
_GET: Final = ("GET", "HEAD", "OPTIONS")
# Enough to find a model in a body that is still on its way.
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')


@dataclass
class State:
    """What a server counts; `GET /stats` shows it. One per server, shared by its connections."""

    open: int = 0
    """Connections."""
    streams: int = 0
    """Generations that are running, streamed or not."""
    aborted: int = 0
    """Generations whose peer left before the end."""
    requests: int = 0
    """Requests so far, those for `/stats` not counted."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """For the ids; not shown."""
    lates: Counter[int] = field(default_factory=Counter)
    """How often each `late_percent` was asked for, those above 100 as one; not shown."""

    def note(self, asked: Behaviour) -> Behaviour:
        """Count a request for this behaviour. Returns the one that it gets."""
        percent = min(asked.late_percent, 100)
        if not percent:
            return asked
        number = self.lates[percent]
        self.lates[percent] += 1
        return asked.of_request(number)

    def shown(self) -> dict[str, int]:
        """What `/stats` answers."""
        return {"open": self.open, "streams": self.streams, "aborted": self.aborted, "requests": self.requests}


@dataclass(frozen=True)
class _Request:
    """One request: its head, taken apart."""

    number: int
    method: str
    path: str
    model: str | None
    """From the query; None: the body names it."""

    @property
    def dialect(self) -> Dialect | None:
        return _DIALECTS.get(self.path)

    @property
    def id(self) -> str:
        return f"req_demo_{self.number}"

    @property
    def asked(self) -> Behaviour:
        """What the query asks for."""
        return parse_model(self.model or "")


class _Refused(Exception):
    """The request cannot be answered; carries what to say instead."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    listening: socket.socket | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on `host` and `port` (0: any free one), or on a socket that listens already; report the port; serve until
    cancelled.

    Raises OSError if the port is taken. Cancelled: every connection is closed at once.
    """
    state = State()
    if listening is None:
        listener = (await trio.open_tcp_listeners(port, host=host))[0]
    else:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def handle(stream: trio.SocketStream) -> None:
        await serve_connection(stream, state)

    async with listener:
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(handle, [listener])


async def serve_connection(stream: trio.abc.Stream, state: State) -> None:
    """Serve one connection on any stream until either side is done, then close it.

    Nothing that a peer does makes this raise. Trio sets TCP_NODELAY on every socket stream itself.
    """
    state.open += 1
    try:
        async with stream:
            connection = Connection(stream)
            while await _serve_request(connection, state):
                pass
    except (trio.BrokenResourceError, Gone):
        return  # The peer left; whatever it had asked for was counted where it ran.
    finally:
        state.open -= 1


async def _serve_request(connection: Connection, state: State) -> bool:
    """Serve one request. Returns whether there can be another."""
    number = 0
    try:
        head = await connection.receive_head()
        if head is None:
            return False
        number = next(state.numbers)
        request = _request_of(head, number)
        if request.path != "/stats":
            state.requests += 1
        reply = await _reply_to(request, connection, state)
    except Malformed as error:
        if not connection.can_answer:
            return False
        body = say.error_envelope(str(error), "invalid_request_error", "malformed_request")
        reply = script.at_once(error.status, body, (("connection", "close"),))
    except _Refused as refused:
        reply = refused.reply
    # A head that could not be read has no number yet.
    reply = reply.with_header("x-request-id", f"req_demo_{number or next(state.numbers)}")
    then = await (_generate(connection, reply, state) if reply.is_generation else _perform(connection, reply))
    if then is Then.RESET:
        connection.arm_reset()
    return then is Then.FINISH and connection.can_go_on()


def _request_of(head: h11.Request, number: int) -> _Request:
    target = head.target.decode("ascii")
    if "://" in target.partition("?")[0]:  # The absolute form, as a forward proxy gets it.
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    named = parse_qs(query).get("model")
    return _Request(number, head.method.decode("ascii"), unquote(path), named[0] if named else None)


async def _reply_to(request: _Request, connection: Connection, state: State) -> Reply:
    """Read the request's body and decide on the answer. Raises `_Refused`, `Malformed`, `Gone`."""
    allowed = _allowed(request.path)
    if request.asked.instead == "early":
        return script.early(request.dialect, request.id)
    if request.method == "POST" and request.path in _JSON_ROUTES:
        return _answer(request, await _read_json_body(request, connection), state)
    size, digest = await _read_upload(connection)
    special = script.instead(request.asked, request.dialect, request.id)
    if request.path == "*" and request.method == "OPTIONS":
        return _options(_GET)
    if allowed is None:
        raise _refused(request, 404, f"Invalid URL ({request.method} {request.path})", code="unknown_path")
    if request.method == "OPTIONS":
        return _options(allowed)
    if request.method not in allowed:
        message = f"Not allowed to {request.method} on {request.path}"
        raise _refused(request, 405, message, headers=(("allow", ", ".join(allowed)),))
    if special is not None:
        return special
    if request.path == _UPLOADS:
        answer = {"id": f"file-demo{request.number}", "object": "file", "bytes": size, "sha256": digest}
        return script.paced(request.asked, answer, request.asked.first_s(0))
    return _readable(request, state)


def _options(allowed: tuple[str, ...]) -> Reply:
    return Reply(204, (("allow", ", ".join(allowed)),), (Then.FLUSH, Then.FINISH))


def _allowed(path: str) -> tuple[str, ...] | None:
    """The methods of a path, or None if it does not exist."""
    if path in _JSON_ROUTES or path == _UPLOADS:
        return _POST
    if path in _READABLE or (path.startswith("/v1/models/") and path != "/v1/models/"):
        return _GET
    return None


def _readable(request: _Request, state: State) -> Reply:
    """What can be read with GET. Any model exists: its name chooses what it does."""
    if request.path == "/stats":
        return script.at_once(200, state.shown())
    if request.path == "/v1/models":
        return script.at_once(200, {"object": "list", "data": [say.model_entry(name) for name in say.MODELS]})
    return script.at_once(200, say.model_entry(request.path.removeprefix("/v1/models/")))


def _answer(request: _Request, body: bytes, state: State) -> Reply:
    """The answer to a JSON body."""
    value = _parsed(request, body)
    model = request.model or value.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS:
        raise _refused(request, 400, "You must provide a model parameter", code="invalid_body", param="model")
    behaviour = state.note(parse_model(model))
    special = script.instead(behaviour, request.dialect, request.id)
    if special is not None:
        return special
    if request.path == "/v1/audio/speech":
        return script.audio(behaviour)
    if request.dialect is None:
        return script.paced(behaviour, _embedded(request, value, model), behaviour.first_s(0))
    options = value.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    usage = asked or behaviour.usage
    answer = Answer(request.dialect, model, behaviour, body, request.number, include_usage=usage)
    is_stream = value.get("stream") is True
    # What must be held at once has a limit, as no name may take the machine's memory.
    if answer.held_bytes > MAX_BODY_BYTES and (not is_stream or request.dialect is Dialect.RESPONSES):
        raise _refused(request, 400, "That is too much text for one piece.", code="invalid_body", param="model")
    return script.stream(answer) if is_stream else script.whole(answer)


def _embedded(request: _Request, value: dict[str, Any], model: str) -> say.Json:
    try:
        return say.embeddings(value, model)
    except ValueError as error:
        raise _refused(request, 400, str(error), code="invalid_body", param="input") from error


def _parsed(request: _Request, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:  # The second is what a million open brackets cause.
        raise _refused(
            request, 400, "We could not parse the JSON body of your request.", code="invalid_body"
        ) from error
    if not isinstance(value, dict):
        raise _refused(request, 400, "The body of your request is not a JSON object.", code="invalid_body")
    return value


def _refused(
    request: _Request,
    status: int,
    message: str,
    *,
    code: str = "",
    param: str | None = None,
    headers: tuple[script.Header, ...] = (),
) -> _Refused:
    body = script.error_body(status, message, request.dialect, request.id, code=code, param=param)
    return _Refused(script.at_once(status, body, headers))


async def _read_json_body(request: _Request, connection: Connection) -> bytes:
    """The whole body. Raises `_Refused` as soon as it is too large or names a model that does not want to read it."""
    body = bytearray()
    looked = 0
    while (piece := await connection.receive_piece()) is not None:
        body += piece
        # Each piece is looked at once, with enough of the one before it to see a name that was cut in two.
        found = _MODEL.search(body, max(0, looked - 512))
        looked = len(body)
        if found and parse_model(found[1].decode("utf-8", "replace")).instead == "early":
            raise _Refused(script.early(request.dialect, request.id))
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(script.early(request.dialect, request.id))
    return bytes(body)


async def _read_upload(connection: Connection) -> tuple[int, str]:
    """Size and SHA-256 of the body, which is not kept."""
    size = 0
    digest = hashlib.sha256()
    while (piece := await connection.receive_piece()) is not None:
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


async def _generate(connection: Connection, reply: Reply, state: State) -> Then:
    """Perform a reply while a sibling reads the socket: a peer that leaves ends it at once, also in silence."""
    then = Then.CLOSE
    is_over = False

    def mark_over() -> None:
        nonlocal is_over
        is_over = True

    state.streams += 1
    try:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal is_over
                await connection.wait_gone()
                if not is_over:
                    state.aborted += 1
                    is_over = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                then = await _perform(connection, reply, mark_over)
                is_over = True
            except trio.BrokenResourceError:
                # The write failed first: count it here, unless the reader has.
                if not is_over:
                    state.aborted += 1
                    is_over = True
            nursery.cancel_scope.cancel()
    finally:
        state.streams -= 1
    return then


async def _perform(connection: Connection, reply: Reply, on_terminal: Callable[[], None] = lambda: None) -> Then:
    """Perform the steps of a reply; returns the last one. Cancelled: the connection cannot be used any more."""
    connection.begin(reply.status, reply.headers)
    for step in reply.steps:
        match step:
            case Pause(seconds):
                await trio.sleep(seconds)
            case Send(data):
                await connection.write(data)
            case Raw(data):
                await connection.write_raw(data)
            case Then.FLUSH:
                await connection.flush()
            case Then.TERMINAL:
                on_terminal()
            case Then.STAY:
                await trio.sleep_forever()
            case Then.FINISH:
                await connection.finish()
                return step
            case Then.CLOSE | Then.RESET:
                return step
    return Then.CLOSE
