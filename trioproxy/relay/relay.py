"""One request's whole life between the two sides. Called by `web`, in the request's own task."""

import trio

from trioproxy.errors import CancelReason, Draining, InternalError, ProxyError, UpstreamTotalTimeout
from trioproxy.relay.call import Call, Downstream, Lifetime, Timing
from trioproxy.relay.copier import Copier
from trioproxy.relay.pump import End, Follower, Piece, Pump
from trioproxy.relay.shaper import ErrorInside, Shaper
from trioproxy.telemetry.exchange import Exchange
from trioproxy.upstream.attempt import Attempt
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers, find, is_encoded, is_event_stream, to_client

_EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_NOT_IN_EVENT_STREAM = frozenset(name for name, _ in _EVENT_STREAM)
_NOT_IN_ERROR = frozenset({b"content-type", b"cache-control", b"x-accel-buffering"})


async def relay(call: Call, dispatcher: Dispatcher, timing: Timing, lifetime: Lifetime, downstream: Downstream) -> None:
    """Relay one call and end its answer, honestly, one way or another.

    Raises nothing but a bug. If cancelled, the client is gone and what was opened is on the request's exit stack.
    """
    answer: Shaper | Copier | None = None
    error: ProxyError | None = None
    try:
        with lifetime.traffic:
            call.exchange.upstream = dispatcher.endpoint.name
            call.exchange.attempts += 1
            attempt = await dispatcher.open(call.method, call.target, call.headers, call.body, lifetime.nursery)
            lifetime.stack.enter_context(attempt)
            _note_head(call, attempt)
            if (whole := _whole(call, attempt)) is not None:
                downstream.head(attempt.status, _head(call, attempt, length=b"%d" % len(whole)))
                await downstream.finish(whole)
                return
            follower = _follower(call, attempt)
            pump = Pump(attempt, follower, timing)
            if follower is None:
                answer = Copier(call, downstream)
                headers = _head(call, attempt, length=find(attempt.headers, b"content-length"))
            else:
                answer = Shaper(call, attempt, follower, pump, downstream, timing)
                headers = _event_stream_head(call, attempt)
            sender, receiver = trio.open_memory_channel[Piece | End](0)
            lifetime.nursery.start_soon(pump.run, sender)
            try:
                await answer.run(receiver, attempt.status, headers)
            finally:
                call.exchange.first_content_at = pump.first_content_at
                if follower is not None:
                    call.exchange.events = follower.framer.events
    except ErrorInside as inside:
        await _answer_error_inside(call, attempt, downstream, inside.data)
    except ProxyError as fault:
        error = fault
    if lifetime.stopped is not None and lifetime.traffic.cancelled_caught:
        error = _stopped(lifetime.stopped)
    if error is None:
        return
    if answer is not None and downstream.has_head:
        await answer.break_off(error)
    else:
        await refuse(error, call.dialect, call.exchange, downstream)


async def refuse(error: ProxyError, dialect: Dialect, exchange: Exchange, downstream: Downstream) -> None:
    """Answer with an error, while no head went out."""
    status, headers, body = render.response(error, dialect, exchange.request_id)
    exchange.fail(error.code)
    downstream.head(status, headers)
    await downstream.finish(body)


def _stopped(reason: CancelReason) -> ProxyError:
    match reason:
        case CancelReason.TOTAL:
            return UpstreamTotalTimeout("The request took longer than it may take in all.")
        case CancelReason.DRAIN:
            return Draining("This server is going down; send the request again.")
        case _:
            return InternalError("The request was stopped.")


def _note_head(call: Call, attempt: Attempt) -> None:
    exchange = call.exchange
    exchange.head_at = attempt.answered
    origin_id = find(attempt.headers, b"x-request-id")
    if origin_id is not None:
        exchange.upstream_request_id = origin_id.decode("latin-1")


def _whole(call: Call, attempt: Attempt) -> bytes | None:
    """The body, if it came with the head and needs no looking at: it goes out in one write, without a pump."""
    if call.method == "HEAD" or attempt.status in (204, 304) or _is_stream(attempt):
        return None
    return attempt.take_whole()


def _is_stream(attempt: Attempt) -> bool:
    """Whether the answer is an event stream that has to end with its dialect's terminal; an error's body has not."""
    return attempt.status < 300 and is_event_stream(attempt.headers)


def _follower(call: Call, attempt: Attempt) -> Follower | None:
    if not _is_stream(attempt) or call.method == "HEAD":
        return None
    if is_encoded(attempt.headers):
        call.exchange.notes["encoded_stream"] = True
        return None
    return Follower(call.dialect.watch())


def _head(call: Call, attempt: Attempt, length: bytes | None) -> Headers:
    headers = to_client(attempt.headers)
    if length is not None:
        headers.append((b"content-length", length))
    return headers + _own_fields(call, attempt)


def _event_stream_head(call: Call, attempt: Attempt) -> Headers:
    kept = [header for header in to_client(attempt.headers) if header[0] not in _NOT_IN_EVENT_STREAM]
    return kept + _EVENT_STREAM + _own_fields(call, attempt)


def _own_fields(call: Call, attempt: Attempt) -> Headers:
    own_id = call.exchange.request_id.encode("ascii")
    origin_id = find(attempt.headers, b"x-request-id")
    ids: Headers = [(b"x-request-id", own_id)]
    if origin_id and origin_id != own_id:
        ids = [(b"x-request-id", origin_id), (b"x-trioproxy-request-id", own_id)]
    return [
        *ids,
        (b"x-trioproxy-upstream", attempt.endpoint.name.encode("ascii", "replace")),
        (b"x-trioproxy-attempts", b"%d" % call.exchange.attempts),
    ]


async def _answer_error_inside(call: Call, attempt: Attempt, downstream: Downstream, data: bytes) -> None:
    """The origin said 200 and then sent an error: the client gets the error, with the status it stands for."""
    status = render.status_of(data)
    kept = [header for header in to_client(attempt.headers) if header[0] not in _NOT_IN_ERROR]
    kept += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    call.exchange.fail("upstream_error_in_stream")
    downstream.head(status, kept + _own_fields(call, attempt))
    await downstream.finish(data)
