"""The store of many replicas: Redis Streams. `redis_scripts` says what is kept under which key.

Three connections and no more: one for commands, one that blocks in the read of all mirrored streams, one that hears of
stops. What reaches the server: events, the head as it is given, the caller's hash, and a hash of caller and share key.

One server, or one address that always leads to the one that may be written to. The keys of a stream share a hash tag,
so every script stays in one slot of a cluster; but the one read of all streams does not, so a cluster is not supported.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Never

import trio
from coredis.exceptions import RedisError

from trioproxy.state.redis_calls import Call, Script, refusal, run_all, send_all
from trioproxy.state.redis_link import Address, Command, RedisLink, Value
from trioproxy.state.redis_scripts import (
    APPEND,
    CHECK,
    DROP_SHARE,
    END,
    HEAD,
    KEEP_SHARE,
    LOOK,
    REGISTER,
    RENEW,
    SHARE,
    STOP,
)
from trioproxy.state.streams import (
    Batch,
    Fate,
    Head,
    Limits,
    Renewal,
    StateUnavailable,
    StreamLost,
    StreamRecord,
    batch_behind,
)

MOMENT_S: Final = 0.2
"""How long a read waits for something to come."""
_PING_S: Final = 5.0
"""How often a quiet connection is tried: a server that vanished without a word sends nothing that would tell."""
_MOST_EVENTS: Final = 4096
"""About how many events one read brings; so many share the streams in it."""


class RedisStore:
    """The store on a Redis server of version 6.2 or later.

    `run` belongs in the process nursery: without it every call says that there is no connection. The server may be away
    when it starts; it connects, and connects again, by itself.

    Args:
        prefix: what every key and the channel begin with. Replicas of one service share it.
        timeout_s: after what time a call gives up.
    """

    def __init__(self, address: Address, limits: Limits, *, prefix: str = "trioproxy:", timeout_s: float = 1.0) -> None:
        self._limits = limits
        self._prefix = prefix.encode()
        self._channel = self._prefix + b"stops"
        self._commands, self._reading = RedisLink(address, timeout_s), RedisLink(address, timeout_s)
        self._hearing = RedisLink(address, timeout_s, self._prefix + b"stops")
        self._held_ms = round(limits.held_s * 1000)
        self._retain_ms = round(limits.retain_s * 1000)
        self._lease = (self._held_ms, self._held_ms + self._retain_ms)
        self._own: dict[str, bytes] = {}  # what this replica produces, and the key under which it is shared, or b""
        self._stops: dict[str, None] = {}
        self._has_stops = trio.Event()
        self._looked_at: dict[str, float] = {}  # what is read: when there was last something, or it was looked at

    @property
    def limits(self) -> Limits:
        return self._limits

    async def run(self) -> Never:
        """Keep the connections, until cancelled; then they are closed."""
        async with trio.open_nursery() as nursery:
            for link in (self._commands, self._reading, self._hearing):
                nursery.start_soon(link.keep)
            nursery.start_soon(self._hearing.hear, self._take_stop)
            nursery.start_soon(self._ping)
        raise AssertionError("its tasks never end by themselves")

    async def claim(self, record: StreamRecord, share_key: str | None) -> str:
        stream_id = record.stream_id
        share = b"" if share_key is None else self._share_key(record.caller, share_key)
        self._own[stream_id] = share  # a stop may come before the server's answer does
        is_claimed = False
        try:
            # First the record, of which nobody knows yet; so whoever finds its id finds the stream.
            await self._run(
                REGISTER,
                [self._record_key(stream_id)],
                [*self._lease, record.caller.encode(), record.dialect.encode(), share],
            )
            holder = await self._hold(share, record) if share else stream_id
            is_claimed = holder == stream_id
            if not is_claimed:
                await send_all(self._commands, [(b"DEL", self._record_key(stream_id))])
            return holder
        finally:
            if not is_claimed:
                self._own.pop(stream_id, None)

    async def _hold(self, share: bytes, record: StreamRecord) -> str:
        """Which live stream this key stands for: the one that holds it, or from now on ours."""
        while True:
            answer = await self._run(SHARE, [share], [self._lease[1], record.stream_id.encode()])
            assert isinstance(answer, bytes)
            holder = answer.decode()
            if holder == record.stream_id:
                return holder
            found = await self.look(holder)
            if found is not None and found.has_owner:
                return holder
            await self._run(DROP_SHARE, [share], [answer])  # unless another claim has done so, and holds it now

    async def set_head(self, stream_id: str, head: Head) -> None:
        await self._change(HEAD, stream_id, [*self._lease, _head_to_bytes(head)])

    async def append(self, stream_id: str, first: int, events: Sequence[bytes]) -> None:
        bounds = (self._limits.max_events, self._limits.max_bytes)
        await self._change(APPEND, stream_id, [*self._lease, *bounds, first, *events])

    async def end(self, stream_id: str, outcome: str) -> None:
        await self._change(END, stream_id, [self._retain_ms, outcome.encode()])
        self._stops.pop(stream_id, None)
        if share := self._own.pop(stream_id, b""):
            await self._run(DROP_SHARE, [share], [stream_id.encode()])

    async def renew(self, stream_ids: Collection[str]) -> Renewal:
        calls: list[Call] = [(RENEW, self._keys(stream_id), self._lease) for stream_id in stream_ids]
        shares = [(self._own[stream_id], stream_id.encode()) for stream_id in stream_ids if self._own.get(stream_id)]
        calls += [(KEEP_SHARE, [share], [self._lease[1], holder]) for share, holder in shares]
        answers = dict(zip(stream_ids, await run_all(self._commands, calls), strict=False))
        lost = frozenset(stream_id for stream_id, answer in answers.items() if answer == 0)
        for stream_id in lost:
            self._own.pop(stream_id, None)
        return Renewal(frozenset(stream_id for stream_id, answer in answers.items() if answer == 2), lost)

    async def look(self, stream_id: str) -> StreamRecord | None:
        answer: Any = await self._run(LOOK, self._keys(stream_id), [])
        now, oldest, flat = answer
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        if not found:
            return None
        outcome = found.get(b"outcome")
        return StreamRecord(
            stream_id=stream_id,
            caller=found[b"caller"].decode(),
            dialect=found[b"dialect"].decode(),
            head=_head_of(found[b"head"]) if b"head" in found else None,
            first=_number(oldest),
            last=int(found[b"last"]),
            outcome=None if outcome is None else outcome.decode(),
            has_owner=outcome is None and now < int(found[b"lease"]),
        )

    async def read(self, positions: Mapping[str, int]) -> Mapping[str, Batch]:
        if not positions:
            await trio.sleep(MOMENT_S)
            return {}
        ids = {self._log_key(stream_id): stream_id for stream_id in positions}
        command: Command = (
            b"XREAD",
            b"COUNT",
            max(_MOST_EVENTS // len(ids), 1),
            b"BLOCK",
            round(MOMENT_S * 1000),
            b"STREAMS",
            *ids,
            *map(_id_at, positions.values()),
        )
        try:
            answer: Any = await self._reading.call(*command, wait_s=MOMENT_S)
        except RedisError as error:
            raise refusal(error) from error
        found = {ids[key]: _batch(positions[ids[key]], entries) for key, entries in (answer or {}).items()}
        return found | await self._look_at_quiet(positions, found.keys())

    async def stop(self, stream_id: str) -> bool:
        share: Any = await self._run(STOP, [self._record_key(stream_id)], [self._channel, stream_id.encode()])
        if share:
            await self._run(DROP_SHARE, [share], [stream_id.encode()])
        return share is not None

    async def next_stop(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._stops:
            self._has_stops = trio.Event()
            await self._has_stops.wait()
        stream_id = next(iter(self._stops))
        del self._stops[stream_id]
        return stream_id

    async def _look_at_quiet(self, positions: Mapping[str, int], told: Collection[str]) -> dict[str, Batch]:
        """Why nothing comes any more, of those streams that have been quiet for a while."""
        now = trio.current_time()
        seen = {stream_id: now if stream_id in told else self._looked_at.get(stream_id, now) for stream_id in positions}
        quiet = [stream_id for stream_id, at in seen.items() if now >= at + self._limits.look_s]
        checks: list[Call] = [(CHECK, self._keys(stream_id), []) for stream_id in quiet]
        answers: list[Any] = await run_all(self._commands, checks)
        self._looked_at = seen | dict.fromkeys(quiet, now)
        found = {}
        for stream_id, (state, newest, last, outcome) in zip(quiet, answers, strict=True):
            position = positions[stream_id]
            # What has come since the read is told first. Nothing comes any more behind a lease that ran out.
            if state != b"live" and _order(newest) <= _order(_id_at(position)):
                found[stream_id] = batch_behind(position, [], last=last, fate=_FATES[state], outcome=outcome.decode())
        return found

    async def _change(self, script: Script, stream_id: str, arguments: Sequence[Value]) -> None:
        """Run a script that only a stream's producer may. Raises StreamLost."""
        if await self._run(script, self._keys(stream_id), arguments) == 0:
            self._own.pop(stream_id, None)
            raise StreamLost(f"The stream {stream_id} is not produced here any more.")

    async def _run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Value]) -> object:
        [answer] = await run_all(self._commands, [(script, keys, arguments)])
        return answer

    def _take_stop(self, message: bytes) -> None:
        """Somebody wants a stream to be stopped; perhaps it is ours."""
        stream_id = message.decode()
        if stream_id in self._own:
            self._stops[stream_id] = None
            self._has_stops.set()

    async def _ping(self) -> Never:
        """Try the connections that may be quiet for long. One that does not answer is made again."""
        while True:
            await trio.sleep(_PING_S)
            for link in (self._commands, self._hearing):
                try:
                    await link.call(b"PING")
                except (StateUnavailable, RedisError):
                    pass  # the link has seen to it

    def _record_key(self, stream_id: str) -> bytes:
        return self._prefix + b"{%b}:record" % stream_id.encode()

    def _log_key(self, stream_id: str) -> bytes:
        return self._prefix + b"{%b}:log" % stream_id.encode()

    def _keys(self, stream_id: str) -> list[bytes]:
        return [self._record_key(stream_id), self._log_key(stream_id)]

    def _share_key(self, caller: str, share_key: str) -> bytes:
        digest = hashlib.sha256(f"{caller}\0{share_key}".encode()).hexdigest()
        return self._prefix + b"share:{%b}" % digest.encode()


_FATES: Final = {b"ended": Fate.ENDED, b"lost": Fate.OWNER_LOST, b"forgotten": Fate.FORGOTTEN}


def _id_at(position: int) -> bytes:
    """The id of what a mirror has: the head is 0-1, event N is N-1."""
    return b"0-0" if position < 0 else b"%d-1" % position


def _number(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _order(entry_id: bytes) -> tuple[int, int]:
    number, _, part = entry_id.partition(b"-")
    return int(number), int(part)


def _batch(position: int, entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Batch:
    """A log's entries behind a position, as a batch."""
    head, last, fate, outcome = None, 0, None, ""
    events = []
    for entry_id, (kind, value) in entries:
        if kind == b"e":
            events.append((_number(entry_id), value))
        elif kind == b"h":
            head = _head_of(value)
        else:
            last, fate, outcome = _number(entry_id), Fate.ENDED, value.decode()
    return batch_behind(position, events, head=head, last=last, fate=fate, outcome=outcome)


def _head_to_bytes(head: Head) -> bytes:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in head.headers]
    return json.dumps([head.status, headers]).encode()


def _head_of(value: bytes) -> Head:
    status, headers = json.loads(value)
    return Head(status, tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in headers))
