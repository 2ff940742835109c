"""Which fields cross the proxy, what `connection` can take away, and which request ids are kept."""

import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.headers import (
    Headers,
    find,
    is_encoded,
    is_event_stream,
    named_by_connection,
    to_client,
    to_origin,
    valid_request_id,
    whole_time_s,
)

HOP_BY_HOP = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
]
NEVER_SENT = [
    *HOP_BY_HOP,
    b"host",
    b"content-length",
    b"expect",
    b"http2-settings",
    b"cookie",
    b"forwarded",
    b"x-real-ip",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-anything",
    b"x-request-id",
    b"x-trioproxy-share",
    b"x-trioproxy-anything",
]
SENT = [
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"content-type",
    b"content-encoding",
    b"accept",
    b"accept-encoding",
    b"user-agent",
    b"openai-organization",
    b"openai-project",
    b"openai-beta",
    b"anthropic-version",
    b"anthropic-beta",
    b"idempotency-key",
    b"traceparent",
    b"tracestate",
    b"x-stainless-retry-count",
    b"x-unknown",
    b"x-forwarded",  # no prefix of a prefix
    b"x-trioprox",
    b"last-event-id",
]
NEVER_RETURNED = [
    *HOP_BY_HOP,
    b"set-cookie",
    b"alt-svc",
    b"strict-transport-security",
    b"nel",
    b"report-to",
    b"content-length",
    b"x-request-id",
    b"x-trioproxy-upstream",
    b"x-trioproxy-request-id",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
]
RETURNED = [
    b"content-type",
    b"content-encoding",
    b"cache-control",
    b"retry-after",
    b"retry-after-ms",
    b"x-should-retry",
    b"x-ratelimit-limit-requests",
    b"x-ratelimit-remaining-tokens",
    b"openai-processing-ms",
    b"openai-version",
    b"www-authenticate",
    b"location",
    b"etag",
    b"date",
    b"server",
    b"x-unknown",
]
PROTECTED = [b"authorization", b"x-api-key", b"content-type", b"content-encoding"]


@pytest.mark.parametrize("name", NEVER_SENT)
def test_what_is_ours_or_the_clients_own_business_is_not_sent_to_an_origin(name: bytes) -> None:
    assert to_origin([(b"accept", b"*/*"), (name, b"a"), (name, b"b")]) == [(b"accept", b"*/*")]


@pytest.mark.parametrize("name", SENT)
def test_everything_else_is_sent_as_it_came(name: bytes) -> None:
    headers = [(name, b"a"), (b"x-other", b""), (name, b"B, \xff")]
    assert to_origin(headers) == headers


@pytest.mark.parametrize("name", NEVER_RETURNED)
def test_what_would_bind_the_client_to_our_host_is_not_returned(name: bytes) -> None:
    assert to_client([(b"etag", b"1"), (name, b"a"), (name, b"b")]) == [(b"etag", b"1")]


@pytest.mark.parametrize("name", RETURNED)
def test_everything_else_is_returned_as_it_came(name: bytes) -> None:
    headers = [(name, b"a"), (b"x-other", b""), (name, b"B, \xff")]
    assert to_client(headers) == headers


# --- connection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"x-hop", b"close, x-hop", b"X-Hop", b" x-hop ,,", b"keep-alive,\tX-HOP\t, close"])
@pytest.mark.parametrize("cross", [to_origin, to_client])
def test_a_field_that_connection_names_goes_no_further(value: bytes, cross: Callable[[Headers], Headers]) -> None:
    before = [(b"connection", value), (b"x-hop", b"1"), (b"x-hope", b"2"), (b"x-hop", b"3")]
    assert cross(before) == cross(before[::-1]) == [(b"x-hope", b"2")]


@pytest.mark.parametrize("name", PROTECTED)
@pytest.mark.parametrize("cross", [to_origin, to_client])
def test_connection_cannot_take_away_who_asks_or_how_to_read_the_body(
    name: bytes, cross: Callable[[Headers], Headers]
) -> None:
    for value in (name, name.upper(), b"close, " + name + b", x-hop"):
        assert cross([(b"connection", value), (name, b"1"), (b"x-hop", b"2")])[0] == (name, b"1")


def test_connection_cannot_bring_back_what_is_never_sent() -> None:
    assert to_origin([(b"connection", b"connection"), (b"transfer-encoding", b"chunked"), (b"host", b"x")]) == []


def test_each_connection_field_counts() -> None:
    headers = [(b"connection", b"close"), (b"connection", b"a"), (b"connection", b"B"), (b"a", b"1"), (b"b", b"2")]
    assert named_by_connection(headers) == {b"close", b"a", b"b"}
    assert to_origin(headers) == []


