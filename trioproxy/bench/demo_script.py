"""What is written when: a behaviour and an answer become a reply, a head and a sequence of steps. Pure.

    Pause, Send, FLUSH …, TERMINAL, FINISH      a good end
    …, CLOSE   …, RESET   …, STAY               the bad ones

Every fault of the table in `demo_model` is decided here, so it can be read and tested without a socket or a clock. Does
not know HTTP's framing (`demo_http`). Called by `demo_upstream`, which makes a `Reply` for every request.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from . import demo_events as say
from .demo_events import Answer, Dialect
from .demo_model import Behaviour

LINGER_S: Final = 30.0
AUDIO_CHUNKS: Final = 32
AUDIO_CHUNK_BYTES: Final = 8192

Header = tuple[str, str]
JSON_HEADERS: Final[tuple[Header, ...]] = (("content-type", "application/json"),)
SSE_HEADERS: Final[tuple[Header, ...]] = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes of the body, as one chunk; the head goes with the first of them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Write these bytes past all framing, in place of a head."""

    data: bytes


class Then(Enum):
    """A step without bytes. The last four are the last step of a reply."""

    FLUSH = "write the head now"
    TERMINAL = "the answer is complete, though the response may stay open: who leaves now did not abort"
    FINISH = "end the response cleanly"
    CLOSE = "close the connection without an end"
    RESET = "the same by a TCP reset"
    STAY = "do nothing for ever"


Step = Pause | Send | Raw | Then


@dataclass(frozen=True)
class Reply:
    """An answer as steps. `is_generation`: counted as a stream, and its peer is watched while it runs."""

    status: int
    headers: tuple[Header, ...]
    steps: Iterable[Step]
    is_generation: bool = field(default=False, kw_only=True)

    def with_header(self, name: str, value: str) -> "Reply":
        """The same reply with one header more."""
        return replace(self, headers=(*self.headers, (name, value)))


def stream(answer: Answer) -> Reply:
    """The answer as a stream of events."""
    behaviour = answer.behaviour
    steps = _play(_track(answer), behaviour, behaviour.gap_s, behaviour.first_s())
    return Reply(200, SSE_HEADERS, _written(steps, behaviour), is_generation=True)


def whole(answer: Answer) -> Reply:
    """The answer in one piece, after as long as its stream would have taken."""
    behaviour = answer.behaviour
    value = say.whole(answer) if behaviour.error_after is None else say.whole_failure(answer)
    pause_s = behaviour.first_s() + sum(behaviour.gap_s(index) for index in range(1, answer.count))
    return paced(behaviour, value, pause_s)


