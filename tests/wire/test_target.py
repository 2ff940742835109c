"""Paths: one spelling for a relayed route, no dot segments in any spelling, and everything else as it was written."""

import posixpath
import re
import time
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioproxy.errors import InvalidPath
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.target import RELAYED, check_path, dialect_of, query_pairs

ROUTES = list(RELAYED)


def refused(path: bytes) -> bool:
    try:
        check_path(path)
    except InvalidPath:
        return True
    return False


def test_a_refusal_is_the_clients_fault_and_repeats_nothing() -> None:
    with pytest.raises(InvalidPath) as caught:
        check_path(b"/v1/secret/../x")
    assert (caught.value.status, caught.value.code) == (400, "invalid_path")
    assert "secret" not in caught.value.message


# --- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
def test_a_relayed_route_passes(path: bytes) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/v1",
        b"/v1/models",
        b"/v1/models/gpt-4o-2024-08-06",
        b"/v1/models/ft:gpt-4o:acme::abc123",
        b"/v1/models/org%2Fmodel",
        b"/v1/models/org/model.v1.gguf",
        b"/v1/files/a%2Fb",
        b"/v1/files/a%2fb/content",
        b"/v1/files/%C3%A4;v=1",
        b"/v1/files/A~b_c-d.e",
        b"/v1/files/with%20space",
        b"/v1/files/100%25",
        b"/v1/files/what%3F%23",
        b"/v1/files/...",
        b"/v1/files/..a",
        b"/v1/files/a..",
        b"/v1/files/.hidden",
        b"/v1/files/a.b/..c",
        b"/v1/files/(a)!$&'*+,=:@",
        b"/v1/chat/completions/chatcmpl-123/messages",
        b"/v1/responses/resp_1",
        b"/v1/responses/resp_1/input_items",
        b"/v1/messages/count_tokens",
        b"/v1/messages/batches",
        b"/v1/chat/completionsx",
        b"/v1/chat",
        b"/v1/completions%2Fx",
        b"/v2/chat/completions",
        b"/x/v1/chat/completions",
        b"/healthz",
    ],
)
def test_an_ordinary_path_passes_as_it_is(path: bytes) -> None:
    check_path(path)


SEGMENT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs"], exclude_characters="/\\;%"), min_size=1, max_size=6
)


@settings(max_examples=150)
@given(st.lists(SEGMENT.filter(lambda segment: segment.strip() not in (".", "..")), min_size=1, max_size=4))
def test_segments_that_were_encoded_once_pass(segments: list[str]) -> None:
    path = "/v1/files/" + "/".join(quote(segment, safe="") for segment in segments)
    check_path(path.encode())


# --- dot segments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/.",
        b"/v1/..",
        b"/v1/../v1/chat/completions",
        b"/v1/./models",
        b"/v1/files/..",
        b"/v1/files/../",
        b"/v1/files/%2e%2e/x",
        b"/v1/files/%2E%2E/x",
        b"/v1/files/.%2e/x",
        b"/v1/files/%2e",
        b"/v1/files/%252e%252e/x",
        b"/v1/files/%25252e%25252e/x",
        b"/v1/files/%2%65%2%65/x",
        b"/v1/files/..%2f..%2fx",
        b"/v1/files/..%2Fx",
        b"/v1/files/..%252fx",
        b"/v1/files%2f..",
        b"/v1/files/..\\x",
        b"/v1/files\\..\\x",
        b"/v1/files/..%5cx",
        b"/v1/files%5C..%5Cx",
        b"/v1/files/..;/x",
        b"/v1/files/..;v=1/x",
        b"/v1/files/..%3b/x",
        b"/v1/files/.;/x",
        b"/v1/files/..%20/x",
        b"/v1/files/%20../x",
        b"/v1/files/..%00/x",
        b"/v1/files/..%0d%0a/x",
        b"/v1/files/a%3F/../x",
        b"/v1/files/..%3fx",
        b"/v1/files/..%23",
        b"/v1/files/..#",
        b"/v1/files/%c0%ae%c0%ae/x",
        b"/v1/files/..%c0%afx",
        b"/v1/files/%e0%80%ae%e0%80%ae/x",
        b"/v1/files/%u002e%u002e/x",
    ],
)
def test_dot_segments_are_refused_in_every_spelling(path: bytes) -> None:
    assert refused(path)