def test_without_connection_nothing_is_named() -> None:
    assert named_by_connection([(b"x", b"connection"), (b"proxy-connection", b"x")]) == frozenset()


FIELD_NAME = st.sampled_from([*NEVER_SENT, *SENT, *NEVER_RETURNED, *RETURNED, b"x-a", b"x-b"])
FIELDS = st.lists(st.tuples(FIELD_NAME, st.binary(max_size=5)), max_size=12)


@settings(max_examples=150)
@given(FIELDS, st.lists(FIELD_NAME, max_size=4), st.booleans())
def test_fields_cross_in_order_and_unchanged_or_not_at_all(
    headers: Headers, named: list[bytes], is_upper: bool
) -> None:
    value = b", ".join(named)
    headers = [(name, value) for name, value in headers if name != b"connection"]
    headers.insert(len(headers) // 2, (b"connection", value.upper() if is_upper else value))
    gone = set(named) - {*PROTECTED, b"host"}
    sent = [header for header in headers if header[0] not in NEVER_SENT and header[0] not in gone]
    assert to_origin(headers) == [header for header in sent if not header[0].startswith(b"x-trioproxy-")]
    assert to_client(headers) == [
        header
        for header in headers
        if header[0] not in NEVER_RETURNED and header[0] not in gone and not header[0].startswith(b"x-trioproxy-")
    ]


# --- request ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"a", b"req_1", b"!~", b"x" * 128, b'<>"\\'])
def test_a_short_visible_request_id_is_kept(value: bytes) -> None:
    assert valid_request_id(value) == value.decode("ascii")


@pytest.mark.parametrize(
    "value", [None, b"", b"x" * 129, b"a b", b" a", b"a ", b"a\n", b"a\r\nb: c", b"\x7f", b"\xc3\xa4", b"a\x00"]
)
def test_any_other_request_id_is_replaced(value: bytes | None) -> None:
    assert valid_request_id(value) is None


@given(st.binary(max_size=130))
def test_a_request_id_that_is_kept_can_stand_in_a_header_and_a_log(value: bytes) -> None:
    kept = valid_request_id(value)
    visible = (string.ascii_letters + string.digits + string.punctuation).encode()
    assert (kept is not None) is (0 < len(value) <= 128 and all(byte in visible for byte in value))
    assert kept is None or kept.encode("ascii") == value


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_first_value_of_a_field_is_found() -> None:
    assert find([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == b"2"
    assert find([(b"a", b"1")], b"b") is None


@pytest.mark.parametrize(
    "value",
    [
        b"text/event-stream",
        b"text/event-stream; charset=utf-8",
        b"Text/Event-Stream;charset=UTF-8",
        b" text/event-stream ;",
    ],
)
def test_the_content_type_tells_an_event_stream(value: bytes) -> None:
    assert is_event_stream([(b"x", b"y"), (b"content-type", value)])


@pytest.mark.parametrize(
    "value",
    [b"", b"application/json", b"text/event-streams", b"text/plain; x=text/event-stream", b"application/x-ndjson"],
)
def test_any_other_content_type_is_no_event_stream(value: bytes) -> None:
    assert not is_event_stream([(b"content-type", value), (b"accept", b"text/event-stream")])
    assert not is_event_stream([])


@pytest.mark.parametrize(
    "values", [[b"gzip"], [b"br"], [b"identity, gzip"], [b"identity", b"gzip"], [b"", b"zstd"], [b"x"]]
)
def test_a_coded_body_is_not_looked_at(values: list[bytes]) -> None:
    assert is_encoded([(b"content-encoding", value) for value in values])


@pytest.mark.parametrize("values", [[], [b""], [b"identity"], [b" Identity "], [b"identity", b"identity"]])
def test_a_body_that_is_not_coded_is_looked_at(values: list[bytes]) -> None:
    assert not is_encoded([(b"content-encoding", value) for value in values] + [(b"accept-encoding", b"gzip")])


def test_a_requests_whole_time_is_one_whole_number_of_milliseconds() -> None:
    assert whole_time_s([]) is None
    assert whole_time_s([(b"x-trioproxy-deadline-ms", b"1500")]) == 1.5
    for values in ([b"0"], [b"-1"], [b"1.5"], [b""], [b" 1"], [b"1\n"], [b"9" * 19], [b"1", b"1"]):
        with pytest.raises(BadRequest) as caught:
            whole_time_s([(b"x-trioproxy-deadline-ms", value) for value in values])
        assert caught.value.param == "x-trioproxy-deadline-ms"
