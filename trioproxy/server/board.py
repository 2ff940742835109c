"""What one worker tells of the requests that it has under way and of those that ended lately, and how it stops one.

A row is made when somebody asks for it, of the exchange as it is; nothing is done for that on the way of a request.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import trio

from trioproxy.errors import CancelReason
from trioproxy.hub.live import LiveStream
from trioproxy.policy.price import dollars
from trioproxy.relay.call import Lifetime
from trioproxy.telemetry.exchange import MAX_WORD, Exchange
from trioproxy.telemetry.recent import Ended, Recent
from trioproxy.wire.live_table import EndedRow, Row, Told

MAX_ENDED_TOLD: Final = 200
"""How many of those that ended since the last time are told, the last ones."""
MAX_REASON: Final = 200
_RATE_S: Final = 1.0
"""A rate is that of so long a time, at least."""
_AT_ONCE: Final = 250
"""Rows that are made between two looks at what else there is to do: two milliseconds' worth."""
_OUR_ID = re.compile(r"req_[0-9a-f]{24}")
_NO_URL = re.compile(r"[^A-Za-z0-9_-]")


class _Mark:
    """How many events a request had when it was looked at, and how many a second had come until then."""

    __slots__ = ("at", "events", "rate")

    def __init__(self, at: float) -> None:
        self.at = at
        self.events = 0
        self.rate = 0.0

    def look(self, events: int, now: float) -> float:
        if now - self.at >= _RATE_S:
            self.rate = round((events - self.events) / (now - self.at), 1)
            self.at, self.events = now, events
        return self.rate


class Board:
    """One worker's. `live` and `produced` are the service's own, which go on changing."""

    def __init__(
        self, live: Mapping[Lifetime, Exchange], produced: Mapping[Lifetime, LiveStream], recent: Recent
    ) -> None:
        self._live = live
        self._produced = produced
        self._recent = recent
        self._marks: dict[Lifetime, _Mark] = {}

    async def told(self, after: int | None) -> Told:
        """All rows, and those that ended behind number `after` (None: of those nobody wants to know). Takes its time
        where there are many: requests go on meanwhile. If cancelled, nothing has happened."""
        rows: dict[str, Row] = {}
        for count, lifetime in enumerate(list(self._live)):
            if count % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            exchange = self._live.get(lifetime)
            if exchange is not None:  # else it has ended meanwhile
                row = self._row(lifetime, exchange, trio.current_time())
                # A client may have given several requests one id of our own form: then the last one is shown, and all
                # are stopped.
                rows[row.id] = row
        self._marks = {lifetime: mark for lifetime, mark in self._marks.items() if lifetime in self._live}
        ended = [] if after is None else self._recent.since(trio.current_time(), after)[:MAX_ENDED_TOLD]
        for one in ended:
            rows.pop(id_of(one.record, one.produced), None)
        return Told(list(rows.values()), [ended_row(one) for one in reversed(ended)], self._recent.last)

    def shown(self, row_id: str) -> dict[str, Any]:
        """One request: its row, its tries and its turns, live or lately ended; empty if there is none."""
        now = trio.current_time()
        for lifetime, exchange in self._named(row_id):
            tries = [one.close(now) for one in exchange.tries]
            turns = [*exchange.flow.turns(), (exchange.flow.since, exchange.flow.on, now - exchange.flow.since)]
            are_over = [one.ended is not None for one in exchange.tries]
            return {
                "stream": _plain(self._row(lifetime, exchange, now)),
                "tries": _tries(exchange.accepted, zip(tries, are_over, strict=True)),
                "timeline": _timeline(exchange.accepted, turns),
            }
        for one in self._recent.since(now):
            if row_id in (id_of(one.record, one.produced), one.record.request_id, one.produced):
                record = one.record
                return {
                    "stream": _plain(ended_row(one)),
                    "tries": _tries(record.accepted, ((one, True) for one in record.tries)),
                    "timeline": _timeline(record.accepted, record.turns),
                }
        return {}

    def stop(self, row_id: str, reason: str) -> int:
        """Stop a request, or the production of a stream: whoever reads it is told. Returns how many there were: a
        request id may be that of several. `reason` is the operator's word, for the log."""
        found = list(self._named(row_id))
        for lifetime, exchange in found:
            if reason:
                exchange.notes["stopped_because"] = reason[:MAX_REASON]
            exchange.reason = CancelReason.ADMIN.value
            lifetime.stop(CancelReason.ADMIN)
        return len(found)

    def _named(self, row_id: str) -> Iterator[tuple[Lifetime, Exchange]]:
        """The live ones of this row id or, if there is none, of this request id or stream."""
        live = list(self._live.items())
        by_row = [pair for pair in live if id_of(pair[1], self._stream_of(pair[0])) == row_id]
        by_word = [pair for pair in live if row_id in (pair[1].request_id, self._stream_of(pair[0]))]
        yield from by_row or by_word

    def _stream_of(self, lifetime: Lifetime) -> str | None:
        produced = self._produced.get(lifetime)
        return None if produced is None else produced.id

    def _row(self, lifetime: Lifetime, exchange: Exchange, now: float) -> Row:
        mark = self._marks.get(lifetime)
        if mark is None:
            mark = self._marks[lifetime] = _Mark(exchange.accepted)
        produced = self._produced.get(lifetime)
        flow = exchange.flow
        upstream_s, client_s, proxy_s = flow.waited(now)
        return Row(
            id=id_of(exchange, None if produced is None else produced.id),
            stream=exchange.notes.get("stream_id") if produced is None else produced.id,
            worker=0,
            key=exchange.key,
            model=None if exchange.model is None else exchange.model[:MAX_WORD],
            upstream=exchange.upstream,
            endpoint=exchange.endpoint,
            client=exchange.client,
            phase=exchange.phase,
            age_s=round(now - exchange.accepted, 3),
            first_content_s=_since(exchange.accepted, exchange.first_content_at),
            events=exchange.events,
            bytes=exchange.bytes_out,
            rate=mark.look(exchange.events, now),
            blocked_on=flow.on,
            blocked_s=round(now - flow.since, 3),
            upstream_s=round(upstream_s, 3),
            client_s=round(client_s, 3),
            proxy_s=round(proxy_s, 3),
            subscribers=0 if produced is None else produced.readers,
            attempts=exchange.attempts,
            streaming=exchange.stream,
        )


