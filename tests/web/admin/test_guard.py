"""Who may use the admin address, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import ForeignHost, ForeignOrigin, InvalidKey
from trioproxy.web.admin.guard import Guard
from trioproxy.wire.headers import Headers

_KEY = "k" * 40


def verdict(guard: Guard, headers: Headers) -> str:
    """ "" if the request may come in, else why not."""
    try:
        guard.check(headers)
    except (ForeignHost, ForeignOrigin, InvalidKey) as error:
        return type(error).__name__
    return ""


def fields(host: bytes | None, origin: bytes | None = None, key: bytes | None = None) -> Headers:
    given = {b"host": host, b"origin": origin, b"authorization": key}
    return [(name, value) for name, value in given.items() if value is not None]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (b"localhost:9901", ""),
        (b"LocalHost", ""),
        (b"localhost.:9901", ""),
        (b"127.0.0.1:9901", ""),
        (b"127.9.9.9", ""),
        (b"[::1]:9901", ""),
        (None, "ForeignHost"),
        (b"", "ForeignHost"),
        (b":9901", "ForeignHost"),
        (b"evil.example:9901", "ForeignHost"),
        (b"localhost.evil.example", "ForeignHost"),
        (b"127.0.0.1.evil.example", "ForeignHost"),
        (b"0.0.0.0:9901", "ForeignHost"),
        (b"192.168.1.5", "ForeignHost"),
        (b"localhost@evil.example", "ForeignHost"),
        (b"::1", "ForeignHost"),
        (b"[::1", "ForeignHost"),
        (b"[::1]evil.example", "ForeignHost"),
        (b"l\xf6calhost", "ForeignHost"),
        ("\uff4cocalhost".encode(), "ForeignHost"),
        (b"127.1", "ForeignHost"),
        (b"localhost\x00", "ForeignHost"),
        (b"local\thost", "ForeignHost"),
        (b"evil.example@localhost", "ForeignHost"),
        (b"localhost:9901/evil.example", "ForeignHost"),
    ],
)
def test_a_loopback_bind_answers_to_loopback_names_only(host: bytes | None, says: str) -> None:
    assert verdict(Guard(is_loopback=True, key=None), fields(host)) == says


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        (None, ""),
        (b"http://localhost:9901", ""),
        (b"HTTP://LOCALHOST:9901", ""),
        (b"http://localhost", "ForeignOrigin"),
        (b"http://localhost:3000", "ForeignOrigin"),
        (b"http://127.0.0.1:9901", "ForeignOrigin"),
        (b"https://evil.example", "ForeignOrigin"),
        (b"null", "ForeignOrigin"),
        (b"", "ForeignOrigin"),
        (b"localhost:9901", "ForeignOrigin"),
        (b"http://evil.example/localhost:9901", "ForeignOrigin"),
        (b"http://localhost:9901@evil.example", "ForeignOrigin"),
        (b"http://[::1", "ForeignOrigin"),
        (b"http://\xff", "ForeignOrigin"),
    ],
)
def test_pages_of_other_sites_are_refused(origin: bytes | None, says: str) -> None:
    assert verdict(Guard(is_loopback=True, key=None), fields(b"localhost:9901", origin)) == says
    key = b"Bearer " + _KEY.encode()
    assert verdict(Guard(is_loopback=False, key=_KEY), fields(b"localhost:9901", origin, key)) == says


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (b"Bearer " + _KEY.encode(), ""),
        (b"bearer   " + _KEY.encode() + b" ", ""),
        (None, "InvalidKey"),
        (b"", "InvalidKey"),
        (b"Bearer ", "InvalidKey"),
        (b"Bearer " + _KEY[:-1].encode(), "InvalidKey"),
        (b"Bearer " + _KEY.encode() + b"k", "InvalidKey"),
        (b"Basic " + _KEY.encode(), "InvalidKey"),
        (_KEY.encode(), "InvalidKey"),
        (b"Bearer \xff\xfe", "InvalidKey"),
    ],
)
@pytest.mark.parametrize("is_loopback", [True, False])
def test_a_key_that_is_configured_is_demanded_everywhere(is_loopback: bool, shown: bytes | None, says: str) -> None:
    assert verdict(Guard(is_loopback=is_loopback, key=_KEY), fields(b"127.0.0.1", key=shown)) == says


def test_a_loopback_bind_answers_to_the_names_that_are_set() -> None:
    guard = Guard(is_loopback=True, key=None, hosts=("proxy.internal", "dotted.internal."))
    for host in (b"proxy.internal:9901", b"Dotted.Internal", b"proxy.internal.", b"localhost"):
        assert verdict(guard, fields(host)) == ""
    assert verdict(guard, fields(b"proxy.internal", b"http://proxy.internal")) == ""
    assert verdict(guard, fields(b"proxy.internal", b"http://localhost")) == "ForeignOrigin"
    assert verdict(guard, fields(b"evil.example")) == "ForeignHost"


def test_off_loopback_any_name_will_do_with_the_key() -> None:
    guard = Guard(is_loopback=False, key=_KEY)
    assert verdict(guard, fields(b"proxy.example", key=b"Bearer " + _KEY.encode())) == ""
    assert verdict(guard, fields(b"proxy.example")) == "InvalidKey"


@given(host=st.binary(), origin=st.none() | st.binary(), shown=st.none() | st.binary())
def test_nothing_that_is_sent_is_a_crash_or_a_key(host: bytes, origin: bytes | None, shown: bytes | None) -> None:
    assert verdict(Guard(is_loopback=False, key=_KEY), fields(host, origin, shown)) in ("ForeignOrigin", "InvalidKey")
    assert verdict(Guard(is_loopback=True, key=_KEY), fields(host, origin, shown)) != ""
