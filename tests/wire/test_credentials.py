import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import InvalidKey
from trioproxy.wire.credentials import NAMES, key_shown, without_credentials
from trioproxy.wire.headers import Headers

KEY = b"tpk_" + b"a" * 43


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + KEY)],
        [(b"authorization", b"bearer   " + KEY + b" ")],
        [(b"x-api-key", KEY)],
        [(b"api-key", KEY)],
        [(b"authorization", b"Bearer " + KEY), (b"x-api-key", KEY)],
        [(b"sec-websocket-protocol", b"realtime, openai-insecure-api-key." + KEY)],
    ],
)
def test_a_key_is_found_wherever_clients_put_it(headers: Headers) -> None:
    assert key_shown(headers) == KEY


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([], "no key"),
        ([(b"authorization", b"Basic dXNlcjpwYXNz")], "scheme"),
        ([(b"authorization", KEY)], "scheme"),
        ([(b"authorization", b"Bearer")], "scheme"),
        ([(b"authorization", b"Bearer " + KEY), (b"authorization", b"Bearer other")], "several"),
        ([(b"authorization", b"Bearer " + KEY), (b"x-api-key", b"other")], "several"),
        ([(b"x-api-key", KEY), (b"sec-websocket-protocol", b"openai-insecure-api-key.other")], "several"),
    ],
)
def test_what_is_no_single_key_is_refused_and_not_echoed(headers: Headers, says: str) -> None:
    with pytest.raises(InvalidKey, match=says) as caught:
        key_shown(headers)
    assert "other" not in caught.value.message and "tpk_" not in caught.value.message


@given(st.lists(st.tuples(st.sampled_from(sorted(NAMES)), st.binary(max_size=60)), max_size=4))
def test_whatever_stands_there_is_a_key_or_is_refused(headers: Headers) -> None:
    try:
        shown = key_shown(headers)
    except InvalidKey:
        return
    assert any(shown in value for _, value in headers)


def test_nothing_of_a_credential_goes_on() -> None:
    headers = [
        (b"authorization", b"Bearer " + KEY),
        (b"x-api-key", KEY),
        (b"api-key", KEY),
        (b"sec-websocket-protocol", b"realtime, openai-insecure-api-key." + KEY),
        (b"x-goog-api-key", KEY),  # where nobody looks for it
        (b"referer", b"http://page/?key=" + KEY),
        (b"accept", b"*/*"),
    ]
    kept = without_credentials(headers)
    assert sorted(kept) == [(b"accept", b"*/*"), (b"sec-websocket-protocol", b"realtime")]
