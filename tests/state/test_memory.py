"""The store of one process keeps what `streams` promises; in virtual time."""

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from trio.testing import MockClock

from tests.harness.stores import HASTY, HISTORIES, SMALL, Step, StoreCases, World, check_history, claimed
from trioproxy.state.memory import MemoryStore
from trioproxy.state.streams import Limits


async def open_memory(limits: Limits) -> World:
    """One store that is both replicas: there is no other."""
    store = MemoryStore(limits)

    async def end_lease(stream_id: str, others: Sequence[str]) -> None:
        for _ in range(4):
            await trio.sleep(limits.renew_s)
            await store.renew([other for other in others if other != stream_id])

    return World(store, store, end_lease)


@pytest.mark.parametrize("case", [name for name in dir(StoreCases) if name.startswith("test_")])
def test_it_keeps_what_streams_promises(case: str) -> None:
    trio.run(getattr(StoreCases(), case), open_memory, clock=MockClock(autojump_threshold=0))


@given(HISTORIES)
def test_every_mirror_sees_a_suffix_with_explicit_gaps_and_one_fate(steps: list[Step]) -> None:
    async def check() -> None:
        limits = Limits(max_events=SMALL.max_events, lease_s=8, retain_s=10_000)
        await check_history(steps, await open_memory(limits))

    trio.run(check, clock=MockClock(autojump_threshold=0))


async def test_what_is_forgotten_takes_no_memory(autojump_clock: MockClock) -> None:
    store = MemoryStore(HASTY)
    for number in range(50):
        stream_id = await claimed(store, f"key {number}")
        if number % 2:
            await store.end(stream_id, "finished")
    await trio.sleep(HASTY.held_s + HASTY.retain_s)
    await claimed(store)
    assert (len(store._streams), len(store._shares)) == (1, 0)