def paced(behaviour: Behaviour, value: object, pause_s: float) -> Reply:
    """A JSON answer after `pause_s` seconds. A death after 0 events leaves its head, a later one half of its body."""
    body = say.dumps(value)
    headers, (send, finish) = _body(body, ())
    steps: tuple[Step, ...] = (Pause(pause_s), send, Then.TERMINAL, finish)
    half = () if 0 in behaviour.faults else (Send(body[: len(body) // 2]),)
    if behaviour.silent_after is not None:
        steps = (*(half and (Pause(pause_s),)), Then.FLUSH, *half, Then.STAY)
    elif behaviour.reset_after is not None:
        steps = (Pause(pause_s), Then.FLUSH, *half, Then.RESET)
    elif behaviour.close_after is not None or behaviour.cut_after is not None:
        steps = (Pause(pause_s), Then.FLUSH, *half, Then.CLOSE)
    return Reply(200, headers, _written(steps, behaviour), is_generation=True)


def audio(behaviour: Behaviour) -> Reply:
    """256 KiB of sound in 32 chunks (or as many as the name says), as fast as the peer takes them unless told else."""
    count = AUDIO_CHUNKS if behaviour.events is None else behaviour.events
    track = _Track(count, [], lambda index: say.sound(AUDIO_CHUNK_BYTES), list, None)
    gap_s = 0.0 if behaviour.gap_ms is None else behaviour.gap_ms / 1000
    steps = _play(track, behaviour, lambda index: gap_s, behaviour.first_s(0))
    return Reply(200, (("content-type", "audio/mpeg"),), _written(steps, behaviour), is_generation=True)


def at_once(status: int, value: object, headers: tuple[Header, ...] = ()) -> Reply:
    """A JSON answer that costs no time."""
    return Reply(status, *_body(say.dumps(value), headers))


def failed(behaviour: Behaviour, status: int, dialect: Dialect | None, request_id: str) -> Reply:
    """This status with an error envelope, after `first_ms` if the name gives one."""
    wait = () if behaviour.retry_after_s is None else (("retry-after", str(behaviour.retry_after_s)),)
    body = error_body(status, f"Simulated error {status}.", dialect, request_id)
    headers, steps = _body(say.dumps(body), wait)
    return Reply(status, headers, (Pause(behaviour.first_s(0)), *steps), is_generation=True)


def instead(behaviour: Behaviour, dialect: Dialect | None, request_id: str) -> Reply | None:
    """What happens in place of an answer, if the name asks for it; `early` is not of a body that was read."""
    match behaviour.instead:
        case "mute":
            return Reply(200, (), (Then.STAY,), is_generation=True)
        case "nohead":
            return Reply(200, (), (Pause(behaviour.first_s(0)), Then.CLOSE), is_generation=True)
        case "redirect":
            return Reply(302, (("location", "/v1/models"), ("content-length", "0")), (Then.FLUSH, Then.FINISH))
        case "garbage":
            return Reply(200, (), (Raw(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n"), Then.CLOSE))
        case "refusehead":
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nno header at all\r\n\r\n"
            return Reply(200, (), (Raw(head), Then.CLOSE))
        case "early":
            return early(dialect, request_id)
        case None:
            return None if behaviour.status is None else failed(behaviour, behaviour.status, dialect, request_id)


def early(dialect: Dialect | None, request_id: str) -> Reply:
    """413, and the connection closes."""
    body = error_body(413, "Request too large.", dialect, request_id)
    return at_once(413, body, (("connection", "close"),))


_OPENAI_TYPES: Final = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "forbidden"),
    404: ("invalid_request_error", "model_not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "overloaded"),
}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_body(
    status: int, message: str, dialect: Dialect | None, request_id: str, *, code: str = "", param: str | None = None
) -> say.Json:
    """The error envelope of the dialect; OpenAI's where there is none. An empty `code` follows from the status."""
    if dialect is Dialect.MESSAGES:
        type_ = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": type_, "message": message}, "request_id": request_id}
    fallback = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    type_, usual = _OPENAI_TYPES.get(status, fallback)
    return say.error_envelope(message, type_, code or usual, param)


def _body(body: bytes, headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], tuple[Step, Step]]:
    return (*JSON_HEADERS, *headers, ("content-length", str(len(body)))), (Send(body), Then.FINISH)


@dataclass(frozen=True)
class _Track:
    """A body in parts: what opens it, `count` parts of content, what closes it."""

    count: int
    opening: list[bytes]
    content: Callable[[int], bytes]
    closing: Callable[[], list[bytes]]
    """Asked for only at the end: it holds the whole text in some dialects, and a flood has none."""
    failure: Callable[[int], bytes] | None
    """The error event in place of part N; None: there is no such thing in this body."""
    comment: bytes = b""
    """Written before each part, as a chunk of its own."""


def _track(answer: Answer) -> _Track:
    newline = answer.behaviour.newline
    return _Track(
        answer.count,
        [event.render(newline) for event in say.opening(answer)],
        lambda index: say.content(answer, index).render(newline),
        lambda: [event.render(newline) for event in say.closing(answer)],
        lambda index: say.failure(answer, index).render(newline),
        f": ping{newline}{newline}".encode("ascii") if answer.behaviour.comments else b"",
    )


def _play(track: _Track, behaviour: Behaviour, gap_s: Callable[[int], float], first_s: float) -> Iterator[Step]:
    """The steps of a track, with what goes wrong in it."""
    if behaviour.silent_after != 0:  # A silent origin shows its head at once.
        yield Pause(first_s)
    fault = _fault(track, behaviour, 0)
    if not fault:
        yield from _sent(track, track.opening)
    index = 0
    while not fault and (behaviour.flood or index < track.count):
        if index:
            yield Pause(gap_s(index))
        yield from _sent(track, [track.content(index)])
        index += 1
        fault = _fault(track, behaviour, index)
    if fault:
        yield from fault
    else:
        yield from _end(track, behaviour)


def _sent(track: _Track, parts: Iterable[bytes]) -> Iterator[Step]:
    for part in parts:
        if track.comment:
            yield Send(track.comment)
        yield Send(part)


def _fault(track: _Track, behaviour: Behaviour, index: int) -> tuple[Step, ...]:
    """The steps of the fault that is due when `index` parts of content are out; empty if there is none."""
    if index not in behaviour.faults:
        return ()
    if behaviour.error_after == index and track.failure is not None:
        return (Send(track.failure(index)), Then.TERMINAL, Then.FINISH)
    if behaviour.cut_after == index:
        following = _following(track, index)
        return (Send(following[: len(following) // 2]), Then.CLOSE)
    if behaviour.reset_after == index:
        return (Then.FLUSH, Then.RESET)
    if behaviour.close_after == index:
        return (Then.FLUSH, Then.CLOSE)
    if behaviour.silent_after == index:
        return (Then.FLUSH, Then.STAY)
    return ()


def _following(track: _Track, index: int) -> bytes:
    """The part that comes after `index` parts of content; an opening one when nothing went out yet."""
    if index == 0 and track.opening:
        return track.opening[0]
    if index < track.count:
        return track.content(index)
    return next(iter(track.closing()), b"")


def _end(track: _Track, behaviour: Behaviour) -> Iterator[Step]:
    if behaviour.ending != "nodone":
        closing = track.closing()
        yield from _sent(track, closing if behaviour.ending == "done" else closing[:-1])
    yield Then.TERMINAL
    if behaviour.linger:
        yield Pause(LINGER_S)
    yield Then.FINISH


def _written(steps: Iterable[Step], behaviour: Behaviour) -> Iterator[Step]:
    """The steps as they reach the socket: no empty pauses, and single bytes if the name says so."""
    for step in steps:
        if isinstance(step, Pause) and step.seconds <= 0:
            continue
        if isinstance(step, Send) and behaviour.byte:
            yield Then.FLUSH
            yield from (Send(step.data[at : at + 1]) for at in range(len(step.data)))
        else:
            yield step
