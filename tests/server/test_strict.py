"""h11 with readers that forgive nothing: the same events however the bytes are cut, and no other reading than h11's."""

import re
import time
from itertools import pairwise

import h11
import pytest
from h11._readers import READERS, ChunkedReader, maybe_read_from_IDLE_client
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.harness.malformed import MALFORMED, Malformed
from trioproxy.errors import BadRequest, HeadersTooLarge, UriTooLong
from trioproxy.server.strict import ChunkReader, HeadReader, StrictConnection
from trioproxy.wire.chunks import MAX_EXTRA_BYTES, MAX_LINE_BYTES

MAX_HEAD = 16384
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

Seen = list[object]


def connect(max_head_bytes: int = MAX_HEAD) -> StrictConnection:
    return StrictConnection(max_head_bytes)


def reader_of(connection: h11.Connection) -> object:
    """What reads the connection's bytes at this moment."""
    return connection._reader


def take(connection: h11.Connection, seen: Seen, body: bytearray) -> bool:
    """Take the events that are there; the end of a request is answered. False after an error."""
    while True:
        try:
            event = connection.next_event()
        except BadRequest as error:
            seen.append((type(error), error.message))
            return False
        except h11.RemoteProtocolError as error:
            seen.append(type(error))
            return False
        if isinstance(event, h11.Request):
            seen.append((event.method, event.target, event.http_version, list(event.headers)))
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            seen.append(bytes(body))
            body.clear()
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                return False
            connection.start_next_cycle()
        else:
            assert event is h11.NEED_DATA
            return True


def read(connection: h11.Connection, *pieces: bytes) -> Seen:
    """What a connection makes of these pieces: heads, bodies, and the error at its end."""
    seen: Seen = []
    body = bytearray()
    for piece in filter(None, pieces):
        connection.receive_data(piece)
        if not take(connection, seen, body):
            break
    return seen


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(raw) + 1) for place in places} | {0, len(raw)})
    return [raw[start:end] for start, end in pairwise(borders)]


# --- h11's insides, on which it leans ---------------------------------------------------------------------------------


def test_h11_hands_out_a_reader_for_each_state_by_get_io_object() -> None:
    connection = connect()
    assert isinstance(reader_of(connection), HeadReader)
    connection.receive_data(CHUNKED)
    connection.next_event()
    assert isinstance(reader_of(connection), ChunkReader)
    connection.receive_data(b"0\r\n\r\n")
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert reader_of(connection) is READERS[h11.CLIENT, h11.DONE]


def test_h11s_own_readers_are_the_ones_that_are_replaced() -> None:
    connection = h11.Connection(h11.SERVER)
    assert reader_of(connection) is maybe_read_from_IDLE_client
    connection.receive_data(CHUNKED)
    connection.next_event()
    assert isinstance(reader_of(connection), ChunkedReader)


def test_h11_is_in_its_error_state_after_a_refusal_and_lets_the_refusal_through() -> None:
    connection = connect()
    connection.receive_data(b"GET /a HTTP/1.1\r\n\r\n")
    with pytest.raises(BadRequest):
        connection.next_event()
    assert connection.their_state is h11.ERROR
    assert connection.send(h11.Response(status_code=400, headers=[("content-length", "0")])).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("bad", MALFORMED, ids=[bad.name for bad in MALFORMED])
@pytest.mark.parametrize("size", [1, 10**6])
def test_the_corpus_is_refused_however_it_comes(bad: Malformed, size: int) -> None:
    fault = read(connect(), *(bad.raw[at : at + size] for at in range(0, len(bad.raw), size)))[-1]
    assert isinstance(fault, tuple) and issubclass(fault[0], BadRequest)
    assert fault[0].status == bad.status


# --- heads ------------------------------------------------------------------------------------------------------------


def test_requests_follow_each_other_in_one_piece() -> None:
    said = (b"GET", b"/a", b"1.1", [(b"host", b"a")])
    assert read(connect(), GET * 3) == [said, b""] * 3


def test_what_stands_behind_a_head_is_its_body() -> None:
    _, body, *rest = read(connect(), b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" + GET)
    assert body == b"ab" and len(rest) == 2


@pytest.mark.parametrize("size", [1, 1000, MAX_HEAD * 2])
def test_a_head_may_have_its_size_and_no_more_however_it_comes(size: int) -> None:
    start = b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: "
    fits = start + b"b" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
    for raw, is_refused in ((fits, False), (fits.replace(b"b", b"bb", 1), True)):
        seen = read(connect(), *(raw[at : at + size] for at in range(0, len(raw), size)))
        assert (seen == [(HeadersTooLarge, "The request's head is too large.")]) is is_refused


def test_one_empty_line_is_taken_and_no_second_one() -> None:
    assert len(read(connect(), b"\r\n", GET, b"\r\n" + GET)) == 4
    assert read(connect(), b"\r\n", b"\r\n", GET) == [(BadRequest, "The request is not valid HTTP/1.1.")]


def test_a_url_that_is_too_long_is_told_so_though_the_head_is_too_large_too() -> None:
    long = b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert read(connect(), long)[0][0] is UriTooLong  # type: ignore[index]


def test_a_head_that_never_ends_is_refused_when_it_is_too_large() -> None:
    assert read(connect(), GET[:-2] + b"X-A: " + b"b" * MAX_HEAD)[0][0] is HeadersTooLarge  # type: ignore[index]
    assert read(connect(), b"GET /" + b"a" * MAX_HEAD)[0][0] is UriTooLong  # type: ignore[index]
    assert read(connect(), b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nX-A: b")[0][0] is UriTooLong  # type: ignore[index]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03",
        b" ",
        b"\n",
        b"\r\n\r",
        b"GET /a\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"GET /a HTTP/1.1\n",
        b"GET /a HTTP/1.1\rX",
    ],
)
def test_what_can_never_become_a_head_is_refused_at_once(raw: bytes) -> None:
    for pieces in ([raw], cut(raw, list(range(len(raw))))):
        assert len(read(connect(), *pieces)) == 1


