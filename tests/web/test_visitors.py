"""Whom the data address lets in, as tables; hosts in full are those of the admin address, in `admin/test_guard`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import ForeignHost, ForeignOrigin
from trioproxy.web.visitors import Visitors
from trioproxy.wire.headers import Headers

PAGE = b"https://app.example"
LOCAL = Visitors(is_local=True, is_partly_local=True)
LISTED = Visitors(
    is_local=True,
    is_partly_local=True,
    hosts=frozenset({"proxy.internal", "10.0.0.5", "fd00::5"}),
    origins=frozenset({PAGE}),
    has_cors=True,
)
PARTLY = Visitors(is_partly_local=True)
PUBLIC = Visitors(origins=frozenset({PAGE}), has_cors=True)


def verdict(visitors: Visitors, headers: Headers, local: str | None = "127.0.0.1") -> str:
    """ "" if the request may come in, else why not."""
    try:
        visitors.check(headers, local)
    except (ForeignHost, ForeignOrigin) as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (b"localhost:8080", ""),
        (b"127.0.0.1:8080", ""),
        (b"[::1]:8080", ""),
        (b"proxy.internal", ""),
        (b"Proxy.Internal:8080", ""),
        (b"proxy.internal.", ""),
        (b"10.0.0.5:8080", ""),
        (b"[fd00::5]:8080", ""),
        (b"proxy.internal.evil.example", "ForeignHost"),
        (b"a.proxy.internal", "ForeignHost"),
        (b"evil.example", "ForeignHost"),
        (b"proxy.internal@evil.example", "ForeignHost"),
        (b"", "ForeignHost"),
    ],
)
def test_a_loopback_address_answers_to_loopback_names_and_to_those_that_are_set(host: bytes, says: str) -> None:
    assert verdict(LISTED, [(b"host", host)]) == says
    is_loopback_name = host.startswith((b"localhost", b"127.", b"[::1]"))
    assert verdict(LOCAL, [(b"host", host)]) == ("" if is_loopback_name else "ForeignHost")


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    assert verdict(LISTED, []) == ""
    assert verdict(LISTED, [(b"origin", b"https://evil.example")]) == "ForeignOrigin"


@pytest.mark.parametrize(
    ("fields", "unlisted", "listed"),
    [
        ([], "", ""),
        ([(b"origin", b"http://localhost:8080")], "", ""),
        ([(b"origin", PAGE)], "ForeignOrigin", ""),
        ([(b"origin", PAGE), (b"sec-fetch-site", b"cross-site")], "ForeignOrigin", ""),
        ([(b"origin", b"https://evil.example")], "ForeignOrigin", "ForeignOrigin"),
        ([(b"origin", b"null")], "ForeignOrigin", "ForeignOrigin"),
        ([(b"sec-fetch-site", b"cross-site")], "ForeignOrigin", "ForeignOrigin"),
        ([(b"sec-fetch-site", b"same-site")], "ForeignOrigin", "ForeignOrigin"),
    ],
)
def test_pages_of_other_sites_are_kept_out_but_for_those_that_are_listed(
    fields: Headers, unlisted: str, listed: str
) -> None:
    headers = [(b"host", b"localhost:8080"), *fields]
    assert verdict(LOCAL, headers) == unlisted
    assert verdict(LISTED, headers) == listed


@pytest.mark.parametrize(
    ("visitors", "local", "says"),
    [
        (LOCAL, "192.0.2.1", "ForeignHost"),
        (LOCAL, None, "ForeignHost"),
        (PARTLY, "127.0.0.1", "ForeignHost"),
        (PARTLY, "::1", "ForeignHost"),
        (PARTLY, "192.0.2.1", ""),
        (PARTLY, None, ""),
        (PUBLIC, "127.0.0.1", ""),
        (Visitors(), "127.0.0.1", ""),
    ],
)
def test_it_holds_where_the_connection_came_in_by_loopback(visitors: Visitors, local: str | None, says: str) -> None:
    headers = [(b"host", b"evil.example"), (b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site")]
    assert verdict(visitors, headers, local) == says


def test_an_answer_depends_on_who_asks_once_origins_are_listed() -> None:
    assert PUBLIC.answer_fields([]) == [(b"vary", b"origin")]
    assert PUBLIC.answer_fields([(b"origin", b"https://evil.example")]) == [(b"vary", b"origin")]
    assert dict(PUBLIC.answer_fields([(b"origin", PAGE)]))[b"access-control-allow-origin"] == PAGE
    assert LOCAL.answer_fields([(b"origin", PAGE)]) == []


def test_preflights_are_ours_to_answer_only_where_origins_are_listed() -> None:
    asks = (b"access-control-request-method", b"POST")
    other = [(b"origin", b"https://evil.example"), asks]
    assert PUBLIC.preflight_fields("OPTIONS", [(b"origin", PAGE), asks])
    assert PUBLIC.preflight_fields("POST", [(b"origin", PAGE), asks]) is None
    assert PUBLIC.preflight_fields("OPTIONS", [(b"origin", PAGE)]) is None
    with pytest.raises(ForeignOrigin):
        PUBLIC.preflight_fields("OPTIONS", other)
    assert Visitors().preflight_fields("OPTIONS", other) is None
    own = Visitors(origins=frozenset({b"http://127.0.0.1:9901"}))
    assert own.preflight_fields("OPTIONS", other) is None
    assert own.preflight_fields("OPTIONS", [(b"origin", b"http://127.0.0.1:9901"), asks])


@given(host=st.binary(), origin=st.none() | st.binary(), site=st.none() | st.binary())
def test_nothing_that_is_sent_is_a_crash(host: bytes, origin: bytes | None, site: bytes | None) -> None:
    said = {b"host": host, b"origin": origin, b"sec-fetch-site": site}
    headers = [(name, value) for name, value in said.items() if value is not None]
    assert verdict(LISTED, headers) in ("", "ForeignHost", "ForeignOrigin")
    LISTED.answer_fields(headers)