def id_of(request: Any, produced: str | None = None) -> str:
    """The row's id of an exchange or of its record, which may stand in a URL as it is: the request's own, if that is of
    our making; clients' ids need not be good for that, nor be anybody's alone. What produces a stream has the request
    id of who began it."""
    request_id: str = request.request_id
    if produced is not None:
        return f"{_NO_URL.sub('_', request_id)}~{produced[:8]}"
    if _OUR_ID.fullmatch(request_id):
        return request_id
    return f"{_NO_URL.sub('_', request_id)}~{int(request.accepted * 1_000_000) & 0xFFFFFFFF:08x}"


def ended_row(ended: Ended) -> EndedRow:
    """The last word on a request."""
    record = ended.record
    lasted_s = record.ended - record.accepted
    usage = record.usage
    return EndedRow(
        id=id_of(record, ended.produced),
        stream=record.notes.get("stream_id") if ended.produced is None else ended.produced,
        worker=0,
        key=record.key,
        model=record.model,
        upstream=record.upstream,
        endpoint=record.endpoint,
        client=record.client,
        phase="ended",
        age_s=round(lasted_s, 3),
        first_content_s=_since(record.accepted, record.first_content_at),
        events=record.events,
        bytes=record.bytes_out,
        rate=round(record.events / lasted_s, 1) if lasted_s > 0 else 0.0,
        blocked_on="",
        blocked_s=0.0,
        upstream_s=round(record.upstream_s, 3),
        client_s=round(record.client_s, 3),
        proxy_s=round(record.proxy_s, 3),
        subscribers=ended.readers,
        attempts=record.attempts,
        streaming=record.stream,
        outcome=record.outcome,
        code=record.code,
        reason=record.reason,
        status=record.status,
        input_tokens=usage.input if usage else None,
        output_tokens=usage.output if usage else None,
        cost_usd=None if record.cost is None else dollars(record.cost),
    )


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def _tries(accepted: float, tries: Any) -> list[dict[str, Any]]:
    """Tries, given each with whether it is over; times in seconds since accept."""
    return [
        {
            "upstream": one.upstream,
            "model": one.model,
            "started": _since(accepted, one.started),
            "connected": _since(accepted, one.connected),
            "head": _since(accepted, one.head),
            "first_content": _since(accepted, one.first_content),
            "ended": _since(accepted, one.ended) if is_over else None,
            "result": one.result if is_over else None,
        }
        for one, is_over in tries
    ]


def _timeline(accepted: float, turns: Any) -> list[tuple[float, str, float]]:
    return [(round(since - accepted, 4), on, round(lasted_s, 4)) for since, on, lasted_s in turns if on]


def _since(accepted: float, moment: float | None) -> float | None:
    return None if moment is None else round(moment - accepted, 3)
