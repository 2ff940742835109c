"""Who is alive: an instrument that counts tasks, and one that acts at a chosen step of the scheduler."""

from collections.abc import Callable

import trio


class TaskCounter(trio.abc.Instrument):
    """The tasks that are alive, by name; those that were alive before it was added do not count."""

    def __init__(self) -> None:
        self.alive: dict[trio.lowlevel.Task, str] = {}
        self.spawned = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.alive[task] = task.name
        self.spawned += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.alive.pop(task, None)


class AtStep(trio.abc.Instrument):
    """Calls `act` before the scheduler's `number`-th step (counted from its start); 0 never. `steps` counts on."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps = 0
        self.act: Callable[[], None] | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.act is None:
            return
        self.steps += 1
        if self.steps == self.number:
            self.act()
