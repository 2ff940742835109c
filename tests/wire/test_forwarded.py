"""Whose word is taken for a client's address, and what is made of it."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.forwarded import MAX_HOPS, Network, client_address
from trioproxy.wire.headers import Headers

TRUSTED: Final = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
PEER: Final = "10.0.0.1"


def told(*fields: str, peer: str = PEER, trusted: Sequence[Network] = TRUSTED) -> str:
    """The client, with these fields in the request, "name: value"."""
    pairs = (field.split(": ", 1) for field in fields)
    headers: Headers = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    return client_address(peer, headers, trusted)


BELIEVED: Final = [
    # What stands there, and who the client is.
    ("x-forwarded-for: 192.0.2.7", "192.0.2.7"),
    ("x-forwarded-for: 192.0.2.7, 10.9.9.9", "192.0.2.7"),
    ("x-forwarded-for: 198.51.100.1, 192.0.2.7,10.1.1.1 , 10.9.9.9", "192.0.2.7"),
    ("x-forwarded-for: nonsense, 192.0.2.7", "192.0.2.7"),
    ("x-forwarded-for: 192.0.2.7:51234", "192.0.2.7"),
    ("x-forwarded-for: 2001:db8::1", "2001:db8::1"),
    ("x-forwarded-for: [2001:DB8::1]:443", "2001:db8::1"),
    ("x-forwarded-for: 2001:db8::1, fd00::5", "2001:db8::1"),
    ("x-forwarded-for: ::ffff:192.0.2.7", "192.0.2.7"),
    ("x-forwarded-for: 10.2.2.2, 10.3.3.3", "10.2.2.2"),
    ("forwarded: for=192.0.2.7", "192.0.2.7"),
    ("forwarded: For=192.0.2.7;proto=https;by=203.0.113.43", "192.0.2.7"),
    ("forwarded: proto=https; for=192.0.2.7 ,for=10.1.1.1", "192.0.2.7"),
    ('forwarded: for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
    ('forwarded: for="192.0.2.7:47011"', "192.0.2.7"),
    ('forwarded: for=_x;by="a,b;for=203.0.113.9", for=192.0.2.7;host="a\\"b"', "192.0.2.7"),
]


@pytest.mark.parametrize(("field", "client"), BELIEVED)
def test_a_trusted_peer_is_believed_as_far_as_it_knows(field: str, client: str) -> None:
    assert told(field) == client


@pytest.mark.parametrize(
    "field",
    [
        "x-forwarded-for: ",
        "x-forwarded-for: unknown",
        "x-forwarded-for: 192.0.2.7, unknown",
        "x-forwarded-for: 192.0.2.7, ,10.1.1.1",
        "x-forwarded-for: 192.0.2.7, 10.1.1.1.1",
        "x-forwarded-for: 192.0.2.999",
        "x-forwarded-for: fe80::1%eth0",
        "x-forwarded-for: 192.0.2.7" + ", 10.1.1.1" * MAX_HOPS,
        "forwarded: for=unknown",
        "forwarded: for=_hidden",
        "forwarded: proto=https",
        "forwarded: for=192.0.2.7, proto=https",
        "forwarded: for=192.0.2.7; =",
        'forwarded: for="192.0.2.7',
        "forwarded: 192.0.2.7",
        "forwarded: ",
        "forwarded: for=192.0.2.7" + ";a=b" * 4000,
    ],
)
def test_what_cannot_be_read_is_not_guessed_at(field: str) -> None:
    assert told(field) == PEER


def test_nobody_else_is_believed() -> None:
    assert told("x-forwarded-for: 192.0.2.7", peer="203.0.113.5") == "203.0.113.5"
    assert told("x-forwarded-for: 192.0.2.7", trusted=[]) == PEER
    assert told("x-forwarded-for: 192.0.2.7", peer="not an address") == "not an address"
    assert told() == PEER


def test_a_peer_in_ipv6_s_clothes_is_the_same_peer() -> None:
    assert told("x-forwarded-for: 192.0.2.7", peer="::ffff:10.0.0.1") == "192.0.2.7"


def test_lines_count_in_their_order_and_a_broken_one_spoils_only_what_is_left_of_it() -> None:
    assert (
        told("x-forwarded-for: 203.0.113.9", "x-forwarded-for: 192.0.2.7", "x-forwarded-for: 10.1.1.1") == "192.0.2.7"
    )
    assert told('forwarded: for="', "forwarded: for=192.0.2.7") == "192.0.2.7"


def test_both_fields_are_believed_only_if_they_agree() -> None:
    assert told("forwarded: for=192.0.2.7", "x-forwarded-for: 192.0.2.7") == "192.0.2.7"
    assert told("forwarded: for=203.0.113.9", "x-forwarded-for: 192.0.2.7") == PEER
    assert told("forwarded: for=_x", "x-forwarded-for: 192.0.2.7") == PEER


@given(st.sampled_from(["forwarded", "x-forwarded-for"]), st.text(st.characters(max_codepoint=255)))
def test_whatever_a_client_wrote_what_the_load_balancer_added_counts(name: str, made_up: str) -> None:
    added = "192.0.2.7" if name == "x-forwarded-for" else "for=192.0.2.7"
    assert told(f"{name}: {made_up}", f"{name}: {added}") == "192.0.2.7"
    assert told(f"{name}: {made_up}, {added}") in ("192.0.2.7", PEER)
