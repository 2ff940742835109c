"""Places at an endpoint: bounded, first come, first served, and given back."""

import pytest
import trio
import trio.testing

from trioproxy.errors import Overloaded
from trioproxy.upstream.slots import Slots


async def test_without_a_number_there_is_always_room() -> None:
    slots = Slots(None)
    for _ in range(1000):
        await slots.take()
    assert slots.has_room and slots.may_wait and slots.taken == 1000
    for _ in range(1000):
        slots.give_back()
    assert slots.taken == 0


async def test_whoever_waits_longest_gets_the_place(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 9)
    came: list[int] = []

    async def come(number: int) -> None:
        await trio.sleep(number)
        await slots.take()
        came.append(number)
        await trio.sleep(20)
        slots.give_back()

    async with trio.open_nursery() as nursery:
        for number in (3, 1, 2):
            nursery.start_soon(come, number)
    assert came == [1, 2, 3]
    assert slots.has_room and slots.taken == 0


async def test_only_so_many_wait(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 1)
    await slots.take()
    might_wait = slots.may_wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.take)
        await trio.testing.wait_all_tasks_blocked()
        assert (might_wait, slots.may_wait, slots.waiting) == (True, False, 1)
        with pytest.raises(Overloaded):
            await slots.take()
        slots.give_back()
    assert slots.taken == 1
    slots.give_back()


async def test_who_leaves_the_queue_takes_no_place(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 1)
    await slots.take()
    with trio.move_on_after(1):
        await slots.take()
    assert slots.may_wait and slots.taken == 1
    slots.give_back()
    assert slots.has_room and slots.taken == 0
