"""The crash barrier catches crashes and nothing else."""

from typing import Any

import pytest
import trio

from trioproxy.server.barrier import CrashBarrier


def barrier() -> CrashBarrier:
    return CrashBarrier(lambda scope: (500, [], b"sorry"))


class Stream:
    """The server's end of one request, as far as the barrier sees it."""

    def __init__(self) -> None:
        self.answered: list[bytes] = []
        self.ended = 0

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.answered.append(body)

    def forget(self) -> None:
        self.forgotten = True

    async def send(self, message: Any) -> None:
        assert message is None
        self.ended += 1


class App:
    """An ASGI app that raises what it is given."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("g", [KeyError("y")]), AssertionError()])
async def test_a_crashed_request_is_answered_counted_and_ended(error: BaseException) -> None:
    guard, stream = barrier(), Stream()
    await guard.run_request(App(error), {}, None, stream.send)
    assert (stream.answered, stream.ended, guard.crashes) == ([b"sorry"], 1, 1)


async def test_a_request_that_ends_well_is_only_ended() -> None:
    guard, stream = barrier(), Stream()
    await guard.run_request(App(None), {}, None, stream.send)
    assert (stream.answered, stream.ended, guard.crashes) == ([], 1, 0)


async def test_a_crashed_connection_is_closed_and_counted() -> None:
    guard, closed = barrier(), []

    async def crash() -> None:
        raise RuntimeError("boom")

    await guard.run_connection(crash, lambda: closed.append(True))
    assert (closed, guard.crashes) == ([True], 1)


async def test_cancellation_and_ctrl_c_pass_through() -> None:
    guard = barrier()
    with trio.CancelScope() as scope:
        scope.cancel()
        await guard.run_connection(trio.sleep_forever, lambda: None)
    assert scope.cancelled_caught and guard.crashes == 0
    with pytest.raises(KeyboardInterrupt):
        await guard.run_request(App(KeyboardInterrupt()), {}, None, Stream().send)


async def test_a_crash_beside_a_cancellation_is_counted_and_the_cancellation_goes_on() -> None:
    guard = barrier()

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RuntimeError("boom")

    with trio.CancelScope() as scope:
        scope.cancel()
        await guard.run_connection(both, lambda: None)
    assert guard.crashes == 1
