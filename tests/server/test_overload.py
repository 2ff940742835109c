"""One line for each burst. What connections too many are told is in `tests/way/test_limits.py`."""

import trio

from trioproxy.server.overload import Burst


async def test_a_burst_is_new_once_and_again_after_some_quiet(autojump_clock: trio.testing.MockClock) -> None:
    burst = Burst()
    told = []
    for pause_s in (0, 0.1, 9, 9, 11, 0.1):
        await trio.sleep(pause_s)
        told.append(burst.is_new())
    assert told == [True, False, False, False, True, False]
