"""Who may use the admin address: any web page can reach a loopback port, and anybody the others.

On a loopback bind only requests are taken that name it by a loopback name, or by one that the operator has set (see
`web/visitors`); off loopback every request has to show the key. A browser's request from another origin is refused in
any case.
"""

import hmac
from collections.abc import Collection

from trioproxy.errors import ForeignHost, ForeignOrigin, InvalidKey
from trioproxy.web.visitors import has_known_host
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.pages import has_foreign_origin

_BEARER = b"bearer "


class Guard:
    """Checks requests to one address. `key` is demanded if there is one; None only on loopback, where `hosts` are the
    names that it answers to beside the loopback names."""

    def __init__(self, *, is_loopback: bool, key: str | None, hosts: Collection[str] = ()) -> None:
        self._is_loopback = is_loopback
        self._hosts = frozenset(host.rstrip(".") for host in hosts)
        self._key = None if key is None else key.encode("ascii")

    def check(self, headers: Headers) -> None:
        """Raises ForeignHost, ForeignOrigin or InvalidKey."""
        if self._is_loopback and not has_known_host(headers, self._hosts):
            raise ForeignHost("This address answers to localhost and to the names in server.hosts; use one of them.")
        if has_foreign_origin(headers):
            raise ForeignOrigin("Pages of other sites may not use this address.")
        if self._key is not None and not hmac.compare_digest(_shown_key(headers), self._key):
            raise InvalidKey("This address needs its key: send 'Authorization: Bearer KEY'.")


def _shown_key(headers: Headers) -> bytes:
    shown = find(headers, b"authorization") or b""
    return shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else b""
