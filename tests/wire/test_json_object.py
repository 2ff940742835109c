"""A request's body: read at its top level only, changed only where asked, refused where two readers could disagree."""

import json
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.json_object import MAX_MEMBERS, JsonObject

CHAT = b"""{
  "model" : "gpt-4o", "messages":[{"role":"user","content":"\\u00e4 \\"model\\": \\"x\\", {"}],
  "stream":true ,"temperature":1.0e0,"n": 1
}
"""


def refusal(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        JsonObject.parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_body")
    return caught.value


@dataclass(frozen=True)
class Member:
    """One member as it is written, with the space round it."""

    name: str
    before: bytes
    value: bytes
    after: bytes

    def written(self, value: bytes) -> bytes:
        return self.before + value + self.after


SPACE = st.text(" \t\r\n", max_size=2).map(str.encode)
NAME = st.one_of(
    st.sampled_from(
        ["model", "stream", "messages", "", "mod", 'a"b', "a\\", "{", "}", ",", ":", "ä", "\U0001f600", "\u2028"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
LOOK_ALIKE = st.sampled_from(
    [
        '"model":"x"',
        ',"model":"x"',
        '"}',
        '{"model":',
        "\\",
        '\\"',
        '\\","model":1',
        "]}",
        "\u2028",
        "null",
        '"',
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=False, allow_infinity=False) | LOOK_ALIKE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def json_values(draw: st.DrawFn) -> bytes:
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    return json.dumps(draw(JSON), separators=separators, ensure_ascii=True).encode()


@st.composite
def members(draw: st.DrawFn, name: str) -> Member:
    """The name in some spelling, since each character may be written as an escape."""
    spelled = "".join(escaped(char) if draw(st.booleans()) else json.dumps(char)[1:-1] for char in name)
    before = draw(SPACE) + f'"{spelled}"'.encode() + draw(SPACE) + b":" + draw(SPACE)
    return Member(name, before, draw(json_values()), draw(SPACE))


def escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2))


@st.composite
def objects(draw: st.DrawFn) -> list[Member]:
    return [draw(members(name)) for name in draw(st.lists(NAME, max_size=6, unique=True))]


def body_of(all_: list[Member], start: bytes = b"", end: bytes = b"", **other: bytes) -> bytes:
    """The body, with other values than the written ones where told so (by the member's number)."""
    written = [member.written(other.get(f"at{at}", member.value)) for at, member in enumerate(all_)]
    return start + b"{" + b",".join(written) + (b"" if written else start) + b"}" + end


# --- nothing else changes ---------------------------------------------------------------------------------------------


@settings(max_examples=70)
@given(objects(), SPACE, SPACE)
def test_the_members_are_the_bytes_that_were_sent(all_: list[Member], start: bytes, end: bytes) -> None:
    body = body_of(all_, start, end)
    parsed = JsonObject.parse(body)
    assert {name: bytes(raw) for name, raw in parsed.members.items()} == {one.name: one.value for one in all_}
    assert parsed.body == body
    assert parsed.replace({}) == body


@settings(max_examples=70)
@given(objects().filter(bool), SPACE, SPACE, json_values(), st.data())
def test_replacing_members_leaves_every_other_byte_alone(
    all_: list[Member], start: bytes, end: bytes, value: bytes, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(all_) - 1), unique=True))
    replaced = JsonObject.parse(body_of(all_, start, end)).replace({all_[at].name: value for at in chosen})
    assert replaced == body_of(all_, start, end, **{f"at{at}": value for at in chosen})


@settings(max_examples=70)
@given(objects(), SPACE, SPACE, st.lists(st.tuples(NAME, json_values()), max_size=3, unique_by=lambda pair: pair[0]))
def test_adding_members_leaves_every_other_byte_alone(
    all_: list[Member], start: bytes, end: bytes, added: list[tuple[str, bytes]]
) -> None:
    body = body_of(all_, start, end)
    new = {name: value for name, value in added if name not in {member.name for member in all_}}
    changed = JsonObject.parse(body).replace(new)
    assert changed.startswith(body[: body.rindex(b"}")]) and changed.endswith(b"}" + end)
    values = {name: bytes(raw) for name, raw in JsonObject.parse(changed).members.items()}
    assert values == {member.name: member.value for member in all_} | new


def test_a_body_keeps_its_face_when_one_value_changes() -> None:
    body = JsonObject.parse(CHAT)
    assert body.replace({"model": b'"other"'}) == CHAT.replace(b'"gpt-4o"', b'"other"')
    assert body.replace({"stream": b"false", "model": b"1"}) == CHAT.replace(b'"gpt-4o"', b"1").replace(
        b"true", b"false"
    )
    assert body.replace({"x": b"{}"}) == CHAT.replace(b"1\n}", b'1\n,"x":{}}')
    assert JsonObject.parse(b"{ }\n").replace({"a": b"1", "b": b"2"}) == b'{ "a":1,"b":2}\n'


# --- a name that stands twice -----------------------------------------------------------------------------------------


@settings(max_examples=70)
@given(objects().filter(bool), st.integers(0, 5), st.integers(0, 6))
def test_a_name_twice_is_refused_wherever_it_stands(all_: list[Member], chosen: int, at: int) -> None:
    first = all_[chosen % len(all_)]
    second = Member(first.name, json.dumps(first.name).encode() + b":", first.value, b"")
    assert "twice" in refusal(body_of([*all_[:at], second, *all_[at:]])).message


@settings(max_examples=70)
@given(objects().filter(bool), st.data())
def test_a_name_twice_is_refused_in_any_spelling_and_with_any_value(all_: list[Member], data: st.DataObject) -> None:
    second = data.draw(members(data.draw(st.sampled_from(all_)).name))
    at = data.draw(st.integers(0, len(all_)))
    assert "twice" in refusal(body_of([*all_[:at], second, *all_[at:]])).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"mod\\u0065l":"a","model":"a"}',
        b'{"model":"a","\\u006D\\u006f\\u0064\\u0065\\u006C":"b"}',
        b'{"model":"a","x":"\\",\\"model\\":\\"a","model":"a"}',
        b'{"model":"a\\",\\"model\\":\\"b","model":"a"}',
        b'{"model":{"model":"a"},"model":{"model":"a"}}',
        b'{"model":1,"model":10}',
        b'{"model":10,"model":1}',
        b'{"model":1,"model":1.5}',
        b'{"model":-0,"model":0}',
        b'{"model":"a","stream":true,"model":"a","stream":true}',
        b'{"a":1,"model":"a","model":"a","a":1}',
        b'{"a/b":1,"a\\/b":1}',
        b'{"":1,"":1}',
        b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":1}',
        b'{"a":"}","a":"}"}',
        b'{"a":"12}","a":123}',  # a reader that only counts characters finds the end where there is none
        b'{"a":[],"b":{"a":[]},"a":[]}',
    ],
)
def test_crafted_twins_are_refused(body: bytes) -> None:
    assert "twice" in refusal(body).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","Model":"a"}',  # names are told apart by their case, as RFC 8259 has it
        b'{"model":"model","x":{"model":"a","model":"b"}}',  # below the top level it is the origin's business
        b'{"model":"a","messages":[{"model":"a"},"\\"model\\":1"]}',
        b'{"a":1,"a\\u0000":1}',
        b'{"a":"\\"a\\":1"}',
        b'{"\\u00e4":1,"a\\u0308":1}',
    ],
)
def test_names_that_only_look_alike_are_taken(body: bytes) -> None:
    assert JsonObject.parse(body).replace({}) == body


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"[1]",
        b"null",
        b"true",
        b"1",
        b'"model"',
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"{",
        b"}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{,"a":1}',
        b"{'a':1}",
        b"{a:1}",
        b"{1:1}",
        b'{"a":1}x',
        b'{"a":1}{"b":1}',
        b'{"a":1},',
        b'{"a":1}\x00',
        b'{"a":1 /* x */}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":[01]}',
        b'{"a":[1,]}',
        b'{"a":{"b":1,}}',
        b'{"a":"\n"}',
        b'{"a":["\\x"]}',
        b'{"a\n":1}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":["\xc3"]}',
        b'{"\xff":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        '{"a":1}'.encode("utf-16"),
        b"model=gpt-4o&stream=true",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b'[{"a":' * 50_000,
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_anything_but_one_json_object_is_refused(body: bytes) -> None:
    assert len(refusal(body).message) < 200


