"""The supervisor: the process that a service manager sees. It serves nothing itself but the admin address.

It opens the listening sockets and keeps them for life, starts the workers and replaces those that die, takes the
signals, and puts a new configuration into force: checked first, then new workers beside the old ones, then the old ones
drain. Called by `cli`.
"""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from secrets import token_bytes
from time import time
from typing import Any

import structlog
import trio

from trioproxy.config import Config, has_proven, show, split_bind
from trioproxy.errors import ConfigError
from trioproxy.server.admin import AdminHouse
from trioproxy.server.backpressure import merged as merged_backpressure
from trioproxy.server.crew import Crew, Worker, WorkerFailed
from trioproxy.server.keys_told import told_keys
from trioproxy.server.keys_watch import Keys, KeysWatch, find_keys
from trioproxy.server.link import Order
from trioproxy.server.live_table import LiveTable
from trioproxy.server.sockets import SlotSockets, authority
from trioproxy.server.upstreams import merged
from trioproxy.server.worker import SUPERVISORS_SIGNALS, allow_descriptors
from trioproxy.telemetry.access_log import AccessLog, send_structlog_to
from trioproxy.telemetry.metrics import Family, Merged, counts, state

log = structlog.get_logger()

_Place = tuple[str, int]
"""A configured address, and which of several that read the same: port 0 is another port each time."""


