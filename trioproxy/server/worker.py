"""A worker: the process that serves. Started by the supervisor, told by it what to do, gone when it is.

One nursery owns everything that lives as long as the process: the listeners with their connections, the pool's reaper,
the load's watch and whoever takes orders. Signals are not for a worker: what is sent to the whole group (Ctrl-C,
systemd, a container's stop) counts once, at the supervisor. If that one dies, the end of the link says so.
"""

import base64
import gc
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

import structlog
import trio

from trioproxy.errors import CancelReason
from trioproxy.gate.keys import VirtualKey
from trioproxy.net.tcp import TcpStream
from trioproxy.server.build import SLOW_QUESTIONS, House
from trioproxy.server.gate import virtual_keys
from trioproxy.server.link import Link, Message, Order, Orders
from trioproxy.server.store import limit_store_of, store_of
from trioproxy.server.tracer import tracer_of
from trioproxy.telemetry.access_log import AccessLog

SUPERVISORS_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
_GRACE_S = 0.4
"""How long connections get for their last words once their requests were stopped."""
_SLOW_ANSWER_S = 2.0
"""How long an answer may take that is not at hand; the supervisor waits for a second."""
_LAST_SPANS_S = 0.5
_LAST_LINES_S = 0.2
"""How long what waits gets to be sent, and to be written: a slow collector or a blocked pipe does not keep the
process."""

log = structlog.get_logger()


def main() -> None:
    """The process's whole life; its one argument is the number of the link's file descriptor."""
    for number in SUPERVISORS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())  # blocked when we were started, so that none found us unready
    trio.run(_serve_for_supervisor, socket.socket(fileno=int(sys.argv[1])))


async def _serve_for_supervisor(end: socket.socket) -> None:
    link = Link(TcpStream(end))
    setup = await link.receive()
    if setup is None:
        return
    # From our own parent, over a socket that nobody else has: it has checked the configuration, and file and
    # environment may have changed since.
    config = _unpacked(setup["config"])
    prepare_process()
    try:
        house = House(
            config,
            AccessLog(config.telemetry.access_log),
            token_secret=bytes.fromhex(setup["secret"]),
            store=store_of(config),
            limits=limit_store_of(config),
            keys=_unpacked(setup["keys"]),
            tracer=tracer_of(config),
            admin=setup["admin"],
        )
    except OSError as error:
        await link.send({"failed": f"cannot start: {error}"})
        return
    await serve(house, [socket.socket(fileno=number) for number in setup["sockets"]], link)


def _unpacked(value: str) -> Any:
    """A value of the supervisor's."""
    return pickle.loads(base64.b64decode(value))


def _virtual_keys(value: str) -> list[VirtualKey] | None:
    return virtual_keys(_unpacked(value))


