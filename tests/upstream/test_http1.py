"""What an origin may answer, and what hostile or broken ones do. Bytes come from a script, mostly without a loop."""

import socket
import ssl
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.wires import HOST, is_closed, loopback, tls_client, tls_server
from trioproxy.upstream.http1 import (
    MAX_FRAMING_BYTES,
    MAX_HEAD_BYTES,
    MAX_INTERIM_HEADS,
    READ_BYTES,
    OriginConnection,
)

T = TypeVar("T")

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"
"""What a desynchronised or hostile origin sends behind its answer, for the next request to take as its own."""

FINE = "fine"
INVALID = httpx.RemoteProtocolError.__name__
CUT = httpx.ReadError.__name__


class ScriptedStream(trio.abc.Stream):
    """Brings the given pieces, each by one read, and then its end. `taken` counts what was read."""

    def __init__(self, pieces: Iterable[bytes], end: Exception | None = None) -> None:
        self._pieces = iter(pieces)
        self._rest = b""
        self._end = end
        self.taken = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        piece, self._rest = piece[:max_bytes], piece[max_bytes:]
        if not piece and self._end is not None:
            raise self._end
        self.taken += len(piece)
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


@dataclass
class Seen:
    """What was made of an answer."""

    outcome: str
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_reusable: bool


def read(pieces: Iterable[bytes], method: str = "GET") -> Seen:
    connection = OriginConnection(ScriptedStream(pieces))
    connection.begin(method)
    body = b""
    outcome = FINE
    try:
        run(connection.read_head())
        while piece := run(connection.read()):
            assert len(piece) <= READ_BYTES
            body += piece
    except httpx.TransportError as error:
        outcome = type(error).__name__
    is_reusable = outcome is FINE and connection.can_be_reused
    return Seen(outcome, connection.status, connection.headers, body, is_reusable)


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


@dataclass(frozen=True)
class Case:
    """One answer: its bytes, what becomes of it, and for a fine one its body and whether its connection is kept."""

    name: str
    raw: bytes
    outcome: str
    body: bytes = b""
    keeps: bool = True
    method: str = "GET"
    status: int = 200
    ends_with_connection: bool = False


def fine(name: str, raw: bytes, body: bytes = b"", **more: Any) -> Case:
    return Case(name, raw, FINE, body, **more)


def invalid(name: str, raw: bytes, **more: Any) -> Case:
    return Case(name, raw, INVALID, **more)


def cut(name: str, raw: bytes, **more: Any) -> Case:
    return Case(name, raw, CUT, **more)