class Supervisor:
    """One service: its sockets, its workers, its admin address.

    `load` gives the configuration anew, or raises ConfigError; `admin` is the admin address, listening, or None.
    Raises OSError if an address cannot be bound, and ConfigError if the keys file is wrong; then nothing is left open.
    """

    def __init__(
        self, config: Config, access_log: AccessLog, *, load: Callable[[], Config], admin: socket.socket | None = None
    ) -> None:
        found = find_keys(config)
        self._keys = KeysWatch(config, found, self._give_keys)
        self._log = access_log
        send_structlog_to(access_log)
        self._load = load
        self._sockets: dict[_Place, SlotSockets] = {}
        self._crews: list[Crew] = []
        self._order = Order.SERVE
        self._reloading = trio.Lock()
        self._all_gone = trio.Event()
        self._ended = Merged()
        self._secret = token_bytes(32)
        self._restarts = 0
        self._reloads = 0
        self._refused_reloads = 0
        self._nursery: trio.Nursery
        self._admin = admin
        self.live_table = LiveTable(self._workers)
        self._admin_house = None if admin is None else AdminHouse(config, self)
        try:
            self._current = self._crew_for(config, found.keys)
        except OSError:
            self._close()
            raise

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, as hosts and ports."""
        return [(sockets.host, sockets.port) for sockets in self._sockets.values()]

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Where the admin address is, as host and port."""
        if self._admin is None:
            return None
        host, port = self._admin.getsockname()[:2]
        return host, port

    async def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until a signal and a drain, or until cancelled (then the workers are killed).

        Raises WorkerFailed if the workers cannot start at first, or none can any more.
        """
        allow_descriptors()
        self._log.start()
        try:
            with trio.open_signal_receiver(*SUPERVISORS_SIGNALS) as signals:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._obey, signals)
                    self._nursery.start_soon(self._keys.run)
                    async with self._reloading:  # what is to be reloaded has to be there first
                        await self._nursery.start(self._run_crew, self._current)
                    if self._admin is not None and self._admin_house is not None:
                        self._nursery.start_soon(self._admin_house.serve, self._admin)
                        self._nursery.start_soon(self.live_table.run)
                    if self._order is Order.SERVE:
                        self._say_listening()
                        on_ready()
                    await self._all_gone.wait()
                    self._nursery.cancel_scope.cancel(reason="all workers have ended")
        finally:
            self._close()
            self._log.stop()

    async def reload(self, proven: str | None = None) -> list[str]:
        """Put the configuration as it is now into force, or say what is wrong with it and change nothing.

        `proven` is which key was proven to work (see `config.proven`): a configuration without it is refused.
        Returns the problems, none if new workers serve and the old ones drain. If cancelled, nothing was changed.
        """
        async with self._reloading:
            problems = await self._reload(proven)
        if problems:
            self._refused_reloads += 1
            log.error("reload refused: nothing was changed", problems=problems)
        else:
            self._reloads += 1
            log.info("reloaded", workers=len(self._current.workers))
        return problems

    async def metrics(self) -> bytes:
        """Every worker's metrics in one, as Prometheus reads them."""
        told = {worker for crew in list(self._crews) for worker, _ in await crew.ask("metrics")}
        # No checkpoint from here on: a worker that ended meanwhile is counted once, among those that have ended. One
        # that does not answer still counts as it last did, or the sums would fall and rise again.
        workers = [worker for crew in self._crews for worker in crew.workers.values() if worker.last is not None]
        named = [(self._name(one), one.last if one in told else counts(one.last)) for one in workers]
        return self._ended.render(named, self._own_families())

    async def resources(self) -> dict[str, Any]:
        """What is open in every worker, what was opened and released, and who runs."""
        answers = [pair for crew in list(self._crews) for pair in await crew.ask("resources")]
        workers = [{"worker": worker.slot, "pid": worker.pid, **answer} for worker, answer in answers]
        totals: dict[str, Any] = {"tasks": sum(one["tasks"] for one in workers)}
        for key in ("open", "opened", "released"):
            names = {name for one in workers for name in one[key]}
            totals[key] = {name: sum(one[key].get(name, 0) for one in workers) for name in sorted(names)}
        return {**totals, "workers": workers}

    async def upstreams(self) -> dict[str, Any]:
        """How the upstreams of the configuration in force are, over all workers."""
        answers = [(crew, *pair) for crew in list(self._crews) for pair in await crew.ask("upstreams")]
        # Only now: a reload may have come meanwhile.
        current = [(worker.slot, worker.pid, answer) for crew, worker, answer in answers if crew is self._current]
        older = [answer for crew, _, answer in answers if crew is not self._current]
        return {"upstreams": merged(self._current.config, current, older)}

    async def backpressure(self) -> dict[str, Any]:
        """What the streams that several clients read hold, and what slow readers came to, over all workers."""
        answers = [pair for crew in list(self._crews) for pair in await crew.ask("backpressure")]
        return merged_backpressure([(worker.slot, worker.pid, answer) for worker, answer in answers])

    async def stream(self, row_id: str) -> dict[str, Any]:
        """One request, live or lately ended, with its tries and its timeline; empty if nobody has it."""
        for slot, answer in await self._ask_all("stream", id=row_id):
            if answer:
                found: dict[str, Any] = answer
                found["stream"]["worker"] = slot
                return found
        return {}

    async def stop_stream(self, row_id: str, reason: str) -> int:
        """Stop a request, or a stream for all its readers. Returns how many there were."""
        stopped: int = sum(answer for _, answer in await self._ask_all("stop", id=row_id, reason=reason))
        if stopped:
            log.info("stopped by an operator", id=row_id, reason=reason or None)
        return stopped

    async def keys(self) -> dict[str, Any]:
        """The virtual keys, and what was used of their limits."""
        # What one worker tells holds for all: where there are several they count in one place.
        answers = await self._current.ask("spent")
        return told_keys(self._current.config, self._keys.keys, answers[0][1] if answers else {}, time())

    def config(self) -> dict[str, str]:
        """The configuration in force as `toml`, secrets masked, and the program's `version`."""
        return {"toml": show(self._current.config), "version": version("trioproxy")}

    def data_urls(self, host: str) -> list[str]:
        """Where clients find the data address; `host` is what this machine is called by who asks."""
        scheme = "http" if self._current.config.server.tls is None else "https"
        return [f"{scheme}://{authority(one, port, host)}" for one, port in self.addresses]

    def _workers(self) -> list[Worker]:
        return [worker for crew in self._crews for worker in crew.workers.values()]

    async def _ask_all(self, what: str, **said: Any) -> list[tuple[int, Any]]:
        return [(worker.slot, answer) for crew in list(self._crews) for worker, answer in await crew.ask(what, **said)]

    async def _reload(self, proven: str | None) -> list[str]:
        if self._order is not Order.SERVE:
            return ["the service is stopping"]
        try:
            config = self._load()
            if config.admin.bind != self._current.config.admin.bind:
                return ["admin.bind: takes a restart, a reload cannot change it"]
            if proven is not None and not has_proven(config, proven):
                return ["the configuration that the service reads does not hold the key that was proven"]
            keys = await trio.to_thread.run_sync(find_keys, config)
            crew = self._crew_for(config, keys.keys)
            await self._nursery.start(self._run_crew, crew)
            old, self._current = self._current, crew
            self._keys.follow(config, keys)
            old.order(Order.RETIRE)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        except OSError as error:
            return [f"cannot listen: {error.strerror or error}"]
        except WorkerFailed as failure:
            return [str(failure)]
        finally:
            self._close_unused()
        if self._admin_house is not None:
            self._admin_house.take(config)
        try:
            self._log.reopen()
        except OSError as error:
            log.error("the log file cannot be opened anew", reason=error.strerror)
        return []

    def _crew_for(self, config: Config, keys: Keys) -> Crew:
        """The workers of a configuration, not started, with their sockets and keys. Raises OSError."""
        places = _places(config)
        for place in places:
            if place not in self._sockets:
                self._sockets[place] = SlotSockets(*split_bind(place[0]))
        wanted = config.server.workers
        workers = len(os.sched_getaffinity(0)) if wanted == "auto" else wanted
        sockets = [
            [one for place in places for one in self._sockets[place].for_worker(slot, workers)]
            for slot in range(workers)
        ]
        admin = self.admin_address
        return Crew(
            config,
            sockets,
            self._note_end,
            secret=self._secret,
            keys=keys,
            admin="off" if admin is None else authority(*admin),
        )

    def _give_keys(self, keys: Keys) -> None:
        """To those that drain too: a key that was revoked is of no use there either."""
        for crew in self._crews:
            crew.take_keys(keys)

    async def _run_crew(self, crew: Crew, *, task_status: trio.TaskStatus[None]) -> None:
        self._crews.append(crew)
        if self._order is not Order.SERVE:  # told to stop between two steps of a reload
            crew.order(self._order)
        try:
            await crew.run(task_status=task_status)
        finally:
            self._crews.remove(crew)
            self._restarts += crew.restarts
            if not self._crews:
                self._all_gone.set()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            match number:
                case signal.SIGHUP if self._reloading.statistics().tasks_waiting:
                    pass  # the reload that waits will read the configuration as it is now
                case signal.SIGHUP:
                    self._nursery.start_soon(self.reload)
                case signal.SIGUSR1:
                    self._nursery.start_soon(self._log_resources)
                case _:
                    self._order = Order.DRAIN if self._order is Order.SERVE else Order.STOP
                    log.info("stopping", signal=signal.Signals(number).name, order=self._order.name.lower())
                    for crew in list(self._crews):
                        crew.order(self._order)
                    self._close()  # the workers hold them too, for as long as they accept; nobody must wait behind them

    async def _log_resources(self) -> None:
        log.info("resources", **await self.resources())

    def _note_end(self, worker: Worker) -> None:
        if worker.last is not None:
            self._ended.keep(worker.last)
            worker.last = None

    def _own_families(self) -> Iterator[Family]:
        workers = [worker for crew in self._crews for worker in crew.workers.values()]
        restarts = self._restarts + sum(crew.restarts for crew in self._crews)
        yield state("trioproxy_workers", "Workers that serve or drain.", sum(one.ready.is_set() for one in workers))
        yield state("trioproxy_worker_restarts", "Workers that died and were replaced.", restarts, "counter")
        yield state("trioproxy_reloads", "Reloads that were put into force.", self._reloads, "counter")
        yield state("trioproxy_reloads_refused", "Reloads that changed nothing.", self._refused_reloads, "counter")
        refused = self._keys.refused
        yield state("trioproxy_keys_file_refused", "Changes of the keys file that were not taken.", refused, "counter")

    def _say_listening(self) -> None:
        config = self._current.config
        for host, port in self.addresses:
            upstreams = [upstream.name for upstream in config.upstream]
            log.info("listening", host=host, port=port, workers=len(self._current.workers), upstreams=upstreams)
        if self.admin_address is not None:
            host, port = self.admin_address
            log.info("admin address", host=host, admin_port=port)

    def _name(self, worker: Worker) -> str:
        """Its slot; one that drains after a reload shares that with its successor, and has its process id with it."""
        is_current = self._current.workers.get(worker.slot) is worker
        return str(worker.slot) if is_current else f"{worker.slot}/{worker.pid}"

    def _close_unused(self) -> None:
        """Close what is bound for no configuration in force: nobody accepts there."""
        for place in self._sockets.keys() - set(_places(self._current.config)):
            self._sockets.pop(place).close()

    def _close(self) -> None:
        for sockets in self._sockets.values():
            sockets.close()


def _places(config: Config) -> list[_Place]:
    binds = config.server.bind
    return [(bind, binds[:index].count(bind)) for index, bind in enumerate(binds)]
