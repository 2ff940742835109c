"""Pages of other sites give themselves away."""

import pytest

from trioproxy.wire.headers import Headers
from trioproxy.wire.pages import is_foreign

HOST = (b"host", b"127.0.0.1:8080")


@pytest.mark.parametrize(
    ("fields", "foreign"),
    [
        ([], False),  # no page: curl, or a browser that was told the address
        ([(b"origin", b"http://127.0.0.1:8080")], False),
        ([(b"origin", b"HTTP://127.0.0.1:8080")], False),
        ([(b"origin", b"http://127.0.0.1:3000")], True),
        ([(b"origin", b"http://localhost:8080")], True),
        ([(b"origin", b"https://evil.example")], True),
        ([(b"origin", b"null")], True),
        ([(b"origin", b"http://[")], True),
        ([(b"origin", b"")], True),
        ([(b"sec-fetch-site", b"cross-site")], True),  # an image, a script: no origin is sent with these
        ([(b"sec-fetch-site", b"same-site")], True),
        ([(b"sec-fetch-site", b"none")], False),
        ([(b"sec-fetch-site", b"same-origin")], False),
        ([(b"sec-fetch-site", b"same-origin"), (b"origin", b"https://public.name")], False),  # behind a load balancer
    ],
)
def test_who_is_foreign(fields: Headers, foreign: bool) -> None:
    assert is_foreign([HOST, *fields]) is foreign


def test_a_page_needs_a_host_to_be_ours() -> None:
    assert is_foreign([(b"origin", b"http://127.0.0.1:8080")])