def prepare_process() -> None:
    """Set what holds for the whole process: file descriptors up to the hard limit, and the garbage collector."""
    allow_descriptors()
    # A full collection walks every live object and stops the event loop for as long: it is the tail of the latency.
    # What lives for ever is taken out of its sight, and the young generation is made large.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def allow_descriptors() -> None:
    """Raise the soft limit on file descriptors to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(house: House, sockets: Sequence[socket.socket], link: Link) -> None:
    """Serve until told to end, or until the supervisor is gone, and a drain; or until cancelled (then at once).

    Limits are kept round everything else: the last requests are settled when that ends.
    """
    house.log.start()
    if house.tracer is not None:
        house.tracer.start()
    orders = Orders()
    door = _Door()
    try:
        async with trio.open_nursery() as accounts:
            accounts.start_soon(house.keep_accounts)
            async with trio.open_nursery() as nursery:
                for keep in house.keepers():
                    nursery.start_soon(keep)
                nursery.start_soon(_accept, house, sockets, nursery, orders, door)
                nursery.start_soon(_listen_to, link, house, orders)
                await link.send({"ready": True})
                await _drain_when_told(house, orders, door)
                await link.send({"last": house.answer("metrics")})
                nursery.cancel_scope.cancel(reason=CancelReason.DRAIN.value)
            accounts.cancel_scope.cancel(reason=CancelReason.DRAIN.value)
    finally:
        house.pool.close_nowait()
        if house.tracer is not None:
            house.tracer.stop(_LAST_SPANS_S)
        house.log.stop(_LAST_LINES_S)


class _Door:
    """Where connections come in: open until `accepting` is cancelled, and `closed` once those in the queues are in."""

    def __init__(self) -> None:
        self.accepting = trio.CancelScope()
        self.closed = trio.Event()


async def _accept(
    house: House, sockets: Sequence[socket.socket], nursery: trio.Nursery, orders: Orders, door: _Door
) -> None:
    """Accept on every socket, once told to, until the door is shut; connections are tasks of `nursery` and go on."""
    with door.accepting:
        await orders.wait_for(Order.SERVE)
        async with trio.open_nursery() as acceptors:
            for listening in sockets:
                # One that does not listen is new, and the service was told to stop before all workers were there.
                if listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    acceptors.start_soon(house.listener.accept, listening, nursery)
    door.closed.set()


async def _listen_to(link: Link, house: House, orders: Orders) -> None:
    """Take orders and keys, and answer questions, until the supervisor is gone: nobody is left to serve for then."""
    async with trio.open_nursery() as nursery:
        while (message := await link.receive()) is not None:
            if "order" in message:
                orders.give(Order(message["order"]))
            elif "keys" in message:
                # In a thread: a hundred thousand keys take seconds, and streams go on meanwhile.
                house.gate.take_keys(await trio.to_thread.run_sync(_virtual_keys, message["keys"]))
            elif message["ask"] in SLOW_QUESTIONS:
                # No order waits behind it: it may ask a store that does not answer.
                nursery.start_soon(_answer_slowly, link, house, message)
            else:
                # Sent from here, so that no figures go out behind later ones.
                await link.send({"answer": message["number"], "value": house.answer(message["ask"], **message["said"])})
        orders.is_orphan = True
        orders.give(Order.DRAIN)
        nursery.cancel_scope.cancel()


async def _answer_slowly(link: Link, house: House, message: Message) -> None:
    value: Any = None
    with trio.move_on_after(_SLOW_ANSWER_S):
        value = await house.answer_slowly(message["ask"], **message["said"])
    # One that came too late is not waited for any more; the line must not break in the middle of it.
    await link.send({"answer": message["number"], "value": value})


async def _drain_when_told(house: House, orders: Orders, door: _Door) -> None:
    """Wait for an order to end, and end: quickly or not, as the order says."""
    order = await orders.wait_for(Order.RETIRE)
    drain, listener = house.config.drain, house.listener
    log.info(
        "retiring" if order is Order.RETIRE else "draining", live=len(house.service.live), timeout_s=drain.timeout_s
    )
    house.shadows.stop()
    delay_s = drain.delay_s if order is Order.DRAIN and not orders.is_orphan else 0.0
    with trio.move_on_after(delay_s + drain.timeout_s) as time_for_streams:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey_stricter, house, orders, order, time_for_streams)
            await listener.end_after_answers()
            if delay_s:
                await trio.sleep(delay_s)
            door.accepting.cancel(reason=CancelReason.DRAIN.value)
            await door.closed.wait()
            if order is not Order.RETIRE:
                listener.end_idle()
            await listener.wait_empty()
            await house.hub.wait_idle()
            nursery.cancel_scope.cancel()
    door.accepting.cancel(reason=CancelReason.DRAIN.value)  # if there was no time to come to it
    house.service.stop_all(CancelReason.DRAIN)
    with trio.move_on_after(_GRACE_S):
        await listener.wait_empty()
        await house.hub.wait_idle()
    house.hub.stop()
    listener.abort_all()
    log.info("stopped", crashes=listener.barrier.crashes)


async def _obey_stricter(house: House, orders: Orders, first: Order, time_for_streams: trio.CancelScope) -> None:
    await orders.wait_for(Order.DRAIN)
    house.service.is_draining = True
    if first is Order.RETIRE:
        house.listener.end_idle()
    await orders.wait_for(Order.STOP)
    time_for_streams.cancel(reason="told to stop at once")
