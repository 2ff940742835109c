"""`/v1/stream/ws`: a chat over a WebSocket. One stream for each connection; JSON in, events out.

The client's first message says what it wants:

    a chat request                                    a stream of its own; with a member `trioproxy`, which the origin
                                                      never sees: {"share": KEY, "resume": SECONDS, "slow": WORD}
    {"trioproxy": {"stream": ID, "after": N}}         join or resume one

and may be followed by {"trioproxy": {"stop": true}}, which ends the stream for everyone. Each message from here is an
event's data; `{"trioproxy": …}` are our own words: the stream's id, or how many events were lost. Closing ends the
generation, unless resume was asked for or others read it.

Sources: RFC 6455 section 7.4 (closing codes).
"""

import trio

from trioproxy.errors import BadRequest, CancelReason, ClientGone, ProxyError, RequestTimeout
from trioproxy.policy.replay import Slow
from trioproxy.relay.call import ClientSocket
from trioproxy.relay.reading import read_stream
from trioproxy.relay.relay import refuse
from trioproxy.relay.socket_answer import SocketAnswer
from trioproxy.telemetry.flow import CLIENT, PROXY
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import make_call, read_call, relay_or_share
from trioproxy.web.service import Service
from trioproxy.web.streams import find_stream, token_of
from trioproxy.web.tokens import identify_by
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.messages import Close, Message
from trioproxy.wire.sharing import RESUME, SHARE, SLOW, wish_of
from trioproxy.wire.words import MEMBER, SocketWish, wish_in

PATH = "/v1/stream/ws"
FIRST_MESSAGE_S = 10.0
_CHAT = b"/v1/chat/completions"


async def stream_socket(service: Service, incoming: Incoming) -> None:
    """Serve one WebSocket. Raises BadRequest for what is none."""
    socket = incoming.socket
    if socket is None:
        raise BadRequest("This path is a WebSocket; over HTTP a stream is asked for at /v1/chat/completions.")
    identify_by(service, incoming, token_of(incoming), opens=False)
    service.admission.admit(incoming.lifetime.stack)
    incoming.dialect = Dialect.CHAT
    exchange = incoming.exchange
    exchange.endpoint, exchange.stream = "stream_ws", True
    await socket.accept(None, [(b"x-request-id", exchange.request_id.encode("ascii"))])
    incoming.answer.has_head = True
    exchange.status = 101
    answer = SocketAnswer(socket, exchange)
    incoming.lifetime.nursery.start_soon(_tend, socket, incoming)
    await _converse(service, incoming, socket, answer)
    await answer.close()


async def _converse(service: Service, incoming: Incoming, socket: ClientSocket, answer: SocketAnswer) -> None:
    exchange = incoming.exchange
    try:
        exchange.flow.turn(CLIENT, trio.current_time())
        request = JsonObject.parse(await _first_message(socket))
        exchange.flow.turn(PROXY, trio.current_time())
        exchange.read_at = trio.current_time()
        wish = wish_in(request)
        work = trio.CancelScope()
        incoming.lifetime.nursery.start_soon(_listen, service, incoming, socket, answer, work)
        with work:
            await _answer(service, incoming, request, wish, answer)
        if work.cancelled_caught:
            raise ClientGone("The client closed the socket.")
    except ClientGone:
        exchange.cancel(CancelReason.CLIENT_GONE.value)
    except ProxyError as error:
        exchange.flow.turn(PROXY, trio.current_time())
        await refuse(error.with_traceback(None), incoming.dialect, exchange, answer)
        exchange.status = 101


async def _first_message(socket: ClientSocket) -> bytes:
    with trio.move_on_after(FIRST_MESSAGE_S):
        said = await socket.receive()
        if isinstance(said, Close):
            raise ClientGone("The client closed the socket before it asked for anything.")
        return said.data
    raise RequestTimeout("The first message, which says what is wanted, did not come in time.")


async def _answer(
    service: Service, incoming: Incoming, request: JsonObject, wish: SocketWish, answer: SocketAnswer
) -> None:
    """Tell the stream that is wanted, to its end."""
    if wish.stream is not None:
        await _resume(service, incoming, wish, answer)
        return
    identify_by(service, incoming, token_of(incoming), opens=True)
    body = JsonObject.parse(request.without(MEMBER)).replace({"stream": b"true"})  # there is nothing else here
    call = await read_call(service, incoming, JsonObject.parse(body), stream=True)
    call.method, call.target = "POST", _CHAT
    call.headers = [*call.headers, (b"content-type", b"application/json")]
    timing = service.timings.find(call.exchange.model)
    incoming.keep_to(timing)
    sharing = service.sharing.find(call.exchange.model)
    wished = wish_of(_as_fields(wish), call.json, share=sharing.share, resume_s=sharing.resume_s)
    await relay_or_share(service, incoming, call, wished, sharing, timing, answer)


async def _resume(service: Service, incoming: Incoming, wish: SocketWish, answer: SocketAnswer) -> None:
    found = await find_stream(service, incoming.identity, wish.stream or "")
    exchange = incoming.exchange
    incoming.dialect, exchange.model = Dialect(found.exchange.endpoint), found.exchange.model
    timing = service.timings.find(exchange.model)
    incoming.keep_to(timing)
    slow = Slow(wish_of(_as_fields(wish), None).slow)
    await read_stream(found, wish.after, slow, make_call(incoming, b""), timing, incoming.lifetime, answer)


async def _listen(
    service: Service,
    incoming: Incoming,
    socket: ClientSocket,
    answer: SocketAnswer,
    work: trio.CancelScope,
) -> None:
    """Take what the client says while it is told its stream: that it has enough."""
    while isinstance(said := await socket.receive(), Message):
        await _obey(service, incoming, answer, said)
    work.cancel(reason=CancelReason.CLIENT_GONE.value)


async def _obey(service: Service, incoming: Incoming, answer: SocketAnswer, said: Message) -> None:
    try:
        is_stop = wish_in(JsonObject.parse(said.data)).stop
        if is_stop and answer.stream_id is not None:
            caller = incoming.identity.caller
            await service.studio.stop(await service.studio.find(answer.stream_id, caller))
            return
    except ProxyError:
        is_stop = False
    if is_stop:
        incoming.lifetime.stop(CancelReason.STOPPED)
    # Anything else means nothing here: the stream that is under way is not given up for it.


async def _tend(socket: ClientSocket, incoming: Incoming) -> None:
    """Answer pings, and let go of a client that gives no sign of life."""
    await socket.tend()
    incoming.departure.abort()


def _as_fields(wish: SocketWish) -> list[tuple[bytes, bytes]]:
    """The wish as a request's fields would say it."""
    said = [(SHARE, wish.share), (SLOW, wish.slow), (RESUME, None if wish.resume is None else f"{wish.resume:.3f}")]
    return [(name, value.encode("utf-8", "replace")) for name, value in said if value is not None]