@pytest.mark.parametrize("body", [b"[]", b"null", b'"model"', b"1"])
def test_json_that_is_no_object_is_told_so(body: bytes) -> None:
    assert "not a JSON object" in refusal(body).message


@pytest.mark.parametrize("body", [b'{"a":"\xff"}', b'{"\xc3":1}', b'{"a":1}\xff'])
def test_a_body_that_is_not_utf8_is_told_so(body: bytes) -> None:
    assert "UTF-8" in refusal(body).message


def test_a_refusal_shows_nothing_of_the_body() -> None:
    for body in (b'{"a":"secret-key" x}', b'{"secret-key":1,"secret-key":1}', b'{"a":"secret-key\xff"}'):
        assert "secret" not in refusal(body).message


PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"a"',
    b'"\\u0061"',
    b"1",
    b"-",
    b"0",
    b".5",
    b"e1",
    b"true",
    b"null",
    b'"',
    b"\\",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*PIECES, b" ", b"\n", b'{"a":', b'{"b":1,'])).map(b"".join) | st.binary(max_size=30))
def test_what_is_taken_every_reader_takes_for_the_same(body: bytes) -> None:
    try:
        parsed = JsonObject.parse(body)
    except BadRequest:
        return
    pairs: list[tuple[str, Any]] = []

    def note(read: list[tuple[str, Any]]) -> None:
        pairs[:] = read  # the outermost object is read last

    json.loads(body, object_pairs_hook=note)
    assert [name for name, _ in pairs] == list(parsed.members)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_five_megabytes_are_fine() -> None:
    text = b"x \\u00e4 \\" + b'"' + "ä".encode()
    messages = b'[{"role":"user","content":"' + text * (5_000_000 // len(text)) + b'"}]'
    body = b'{"model":"m","messages":' + messages + b',"stream":true}'
    started = time.thread_time()
    parsed = JsonObject.parse(body)
    assert parsed.string("model") == "m" and bytes(parsed.members["messages"]) == messages
    assert parsed.replace({"model": b'"n"'}) == body.replace(b'"m"', b'"n"')
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "name", [b"x" * 1_000_000, b"\\n" * 500_000, b'\\"x' * 300_000], ids=["plain", "escaped", "quoted"]
)
def test_a_name_of_a_megabyte_takes_a_few_megabytes(name: bytes) -> None:
    body = b'{"' + name + b'":1}'
    tracemalloc.start()
    parsed = JsonObject.parse(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parsed.replace({}) == body
    assert peak < 6 * len(body)


def test_a_body_has_no_more_members_than_real_ones() -> None:
    for count in (MAX_MEMBERS, MAX_MEMBERS + 1):
        body = b"{" + b",".join(b'"a%d":%d' % (number, number) for number in range(count)) + b"}"
        if count <= MAX_MEMBERS:
            assert len(JsonObject.parse(body).members) == count
        else:
            assert str(MAX_MEMBERS) in refusal(body).message


def test_below_the_top_level_there_may_be_any_number_of_members() -> None:
    inner = b"{" + b",".join(b'"a%d":0' % number for number in range(10 * MAX_MEMBERS)) + b"}"
    assert bytes(JsonObject.parse(b'{"tools":' + inner + b"}").members["tools"]) == inner


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b'"gpt"', "gpt"),
        (b'""', ""),
        (b'"\\u00e4\\n\xc3\xa4"', "ä\nä"),
        (b"null", None),
        (b" null ", None),
        (b'"null"', "null"),
    ],
)
def test_a_string_is_read(value: bytes, read: str | None) -> None:
    assert JsonObject.parse(b'{"model":' + value + b"}").string("model") == read


