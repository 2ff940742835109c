"""The connection class: one request's own task, with the one nursery and the one exit stack of that request.

quart-trio runs a handler in a child task and reads the body beside it. Here the ASGI task itself runs the handler and
then what the handler returned: an `Answer`, whose `run` is executed in this task, so that nothing is ever opened
round a `yield`. A sibling watches for the client leaving from the first moment on; nothing else is spawned but the
pump.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from secrets import token_hex
from typing import Any

import trio
from quart import Request, Response
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.datastructures import Headers

from trioproxy.errors import CancelReason, ClientGone, InternalError, ProxyError
from trioproxy.gate.keys import Identity
from trioproxy.relay.call import ClientSocket, Lifetime, Timing
from trioproxy.relay.relay import refuse
from trioproxy.telemetry.exchange import Exchange
from trioproxy.web.body import ClientAnswer, RequestBody
from trioproxy.web.service import Desk
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.forwarded import Network, client_address
from trioproxy.wire.headers import Headers as HeaderList
from trioproxy.wire.headers import find, valid_request_id, whole_time_s
from trioproxy.wire.target import dialect_of

KEY = "trioproxy.incoming"
"""Where a request's `Incoming` stands among its ASGI scope's extensions."""


class Incoming:
    """What a route is given: the request as the server got it, who asks, where its answer goes, its lifetime and its
    record."""

    __slots__ = (
        "answer",
        "body",
        "departure",
        "dialect",
        "exchange",
        "headers",
        "identity",
        "lifetime",
        "local",
        "method",
        "raw_path",
        "socket",
        "target",
    )

    lifetime: Lifetime

    def __init__(self, scope: Any, receive: Any, send: Any, trusted: Sequence[Network] = ()) -> None:
        peer: str | None = (scope.get("client") or (None,))[0]
        self.local: str | None = (scope.get("server") or (None,))[0]
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.target: bytes = scope["extensions"]["trioproxy.target"]
        self.departure: Any = scope["extensions"]["trioproxy.departure"]
        self.socket: ClientSocket | None = scope["extensions"]["trioproxy.socket"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.dialect: Dialect = dialect_of(self.raw_path)
        self.exchange = Exchange(
            request_id=valid_request_id(find(self.headers, b"x-request-id")) or f"req_{token_hex(12)}",
            method=self.method,
            path=self.raw_path.decode("ascii", "replace"),
            accepted=trio.current_time(),
            client=client_address(peer, self.headers, trusted) if peer is not None and trusted else peer,
            endpoint=self.dialect.value,
        )
        self.departure.flow = self.exchange.flow
        self.identity = Identity()
        self.body = RequestBody(receive, find(self.headers, b"content-length"), self.exchange)
        self.answer = ClientAnswer(send, self.exchange)

    def keep_to(self, timing: Timing) -> float:
        """Set the request's clocks: the end of its whole time, which counts from accept and which the client may have
        asked to come earlier, and how long the client may leave bytes unread. Returns that end, trio's clock. Raises
        BadRequest for a wish that cannot be read."""
        wanted_s = whole_time_s(self.headers)
        ends = self.exchange.accepted + (timing.total_s if wanted_s is None else min(wanted_s, timing.total_s))
        self.lifetime.end_at(ends)
        self.departure.client_stall_s = timing.client_stall_s
        return ends

    async def reply(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        """Answer in one piece that nobody keeps."""
        self.answer.head(
            status,
            [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                (b"x-request-id", self.exchange.request_id.encode("ascii")),
            ],
        )
        await self.answer.finish(body)

    async def reply_nothing(self) -> None:
        """Answer that there is nothing (more) to say."""
        request_id = self.exchange.request_id.encode("ascii")
        self.answer.head(204, [(b"cache-control", b"no-store"), (b"x-request-id", request_id)])
        await self.answer.finish()

    async def refuse(self, error: ProxyError) -> None:
        """Answer with an error; if an answer is under way already, cut it."""
        if isinstance(error, ClientGone):
            self.exchange.cancel(CancelReason.CLIENT_GONE.value)
            return
        if self.answer.has_head:
            self.exchange.fail(error)
            self.answer.abort()
        else:
            await refuse(error, self.dialect, self.exchange, self.answer)


class Answer(Response):
    """What a route returns: `run` writes the answer, in the request's own task, once Quart is done with the request."""

    def __init__(self, run: Callable[[Incoming], Awaitable[None]]) -> None:
        super().__init__(None)
        self.run = run


