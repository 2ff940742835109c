"""A load generator: so many clients, each with one chat after the other, for so many seconds. Also a program.

    stdin    one line: the plan as JSON. A second, "go": all processes begin together. Its end: the parent has gone
    stdout   "ready"; four times a second what happened so far; at the end {"figures": …}

Each client is one task with one connection. After a failure it rests for a moment, so that a service that refuses is
not flooded. Started by `processes`, one for each core that is to be used.
"""

import gc
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from time import process_time
from typing import Any

import trio

from trioproxy.bench.figures import Figures
from trioproxy.bench.http_client import Connect, Connection, Url
from trioproxy.bench.talk import request_body, stream_chat, whole_chat

LONGEST_RAMP_S = 1.0
REST_S = 0.1
TELL_EVERY_S = 0.25
LATE_TIMER_S = 0.02


@dataclass(frozen=True)
class Plan:
    """What one process does."""

    url: Url
    model: str
    prompt: str
    streams: bool
    clients: int
    seconds: float
    key: str | None = field(default=None, repr=False)

    @property
    def ramp_s(self) -> float:
        """Over how long the clients' first requests are spread: all at once would measure that."""
        return min(LONGEST_RAMP_S, self.seconds / 5)

    def dumped(self) -> dict[str, Any]:
        """As JSON, for `loaded`; with the key."""
        return asdict(self)

    @classmethod
    def loaded(cls, value: dict[str, Any]) -> "Plan":
        """From what `dumped` returned."""
        return cls(**{**value, "url": Url(**value["url"])})


async def generate(plan: Plan, figures: Figures, connect: Connect | None = None) -> None:
    """Do what the plan says, counting into `figures`. `connect` opens connections, by TCP if not given. If cancelled,
    every connection is closed."""
    started, cpu_s = trio.current_time(), process_time()
    with trio.move_on_after(plan.seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_note_lateness, figures)
            for number in range(plan.clients):
                client = _Client(plan, figures, Connection(plan.url, plan.key, connect))
                nursery.start_soon(client.run, plan.ramp_s * number / plan.clients)
    figures.seconds = trio.current_time() - started
    figures.busy = [(process_time() - cpu_s) / figures.seconds]


class _Client:
    """One client, and when it last saw text."""

    def __init__(self, plan: Plan, figures: Figures, connection: Connection) -> None:
        messages = [{"role": "user", "content": plan.prompt}]
        self._body = request_body(plan.model, messages, streams=plan.streams)
        self._talk = stream_chat if plan.streams else whole_chat
        self._figures = figures
        self._connection = connection
        self._last: float | None = None

    async def run(self, after_s: float) -> None:
        """One request after the other, for ever."""
        figures = self._figures
        try:
            await trio.sleep(after_s)
            while True:
                self._last = None
                figures.under_way += 1  # what is never taken off again was under way at the end
                talk = await self._talk(self._connection, self._body, self._hear)
                figures.under_way -= 1
                figures.take(talk)
                if talk.tokens is not None:
                    figures.tokens += talk.tokens - talk.contents  # the origin knows better
                if talk.error is not None:
                    await trio.sleep(REST_S)
        finally:
            self._connection.close()

    def _hear(self, text: str) -> None:
        now = trio.current_time()
        if self._last is not None:
            self._figures.gap.note(now - self._last)
        self._last = now
        self._figures.tokens += 1


async def _note_lateness(figures: Figures) -> None:
    """How late this process serves a timer: as late it may be with everything that it measures."""
    while True:
        due = trio.current_time() + LATE_TIMER_S
        await trio.sleep_until(due)
        figures.late.note(trio.current_time() - due)


def main() -> None:
    """The program. Ends without a word if its parent does."""
    plan = Plan.loaded(json.loads(sys.stdin.buffer.readline()))
    _say("ready")
    if sys.stdin.buffer.readline():
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)  # its pauses would be measured
        trio.run(_run, plan)


async def _run(plan: Plan) -> None:
    figures = Figures()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with_parent, nursery.cancel_scope)
        nursery.start_soon(_tell, figures)
        await generate(plan, figures)
        _say({"figures": figures.dumped()})
        nursery.cancel_scope.cancel()


async def _end_with_parent(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
        await parent.receive_some(1)  # nothing comes any more but the end
    scope.cancel()


async def _tell(figures: Figures) -> None:
    while True:
        await trio.sleep(TELL_EVERY_S)
        _say({"finished": figures.finished, "failed": figures.failed, "tokens": figures.tokens})


def _say(what: object) -> None:
    sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