@pytest.mark.parametrize(("value", "read"), [(b"true", True), (b"false", False), (b"null", None), (b"\tnull\n", None)])
def test_a_boolean_is_read(value: bytes, read: bool | None) -> None:
    assert JsonObject.parse(b'{"stream":' + value + b"}").boolean("stream") is read


def test_what_is_absent_is_none() -> None:
    parsed = JsonObject.parse(b'{"x":{"model":"a","stream":true}}')
    assert parsed.string("model") is None and parsed.boolean("stream") is None


@pytest.mark.parametrize("value", [b"1", b"true", b"[]", b'["a"]', b"{}", b"1.5"])
def test_no_string_is_refused_by_name(value: bytes) -> None:
    parsed = JsonObject.parse(b'{"model":' + value + b"}")
    with pytest.raises(BadRequest, match="'model' has to be a string") as caught:
        parsed.string("model")
    assert (caught.value.param, caught.value.status) == ("model", 400)


@pytest.mark.parametrize("value", [b'"true"', b'"false"', b'""', b"1", b"0", b"[]", b"{}", b"[true]"])
def test_no_boolean_is_refused_by_name(value: bytes) -> None:
    parsed = JsonObject.parse(b'{"stream":' + value + b"}")
    with pytest.raises(BadRequest, match="'stream' has to be true or false") as caught:
        parsed.boolean("stream")
    assert (caught.value.param, caught.value.status) == ("stream", 400)


@pytest.mark.parametrize("text", [b"\\ud83d", b"\\uD83D x", b"\\udc00\\ud83d", b"\\\\ud83d", b"\\ud83d\\ude00"])
def test_half_a_surrogate_pair_is_forwarded_as_it_came(text: bytes) -> None:
    body = b'{"messages":[{"content":"' + text + b'"}],"model":"m","note":"' + text + b'"}'
    read = JsonObject.parse(body)
    assert read.string("model") == "m"
    assert read.body == body and read.replace({}) == body
    assert read.replace({"model": b'"n"'}) == body.replace(b'"m"', b'"n"')
    with pytest.raises(BadRequest):
        JsonObject.parse(b'{"a":"' + text + b'","b"}')


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b'{"a":1,"x":{},"b":2}', b'{"a":1,"b":2}'),
        (b'{"x": {"a":"}"} , "b":2}', b'{ "b":2}'),
        (b'{"a":1, "x":[1,2] }', b'{"a":1 }'),
        (b'{ "x":1}', b"{}"),
        (b' {"a" : "x" }', b' {"a" : "x" }'),
    ],
)
def test_a_member_is_taken_out_and_all_else_stays_as_it_was(body: bytes, rest: bytes) -> None:
    assert JsonObject.parse(body).without("x") == rest


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=4), st.integers(0, 4))
def test_what_is_left_is_the_object_without_the_member(members: dict[str, object], indent: int) -> None:
    body = json.dumps(members, indent=indent or None).encode()
    for name in members:
        rest = json.loads(JsonObject.parse(body).without(name))
        assert rest == {other: value for other, value in members.items() if other != name}