@st.composite
def spelled(draw: st.DrawFn, text: bytes, layers: int = 3) -> bytes:
    """The text with any of its characters percent-encoded, some of them more than once."""
    for _ in range(draw(st.integers(0, layers))):
        encoded = draw(st.lists(st.sampled_from("  uU"), min_size=len(text), max_size=len(text)))
        text = b"".join(
            bytes([byte]) if how == " " else (b"%%%02x" if how == "u" else b"%%%02X") % byte
            for byte, how in zip(text, encoded, strict=True)
        )
    return text


SLASH = st.sampled_from([b"/", b"\\", b"//", b"/;x/"])
AROUND = st.sampled_from([b"", b"a", b"v1", b"chat", b"files"])


@settings(max_examples=120)
@given(AROUND, SLASH, st.sampled_from([b".", b"..", b"..;", b".;a=b", b"..  "]), SLASH, AROUND, st.data())
def test_no_spelling_of_a_dot_segment_passes(
    before: bytes, slash: bytes, dots: bytes, slash_behind: bytes, behind: bytes, data: st.DataObject
) -> None:
    path = data.draw(spelled(before + slash + dots + slash_behind + behind))
    assert refused(b"/" + path.replace(b" ", b"%20"))


# --- odd spellings of what is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "respell",
    [
        lambda route: route + b"/",
        lambda route: route + b"//",
        lambda route: b"/" + route,
        lambda route: route.replace(b"/", b"//"),
        lambda route: route.replace(b"/v1/", b"/v1//"),
        lambda route: route.replace(b"/", b"\\"),
        lambda route: b"/" + route[1:].replace(b"/", b"\\"),
        lambda route: b"/" + route[1:].replace(b"/", b"%2F"),
        lambda route: b"/" + route[1:].replace(b"/", b"%2f"),
        lambda route: b"/" + route[1:].replace(b"/", b"%5c"),
        lambda route: b"/" + route[1:].replace(b"/", b"%252F"),
        lambda route: route + b"%2F",
        lambda route: route[:-1] + b"%%%02X" % route[-1],
        lambda route: route[:-1] + b"%%%02x" % route[-1],
        lambda route: route[:-1] + b"%%25%02x" % route[-1],
        lambda route: b"/%76" + route[2:],
        lambda route: b"/" + b"".join(b"%%%02x" % byte for byte in route[1:]),
        lambda route: route + b";",
        lambda route: route + b";v=1",
        lambda route: route.replace(b"/v1", b"/v1;a=b"),
        lambda route: route.replace(b"/v1/", b"/v1/;a/"),
        lambda route: route + b"%3Bx",
        lambda route: route + b"#",
        lambda route: route + b"#/x",
        lambda route: route + b"%23",
        lambda route: route + b"%23/x",
        lambda route: route + b"%3F",
        lambda route: route + b"%3Fa=b/c",
        lambda route: route + b"%253F",
        lambda route: route + b"%00",
        lambda route: route + b"%00.json",
        lambda route: route + b"%20",
        lambda route: route + b"%09",
        lambda route: route + b"%0a",
        lambda route: route + b"/.",
        lambda route: route + b"/x/..",
        lambda route: b"/x/.." + route,
        lambda route: route.upper(),
        lambda route: route.title(),
        lambda route: route[:-1] + b"%%%02X" % (route[-1] - 32),
        lambda route: route[1:],
        lambda route: b"http://origin" + route,
        lambda route: b" " + route,
    ],
)
def test_a_relayed_route_has_one_spelling(route: bytes, respell: Callable[[bytes], bytes]) -> None:
    assert refused(respell(route))


@settings(max_examples=120)
@given(st.sampled_from(ROUTES), st.data())
def test_no_percent_encoding_hides_a_relayed_route(route: bytes, data: st.DataObject) -> None:
    path = b"/" + data.draw(spelled(route[1:]))
    assert refused(path) is (path != route)


@pytest.mark.parametrize(
    "path", [b"/V1/models", b"//v1/models", b"/%761/models", b"/v%31/models", b"/v1%2Fmodels", b"\\v1\\models"]
)
def test_the_prefix_of_the_api_has_one_spelling_too(path: bytes) -> None:
    assert refused(path)


@pytest.mark.parametrize("path", [b"", b"*", b"v1/models", b"http://x/v1/models", b"?", b"%2Fv1/models", b"."])
def test_a_target_that_is_no_path_is_refused(path: bytes) -> None:
    assert refused(path)


@pytest.mark.parametrize(
    "path", [b"/v1/%", b"/v1/%2", b"/v1/%zz", b"/v1/%u0041", b"/v1/%%41", b"/v1/a#b", b"/v1/%ff", b"/v1/a%0Ab"]
)
def test_a_path_that_no_two_readers_agree_on_is_refused(path: bytes) -> None:
    assert refused(path)