class RequestConnection(TrioASGIHTTPConnection):
    """Serves one request."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """Run the request to its end. The exit stack is left after the nursery, when its last task has ended."""
        service: Desk = self.app.service  # type: ignore[attr-defined]
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            incoming = Incoming(self.scope, receive, send, service.trusted_proxies)
            if service.tracer is not None:
                incoming.exchange.trace = service.tracer.begin(incoming.raw_path, incoming.headers)
            incoming.answer.told = service.visitors.answer_fields(incoming.headers)
            lifetime = incoming.lifetime = Lifetime(
                nursery, stack, partial(_free, incoming.body, incoming.answer, incoming.socket, incoming.departure)
            )
            self.scope["extensions"][KEY] = incoming  # type: ignore[assignment]
            stack.callback(self._record, service, incoming)
            service.begin(lifetime, incoming.exchange)
            lifetime.end_at(incoming.exchange.accepted + service.timing.total_s)
            nursery.start_soon(self._watch, incoming)
            try:
                response = await self.app.handle_request(self._request_for_quart())
                assert isinstance(response, Answer)
                await response.run(incoming)
            except ProxyError as error:
                await incoming.refuse(error)
            nursery.cancel_scope.cancel(reason=CancelReason.FINISHED.value)

    def _request_for_quart(self) -> Request:
        """Quart only routes, by method and path; what else a request holds is in `Incoming`, unconverted."""
        scope = self.scope
        return self.app.request_class(
            scope["method"],
            scope["scheme"],
            scope["path"],
            b"",
            Headers(),
            "",
            scope["http_version"],
            scope=scope,
            send_push_promise=_no_push,
        )

    @staticmethod
    async def _watch(incoming: Incoming) -> None:
        """Cancel everything as soon as the client is gone; stop the traffic when the request's whole time is over."""
        lifetime, exchange, departure = incoming.lifetime, incoming.exchange, incoming.departure
        with lifetime.whole:
            await departure.gone.wait()
        if lifetime.whole.cancelled_caught:
            lifetime.stop(CancelReason.TOTAL)
            await departure.gone.wait()
        # Once the request was stopped it is we who break a send that is stuck.
        reason = departure.reason if lifetime.stopped is None else lifetime.stopped.value
        exchange.cancel(reason)
        exchange.gone_at = trio.current_time()
        if not incoming.answer.has_head:
            exchange.status, exchange.code = ClientGone.status, ClientGone.code
        lifetime.nursery.cancel_scope.cancel(reason=reason)

    @staticmethod
    def _record(service: Desk, incoming: Incoming) -> None:
        incoming.exchange.ended = trio.current_time()
        service.end(incoming.lifetime, incoming.exchange)


def _free(body: RequestBody, answer: ClientAnswer, socket: ClientSocket | None, departure: Any) -> None:
    """Wait for no more of a request's body, and end a send that is stuck. It holds no more than that takes: a ring
    would be left to the garbage collector."""
    body.stop()
    if answer.is_sending or (socket is not None and socket.is_sending):
        departure.abort()


async def _no_push(path: str, headers: Headers) -> None:
    """HTTP/1.1 has no server push."""


def render_crash(scope: Any) -> tuple[int, HeaderList, bytes]:
    """The answer to a request whose handler crashed: no detail but the request id."""
    incoming: Incoming | None = scope["extensions"].get(KEY)
    request_id = incoming.exchange.request_id if incoming is not None else f"req_{token_hex(12)}"
    error = InternalError(f"Something went wrong inside the proxy; the request id is {request_id}.")
    status, headers, body = render.response(error, dialect_of(scope["raw_path"]), request_id)
    return status, headers + (incoming.answer.told if incoming is not None else []), body
