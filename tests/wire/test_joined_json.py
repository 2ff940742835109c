"""JSON that comes bit by bit. How whole streams are folded is `test_fold`."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.joined_json import JoinedObject, Meter, Misfit, list_of, members_of


def grown(*pieces: object) -> object:
    """What an object has become that got these values of one member, one after the other."""
    joined = JoinedObject(Meter())
    for piece in pieces:
        joined.grow("a", json.dumps(piece).encode())
    return json.loads(bytes(joined.render()))["a"]


def test_each_kind_of_value_grows_in_its_own_way() -> None:
    assert grown("Ra", "in", None, "") == "Rain"
    assert grown([1], [], [{"b": 2}]) == [1, {"b": 2}]
    assert grown({"b": "x"}, {"b": "y", "c": 1}) == {"b": "xy", "c": 1}
    assert grown(1, 2) == 2
    assert grown(None, "x") == "x"


@pytest.mark.parametrize(("first", "second"), [("x", ["y"]), (["x"], "y"), ({"b": 1}, "y"), ("x", {"b": 1})])
def test_what_does_not_go_together_is_a_misfit(first: object, second: object) -> None:
    with pytest.raises(Misfit):
        grown(first, second)


def test_names_are_not_written_bit_by_bit() -> None:
    joined = JoinedObject(Meter())
    for _ in range(2):
        joined.grow("id", b'"call_1"')
    joined.grow("id", b'""')
    assert bytes(joined.render()) == b'{"id":"call_1"}'


def test_no_number_and_no_escape_is_re_written() -> None:
    joined = JoinedObject(Meter())
    joined.keep("n", b"1.0e2")
    joined.grow("t", b'"\\u00e4"')
    joined.grow("t", b'"\\/"')
    assert bytes(joined.render()) == b'{"n":1.0e2,"t":"\\u00e4\\/"}'


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_what_is_held_is_counted(pieces: list[str]) -> None:
    meter = Meter()
    joined = JoinedObject(meter)
    for piece in pieces:
        joined.grow("a", json.dumps(piece).encode())
    assert len(bytes(joined.render())) <= meter.held
    assert json.loads(bytes(joined.render())) == {"a": "".join(pieces)}


def test_null_has_neither_members_nor_entries() -> None:
    assert members_of(b"null") == {}
    assert list_of(msgspec.Raw(b"null")) == []
    with pytest.raises(msgspec.DecodeError):
        members_of(b"[1]")
