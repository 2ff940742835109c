"""Starts the generator's processes, lets them begin together, and adds up what they measured.

Each has a share of the clients. They end with this process, whatever becomes of it: its end is the end of what they
read. What they are told goes through that pipe and not through their arguments, which everybody can see.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from trioproxy.bench.figures import Figures
from trioproxy.bench.generator import Plan

COMMAND = (sys.executable, "-P", "-m", "trioproxy.bench.generator")
START_S = 60.0
GRACE_S = 20.0
"""How long a process may take to begin, and after its time to say what it measured: the machine is under load."""


class GeneratorFailed(Exception):
    """A process of the generator's did not do its work."""


@dataclass(frozen=True)
class Progress:
    """What happened so far, in all processes."""

    finished: int = 0
    failed: int = 0
    tokens: int = 0


async def measure(plan: Plan, processes: int, environ: Mapping[str, str], told: Callable[[Progress], None]) -> Figures:
    """Have the plan done by so many processes, started in this environment. `told` is called a few times a second.
    Raises GeneratorFailed, in a group; if cancelled, none of them goes on."""
    shares = [plan.clients // processes + (number < plan.clients % processes) for number in range(processes)]
    children = [_Child(replace(plan, clients=share)) for share in shares if share]
    figures = Figures()

    def tell() -> None:
        so_far = [child.progress for child in children]
        told(Progress(sum(o.finished for o in so_far), sum(o.failed for o in so_far), sum(o.tokens for o in so_far)))

    async with trio.open_nursery() as nursery:
        for child in children:
            await nursery.start(child.prepare, nursery, environ)
        for child in children:
            nursery.start_soon(child.work, tell)
    for child in children:
        figures.add(child.figures)
    return figures


class _Child:
    """One process, and what it has said."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._said = b""
        self.progress = Progress()
        self.figures = Figures()

    async def prepare(
        self, nursery: trio.Nursery, environ: Mapping[str, str], task_status: trio.TaskStatus[None]
    ) -> None:
        """Start it, and wait until it could begin."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environ, "process_group": 0}
        self._process: trio.Process = await nursery.start(partial(trio.run_process, COMMAND, check=False, **options))
        with trio.move_on_after(START_S):
            await self._tell(self._plan.dumped())
            if await self._hear() == "ready":
                task_status.started()
                return
        raise GeneratorFailed("a process of the generator's did not start")

    async def work(self, tell: Callable[[], None]) -> None:
        """Let it begin, and take down what it says until it says what it measured."""
        with trio.move_on_after(self._plan.seconds + GRACE_S):
            await self._tell("go")
            while True:
                match await self._hear():
                    case {"figures": figures}:
                        self.figures = Figures.loaded(figures)
                        return
                    case {"finished": finished, "failed": failed, "tokens": tokens}:
                        self.progress = Progress(finished, failed, tokens)
                        tell()
                    case _:
                        break
        raise GeneratorFailed("a process of the generator's ended before its time, or did not end")

    async def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(json.dumps(what).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has ended, and says nothing more either

    async def _hear(self) -> Any:
        """The next line, as JSON; None when it has ended."""
        assert self._process.stdout is not None
        while b"\n" not in self._said:
            piece = await self._process.stdout.receive_some()
            if not piece:
                return None
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)