@pytest.mark.parametrize("raw", [b"", b"\r", b"\r\n", b"\r\nG", b"GET /a HTTP/1.1\r", GET[:-1], GET[:-2]])
def test_what_can_become_a_head_is_waited_for(raw: bytes) -> None:
    connection = connect()
    assert read(connection, *cut(raw, list(range(len(raw))))) == []
    assert len(read(connection, (b"\r\n" + GET if raw.startswith(b"\r") else GET)[len(raw) :])) == 2


def test_a_head_that_comes_byte_by_byte_is_not_looked_at_again_and_again() -> None:
    def seconds(size: int) -> float:
        raw = b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * size + b"\r\n\r\n"
        connection = connect(10**6)
        start = time.process_time()
        assert len(read(connection, *(raw[at : at + 1] for at in range(len(raw))))) == 2
        return time.process_time() - start

    assert seconds(64_000) < 25 * seconds(8_000)  # 8 times when it is linear, 64 times when it is not


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_a_chunked_body_is_read_without_extensions_and_trailers() -> None:
    body = b"3;a=b\r\nabc\r\n000A\r\n0123456789\r\n0;x\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    seen = read(connect(), CHUNKED + body + GET)
    assert seen[1] == b"abc0123456789" and len(seen) == 4


def test_a_piece_of_a_chunk_is_given_as_soon_as_it_is_there() -> None:
    connection = connect()
    connection.receive_data(CHUNKED + b"5\r\nab")
    assert isinstance(connection.next_event(), h11.Request)
    assert connection.next_event() == h11.Data(data=b"ab")
    assert connection.next_event() is h11.NEED_DATA


def test_extensions_and_trailers_are_bounded() -> None:
    long, many = b"a" * (MAX_LINE_BYTES - 5), MAX_EXTRA_BYTES // MAX_LINE_BYTES
    assert len(read(connect(), CHUNKED + (b"1;" + long + b"\r\nb\r\n") * many + b"0\r\n\r\n")) == 2
    for body in (
        b"1;" + long + b"aaaa\r\nb\r\n",
        b"1;" + long + b"aaaaaa",
        (b"1;" + long + b"\r\nb\r\n") * (many + 1),
        b"1;aaaaaaa\r\nb\r\n" * 3000,
        b"0\r\n" + b"X-A: b\r\n" * 3000,
        b"0\r\nX-A: " + long + b"aaaa",
    ):
        _, fault = read(connect(), CHUNKED + body)
        assert isinstance(fault, tuple) and fault[0] is BadRequest and "too" in fault[1]


# --- laws -------------------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        *(b"GET /a HTTP/1.1", b"POST /a HTTP/1.1", b"POST /a HTTP/1.0", b"Host: a", b"X-A: b", b"Content-Length: 3"),
        *(
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"",
            b"",
            b"abc",
            b"3",
            b"3;x",
            b"0",
            b"0",
            b" x",
            b"X : y",
        ),
    ]
)
ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"", b"\r\r\n"])
REQUESTS = st.one_of(
    st.sampled_from(
        [GET, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", b"\r\n" + GET, b"POST /a HTTP/1.0\r\nContent-Length: 2\r\n\r\nab"]
    ),
    st.sampled_from(MALFORMED).map(lambda bad: bad.raw[:600]),
    st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=12).map(b"".join),
    st.binary(max_size=30),
)
EMPTY_LINE = re.compile(rb"[^\n]\r\n(?:GET|POST)|\n\r\n\r\n|\r\n\r\nGET")
RAW = st.lists(REQUESTS, max_size=3).map(b"".join)


@given(RAW, st.lists(st.integers(0, 10**6), max_size=20))
def test_any_cutting_of_the_bytes_gives_the_same_requests_and_ends_in_an_error_or_not(
    raw: bytes, places: list[int]
) -> None:
    def kinds(seen: Seen) -> Seen:
        # Which fault is found first may depend on the cutting; that there is one does not.
        return [BadRequest if isinstance(one, tuple) and isinstance(one[0], type) else one for one in seen]

    assert kinds(read(connect(), *cut(raw, places))) == kinds(read(connect(), raw))


@given(RAW)
@example(GET + b"\r\n" + CHUNKED)
@settings(max_examples=300)
def test_what_is_not_refused_is_read_as_h11_reads_it(raw: bytes) -> None:
    ours = read(connect(), raw)
    if any(isinstance(one, tuple) and isinstance(one[0], type) for one in ours):
        ours.pop()
    theirs = read(h11.Connection(h11.SERVER, MAX_HEAD), raw.removeprefix(b"\r\n"))
    if not EMPTY_LINE.search(raw):  # h11 does not take one before a request
        assert theirs[: len(ours)] == ours
