"""Who the client is, where load balancers stand in front: the address that they tell, if they are to be believed.

Each of them adds, on the right, the address that it was connected from; whatever stands further left may be made up. So
the list is walked from the right, past our own, and the first address that is none of ours is the client. Nothing that
cannot be read is guessed at: then the client is whoever has connected.

Sources: RFC 7239 (`forwarded`); `x-forwarded-for` is a convention, with a port behind the address in some products.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from trioproxy.wire.headers import Headers

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MAX_HOPS = 32
"""How many addresses are looked at; nobody stands behind more load balancers."""
MAX_LINE_BYTES = 8192

_PAIR = re.compile(
    rb'[ \t]*([-!#$%&\'*+.^_`|~0-9A-Za-z]+)=([-!#$%&\'*+.^_`|~0-9A-Za-z]+|"(?:[^"\\]|\\.)*")[ \t]*([;,]|\Z)'
)
_IN_BRACKETS = re.compile(r"\[([^\]]+)\](?::[^:\]]*)?")
_WITH_PORT = re.compile(r"([0-9.]+):[^:]*")


def client_address(peer: str, headers: Headers, trusted: Sequence[Network]) -> str:
    """The client's address: `peer`, who has connected, unless that is one of `trusted` and tells of another.

    Where both fields are there they must agree: a load balancer writes one of them and passes the other as it came.
    """
    if not trusted or not _is_trusted(_read(peer), trusted):
        return peer
    told = {
        _walk(hops, trusted)
        for hops in (_hops_of_forwarded(headers), _hops_of_x_forwarded_for(headers))
        if hops is not None
    }
    address = told.pop() if len(told) == 1 else None
    return peer if address is None else str(address)


def _walk(hops: Iterator[str | None], trusted: Sequence[Network]) -> Address | None:
    """From the right: the first address that is not trusted, else the last one; None if one cannot be read."""
    address: Address | None = None
    for number, hop in enumerate(hops):
        address = _read(hop) if hop is not None and number < MAX_HOPS else None
        if address is None or not _is_trusted(address, trusted):
            return address
    return address


def _hops_of_x_forwarded_for(headers: Headers) -> Iterator[str | None] | None:
    lines = [value for name, value in headers if name == b"x-forwarded-for"]
    if not lines:
        return None
    return (hop.strip(b" \t").decode("latin-1") for line in reversed(lines) for hop in reversed(line.split(b",")))


def _hops_of_forwarded(headers: Headers) -> Iterator[str | None] | None:
    lines = [value for name, value in headers if name == b"forwarded"]
    if not lines:
        return None
    return (hop for line in reversed(lines) for hop in reversed(_elements(line)))


def _elements(line: bytes) -> list[str | None]:
    """The `for` of each element of a `forwarded` field; None where there is none, or nothing that can be read."""
    found: list[str | None] = []
    hop: str | None = None
    at = 0
    is_over = len(line) > MAX_LINE_BYTES
    while not is_over:
        pair = _PAIR.match(line, at)
        if pair is None:
            return [None]
        name, value, separator = pair.groups()
        if name.lower() == b"for":
            hop = re.sub(r"\\(.)", r"\1", value.decode("latin-1").strip('"'))
        if separator != b";":
            found.append(hop)
            hop = None
        at = pair.end()
        is_over = not separator
    return found or [None]


def _read(hop: str) -> Address | None:
    """An address, with or without a port; None for what is none: `unknown`, a hidden name, a zone, nonsense."""
    matched = _IN_BRACKETS.fullmatch(hop) or _WITH_PORT.fullmatch(hop)
    text = matched[1] if matched is not None else hop
    if "%" in text:  # a zone means something on one machine only, and may hold anything
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)
