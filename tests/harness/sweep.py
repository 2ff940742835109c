"""The cut sweep: a story is played again and again, and each time one side is cut at the next step of the scheduler."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import trio.testing

from tests.harness.counting import AtStep
from tests.harness.house import Client, HouseUnderTest, open_house
from tests.harness.origin import Script
from tests.harness.spans import ListTracer, check_tree
from trioproxy.errors import CancelReason

Play = Callable[[Client], Awaitable[None]]
CUTS = ("client", "origin", "server")
DRAIN = "drain"
"""Nobody is cut, but the requests under way are stopped, as at the end of a drain; the client reads on."""


@dataclass(frozen=True)
class Story:
    """What the origin does and what the client does, when nothing is cut. `lockstep` is a network that holds nothing:
    a client that does not read stalls its sender. `drains` asks for a sweep with `DRAIN` too. `config` is
    what a configuration file says. `has_rival`: another client's request, with `rival_headers`, is under way before the
    first step. `linger_s`: no stream goes on without a reader for longer than this."""

    name: str
    origin: Script
    client: Play
    flags: tuple[tuple[str, Any], ...] = ()
    lockstep: bool = False
    refuses: bool = False
    drains: bool = False
    config: str = ""
    has_rival: bool = False
    rival_headers: str = ""
    linger_s: float = 0.1


@dataclass
class Outcome:
    """One run: how many steps it had, and the lines it logged."""

    steps: int
    exchanges: list[dict[str, object]]
    origins: int


def play(story: Story, cut: str, step: int, file: Path | None = None) -> Outcome:
    """Play a story with `cut` cut before its `step`-th step (0: not at all). Raises if anything is left behind: the
    house itself checks that at its end. So does a request whose spans do not fit together."""
    instrument, tracer = AtStep(step), ListTracer()

    async def main() -> Outcome:
        flags = dict(story.flags)
        async with open_house(story.origin, lockstep=story.lockstep, file=file, tracer=tracer, **flags) as house:
            house.origin.refuses = story.refuses
            client, rival = house.connect(), house.connect()
            if story.has_rival:
                await rival.post(headers=story.rival_headers)
                await trio.testing.wait_all_tasks_blocked()
            else:
                rival.leave()
            with trio.CancelScope() as leaving:

                def act() -> None:
                    if cut == DRAIN:
                        house.house.service.is_draining = True
                        house.house.service.stop_all(CancelReason.DRAIN)
                        house.house.shadows.stop()
                        return
                    leaving.cancel()
                    if cut == "client":
                        client.leave()
                    elif cut == "server":
                        house.cancel_server()
                    else:
                        _cut_origins(house)

                instrument.act = act
                try:
                    await story.client(client)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            if cut == "origin" and leaving.cancelled_caught:
                await trio.lowlevel.checkpoint()  # the house gets a chance to tell the client before that one leaves
            instrument.act = None
            client.leave()
            rival.leave()
            if house.house.hub.producers.open:
                await trio.sleep(story.linger_s)
                assert not house.house.hub.producers.open
        check_tree(tracer.spans)
        return Outcome(instrument.steps, house.log.exchanges, len(house.origin.visits))

    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=[instrument])


def _cut_origins(house: HouseUnderTest) -> None:
    house.origin.refuses = True
    for visit in house.origin.visits:
        visit.cut()
