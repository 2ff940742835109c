"""Keys, out of what a terminal sends."""

import pytest

from trioproxy.cli.keyboard import Keys


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        ("ü€".encode(), ["ü", "€"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1bOF", ["up", "end"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[H\x1b[1~\x1b[4~", ["home", "home", "end"]),
        (b"\x1b[1;5A", ["up"]),
        (b"\x1b[200~x", ["x"]),
        (b"a\r\x7f\x15", ["a", "enter", "backspace", "clear"]),
        (b"\x00\x01\x1a\xff", []),
        (b"\x1b\x1b[A", ["escape", "up"]),
    ],
)
def test_what_is_sent_is_a_key_in_any_cutting(sent: bytes, keys: list[str]) -> None:
    assert Keys().feed(sent) == keys
    one_by_one = Keys()
    assert [key for byte in sent for key in one_by_one.feed(bytes([byte]))] == keys


def test_an_escape_with_nothing_behind_it_is_the_key() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.is_under_way
    assert [keys.finish(), keys.finish()] == [["escape"], []]


def test_nothing_is_under_way_behind_a_whole_key() -> None:
    keys = Keys()
    keys.feed(b"\x1b[A")
    assert not keys.is_under_way
