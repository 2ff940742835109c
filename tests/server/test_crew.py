"""Workers that are started, told and replaced: real processes, of a small program instead of the real worker."""

import base64
import os
import pickle
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioproxy.config import Key, hash_of, load
from trioproxy.server import crew as crew_module
from trioproxy.server.crew import Crew, Worker, WorkerFailed
from trioproxy.server.link import Order
from trioproxy.server.sockets import bind

_PROGRAM = '''
import json, os, signal, socket, sys, time

link = socket.socket(fileno=int(sys.argv[-1]))

def exactly(size):
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data

def receive():
    return json.loads(exactly(int.from_bytes(exactly(4), "big")))

def send(message):
    data = json.dumps(message).encode()
    link.sendall(len(data).to_bytes(4, "big") + data)

def obey(until=3):
    """Answer and obey until an order this strict; the orders, as they came, are the last word."""
    orders = []
    while True:
        message = receive()
        if "ask" in message:
            send({"answer": message["number"], "value": [message["ask"], os.getpid(), told[-1], len(told)]})
            continue
        if "keys" in message:
            told.append(message["keys"])
            continue
        orders.append(message["order"])
        if orders[-1] >= until:
            send({"last": orders})
            return

def first(name):
    """Whether this is the first worker that comes here."""
    try:
        os.mkdir(name)
        return True
    except FileExistsError:
        return False

told = [receive()["keys"]]
'''


class Ended:
    """Collects the last words of those that have ended."""

    def __init__(self) -> None:
        self.lasts: list[Any] = []

    def __call__(self, worker: Worker) -> None:
        self.lasts.append(worker.last)


MakeCrew = Callable[..., Crew]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCrew:
    """Makes a crew whose workers do what is said, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crew_module, "_FIRST_PAUSE_S", 0.02)

    def make(script: str, slots: int = 1, *, on_end: Callable[[Worker], None] | None = None, **flags: object) -> Crew:
        program = tmp_path / "program.py"
        program.write_text(_PROGRAM + script)
        given = {"upstream.base_url": "http://origin/v1", "drain.timeout_s": 0.0, **flags}
        config = load(flags=given, environ={})
        sockets: list[list[socket.socket]] = [[] for _ in range(slots)]
        return Crew(config, sockets, on_end or Ended(), command=(sys.executable, "-S", str(program)))

    return make


@asynccontextmanager
async def running(crew: Crew) -> AsyncIterator[None]:
    """The crew at work; at the end it has to end by itself."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda *, task_status: crew.run(task_status=task_status))
            yield


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do; nobody tells us."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def descriptors() -> list[str]:
    return sorted(one.name for one in Path("/proc/self/fd").iterdir())


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_workers_serve_once_all_are_ready_and_end_when_told(make: MakeCrew) -> None:
    ended = Ended()
    crew = make("send({'ready': True}); obey()", 3, on_end=ended)
    async with running(crew):
        answers = await crew.ask("who")
        assert sorted(worker.slot for worker, _ in answers) == [0, 1, 2]
        assert all(answer[:2] == ["who", worker.pid] for worker, answer in answers)
        crew.order(Order.DRAIN)
    assert ended.lasts == [[Order.SERVE, Order.DRAIN]] * 3
    assert crew.workers == {} and crew.restarts == 0


async def test_new_slots_listen_when_all_are_ready_and_not_before(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()")
    with bind("127.0.0.1", 0, listens=False) as waiting:
        crew = Crew(crew.config, [[waiting]], Ended(), command=crew._command)
        assert not waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        async with running(crew):
            assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            crew.order(Order.DRAIN)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("send({'failed': 'no certificate'})", "no certificate"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    ],
)
async def test_one_that_cannot_start_at_first_is_the_end_of_all(make: MakeCrew, script: str, reason: str) -> None:
    crew = make(f"if first('a'):\n    {script}\nelse:\n    send({{'ready': True}}); obey()", 2)
    with trio.fail_after(10), pytest.raises(WorkerFailed, match=reason):
        await crew.run()
    assert not any(worker.is_alive for worker in crew.workers.values())


async def test_a_process_that_cannot_even_be_started_is_a_reason_too(make: MakeCrew) -> None:
    crew = Crew(make("").config, [[]], Ended(), command=["/does/not/exist"])
    before = descriptors()
    with pytest.raises(WorkerFailed, match="no process can be started: No such file or directory"):
        await crew.run()
    assert descriptors() == before


async def test_one_that_is_not_ready_in_time_is_killed(make: MakeCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_START_S", 0.3)
    with trio.fail_after(5), pytest.raises(WorkerFailed, match=r"not ready after 0\.3 s"):
        await make("time.sleep(60)").run()


async def test_one_that_dies_is_replaced_and_told_to_serve_at_once(make: MakeCrew) -> None:
    ended = Ended()
    crew = make("send({'ready': True}); obey()", 2, on_end=ended)
    async with running(crew):
        other, victim = crew.workers[0], crew.workers[1]
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: crew.workers[1] is not victim and crew.workers[1].ready.is_set())
        assert crew.workers[0] is other and other.is_alive
        assert crew.restarts == 1
        crew.order(Order.DRAIN)
    assert ended.lasts == [None, [Order.SERVE, Order.DRAIN], [Order.SERVE, Order.DRAIN]]


