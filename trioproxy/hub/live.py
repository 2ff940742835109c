"""A live stream: its log, its readers, and whether anybody is still interested in it.

Written by one producer through `Recorder`, read by any number of readers, each at its own pace. It outlives both: an
ended stream can be read for a while. Owned by the `Hub`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from trioproxy.errors import BadRequest, CancelReason, InternalError, PositionGone
from trioproxy.policy import replay
from trioproxy.policy.replay import Batch, Cursor, Replay, Slow
from trioproxy.telemetry.exchange import Exchange
from trioproxy.telemetry.flow import CLIENT, PROXY
from trioproxy.wire.headers import Headers


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stream ended: `is_clean` with an honest end; else cut behind what the log holds, for `code`."""

    is_clean: bool
    code: str | None = None


@dataclass(slots=True)
class Head:
    """The answer's head; `body` is there for an answer that is no event stream: it is the whole of it, or what came of
    it before it broke off (`is_whole` false)."""

    status: int
    headers: Headers
    body: bytes | None = None
    is_whole: bool = True


class LiveStream:
    """One stream.

    Attributes:
        id: unguessable; part of a URL.
        caller: who may read it, see `wire/sharing`.
        share_key: under which others of the same caller join it, if any.
        linger_s: how long it goes on when nobody reads it.
        exchange: the record of its production.
        head: the answer's, once it is known.
        ended_at: when it ended, trio's clock.
        readers: how many read it now; `joined` counts all that did.
        stop: ends its production for everyone; None once that is over.
    """

    def __init__(
        self,
        stream_id: str,
        *,
        caller: str | None,
        share_key: str | None,
        linger_s: float,
        client_stall_s: float,
        log: Replay[Outcome],
        exchange: Exchange,
    ) -> None:
        self.id = stream_id
        self.caller = caller
        self.share_key = share_key
        self.linger_s = linger_s
        self.exchange = exchange
        self.log = log
        self.head: Head | None = None
        self.ended_at: float | None = None
        self.readers = 0
        self.joined = 0
        self.stop: Callable[[CancelReason], None] | None = None
        self._client_stall_s = client_stall_s
        self._is_ending = False
        self._news = trio.lowlevel.ParkingLot()  # readers that have read all there is
        self._room = trio.lowlevel.ParkingLot()  # a producer that waits for a slow reader
        self._interest = trio.Event()  # set when the number of readers has changed

    @property
    def is_live(self) -> bool:
        return self.log.outcome is None

    @property
    def can_be_joined(self) -> bool:
        """Whether one who comes now would get the whole of it, and its end."""
        is_stream = self.head is None or self.head.body is None
        return self.is_live and not self._is_ending and self.log.first == 1 and is_stream

    # --- the producer's side

    def begin(self, head: Head) -> None:
        """The answer's head is known."""
        self.head = head
        self._news.unpark_all()

    async def publish(self, event: bytes) -> None:
        """Add an event. Waits while a reader that asked for it would lose one, for as long as a client may stall.

        It is not cut short by cancellation, only by `stop_waiting`: the events that came with this one follow it, and
        a log without them would have a gap."""
        if self.log.blockers(len(event)):
            self.exchange.flow.turn(CLIENT, trio.current_time())
            await self._wait_for_room(len(event))
            self.exchange.flow.turn(PROXY, trio.current_time())
            if not self.is_live:
                return  # somebody else has ended it meanwhile
        self.log.append(event)
        self._news.unpark_all()

    async def _wait_for_room(self, size: int) -> None:
        """Wait until no reader that asked for it would lose an event by one of `size` bytes. Who takes nothing for as
        long as a client may stall is given up."""
        began = trio.current_time()
        since: dict[tuple[Cursor[Outcome], int], float] = {}  # of a reader at its place; others' news move no clock
        while blockers := self.log.blockers(size):
            places = [(cursor, cursor.next_number) for cursor in blockers]
            since = {place: since.get(place, trio.current_time()) for place in places}
            with trio.CancelScope(deadline=min(since.values()) + self._client_stall_s, shield=True):
                await self._room.park()
            for place, at in since.items():
                if trio.current_time() >= at + self._client_stall_s:
                    self.log.give_up_on(place[0])
        self.log.note_wait(trio.current_time() - began)

    def publish_nowait(self, event: bytes, *, by_force: bool = False) -> bool:
        """Add an event, unless a reader has to be waited for; False if so. `by_force`: that one loses it."""
        if not by_force and self.log.blockers(len(event)):
            return False
        self.log.append(event)
        self._news.unpark_all()
        return True

    def end(self, outcome: Outcome) -> None:
        """The stream is over; harmless when repeated."""
        if self.is_live:
            self.log.end(outcome)
            self.ended_at = trio.current_time()
            self._news.unpark_all()

    def stop_waiting(self) -> None:
        """Wait for no reader any more, and let no other join: the stream is to end."""
        self._is_ending = True
        self._client_stall_s = 0.0
        self._room.unpark_all()

    async def wait_abandoned(self) -> None:
        """Wait until nobody has read it for as long as it lingers."""
        while True:
            while self.readers:
                self._interest = trio.Event()
                await self._interest.wait()
            with trio.move_on_after(self.linger_s):
                while not self.readers:
                    self._interest = trio.Event()
                    await self._interest.wait()
            if not self.readers:
                return

    async def wait_head(self) -> Head | None:
        """The answer's head, None if the stream ended without one."""
        while self.head is None and self.is_live:
            await self._news.park()
        return self.head

    async def wait_news(self) -> None:
        """Wait until there may be something new in the log."""
        await self._news.park()

    # --- a reader's side

    @contextmanager
    def subscribed(self, after: int, slow: Slow) -> Iterator["Subscription"]:
        """A reader from behind event `after` on. Raises PositionGone, or BadRequest for an event that is not there."""
        cursor = self._cursor(after, slow)
        self.readers += 1
        self.joined += 1
        self._interest.set()
        try:
            yield Subscription(self, cursor, self._news, self._room)
        finally:
            cursor.close()
            self.readers -= 1
            self._interest.set()
            self._room.unpark_all()

    def _cursor(self, after: int, slow: Slow) -> Cursor[Outcome]:
        try:
            return self.log.reader(after, slow)
        except replay.PositionGone as gone:
            words = (
                f"What stands behind event {after} is not kept any more; there are still {gone.first} to {gone.last}."
            )
            raise PositionGone(words, first=gone.first, last=gone.last) from None
        except replay.PositionAhead as ahead:
            raise BadRequest(f"The stream has no event {after} yet; its last is {ahead.last}.", param="after") from None


class Subscription:
    """One reader's place in a stream."""

    __slots__ = ("_cursor", "_news", "_room", "_stream")

    def __init__(
        self,
        stream: LiveStream,
        cursor: Cursor[Outcome],
        news: trio.lowlevel.ParkingLot,
        room: trio.lowlevel.ParkingLot,
    ) -> None:
        self._stream = stream
        self._cursor = cursor
        self._news = news
        self._room = room

    async def wait_head(self) -> Head:
        """The answer's head. Raises InternalError if the production has ended without one: it has crashed, or was not
        given the time to say why it ends. If cancelled, nothing is lost."""
        while self._stream.head is None:
            if not self._stream.is_live:
                raise InternalError("The stream has ended before its answer began.")
            await self._news.park()
        return self._stream.head

    def take(self, max_bytes: int) -> Batch[Outcome]:
        """What is there now, whole events, perhaps none. Never waits."""
        batch = self._cursor.take(max_bytes)
        if batch.events:
            self._room.unpark_all()
        return batch

    async def wait_news(self) -> None:
        """Wait until there may be something to take. Call it right behind a `take` that gave nothing."""
        await self._news.park()
