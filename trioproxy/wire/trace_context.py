"""Trace context as requests carry it, `traceparent` and `tracestate`: read from a client, written for an origin. PURE.

Whoever traces a request says with each call which trace it belongs to and which span called. What cannot be read is
taken as not sent, as the standard asks: the trace then begins here.

Source: W3C Trace Context, level 2.
"""

import re
from dataclasses import dataclass
from typing import Final

from trioproxy.wire.headers import Headers

PARENT: Final = b"traceparent"
STATE: Final = b"tracestate"
MAX_STATE_BYTES: Final = 4096
"""A longer state is left behind; of such a size everybody passes it on."""

_SAMPLED: Final = 0x01
_KNOWN_FLAGS: Final = 0x03
"""Sampled, and that the trace's id is random."""
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(rb"[\x20-\x7e\t]*")
_NO_VERSION: Final = b"ff"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace a call is made: ids of 16 and 8 bytes, not zero; `state` is what others keep in it."""

    trace_id: bytes
    span_id: bytes
    flags: int = _KNOWN_FLAGS
    state: bytes = b""

    @property
    def is_sampled(self) -> bool:
        """Whether the caller keeps this trace; where it does not, its parts need not be told either."""
        return bool(self.flags & _SAMPLED)

    def fields(self) -> Headers:
        """The context as a request's fields."""
        parent = f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{self.flags:02x}".encode("ascii")
        return [(PARENT, parent), (STATE, self.state)] if self.state else [(PARENT, parent)]


def read_context(headers: Headers) -> TraceContext | None:
    """The context that a request carries; None if there is none, or none that can be read. Of a later version that
    much is read which it has in common with this one."""
    parents = [value for name, value in headers if name == PARENT]
    found = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _NO_VERSION or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    state = b",".join(kept for name, value in headers if name == STATE and (kept := value.strip(b" \t")))
    is_usable = len(state) <= MAX_STATE_BYTES and _STATE.fullmatch(state) is not None
    return TraceContext(
        bytes.fromhex(trace_id.decode("ascii")),
        bytes.fromhex(span_id.decode("ascii")),
        int(flags, 16) & _KNOWN_FLAGS,
        state if is_usable else b"",
    )


def with_context(headers: Headers, context: TraceContext) -> Headers:
    """The fields with this context in place of the one that they have."""
    return [header for header in headers if header[0] not in (PARENT, STATE)] + context.fields()