async def test_pauses_grow_while_one_dies_again_and_again(make: MakeCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[float] = []
    crew = make("send({'ready': True}); exactly(0); time.sleep(0.02)")

    class Log:
        def error(self, event: str, **fields: Any) -> None:
            said.append(fields["next_in_s"])

        def info(self, event: str, **fields: Any) -> None: ...

    monkeypatch.setattr(crew_module, "log", Log())
    async with running(crew):
        await until(lambda: len(said) == 4)
        crew.order(Order.STOP)
    assert said[:4] == [0.02, 0.04, 0.08, 0.16]


async def test_failed_starts_are_the_end_only_when_nobody_serves(
    make: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_LONGEST_PAUSE_S", 0.02)
    script = "if first('a') or first('b'):\n    send({'ready': True}); obey()\nelse:\n    sys.exit(4)"
    crew = make(script, 2)
    lived_on = False
    with pytest.raises(ExceptionGroup) as failed:  # noqa: PT012 - the crew fails under the last step
        async with running(crew):
            os.kill(crew.workers[0].pid, signal.SIGKILL)
            await until(lambda: crew.restarts > 8)
            assert crew.workers[1].is_alive
            lived_on = True
            os.kill(crew.workers[1].pid, signal.SIGKILL)
            await trio.sleep_forever()
    assert lived_on
    assert failed.group_contains(WorkerFailed, match="ended with exit code 4")


async def test_one_that_does_not_listen_is_killed_and_keeps_nobody(make: MakeCrew) -> None:
    ended = Ended()
    crew = make("send({'ready': True}); obey()", 2, on_end=ended)
    async with running(crew):
        stuck = crew.workers[0]
        os.kill(stuck.pid, signal.SIGSTOP)
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                for _ in range(1000):  # more than the line takes
                    nursery.start_soon(stuck.ask, "metrics")
        start = trio.current_time()
        crew.order(Order.DRAIN)
        await until(lambda: len(ended.lasts) == 1)
        assert trio.current_time() - start < 0.5
    assert trio.current_time() - start < 1.5
    assert ended.lasts == [[Order.SERVE, Order.DRAIN], None]


async def test_an_order_before_anybody_is_there_is_obeyed(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()", 2)
    crew.order(Order.DRAIN)
    async with running(crew):
        pass
    assert crew.workers == {}


async def test_an_order_while_they_start_is_obeyed_and_nobody_serves(make: MakeCrew) -> None:
    ended = Ended()
    crew = make("time.sleep(0.3); send({'ready': True}); obey()", on_end=ended)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crew.run)
        await until(lambda: bool(crew.workers))
        crew.order(Order.DRAIN)
    assert ended.lasts == [[Order.DRAIN]]


async def test_a_crew_that_is_cancelled_leaves_no_process(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()", 2)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda *, task_status: crew.run(task_status=task_status))
            pids = [worker.pid for worker in crew.workers.values()]
            nursery.cancel_scope.cancel()
    assert not any(is_there(pid) for pid in pids)


async def test_a_worker_whose_loop_is_stuck_is_killed_and_replaced(
    make: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_STUCK_S", 0.5)
    monkeypatch.setattr(crew_module, "_LOOK_EVERY_S", 0.1)
    crew = make("""
stuck = first("stuck")
send({"ready": True})
if stuck:
    time.sleep(1000)
obey()
""")
    async with running(crew):
        stuck = crew.workers[0]
        await until(lambda: crew.workers[0] is not stuck and crew.workers[0].ready.is_set())
        fine = crew.workers[0]
        await trio.sleep(1)  # it answers, and is left in peace
        assert crew.workers[0] is fine and crew.restarts == 1
        crew.order(Order.STOP)


KEYS = tuple(Key(name=name, hash=hash_of(name)) for name in ("one", "other"))


async def told(crew: Crew, keys: tuple[Key, ...] | None, workers: int = 1) -> int:
    """Wait until so many workers have these keys; returns how often the one that was told most was told of any."""
    with trio.fail_after(5):
        while True:
            answers = [answer for _, answer in await crew.ask("keys")]
            if [pickle.loads(base64.b64decode(packed)) for _, _, packed, _ in answers] == [keys] * workers:
                return max(int(times) for _, _, _, times in answers)
            await trio.sleep(0.01)


async def test_all_workers_get_the_keys_at_their_start_and_whenever_there_are_others(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()", 2)
    crew.take_keys(KEYS[:1])
    async with running(crew):
        assert await told(crew, KEYS[:1], 2) == 1
        crew.take_keys(None)
        crew.take_keys(KEYS)
        await told(crew, KEYS, 2)
        crew.take_keys(None)
        await told(crew, None, 2)
        crew.order(Order.DRAIN)


async def test_one_that_takes_another_place_gets_the_last_keys(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()")
    async with running(crew):
        crew.take_keys(KEYS)
        victim = crew.workers[0]
        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: crew.workers[0] is not victim and crew.workers[0].ready.is_set())
        await told(crew, KEYS)
        crew.order(Order.DRAIN)


async def test_keys_that_come_while_a_worker_starts_are_told_once_it_listens(make: MakeCrew) -> None:
    crew = make("time.sleep(0.3); send({'ready': True}); obey()")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crew.run)
        await until(lambda: bool(crew.workers))
        crew.take_keys(KEYS)
        await until(crew.workers[0].ready.is_set)
        await told(crew, KEYS)
        crew.order(Order.DRAIN)


async def test_keys_for_one_that_does_not_listen_wait_for_nobody_and_do_not_gather(make: MakeCrew) -> None:
    crew = make("send({'ready': True}); obey()")
    async with running(crew):
        stopped = crew.workers[0]
        os.kill(stopped.pid, signal.SIGSTOP)
        many = tuple(Key(name=f"key-{number}", hash=hash_of(str(number))) for number in range(3_000))
        for _ in range(10):
            crew.take_keys(many)  # more than the line takes
            await trio.sleep(0.01)
        crew.take_keys(KEYS)
        os.kill(stopped.pid, signal.SIGCONT)
        assert await told(crew, KEYS) == 3  # at its start, what was on its way, and the last
        crew.order(Order.DRAIN)
