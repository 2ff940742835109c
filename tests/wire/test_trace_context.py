"""The trace that a request belongs to: read as the standard says, written so that others can read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.headers import Headers
from trioproxy.wire.trace_context import MAX_STATE_BYTES, TraceContext, read_context, with_context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def parent(value: str) -> Headers:
    return [(b"host", b"proxy"), (b"traceparent", value.encode("latin-1"))]


def test_a_context_is_read() -> None:
    context = read_context([*parent(GOOD), (b"tracestate", b"a=1")])
    assert context == TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), 1, b"a=1")
    assert context.is_sampled


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00-1",
        GOOD.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{GOOD}-more",
        f"{GOOD}x",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"{GOOD}\n",
        "é" * 55,
    ],
)
def test_what_cannot_be_read_is_as_if_not_sent(value: str) -> None:
    assert read_context([*parent(value), (b"tracestate", b"a=1")]) is None


def test_two_parents_are_none() -> None:
    assert read_context([*parent(GOOD), *parent(GOOD)]) is None
    assert read_context([]) is None


@pytest.mark.parametrize("more", ["", "-", "-what-comes-later"])
def test_of_a_later_version_the_known_part_counts(more: str) -> None:
    context = read_context(parent(f"cc-{TRACE}-{SPAN}-ff{more}"))
    assert context is not None and context.fields() == [(b"traceparent", f"00-{TRACE}-{SPAN}-03".encode())]


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_caller_says_whether_the_trace_is_kept(flags: str, is_sampled: bool) -> None:
    context = read_context(parent(f"00-{TRACE}-{SPAN}-{flags}"))
    assert context is not None and context.is_sampled is is_sampled


def test_a_state_in_several_fields_is_one() -> None:
    fields = [(b"tracestate", b"a=1, b=2 "), (b"tracestate", b""), (b"tracestate", b" c=3")]
    context = read_context([*parent(GOOD), *fields])
    assert context is not None and context.state == b"a=1, b=2,c=3"


@pytest.mark.parametrize("state", [b"a=" + b"x" * MAX_STATE_BYTES, b"a=\xff", b"a=\x01"])
def test_a_state_that_cannot_be_passed_on_is_left_behind(state: bytes) -> None:
    context = read_context([*parent(GOOD), (b"tracestate", state)])
    assert context is not None and context.state == b""


def test_a_context_replaces_the_one_that_came() -> None:
    own = TraceContext(b"t" * 16, b"s" * 8, 1, b"k=v")
    written = with_context([*parent(GOOD), (b"tracestate", b"old=1"), (b"x-y", b"z")], own)
    assert [name for name, _ in written] == [b"host", b"x-y", b"traceparent", b"tracestate"]
    assert read_context(written) == own
    stateless = with_context(written, TraceContext(b"t" * 16, b"u" * 8))
    assert [name for name, _ in stateless] == [b"host", b"x-y", b"traceparent"]


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_no_bytes_break_the_reading(value: bytes, state: bytes) -> None:
    context = read_context([(b"traceparent", value), (b"tracestate", state)])
    assert context is None or read_context(context.fields()) == context
