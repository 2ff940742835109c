"""A crew: the workers of one configuration, each a process of its own, and each replaced when it dies.

A reload starts a second crew beside the first on the same sockets. What a crew's processes share is nothing but their
slots' listening sockets: a worker that dies takes its own streams along and no others.
"""

import base64
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import structlog
import trio

from trioproxy.config import Config, Key, environment_with
from trioproxy.net.tcp import TcpStream
from trioproxy.server.link import Link, Message, Order, Orders, Questions
from trioproxy.server.sockets import BACKLOG
from trioproxy.server.worker import SUPERVISORS_SIGNALS

WORKER = (sys.executable, "-P", "-m", "trioproxy.server.start")
"""What a worker is started with; the number of its link's file descriptor comes behind it."""
_START_S = 60.0
"""How long a worker may take until it serves; a machine under full load is slow to import."""
_ANSWER_S = 1.0
_LOOK_EVERY_S = 5.0
_STUCK_S = 30.0
"""A worker that answers nothing for so long is stuck: it never does anything for more than a fraction of a second."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 30.0
"""A worker that lived for so long died of something else than its start: the pause begins anew."""
_MAX_FAILED_STARTS = 5
_SPARE_S = 0.8
_SPARE_FOR_SPANS_S = 0.5
"""How long behind its own deadline a worker that was told to end is waited for, before it is killed; and how much
longer if it has spans to send."""

log = structlog.get_logger()


class WorkerFailed(Exception):
    """Workers cannot start; the message is the reason."""


class Worker:
    """One process and the line to it. Raises OSError if no process can be started; then nothing is left open.

    Attributes:
        slot: which of its crew it is.
        ready: set once it could serve.
        last: its figures as it last told them, so that they are not lost with it.
        failure: why it could not start, in its own words.
    """

    def __init__(
        self,
        slot: int,
        config: Config,
        sockets: Sequence[socket.socket],
        on_ready: Callable[[], None],
        command: Sequence[str],
        secret: bytes,
        keys: str,
        admin: str | None,
    ) -> None:
        self.slot = slot
        self.ready = trio.Event()
        self.is_alive = True
        self._on_ready = on_ready
        self.last: Any = None
        self.failure: str | None = None
        self._patience = trio.CancelScope()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _spawn(command, theirs, sockets)
        except OSError:
            ours.close()
            raise
        self._orders = Orders()
        self._link = Link(TcpStream(ours))
        self._questions = Questions(self._link)
        numbers = [listening.fileno() for listening in sockets]
        self._setup: Message = {
            "config": _packed(config),
            "sockets": numbers,
            "secret": secret.hex(),
            "keys": keys,
            "admin": admin,
        }
        self._keys = keys
        self._other_keys = trio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self) -> int:
        """Let it serve until it ends, and return its exit code (negative: the signal that ended it).

        If cancelled, or if it outlasts its time, it is killed.
        """
        try:
            with self._patience:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell)
                    nursery.start_soon(self._kill_if_not_ready)
                    nursery.start_soon(self._kill_if_stuck)
                    await self._listen()
                    await _wait_ended(self._process.pid)
                    nursery.cancel_scope.cancel()
            if self._patience.cancelled_caught:
                log.error("worker killed: it did not end in time", worker=self.slot, pid=self.pid)
        finally:
            self._questions.give_up()
            self._process.kill()  # harmless when it has ended
            code = self._process.wait()
            self.is_alive = False
            self._link.close_nowait()
        return code

    def order(self, order: Order, patience_s: float = inf) -> None:
        """Tell it what to do. Does not wait, neither for the worker nor for room in the line; after `patience_s`
        seconds it is killed."""
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + patience_s)
        self._orders.give(order)

    def take_keys(self, keys: str) -> None:
        """Tell it of other keys than it has, packed. Does not wait; of several only the last counts."""
        self._keys = keys
        self._other_keys.set()

    async def ask(self, what: str, **said: Any) -> Any:
        """What it answers to a question, or None if it does not. `said` is what the question needs."""
        if not self.ready.is_set() or not self.is_alive:
            return None
        answer = await self._questions.ask(what, _ANSWER_S, **said)
        if what == "metrics" and answer is not None:
            self.last = answer
        return answer

    async def _tell(self) -> None:
        """Send it all that it needs to know first, and then each order, and the keys whenever there are others."""
        await self._link.send(self._setup)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_keys)
            await self._tell_orders()

    async def _tell_keys(self) -> None:
        while True:
            await self._other_keys.wait()
            self._other_keys = trio.Event()
            await self._link.send({"keys": self._keys})

    async def _tell_orders(self) -> None:
        order = Order.WAIT
        while order < Order.STOP:
            order = await self._orders.wait_for(Order(order + 1))
            await self._link.send({"order": int(order)})

    async def _listen(self) -> None:
        while (message := await self._link.receive()) is not None:
            if "answer" in message:
                self._questions.take(message)
            elif "ready" in message:
                self.ready.set()
                self._on_ready()
            elif "last" in message:
                self.last = message["last"]
            else:
                self.failure = message["failed"]

    async def _kill_if_not_ready(self) -> None:
        with trio.move_on_after(_START_S):
            await self.ready.wait()
            return
        self.failure = f"it was not ready after {_START_S:g} s"
        self._process.kill()

    async def _kill_if_stuck(self) -> None:
        """Ask again and again whether its event loop still turns. One that does not serves nobody, its deadlines do not
        fire, and whoever is in its slot's queue waits for nothing."""
        await self.ready.wait()
        turns = True
        while turns:
            await trio.sleep(_LOOK_EVERY_S)
            turns = await self._questions.ask("alive", _STUCK_S) is not None
        log.error("worker killed: its event loop was stuck", worker=self.slot, pid=self.pid, stuck_s=_STUCK_S)
        self._process.kill()


