"""Streams of all replicas: what is produced here is told to the store, and what others produce is mirrored here.

A mirror is a live stream like any other, only that its log is filled from the store; so readers never know where their
stream is produced. One read brings news of all mirrored streams. Whatever the store does, a stream's own readers on the
replica that produces it notice nothing.

Driven by `hub`; its `run` belongs in the process nursery. A store that does not answer is StateUnavailable for who
needs it, a warning in the log for all others, and the end of mirrors once nobody can say any more that their producer
lives.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from trioproxy import errors
from trioproxy.errors import StreamNotFound
from trioproxy.hub.hub import Hub
from trioproxy.hub.live import Head, LiveStream, Outcome
from trioproxy.policy.replay import Slow
from trioproxy.state import streams as state
from trioproxy.state.streams import START, Batch, Fate, StateUnavailable, StreamLost, StreamRecord, StreamStore
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import is_event_stream

log = structlog.get_logger()

_TOGETHER_S = 0.02
"""How long events are gathered before they are told to the store: a call costs more than an event."""
_MOST_BYTES = 262_144
_AGAIN_S = 0.2
_NOBODY = "nobody"
"""The caller of requests that show no credentials."""
_FIRST_NEWS_S = 5.0


class Replicas:
    """This replica among others, by one store."""

    def __init__(self, hub: Hub, store: StreamStore) -> None:
        self._hub = hub
        self._store = store
        self._own: set[str] = set()
        self._positions: dict[str, int] = {}
        self._mirrors: dict[str, LiveStream] = {}
        self._plain: dict[str, tuple[Head, bytearray]] = {}
        self._claiming: dict[tuple[str, str], trio.Lock] = {}
        self._changed = trio.Event()  # what is mirrored
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        """Renew leases, hear of stops and read what is mirrored, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._renew)
            nursery.start_soon(self._hear_stops)
            nursery.start_soon(self._read)

    async def keep_store(self) -> None:
        """Run what the store itself needs, until cancelled."""
        await self._store.run()

    # --- what is produced here

    @asynccontextmanager
    async def claiming(self, caller: str | None, share_key: str | None) -> AsyncIterator[None]:
        """Held from looking for a shared stream until one is there, so that one process claims it once."""
        if share_key is None:
            yield
            return
        key = (caller or _NOBODY, share_key)
        lock = self._claiming.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._claiming.pop(key, None)

    async def claim(self, stream_id: str, caller: str | None, dialect: Dialect, share_key: str | None) -> str:
        """Who is to produce a stream: this id if we are, else the id of one that is live elsewhere. Raises
        errors.StateUnavailable."""
        record = StreamRecord(stream_id=stream_id, caller=caller or _NOBODY, dialect=dialect.value)
        try:
            winner = await self._store.claim(record, share_key)
        except StateUnavailable as error:
            raise _unavailable() from error
        if winner == stream_id:
            self._own.add(stream_id)
        return winner

    def tell(self, stream: LiveStream) -> None:
        """Tell the store of a stream that was claimed, from now on."""
        self._hub.spawn(partial(self._tell, stream))

    async def _tell(self, stream: LiveStream) -> None:
        try:
            await self._tell_all(stream)
        except StreamLost:
            log.warning("shared stream lost: other replicas cannot read it", stream_id=stream.id)
        finally:
            self._own.discard(stream.id)

    async def _tell_all(self, stream: LiveStream) -> None:
        cursor = stream.log.reader(0, Slow.ERROR)
        try:
            head = await stream.wait_head()
            if head is None:
                await self._insist(partial(self._store.end, stream.id, _said(stream)))
                return
            await self._insist(partial(self._store.set_head, stream.id, state.Head(head.status, tuple(head.headers))))
            if head.body is not None:
                await self._insist(partial(self._store.append, stream.id, 1, [head.body]))
                await self._insist(partial(self._store.end, stream.id, json.dumps({"clean": head.is_whole})))
                return
            while True:
                batch = cursor.take(_MOST_BYTES)
                if batch.is_overrun:
                    raise StreamLost("the store is too slow")
                if batch.events:
                    first = batch.next_number - len(batch.events)
                    await self._insist(partial(self._store.append, stream.id, first, batch.events))
                    await trio.sleep(_TOGETHER_S)
                elif batch.outcome is not None:
                    await self._insist(partial(self._store.end, stream.id, _said(stream)))
                    return
                else:
                    await stream.wait_news()
        finally:
            cursor.close()

    @staticmethod
    async def _insist(call: Callable[[], Awaitable[None]]) -> None:
        """Make a call until the store takes it, or says that the stream is lost."""
        while True:
            try:
                await call()
                return
            except StateUnavailable:
                await trio.sleep(_AGAIN_S)

    async def _renew(self) -> None:
        while True:
            await trio.sleep(self._store.limits.renew_s)
            if not self._own:
                continue
            try:
                renewal = await self._store.renew(set(self._own))
            except StateUnavailable:
                log.warning("the store of shared streams does not answer")
                continue
            for stream_id in renewal.stopped:
                self._hub.stop_stream(stream_id)
            self._own -= renewal.lost

    async def _hear_stops(self) -> None:
        while True:
            try:
                self._hub.stop_stream(await self._store.next_stop())
            except StateUnavailable:
                await trio.sleep(_AGAIN_S)

    # --- what is produced elsewhere

    async def find(self, stream_id: str, caller: str | None) -> LiveStream:
        """A stream that another replica produces, or has produced; what there is of it is here, or comes soon. Raises
        StreamNotFound or errors.StateUnavailable."""
        try:
            record = await self._store.look(stream_id)
        except StateUnavailable as error:
            raise _unavailable() from error
        if record is None or record.caller != (caller or _NOBODY):
            raise StreamNotFound("There is no such stream, or it is too long ago, or it is not yours.")
        stream = self._mirrors.get(stream_id)
        if stream is None:
            stream = self._begin(record, caller)
        with trio.move_on_after(_FIRST_NEWS_S):
            while stream.is_live and stream.log.last < record.last:
                await stream.wait_news()
            return stream
        raise _unavailable()

    async def stop(self, stream_id: str) -> None:
        """Ask whoever produces a stream to end it. Raises errors.StateUnavailable."""
        try:
            await self._store.stop(stream_id)
        except StateUnavailable as error:
            raise _unavailable() from error

    def _begin(self, record: StreamRecord, caller: str | None) -> LiveStream:
        exchange = Exchange(record.stream_id, "GET", "", trio.current_time(), endpoint=record.dialect, stream=True)
        stream = self._hub.adopt(record.stream_id, caller, exchange, first=max(record.first, 1))
        self._mirrors[stream.id] = stream
        self._positions[stream.id] = START
        self._tell_reader()
        self._hub.spawn(partial(self._keep, stream), is_awaited=False)
        return stream

    async def _keep(self, stream: LiveStream) -> None:
        """Mirror a stream for as long as somebody reads it here."""
        try:
            await stream.wait_abandoned()
        finally:
            self._positions.pop(stream.id, None)
            self._plain.pop(stream.id, None)
            del self._mirrors[stream.id]
            self._hub.disown(stream)

    def _tell_reader(self) -> None:
        self._changed.set()
        self._reading.cancel()

    async def _read(self) -> None:
        heard = trio.current_time()
        while True:
            if not self._positions:
                self._changed = trio.Event()
                await self._changed.wait()
                heard = trio.current_time()
            with trio.CancelScope() as self._reading:
                try:
                    news = await self._store.read(dict(self._positions))
                except StateUnavailable:
                    if trio.current_time() > heard + self._store.limits.lease_s:
                        for stream in list(self._mirrors.values()):
                            self._lose(stream)
                    await trio.sleep(_AGAIN_S)
                    continue
                heard = trio.current_time()
                for stream_id, batch in news.items():
                    if stream_id in self._positions:
                        self._take(self._mirrors[stream_id], batch)

    def _take(self, stream: LiveStream, batch: Batch) -> None:
        """Let a mirror have what came. One whose readers have to be waited for is left out of the reading meanwhile."""
        position = self._positions[stream.id]
        self._positions[stream.id] = batch.position_behind(position)
        lost = batch.lost - (stream.log.first - 1 if position == START else 0)  # what was gone when it began is known
        if lost > 0:
            self._lose(stream)
            return
        if batch.head is not None:
            head = Head(batch.head.status, list(batch.head.headers))
            if is_event_stream(head.headers):
                stream.begin(head)
            else:
                self._plain[stream.id] = head, bytearray()
        if stream.id in self._plain:
            self._take_plain(stream, batch)
            return
        if stream.head is None and batch.fate is None:
            return
        events = list(batch.events)
        while events and stream.publish_nowait(events[0]):
            events.pop(0)
        if events:
            feed = partial(self._feed, stream, events, batch, self._positions.pop(stream.id))
            self._hub.spawn(feed, is_awaited=False)
        else:
            self._end(stream, batch)

    def _take_plain(self, stream: LiveStream, batch: Batch) -> None:
        """An answer that is no event stream, an error mostly: its readers get it whole."""
        head, body = self._plain[stream.id]
        for piece in batch.events:
            body += piece
        if batch.fate is Fate.ENDED:
            is_whole = json.loads(batch.outcome)["clean"]
            stream.begin(Head(head.status, head.headers, bytes(body), is_whole))
            self._end(stream, batch)

    async def _feed(self, stream: LiveStream, events: list[bytes], batch: Batch, position: int) -> None:
        for event in events:
            if not stream.is_live:
                return  # it was lost meanwhile
            await stream.publish(event)
        if stream.id in self._mirrors:
            self._positions[stream.id] = position
            self._tell_reader()
            self._end(stream, batch)

    def _end(self, stream: LiveStream, batch: Batch) -> None:
        if batch.fate is None:
            return
        if batch.fate is Fate.ENDED:
            said = json.loads(batch.outcome)
            stream.end(Outcome(is_clean=said["clean"], code=said.get("code")))
            self._positions.pop(stream.id, None)
        else:
            self._lose(stream)

    def _lose(self, stream: LiveStream) -> None:
        """Nobody can say how the stream goes on: its readers are told so."""
        self._positions.pop(stream.id, None)
        if stream.is_live:
            error = errors.StateUnavailable("The replica that produced this stream is gone; send the request again.")
            dialect = Dialect(stream.exchange.endpoint)
            stream.publish_nowait(render.event(error, dialect, stream.exchange.request_id, b"\n"), by_force=True)
            stream.exchange.fail(error)
            stream.end(Outcome(is_clean=False, code=error.code))


def _said(stream: LiveStream) -> str:
    """A stream's outcome in words for other replicas."""
    outcome = stream.log.outcome
    assert outcome is not None
    return json.dumps({"clean": outcome.is_clean, "code": outcome.code})


def _unavailable() -> errors.StateUnavailable:
    return errors.StateUnavailable("The store of shared streams does not answer; send the request again in a moment.")