def merged(path: bytes) -> bytes:
    return re.sub(rb"/+", b"/", path)


def without_parameters(path: bytes) -> bytes:
    return re.sub(rb";[^/]*", b"", path)


READINGS: list[Callable[[bytes], bytes]] = [
    unquote_to_bytes,
    merged,
    without_parameters,
    posixpath.normpath,
    bytes.lower,
    bytes.strip,
    lambda path: path.replace(b"\\", b"/"),
    lambda path: path.rstrip(b"/"),
    lambda path: path.partition(b"\x00")[0],
    lambda path: path.partition(b"?")[0],
    lambda path: path.partition(b"#")[0],
]
PIECES = [
    b"/",
    b"//",
    b"\\",
    b".",
    b"..",
    b";x",
    b"%2f",
    b"%2e",
    b"%25",
    b"2e",
    b"%3b",
    b"%3f",
    b"%23",
    b"%00",
    b"%20",
    b"#",
]
WORDS = [b"v1", b"V1", b"chat", b"completions", b"Completions", b"responses", b"%63hat", b"files", b"x"]


@settings(max_examples=400)
@example([b"x", b"..", b"%23"], [unquote_to_bytes, READINGS[-1]])
@example(
    [b"v1", b"/", b"x", b"/", b"..", b";x", b"/", b"chat", b"/", b"completions"],
    [without_parameters, posixpath.normpath],
)
@given(
    st.lists(st.sampled_from([*PIECES, *WORDS, b"/v1/chat/completions", b"/v1/responses"]), max_size=9),
    st.lists(st.sampled_from(READINGS), max_size=5),
)
def test_no_origin_takes_a_path_that_passed_for_another_one(
    pieces: list[bytes], readings: list[Callable[[bytes], bytes]]
) -> None:
    path = b"/" + b"".join(pieces)
    if refused(path) or path in RELAYED:
        return
    read = path
    for reading in readings:
        read = reading(read)
        assert read not in RELAYED
        assert read == b"." or not {b".", b".."} & set(read.split(b"/"))  # normpath makes "." of nothing


# --- hostile paths ----------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(st.binary(max_size=40))
def test_any_bytes_pass_or_are_refused(path: bytes) -> None:
    assert refused(path) in (True, False)
    assert isinstance(dialect_of(path), Dialect)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/x%" + b"25" * 30_000,
        b"/v1/" + b"%25" * 20_000,
        b"/v1" + b"/x" * 30_000,
        b"/v1/" + b";" * 60_000,
        b"/v1/" + b"%" * 60_000,
    ],
    ids=["one layer inside the other", "one layer", "many segments", "parameters", "no escapes"],
)
def test_a_path_of_60_kilobytes_is_read_in_no_time(path: bytes) -> None:
    started = time.thread_time()
    refused(path)
    assert time.thread_time() - started < 0.2


def test_a_path_may_be_encoded_over_three_times_at_most() -> None:
    check_path(b"/v1/files/%252541")
    assert refused(b"/v1/files/%25252541")


# --- dialects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (b"/v1/chat/completions", Dialect.CHAT),
        (b"/v1/completions", Dialect.COMPLETIONS),
        (b"/v1/responses", Dialect.RESPONSES),
        (b"/v1/responses/resp_1", Dialect.RESPONSES),
        (b"/v1/messages", Dialect.MESSAGES),
        (b"/v1/messages/batches", Dialect.MESSAGES),
        (b"/v1/embeddings", Dialect.EMBEDDINGS),
        (b"/v1/responsesx", Dialect.OTHER),
        (b"/v1/chat/completions/x", Dialect.OTHER),
        (b"/v1/models", Dialect.OTHER),
        (b"", Dialect.OTHER),
    ],
)
def test_a_path_speaks_its_dialect(path: bytes, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


# --- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        (b"/", []),
        (b"/?", []),
        (b"/?&&", []),
        (b"/?a", [(b"a", b"")]),
        (b"/?a=b=c&a=+%2B%ff", [(b"a", b"b=c"), (b"a", b" +\xff")]),
        (b"/?a=b?c=d", [(b"a", b"b?c=d")]),
        (b"/?=b&%61=%zz", [(b"", b"b"), (b"a", b"%zz")]),
    ],
)
def test_a_query_is_names_and_values_in_bytes(target: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    assert query_pairs(target) == pairs


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())))
def test_what_a_form_encodes_is_read_again(pairs: list[tuple[bytes, bytes]]) -> None:
    assert query_pairs(b"/v1/x?" + urlencode(pairs).encode()) == pairs