class Crew:
    """The workers of one configuration. `run` is its life; `order` ends it.

    None accepts before all are ready: a crew that cannot start has taken no connection along.

    Attributes:
        workers: the current one of each slot.
        restarts: how many were replaced.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sequence[Sequence[socket.socket]],
        on_end: Callable[[Worker], None],
        *,
        command: Sequence[str] = WORKER,
        secret: bytes = b"",
        keys: tuple[Key, ...] | None = None,
        admin: str | None = None,
    ) -> None:
        """`sockets` holds each slot's, which listen once all workers are ready; `on_end` is called with every worker
        that has ended. `secret` makes one worker's tokens good at all others; empty: at none of them. `keys` are the
        virtual keys; None: there are none, and clients' own credentials go through. `admin` is where the admin address
        is, whose pages may come; None: nowhere."""
        self.config = config
        self.workers: dict[int, Worker] = {}
        self.restarts = 0
        self._sockets = sockets
        self._on_end = on_end
        self._command = command
        self._secret = secret
        self._keys = _packed(keys)
        self._admin = admin
        self._leaving = trio.Event()
        self._is_up = False
        self._failed_starts = 0
        self._failure: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every slot served until ordered to end; started once all workers serve.

        Raises WorkerFailed if one cannot start at first, or none can any more. If cancelled, all are killed.
        """
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for slot in range(len(self._sockets)):
                    starting.start_soon(nursery.start, self._keep, slot, nursery.cancel_scope)
            self._open(nursery.cancel_scope)
            task_status.started()
        if self._failure is not None:
            raise WorkerFailed(self._failure)

    def order(self, order: Order) -> None:
        """Tell every worker to end; a later, stricter order makes it quicker. Does not wait."""
        self._leaving.set()
        drain = self.config.drain
        patience_s = {Order.RETIRE: drain.timeout_s, Order.DRAIN: drain.delay_s + drain.timeout_s}.get(order, 0.5)
        spare_s = _SPARE_S + (_SPARE_FOR_SPANS_S if self.config.telemetry.otlp_endpoint else 0.0)
        for worker in list(self.workers.values()):
            worker.order(order, patience_s + spare_s)

    def take_keys(self, keys: tuple[Key, ...] | None) -> None:
        """Give every worker other virtual keys, also those that are still to come. Does not wait."""
        self._keys = _packed(keys)
        for worker in self.workers.values():
            worker.take_keys(self._keys)

    async def ask(self, what: str, **said: Any) -> list[tuple[Worker, Any]]:
        """The answers of those workers that answer."""
        answers: list[tuple[Worker, Any]] = []

        async def ask_one(worker: Worker) -> None:
            answer = await worker.ask(what, **said)
            if answer is not None:
                answers.append((worker, answer))

        async with trio.open_nursery() as nursery:
            for worker in list(self.workers.values()):
                nursery.start_soon(ask_one, worker)
        return answers

    def _open(self, all_workers: trio.CancelScope) -> None:
        """All are ready: let them accept."""
        self._is_up = True
        if self._leaving.is_set():
            return
        try:
            for listening in [one for sockets in self._sockets for one in sockets]:
                listening.listen(BACKLOG)  # nothing happens to one that does already
        except OSError as error:
            self._failure = f"cannot listen: {error.strerror}"
            all_workers.cancel(reason=self._failure)
        for worker in self.workers.values():
            worker.order(Order.SERVE)

    async def _keep(self, slot: int, all_workers: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve one slot by one worker after the other."""
        pause_s = 0.0
        was_ready = False
        on_ready: Callable[[], None] = task_status.started
        while not self._leaving.is_set():
            born = trio.current_time()
            worker, reason = await self._live(slot, on_ready)
            served = worker is not None and worker.ready.is_set()
            was_ready = was_ready or served
            if self._leaving.is_set():
                break
            self._failed_starts = 0 if served else self._failed_starts + 1
            if not served and self._is_lost():
                self._failure = reason
                all_workers.cancel(reason=reason)
                await trio.sleep_forever()
            lived_s = trio.current_time() - born
            pause_s = _FIRST_PAUSE_S if lived_s > _HEALTHY_S or not pause_s else min(2 * pause_s, _LONGEST_PAUSE_S)
            pid = None if worker is None else worker.pid
            log.error("worker died", worker=slot, pid=pid, reason=reason, next_in_s=pause_s)
            with trio.move_on_after(pause_s):
                await self._leaving.wait()
                break
            self.restarts += 1
            on_ready = partial(log.info, "worker replaced", worker=slot)
        self.workers.pop(slot, None)
        if not was_ready:
            task_status.started()  # told to end before it was there: nobody waits for it any more

    async def _live(self, slot: int, on_ready: Callable[[], None]) -> tuple[Worker | None, str]:
        """One worker's life: the worker, None if no process could be started, and what it ended of."""
        try:
            worker = Worker(
                slot,
                self.config,
                self._sockets[slot],
                on_ready,
                self._command,
                self._secret,
                self._keys,
                self._admin,
            )
        except OSError as error:
            return None, f"no process can be started: {error.strerror}"
        self.workers[slot] = worker
        if self._is_up:
            worker.order(Order.SERVE)
        code = await worker.run()
        self._on_end(worker)
        return worker, worker.failure or _said(code)

    def _is_lost(self) -> bool:
        """Whether a worker that cannot start is the end: at first, or when no other serves and it was tried enough."""
        serves = any(worker.ready.is_set() and worker.is_alive for worker in self.workers.values())
        return not self._is_up or (self._failed_starts >= _MAX_FAILED_STARTS and not serves)


def _packed(value: object) -> str:
    """A value as it goes over the line to a worker."""
    return base64.b64encode(pickle.dumps(value)).decode("ascii")


def _said(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _spawn(command: Sequence[str], link: socket.socket, sockets: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    """Start a worker. It finds modules where we do, and nowhere else: not in the folder that we were started in.

    Signals are blocked round it: a new process begins with what is blocked here, so one that is meant for the whole
    group cannot end a worker that has not learned yet to leave it to us. None is lost: ours come when they are let in.
    """
    path = os.pathsep.join(one for one in sys.path if one)
    numbers = [link.fileno(), *(listening.fileno() for listening in sockets)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS_SIGNALS)
    try:
        return subprocess.Popen(
            [*command, str(link.fileno())],
            pass_fds=numbers,
            env=environment_with(PYTHONPATH=path),
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _wait_ended(pid: int) -> None:
    """Wait until a child of ours has ended; it is still to be reaped then."""
    descriptor = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
