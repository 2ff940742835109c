"""A request's place in a trace. Knows no library.

The ids of spans are made before what they stand for begins, since an origin has to be told who calls it; the spans
themselves are made when all is over, of the record alone (`tracing`).
"""

from secrets import token_bytes

from trioproxy.wire.trace_context import TraceContext


class Trace:
    """The span of one request: where it is in its trace, and which span called it (None: it is the first).

    Attributes:
        context: what is called by this span is told.
        parent_id: eight bytes.
        is_inner: it is not a client's request, but what one has started.
    """

    __slots__ = ("context", "is_inner", "parent_id")

    def __init__(self, context: TraceContext, parent_id: bytes | None = None, *, is_inner: bool = False) -> None:
        self.context = context
        self.parent_id = parent_id
        self.is_inner = is_inner

    @classmethod
    def below(cls, caller: TraceContext | None) -> "Trace":
        """That of a request whose caller is in a trace, or is not."""
        if caller is None:
            return cls(TraceContext(token_bytes(16), token_bytes(8)))
        return cls(_child(caller), caller.span_id)

    def begin_inner(self) -> "Trace":
        """That of what this request starts, and what may outlive it."""
        return Trace(_child(self.context), self.context.span_id, is_inner=True)

    def begin_try(self) -> TraceContext:
        """Where a try is that begins now: a span of its own, below this one. Its origin is told so."""
        return _child(self.context)


def _child(caller: TraceContext) -> TraceContext:
    return TraceContext(caller.trace_id, token_bytes(8), caller.flags, caller.state)
