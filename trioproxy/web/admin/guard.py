"""Who may use the admin address: any web page can reach a loopback port, and anybody the others.

On a loopback bind only requests that name it by a loopback name are taken (a page of a foreign site that made its name
lead here gives itself away by it); off loopback every request has to show the key. A browser's request from another
origin is refused in any case.
"""

import hmac
import re

from trioproxy.config import is_loopback
from trioproxy.errors import ForeignHost, ForeignOrigin, InvalidKey
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.pages import has_foreign_origin

_BEARER = b"bearer "
_HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]{0,5})?")


class Guard:
    """Checks requests to one address. `key` is demanded if there is one; None only on loopback."""

    def __init__(self, *, is_loopback: bool, key: str | None) -> None:
        self._is_loopback = is_loopback
        self._key = None if key is None else key.encode("ascii")

    def check(self, headers: Headers) -> None:
        """Raises ForeignHost, ForeignOrigin or InvalidKey."""
        host = (find(headers, b"host") or b"").lower()
        if self._is_loopback and not is_loopback(_name_of(host)):
            raise ForeignHost("This address answers to localhost only; use that as the host.")
        if has_foreign_origin(headers):
            raise ForeignOrigin("Pages of other sites may not use this address.")
        if self._key is not None and not hmac.compare_digest(_shown_key(headers), self._key):
            raise InvalidKey("This address needs its key: send 'Authorization: Bearer KEY'.")


def _name_of(host: bytes) -> str:
    """A host field's name or address, without port and brackets."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).decode("ascii")


def _shown_key(headers: Headers) -> bytes:
    shown = find(headers, b"authorization") or b""
    return shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else b""
