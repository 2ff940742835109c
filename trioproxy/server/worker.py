"""The process's life: start, serve, and stop on a signal. Called by `cli`.

One nursery owns everything that lives as long as the process: the listeners with their connections, the pool's reaper
and whoever waits for signals.
"""

import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import structlog
import trio

from trioproxy.errors import CancelReason
from trioproxy.server.build import House

_GRACE_S = 1.0
"""How long connections get for their last words once their requests were stopped."""

log = structlog.get_logger()


def prepare_process() -> None:
    """Set what holds for the whole process: file descriptors up to the hard limit, and the garbage collector."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A full collection walks every live object and stops the event loop for as long: it is the tail of the latency.
    # What lives for ever is taken out of its sight, and the young generation is made large.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


async def serve(house: House, sockets: Sequence[socket.socket], *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT and a drain, or until cancelled (then at once)."""
    house.log.start()
    try:
        async with trio.open_nursery() as nursery:
            accepting = trio.CancelScope()
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                nursery.start_soon(house.pool.reap)
                for listening in sockets:
                    nursery.start_soon(_accept, house, listening, nursery, accepting)
                    host, port = listening.getsockname()[:2]
                    log.info("listening", host=host, port=port, upstream=house.endpoint.name)
                on_ready()
                await _wait_and_drain(house, signals, accepting)
            nursery.cancel_scope.cancel(reason=CancelReason.DRAIN.value)
    finally:
        house.pool.close_nowait()
        house.log.stop()


async def _accept(house: House, listening: socket.socket, nursery: trio.Nursery, accepting: trio.CancelScope) -> None:
    with accepting:
        await house.listener.accept(listening, nursery)


async def _wait_and_drain(house: House, signals: AsyncIterator[int], accepting: trio.CancelScope) -> None:
    number = await anext(signals)
    timeout_s = house.config.drain.timeout_s
    log.info("draining", signal=signal.Signals(number).name, live=len(house.service.live), timeout_s=timeout_s)
    house.service.is_draining = True
    accepting.cancel(reason=CancelReason.DRAIN.value)
    await house.listener.drain()
    with trio.move_on_after(timeout_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            await house.listener.wait_empty()
            nursery.cancel_scope.cancel()
    house.service.stop_all(CancelReason.DRAIN)
    with trio.move_on_after(_GRACE_S):
        await house.listener.wait_empty()
    house.listener.abort_all()
    log.info("stopped", crashes=house.listener.barrier.crashes)


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel(reason="a second signal")
