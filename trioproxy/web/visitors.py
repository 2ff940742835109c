"""Whom an address lets in, by what browsers say: any web page can make one send requests to a loopback port.

What comes to a loopback address has to name it by a loopback name, or by one that the operator has set: a page of
another site that made its own name lead here gives itself away by it. And pages of other sites are kept out, but for
those whose origin is listed. Off loopback anybody may come; there too only listed origins' pages get to read an answer.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from trioproxy.config import is_loopback
from trioproxy.errors import ForeignHost, ForeignOrigin
from trioproxy.wire import cors
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.pages import is_foreign

_HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]{0,5})?")


def has_known_host(headers: Headers, hosts: frozenset[str]) -> bool:
    """Whether a request names a loopback address by a loopback name, or by one of `hosts` (lower case, without port,
    brackets and a dot at the end)."""
    name, is_local = _named_by(find(headers, b"host") or b"")
    return is_local or name in hosts


@lru_cache(maxsize=64)
def _named_by(host: bytes) -> tuple[str, bool]:
    """The name in a host field, and whether it is a loopback name; nearly all requests say the same. "" for no name."""
    found = _HOST.fullmatch(host.lower())
    name = "" if found is None else (found[1] or found[2]).decode("ascii")
    return name.removesuffix("."), is_loopback(name)


@dataclass(frozen=True, slots=True)
class Visitors:
    """The rules of one address, which may be bound in several places. By default everybody may come.

    Attributes:
        is_local: all its places are on loopback; `is_partly_local`: some are.
        hosts: the names that it answers to, beside the loopback names.
        origins: the origins whose pages may come and read what they get, as browsers write them, in lower case.
        has_cors: the operator has listed some: what an answer says depends on who asks.
    """

    is_local: bool = False
    is_partly_local: bool = False
    hosts: frozenset[str] = frozenset()
    origins: frozenset[bytes] = frozenset()
    has_cors: bool = False

    def check(self, headers: Headers, local: str | None) -> None:
        """Raise ForeignHost or ForeignOrigin for a request that may not come in. `local` is the address at which its
        connection came."""
        if not self.is_local and not (self.is_partly_local and local is not None and is_loopback(local)):
            return
        # HTTP/1.0 can do without a host, and is no browser's.
        if find(headers, b"host") is not None and not has_known_host(headers, self.hosts):
            raise ForeignHost("This address answers to localhost and to the names in server.hosts; use one of them.")
        if is_foreign(headers) and cors.listed_origin(headers, self.origins) is None:
            raise _foreign()

    def answer_fields(self, headers: Headers) -> Headers:
        """What every answer to this request has, whatever its status."""
        return cors.answer_fields(headers, self.origins) or ([cors.VARY] if self.has_cors else [])

    def preflight_fields(self, method: str, headers: Headers) -> Headers | None:
        """What is answered beside that if this is a preflight of ours to answer; else None. Raises ForeignOrigin for an
        origin that is not listed, where others are."""
        if not cors.is_preflight(method, headers):
            return None
        fields = cors.preflight_fields(headers, self.origins)
        if fields is None and self.has_cors:
            raise _foreign()
        return fields


def _foreign() -> ForeignOrigin:
    return ForeignOrigin("Pages of other sites may not use this address; those that may are listed in cors.origins.")