CORPUS = [
    # How long is it? Two readers must never come to two answers (RFC 9112 section 6.3).
    fine("a length", OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    fine("a length with zeros in front", OK + b"content-length: 005\r\n\r\nhello", b"hello"),
    fine("a length of zero", OK + b"content-length: 0\r\n\r\n"),
    invalid("two lengths, the same", OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
    invalid("two lengths, different", OK + b"content-length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    invalid("a list of lengths", OK + b"content-length: 5, 5\r\n\r\nhello"),
    invalid("a length and chunked", OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    invalid("chunked and a length", OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    invalid("a negative length", OK + b"content-length: -1\r\n\r\n"),
    invalid("a length with a plus", OK + b"content-length: +5\r\n\r\nhello"),
    invalid("an empty length", OK + b"content-length:\r\n\r\nhello"),
    invalid("a length in hex", OK + b"content-length: 0x5\r\n\r\nhello"),
    invalid("a length with an underscore", OK + b"content-length: 1_0\r\n\r\n0123456789"),
    invalid("two numbers in a length", OK + b"content-length: 5 5\r\n\r\nhello"),
    invalid("a length with a vertical tab", OK + b"content-length: 5\x0b\r\n\r\nhello"),
    invalid("a length in other digits", OK + "content-length: \N{ARABIC-INDIC DIGIT FIVE}\r\n\r\nhello".encode()),
    invalid("a length of 2⁶⁴", OK + b"content-length: 18446744073709551616\r\n\r\nhello"),
    invalid("a length of 40 digits", OK + b"content-length: " + b"9" * 40 + b"\r\n\r\nhello"),
    cut("a length of 2⁶⁴-1", OK + b"content-length: 18446744073709551615\r\n\r\nhello"),
    cut("a length short by one", OK + b"content-length: 6\r\n\r\nhello"),
    fine("a length too long by one", OK + b"content-length: 4\r\n\r\nhello", b"hell", keeps=False),
    # Transfer codings
    fine("chunked", CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    fine("chunked, in capitals", OK + b"Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    fine("chunked and empty", CHUNKED + b"0\r\n\r\n"),
    fine("chunk extensions", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    fine("trailers", CHUNKED + b"5\r\nhello\r\n0\r\nx-trailer: 1\r\nset-cookie: a=b\r\n\r\n", b"hello"),
    fine("zeros in front of a chunk's size", CHUNKED + b"00000000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
    invalid("gzip", OK + b"transfer-encoding: gzip\r\n\r\nhello"),
    invalid("gzip, chunked", OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    invalid("gzip and chunked", OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    invalid("chunked, gzip", OK + b"transfer-encoding: chunked, gzip\r\n\r\nhello"),
    invalid("chunked twice", OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    invalid("chunked twice in one field", OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    invalid("chunked with a comma", OK + b"transfer-encoding: chunked,\r\n\r\n0\r\n\r\n"),
    invalid("almost chunked", OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    invalid("identity", OK + b"transfer-encoding: identity\r\n\r\nhello"),
    invalid("an empty coding", OK + b"transfer-encoding:\r\n\r\nhello"),
    invalid("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    invalid(
        "chunked in HTTP/1.0, kept alive",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    invalid("a chunk's size of 17 digits", CHUNKED + b"11111111111111111\r\nhello\r\n0\r\n\r\n"),
    cut("a chunk's size of 16 digits", CHUNKED + b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    invalid("a negative chunk", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    invalid("a chunk's size with 0x", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    invalid("a chunk's size with a plus", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    invalid("a chunk without a size", CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    invalid("a blank behind a chunk's size", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    invalid("a chunk's size ended by LF", CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    invalid("a chunk ended by LF", CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    invalid("a chunk longer than its size", CHUNKED + b"4\r\nhello\r\n0\r\n\r\n"),
    invalid("a line break in a chunk extension", CHUNKED + b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    invalid("a length in the trailers", CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n"),
    cut("chunked, cut in a chunk", CHUNKED + b"5\r\nhel"),
    cut("chunked, cut behind a chunk", CHUNKED + b"5\r\nhello\r\n"),
    cut("chunked, cut in the last line", CHUNKED + b"5\r\nhello\r\n0\r\n"),
    cut("chunked, cut in the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nx: 1\r\n"),
    cut("chunked, and nothing more", CHUNKED),
    # The head's lines
    fine("an empty value", OK + b"x-empty:\r\ncontent-length: 0\r\nx-last:\r\n\r\n"),
    fine("bytes beyond ASCII in a value", OK + b"x: \xe4\xff\r\ncontent-length: 0\r\n\r\n"),
    fine("no reason", b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"),
    fine("empty lines in front", b"\r\n\r\n" + OK + b"content-length: 0\r\n\r\n"),
    invalid("LF alone everywhere", b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"),
    invalid("LF alone behind a field", OK + b"content-length: 0\n\r\n"),
    invalid("LF alone at the end", OK + b"content-length: 0\r\n\n"),
    invalid("LF in a value", OK + b"x: a\nb: c\r\ncontent-length: 0\r\n\r\n"),
    invalid("CR in a value", OK + b"x: a\rb\r\ncontent-length: 0\r\n\r\n"),
    invalid("CR in a name", OK + b"x\ra: b\r\ncontent-length: 0\r\n\r\n"),
    invalid("CR in the reason", b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n"),
    invalid("NUL in a value", OK + b"x: a\0b\r\ncontent-length: 0\r\n\r\n"),
    invalid("NUL in a name", OK + b"x\0y: a\r\ncontent-length: 0\r\n\r\n"),
    invalid("DEL in a value", OK + b"x: a\x7fb\r\ncontent-length: 0\r\n\r\n"),
    invalid("an escape in a value", OK + b"x: \x1b[2J\r\ncontent-length: 0\r\n\r\n"),
    invalid("no colon", OK + b"nonsense\r\ncontent-length: 0\r\n\r\n"),
    invalid("no name", OK + b": value\r\ncontent-length: 0\r\n\r\n"),
    invalid("a blank in front of the colon", OK + b"content-length : 0\r\n\r\n"),
    invalid("a blank in front of the first field", OK + b" content-length: 0\r\n\r\n"),
    invalid("a separator in a name", OK + b"x(y): a\r\ncontent-length: 0\r\n\r\n"),
    invalid("a byte beyond ASCII in a name", OK + b"x\xe4: a\r\ncontent-length: 0\r\n\r\n"),
    invalid("a folded field", OK + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
    invalid("a folded length", OK + b"content-length:\r\n 5\r\n\r\nhello"),
    invalid("a folded coding", OK + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    # The first line
    fine("HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", keeps=False),
    fine(
        "HTTP/1.0 kept alive",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
        b"hello",
    ),
    fine("the highest status", b"HTTP/1.1 599 X\r\ncontent-length: 0\r\n\r\n", status=599),
    invalid("HTTP/0.9", b"<html>hello</html>\r\n\r\n"),
    invalid("HTTP/0.9 by name", b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n"),
    invalid("HTTP/2 by name", b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n"),
    invalid("a server's preface of HTTP/2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18),
    invalid("a client's preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    invalid("a request", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    invalid("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    invalid("another protocol", b"220 mail.example ESMTP\r\n"),
    invalid("status 099", b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("status 099 in front of an answer", b"HTTP/1.1 099 X\r\ncontent-length: 3\r\n\r\nabc" + EVIL),
    invalid("status 600", b"HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("status 999", b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("status 20", b"HTTP/1.1 20 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("status 2000", b"HTTP/1.1 2000 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("status 2x0", b"HTTP/1.1 2x0 X\r\ncontent-length: 0\r\n\r\n"),
    invalid("no status", b"HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n"),
    invalid("a blank too many", b"HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n"),
    # Interim answers
    fine("100 and the answer", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 0\r\n\r\n"),
    fine("103 and the answer", b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n" + OK + b"content-length: 0\r\n\r\n"),
    invalid("101 unasked", b"HTTP/1.1 101 X\r\nupgrade: a\r\nconnection: upgrade\r\n\r\nraw bytes"),
    invalid("101 in front of an answer", b"HTTP/1.1 101 X\r\nx-evil: 1\r\n\r\n" + OK + b"content-length: 0\r\n\r\n"),
    invalid("1xx with a body", b"HTTP/1.1 103 X\r\ncontent-length: 3\r\n\r\nabc" + OK + b"content-length: 0\r\n\r\n"),
    invalid("1xx without end", b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INTERIM_HEADS + 1)),
    cut("1xx and nothing more", b"HTTP/1.1 100 Continue\r\n\r\n"),
    # Answers without a body, whatever their head says
    fine("HEAD", OK + b"content-length: 5\r\n\r\n", method="HEAD", keeps=False),
    fine("HEAD, chunked", CHUNKED, method="HEAD", keeps=False),
    fine("204", b"HTTP/1.1 204 X\r\n\r\n", status=204),
    fine("204 with a length", b"HTTP/1.1 204 X\r\ncontent-length: 5\r\n\r\n", status=204),
    fine("304 with a length", b"HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\n", status=304),
    fine("204 with a body", b"HTTP/1.1 204 X\r\ncontent-length: 5\r\n\r\nhello", status=204, keeps=False),
    # Bodies that end with the connection
    fine("to the end", OK + b"\r\nhello", b"hello", keeps=False, ends_with_connection=True),
    fine(
        "to the end, though kept alive",
        OK + b"connection: keep-alive\r\n\r\nhello",
        b"hello",
        keeps=False,
        ends_with_connection=True,
    ),
    fine("to the end, and empty", OK + b"\r\n", keeps=False, ends_with_connection=True),
    # Reuse
    fine("closed by the origin", OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", b"hello", keeps=False),
    fine("another answer behind it", OK + b"content-length: 5\r\n\r\nhello" + EVIL, b"hello", keeps=False),
    fine("another answer behind 204", b"HTTP/1.1 204 X\r\n\r\n" + EVIL, status=204, keeps=False),
    fine("another answer behind chunks", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + EVIL, b"hello", keeps=False),
    fine("garbage behind it", OK + b"content-length: 5\r\n\r\nhello\0\0", b"hello", keeps=False),
    fine(
        "a switch of protocols behind it",
        OK + b"content-length: 5\r\n\r\nhelloHTTP/1.1 101 X\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n",
        b"hello",
        keeps=False,
    ),
    cut("nothing at all", b""),
    cut("half a head", OK + b"content-le"),
]
ALL = pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)


def check(case: Case, seen: Seen) -> None:
    assert seen.outcome == case.outcome
    if case.outcome is FINE:
        assert (seen.status, seen.body) == (case.status, case.body)


def test_the_corpus_has_no_name_twice() -> None:
    assert len({case.name for case in CORPUS}) == len(CORPUS)


@ALL
def test_an_answer_read_whole(case: Case) -> None:
    seen = read([case.raw], case.method)
    check(case, seen)
    assert seen.is_reusable == (case.keeps and case.outcome is FINE)


@ALL
def test_an_answer_read_byte_by_byte(case: Case) -> None:
    whole, seen = read([case.raw], case.method), read(byte_by_byte(case.raw), case.method)
    check(case, seen)
    if case.outcome is FINE:
        assert seen.headers == whole.headers


@pytest.mark.parametrize("more", [EVIL, b"x", b"\0"], ids=["an answer", "a letter", "a NUL"])
@pytest.mark.parametrize(
    "case",
    [case for case in CORPUS if case.outcome is not CUT and not case.ends_with_connection],
    ids=lambda case: case.name,
)
def test_bytes_behind_an_answer_change_nothing_but_spoil_its_connection(case: Case, more: bytes) -> None:
    check(case, read([case.raw + more], case.method))
    check(case, read([*byte_by_byte(case.raw), more], case.method))
    assert not read([case.raw + more], case.method).is_reusable


@ALL
def test_an_answer_that_is_cut_short_has_no_clean_end(case: Case) -> None:
    """Cut anywhere, an answer is broken off, unless nothing was missing but what is behind it."""
    whole = read([case.raw], case.method)
    for size in range(len(case.raw)):
        seen = read([case.raw[:size]], case.method)
        if seen.outcome is FINE:
            assert whole.outcome is FINE
            if case.ends_with_connection:
                assert case.body.startswith(seen.body)
            else:
                assert seen.body == case.body


def test_names_are_lower_case_and_values_have_no_blanks_round_them() -> None:
    seen = read([OK + b"X-A: \t a b \t \r\nX-Empty:  \r\nCoNtEnT-LeNgTh:0\r\nX-A: again\r\n\r\n"])
    assert seen.headers == [(b"x-a", b"a b"), (b"x-empty", b""), (b"content-length", b"0"), (b"x-a", b"again")]


@pytest.mark.parametrize("cutting", [lambda data: [data], byte_by_byte], ids=["whole", "byte by byte"])
def test_only_the_answer_s_own_head_is_its_head(cutting: Any) -> None:
    """Neither what came before it (1xx) nor behind it (trailers, another answer)."""
    raw = (
        b"HTTP/1.1 103 Early\r\nx-before: 1\r\ncontent-type: text/plain\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\nset-cookie: a=b\r\n\r\n"
        + OK
        + b"x-own: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-trailer: 1\r\nx-own: 2\r\n\r\n"
        + EVIL
    )
    seen = read(cutting(raw))
    assert seen.headers == [(b"x-own", b"1"), (b"transfer-encoding", b"chunked")]
    assert (seen.status, seen.body) == (200, b"a")


def test_the_version_is_the_answer_s_own() -> None:
    """A coding that HTTP/1.0 does not know is not made good by the version of bytes behind the answer."""
    raw = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    assert read([raw + EVIL]).outcome == INVALID


def test_as_many_interim_answers_as_allowed_are_skipped() -> None:
    assert read([b"HTTP/1.1 102 X\r\n\r\n" * MAX_INTERIM_HEADS + EVIL]).body == b"EVIL"


def test_what_comes_behind_the_answer_later_is_not_read() -> None:
    stream = ScriptedStream([OK + b"content-length: 2\r\n\r\n", b"hi", EVIL])
    connection = OriginConnection(stream)
    run(connection.read_head())
    assert [run(connection.read()) for _ in range(3)] == [b"hi", b"", b""]
    assert stream.taken == len(OK + b"content-length: 2\r\n\r\nhi")


def test_what_was_not_read_spoils_the_connection() -> None:
    connection = OriginConnection(ScriptedStream([OK + b"content-length: 2\r\n\r\nhi"]))
    run(connection.read_head())
    assert connection.is_complete and not connection.can_be_reused
    assert run(connection.read()) == b"hi"
    assert connection.can_be_reused


def test_a_body_that_is_here_already_is_taken_whole_and_any_other_not_at_all() -> None:
    connection = OriginConnection(ScriptedStream([CHUNKED + b"2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"]))
    run(connection.read_head())
    assert connection.take_whole() is None
    assert run(connection.read()) == b"he", "an attempt to take it whole took nothing away"
    assert connection.take_whole() is None
    assert run(connection.read()) == b"llo"
    assert connection.take_whole() == b""
    for raw in (OK + b"content-length: 5\r\n\r\nhello", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"):
        connection = OriginConnection(ScriptedStream([raw]))
        run(connection.read_head())
        assert connection.take_whole() == b"hello"
        assert connection.can_be_reused
    connection = OriginConnection(ScriptedStream([OK + b"\r\nhello"]))
    run(connection.read_head())
    assert connection.take_whole() is None, "it may go on until the connection ends"


def test_a_connection_forgets_its_last_answer() -> None:
    first = b"HTTP/1.1 404 X\r\nx-first: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
    connection = OriginConnection(ScriptedStream([first, EVIL, CHUNKED + b"0\r\n\r\n"]))
    run(connection.read_head())
    assert connection.take_whole() == b"hi" and not connection.can_be_reused
    connection.begin("HEAD")
    assert (connection.status, connection.headers, connection.is_complete) == (0, [], False)
    run(connection.read_head())
    assert (connection.status, connection.headers) == (200, [(b"content-length", b"4")])
    connection.begin("GET")
    run(connection.read_head())
    assert connection.take_whole() == b"" and connection.can_be_reused


@pytest.mark.parametrize("error", [trio.BrokenResourceError("errno 104"), trio.ClosedResourceError("closed")])
def test_a_broken_connection_is_a_read_error(error: Exception) -> None:
    for pieces in ([], [OK], [OK + b"\r\nhello"], [CHUNKED], [OK + b"content-length: 5\r\n\r\nhell"]):
        connection = OriginConnection(ScriptedStream(pieces, error))
        with pytest.raises(httpx.ReadError, match="connection to the origin broke"):
            run(read_all(connection))


async def read_all(connection: OriginConnection) -> bytes:
    await connection.read_head()
    body = b""
    while piece := await connection.read():
        body += piece
    return body


# Hostile sizes: an origin may send for ever, but only a bounded part of it is ever held.


def endless(start: bytes, again: bytes) -> Iterator[bytes]:
    if start:
        yield start
    while True:
        yield again * (READ_BYTES // len(again))


def size_held_for(start: bytes, again: bytes) -> int:
    """How many bytes an endless answer got rid of before it was refused."""
    stream = ScriptedStream(endless(start, again))
    with pytest.raises(httpx.RemoteProtocolError):
        run(read_all(OriginConnection(stream)))
    return stream.taken


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 ", b"x"),
        (OK, b"x"),
        (OK + b"x: ", b"x"),
        (OK, b"a: b\r\n"),
        (OK, b"a:\r\n"),
        (b"", b"\r\n"),
        (b"", b"\0"),
        (b"", b"HTTP/1.1 102 X\r\n\r\n"),
    ],
    ids=["a reason", "a name", "a value", "fields", "empty fields", "empty lines", "NULs", "interim answers"],
)
def test_an_endless_head_is_refused(start: bytes, again: bytes) -> None:
    assert size_held_for(start, again) <= MAX_HEAD_BYTES + READ_BYTES


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (CHUNKED + b"0\r\n", b"x: y\r\n"),
        (CHUNKED + b"0\r\nx: ", b"y"),
        (CHUNKED + b"0\r\n", b"y"),
        (CHUNKED + b"5;", b"x"),
        (CHUNKED + b"0;x=", b"y"),
        (CHUNKED, b"0"),
    ],
    ids=["trailers", "a trailer's value", "a trailer's name", "an extension", "a last extension", "a size of zeros"],
)
def test_endless_framing_is_refused(start: bytes, again: bytes) -> None:
    behind_a_chunk = start.replace(CHUNKED, CHUNKED + b"5\r\nhello\r\n")
    for begin in (start, behind_a_chunk):
        assert size_held_for(begin, again) <= MAX_FRAMING_BYTES + 2 * READ_BYTES


def test_framing_between_the_pieces_of_a_long_body_adds_up_to_nothing() -> None:
    """Some origins write a chunk's size, its bytes and its end each by itself."""
    chunks = MAX_FRAMING_BYTES // 4
    pieces = [CHUNKED, *([b"4\r\n", b"data", b"\r\n"] * chunks), b"0\r\n\r\n"]
    assert read(pieces).body == b"data" * chunks


def test_a_head_may_be_as_large_as_allowed() -> None:
    frame = OK + b"content-length: 0\r\nx: %b\r\n\r\n"
    assert read([frame % (b"y" * (MAX_HEAD_BYTES - len(frame) + 2))]).outcome == FINE
    assert read([OK + b"content-length: 0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n"]).outcome == FINE
    assert read([OK + b"content-length: 0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"]).outcome == INVALID


@pytest.mark.parametrize("again", [b"1\r\na\r\n", b"1;x\r\na\r\n"])
def test_a_flood_of_tiny_chunks_is_read_piece_by_piece_and_never_held(again: bytes) -> None:
    connection = OriginConnection(ScriptedStream(endless(CHUNKED, again)))
    run(connection.read_head())
    tracemalloc.start()
    try:
        for _ in range(50):
            assert set(run(connection.read())) == {ord("a")}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * READ_BYTES


# Laws

TOKENS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 100 X\r\n\r\n"),
        *(b"HTTP/1.1 099 X\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 ", b"HTTP/", b"200", b" ", b"\t", b":"),
        *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\0", b"\xff", b"x: y\r\n", b"content-length: 5\r\n"),
        *(b"content-length: ", b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip\r\n"),
        *(b"connection: close\r\n", b"connection: upgrade\r\nupgrade: x\r\n", b"hello", b"5\r\nhello\r\n"),
        *(b"5\r\n", b"0\r\n", b"0\r\n\r\n", b"ffffffffffffffff", b";a=b"),
    ]
)
ANYTHING = st.one_of(st.binary(max_size=100), st.lists(TOKENS, max_size=14).map(b"".join))
METHODS = st.sampled_from(["GET", "HEAD", "POST"])


@st.composite
def cut_anywhere(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in any pieces."""
    borders = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *borders], [*borders, len(data)], strict=True)]


@given(ANYTHING, METHODS, st.data())
def test_whatever_comes_is_an_answer_or_a_fault_and_any_cutting_of_it_the_same(
    raw: bytes, method: str, data: st.DataObject
) -> None:
    seen = read([raw], method)
    pieces = [piece for piece in data.draw(cut_anywhere(raw)) if piece]
    again = read(pieces, method)
    assert again.outcome == seen.outcome
    if seen.outcome == FINE:
        assert (again.status, again.headers, again.body) == (seen.status, seen.headers, seen.body)


@given(st.sampled_from(CORPUS), ANYTHING, METHODS, st.data())
def test_whatever_is_put_into_an_answer_is_an_answer_or_a_fault(
    case: Case, raw: bytes, method: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(case.raw)))
    read([case.raw[:at] + raw + case.raw[at:]], method)


NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC-_!#", min_size=1, max_size=8).map(lambda name: f"x-{name}".encode())
VALUES = st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte > 0x1F and byte != 0x7F).strip())


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.lists(st.binary(min_size=1, max_size=30), max_size=6),
    st.booleans(),
    st.integers(0, 3),
    st.data(),
)
def test_a_good_answer_is_understood_however_it_is_cut(
    headers: list[tuple[bytes, bytes]], chunks: list[bytes], is_chunked: bool, interim: int, data: st.DataObject
) -> None:
    body = b"".join(chunks)
    framing = (b"transfer-encoding", b"chunked") if is_chunked else (b"content-length", b"%d" % len(body))
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" if is_chunked else body
    fields = b"".join(b"%b: %b\r\n" % field for field in [*headers, framing])
    raw = b"HTTP/1.1 103 X\r\nx-early: 1\r\n\r\n" * interim + OK + fields + b"\r\n" + sent
    seen = read(piece for piece in data.draw(cut_anywhere(raw)) if piece)
    assert seen == Seen(FINE, 200, [*((name.lower(), value) for name, value in headers), framing], body, True)


# On real streams


async def test_a_cancelled_read_takes_nothing() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    connection = OriginConnection(ours)
    await theirs.send_all(CHUNKED)
    await connection.read_head()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await theirs.send_all(b"5\r\nhello\r\n0\r\n\r\n")
    assert await connection.read() == b"hello"
    assert connection.can_be_reused


async def test_closing_is_synchronous() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    OriginConnection(ours).close_nowait()
    assert is_closed(ours)
    assert await theirs.receive_some() == b""


async def test_an_idle_connection_is_stale_once_anything_happened_on_it() -> None:
    happenings: list[Callable[[socket.socket], object]] = [lambda peer: peer.send(b"x"), socket.socket.close]
    for happens in happenings:
        stream, peer = loopback()
        connection = OriginConnection(stream)
        with peer:
            assert not connection.is_stale()
            happens(peer)
            await trio.lowlevel.wait_readable(stream.socket)
            assert connection.is_stale()
            connection.close_nowait()
            assert connection.is_stale()


class TlsOrigin:
    """An origin's end of a TLS connection, without an event loop: everything is done when it is said."""

    def __init__(self, end: socket.socket) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls_server().wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._end = end

    async def shake_hands(self) -> None:
        """The handshake, with the session tickets that OpenSSL sends at its end."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                await trio.lowlevel.wait_readable(self._end)
                self._incoming.write(self._end.recv(65536))
        self._flush()

    def send(self, *records: bytes) -> None:
        """Send records, all in one piece."""
        for record in records:
            self._tls.write(record)
        self._flush()

    def end(self) -> None:
        """TLS's own end, without an end of file."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._end.sendall(data)


async def open_tls() -> tuple[OriginConnection, TlsOrigin, socket.socket]:
    stream, peer = loopback()
    origin = TlsOrigin(peer)
    secured = trio.SSLStream(stream, tls_client(), server_hostname=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(secured.do_handshake)
        nursery.start_soon(origin.shake_hands)
    return OriginConnection(secured), origin, peer


async def test_session_tickets_do_not_make_a_tls_connection_stale() -> None:
    connection, origin, peer = await open_tls()
    with peer:
        stream: Any = connection.stream
        assert stream.version() == "TLSv1.3"
        await trio.lowlevel.wait_readable(stream.transport_stream.socket)
        assert stream.transport_stream.is_readable(), "the tickets are there"
        assert not connection.is_stale()
        origin.send(OK + b"content-length: 2\r\n\r\n", b"hi")
        assert await read_all(connection) == b"hi", "looking took nothing that belongs to an answer"
        assert not connection.is_stale()
        connection.close_nowait()


async def test_an_answer_that_came_unasked_over_tls_makes_its_connection_stale() -> None:
    """Also when it came in the same piece as the last one, so that the socket has nothing any more."""
    for together in (True, False):
        connection, origin, peer = await open_tls()
        with peer:
            origin.send(*[OK + b"content-length: 2\r\n\r\nhi", EVIL][: 1 + together])
            assert await read_all(connection) == b"hi"
            assert connection.can_be_reused
            if not together:
                assert not connection.is_stale()
                origin.send(EVIL)
                stream: Any = connection.stream
                await trio.lowlevel.wait_readable(stream.transport_stream.socket)
            assert connection.is_stale()
            connection.close_nowait()


async def test_a_tls_connection_that_has_ended_is_stale() -> None:
    leaves: list[Callable[[TlsOrigin, socket.socket], object]] = [
        lambda origin, peer: origin.end(),
        lambda origin, peer: peer.close(),
        lambda origin, peer: peer.send(b"not a record of TLS"),
    ]
    for leave in leaves:
        connection, origin, peer = await open_tls()
        with peer:
            stream: Any = connection.stream
            await trio.lowlevel.wait_readable(stream.transport_stream.socket)
            assert not connection.is_stale()
            leave(origin, peer)
            await trio.lowlevel.wait_readable(stream.transport_stream.socket)
            assert connection.is_stale()
            connection.close_nowait()
            assert connection.is_stale()


SWITCH = b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, len(SWITCH), 1000])
def test_101_is_an_answer_for_who_asked_for_it_and_what_follows_is_no_http(size: int) -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCH + EVIL
    stream = ScriptedStream(raw[at : at + size] for at in range(0, len(raw), size))
    connection = OriginConnection(stream)
    connection.begin("GET", may_upgrade=True)
    run(connection.read_head())
    assert (connection.status, connection.is_switched, connection.can_be_reused) == (101, True, False)
    rest = b""
    while piece := run(stream.receive_some(READ_BYTES)):
        rest += piece
    assert connection.behind + rest == EVIL


def test_who_asked_for_another_protocol_may_get_an_ordinary_answer() -> None:
    connection = OriginConnection(ScriptedStream([OK + b"content-length: 2\r\n\r\nno"]))
    connection.begin("GET", may_upgrade=True)
    run(connection.read_head())
    assert (connection.status, connection.take_whole(), connection.can_be_reused) == (200, b"no", True)
    assert (connection.is_switched, connection.behind) == (False, b"")


def test_a_101_that_names_no_protocol_ends_the_connection_s_use_too() -> None:
    connection = OriginConnection(ScriptedStream([b"HTTP/1.1 101 X\r\ncontent-length: 0\r\n\r\n"]))
    connection.begin("GET", may_upgrade=True)
    run(connection.read_head())
    assert (connection.status, connection.can_be_reused) == (101, False)
