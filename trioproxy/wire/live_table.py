"""The live table: a row for each request under way, and what is written of it as JSON and as an event stream. PURE.

    id: N                 event: snapshot     data: {"streams": [rows]}
    id: N + 1             event: change       data: {"set": [rows that changed], "gone": [rows of what is over]}

A worker tells its rows (`Told`), the supervisor makes one table of all workers' and writes it for whoever asks. All
times are seconds; an `age_s` goes on from when the row was written.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

HEARTBEAT: Final = b": keep-alive\n\n"
_AGE_STEP_S: Final = 2.0
"""A row of which nothing but its age has changed is told again so often: who joined its age up has it right again."""


class Row(msgspec.Struct, kw_only=True):
    """A request under way.

    Attributes:
        id: what it is shown, asked for and stopped by; no two of one worker have the same.
        stream: of a shared or resumable stream, its id; `subscribers` are those who read one that is produced here.
        worker: which worker serves it.
        key: the name of its virtual key.
        phase: reading (its body), waiting (no head yet), thinking (a head, no content), flowing, ended.
        rate: events in a second, lately.
        blocked_on: whom it waits for: upstream, client, proxy; "" when it is over. `blocked_s`: for how long by now.
        upstream_s, client_s, proxy_s: for how long it waited for each in all.
        attempts: how often an upstream was asked. `streaming`: an event stream was asked for.
    """

    id: str
    stream: str | None
    worker: int
    key: str | None
    model: str | None
    upstream: str | None
    endpoint: str
    client: str | None
    phase: str
    age_s: float
    first_content_s: float | None
    events: int
    bytes: int
    rate: float
    blocked_on: str
    blocked_s: float
    upstream_s: float
    client_s: float
    proxy_s: float
    subscribers: int
    attempts: int
    streaming: bool

    def differs(self, other: "Row") -> bool:
        """Whether more has changed since that than what changes by itself with the time."""
        return (
            self.bytes != other.bytes
            or self.events != other.events
            or self.phase != other.phase
            or self.blocked_on != other.blocked_on
            or self.attempts != other.attempts
            or self.subscribers != other.subscribers
            or self.rate != other.rate
            or self.upstream != other.upstream
            or self.model != other.model
            or self.key != other.key
            or self.stream != other.stream
            or self.age_s // _AGE_STEP_S != other.age_s // _AGE_STEP_S
        )


class EndedRow(Row, kw_only=True):
    """A request that is over, and what it came to: `outcome` finished, failed (with `code`) or cancelled (with
    `reason`). Tokens and the cost, as text, are None where they are not known."""

    outcome: str
    code: str | None
    reason: str | None
    status: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: str | None


class Told(msgspec.Struct):
    """What one worker tells: its rows; those that have ended since it was last asked; and the number of the last one
    that ended, to be named with the next question."""

    rows: list[Row]
    ended: list[EndedRow]
    last: int


class _Streams(msgspec.Struct):
    streams: Sequence[Row]
    at: int


class _Snapshot(msgspec.Struct):
    streams: Sequence[Row]


class _Change(msgspec.Struct):
    set: Sequence[Row]
    gone: Sequence[EndedRow]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Told)


def told_as_text(told: Told) -> str:
    """How it goes over the line to the supervisor."""
    return _encoder.encode(told).decode()


def told_from(text: str) -> Told:
    """What a worker told."""
    return _decoder.decode(text)


def table(rows: Sequence[Row], number: int) -> bytes:
    """All rows, as JSON; `number` is the last change's."""
    return _encoder.encode(_Streams(rows, number))


def snapshot_event(rows: Sequence[Row], number: int) -> bytes:
    """All rows, as an event."""
    return _event(b"snapshot", number, _encoder.encode(_Snapshot(rows)))


def change_event(changed: Sequence[Row], gone: Sequence[EndedRow], number: int) -> bytes:
    """A change, as an event."""
    return _event(b"change", number, _encoder.encode(_Change(changed, gone)))


def lost_row(row: Row) -> EndedRow:
    """The last word of a request whose worker is gone."""
    fields = {name: getattr(row, name) for name in Row.__struct_fields__}
    return EndedRow(
        **{**fields, "phase": "ended", "blocked_on": "", "blocked_s": 0.0, "rate": 0.0},
        outcome="failed",
        code=None,
        reason="worker_lost",
        status=0,
        input_tokens=None,
        output_tokens=None,
        cost_usd=None,
    )


def position_in(value: bytes | None) -> int | None:
    """The number of the last event that somebody got, by what it says when it connects anew; None for what is none."""
    if value is None or not value.isdigit() or len(value) > 16:
        return None
    return int(value)


def _event(name: bytes, number: int, data: bytes) -> bytes:
    """JSON has no line ends of its own."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name, data)
