"""What a request says of sharing its stream, whose it is, and where in a stream somebody stands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.headers import Headers
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.sharing import Wish, caller_of, place_of, position_of, wish_of

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


def wish(*fields: tuple[bytes, bytes], body: bytes | None = BODY, share: bool = False, resume_s: float = 0.0) -> Wish:
    parsed = None if body is None else JsonObject.parse(body)
    return wish_of(list(fields), parsed, share=share, resume_s=resume_s)


def auto(body: bytes) -> str | None:
    return wish((b"x-trioproxy-share", b"auto"), body=body).share_key


def test_who_says_nothing_wishes_nothing() -> None:
    assert wish() == Wish() and wish().is_plain


def test_a_request_goes_before_its_route() -> None:
    assert wish(share=True, resume_s=9).resume_s == 9
    assert wish(share=True).share_key == auto(BODY)
    said = wish((b"x-trioproxy-share", b"K"), (b"x-trioproxy-resume", b"0"), share=True, resume_s=9)
    assert said == Wish(share_key="key:K", resume_s=0)
    assert not wish(share=True).is_plain and not wish(resume_s=1).is_plain


def test_a_key_of_one_s_own_never_equals_one_that_is_made() -> None:
    made = auto(BODY)
    assert made is not None
    assert wish((b"x-trioproxy-share", made.encode())).share_key != made


def test_the_same_is_asked_for_whatever_the_spaces_and_the_order_of_names() -> None:
    value = json.loads(BODY)
    others = [json.dumps(value, indent=2).encode(), json.dumps(dict(reversed(value.items()))).encode()]
    assert {auto(BODY), *map(auto, others)} == {auto(BODY)}


@pytest.mark.parametrize(
    "other",
    [
        BODY.replace(b'"Hi"', b'"hi"'),
        BODY.replace(b'"m"', b'"n"'),
        BODY[:-1] + b',"temperature":0.5}',
        BODY.replace(b'[{"role"', b'[{},{"role"'),
    ],
)
def test_anything_else_is_another_thing(other: bytes) -> None:
    assert auto(other) != auto(BODY)


def test_numbers_that_differ_in_writing_alone_may_be_told_apart_but_never_confused() -> None:
    bodies = [BODY[:-1] + b',"seed":%b}' % number for number in (b"1", b"2", b"9007199254740993", b"9007199254740992")]
    assert len({auto(body) for body in bodies}) == len(bodies)


def test_a_body_that_no_normal_form_is_made_of_is_compared_as_it_is() -> None:
    for body in (b'{"a":"\\ud800"}', b'{"a":"%b"}' % (b"x" * (1 << 20))):
        assert auto(body) == auto(body) != auto(BODY)
        assert auto(body) != auto(body[:-1] + b" }")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"share", b""),
        (b"share", b"two words"),
        (b"share", "ü".encode()),
        (b"share", b"x" * 201),
        (b"resume", b""),
        (b"resume", b"-1"),
        (b"resume", b"1e9"),
        (b"resume", b"nan"),
        (b"resume", b"9" * 10),
        (b"resume", b"1.2345"),
        (b"slow", b""),
        (b"slow", b"Block"),
        (b"slow", b"\xff"),
    ],
)
def test_what_cannot_be_read_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        wish((b"x-trioproxy-" + name, value))
    assert refused.value.param == "x-trioproxy-" + name.decode()


@pytest.mark.parametrize("word", ["error", "block", "drop-oldest", "drop-newest"])
def test_each_policy_has_its_word(word: str) -> None:
    assert wish((b"x-trioproxy-slow", word.encode())).slow == word
    assert wish((b"x-trioproxy-slow", word.encode())).is_plain


def test_seconds_may_have_a_fraction() -> None:
    assert wish((b"x-trioproxy-resume", b"0.25")).resume_s == 0.25


def test_a_caller_is_told_by_what_it_shows_and_by_nothing_else() -> None:
    key: Headers = [(b"authorization", b"Bearer me")]
    assert caller_of([]) is None and caller_of([(b"authorization", b"")]) is None
    assert caller_of([(b"user-agent", b"x"), *key]) == caller_of(key)
    shown: list[Headers] = [
        key,
        [(b"authorization", b"Bearer you")],
        [(b"x-api-key", b"Bearer me")],
        [*key, (b"x-api-key", b"k")],
        [*key, *key],
    ]
    assert len({caller_of(headers) for headers in shown}) == len(shown)
    assert caller_of([(b"x-api-key", b"k"), *key]) == caller_of([*key, (b"x-api-key", b"k")])
    told = caller_of(key)
    assert told is not None and "me" not in told and len(told) == 64


@pytest.mark.parametrize(
    ("value", "position"),
    [
        (b"0", 0),
        (b"17", 17),
        (b"abc.17", 17),
        (b"a_b-C9.0", 0),
        (b"other.17", None),
        (b"", None),
        (b".17", None),
        (b"abc.", None),
        (b"-1", None),
        (b"1.5.2", None),
        (b"9" * 16, None),
        ("٣".encode(), None),
    ],
)
def test_a_position_is_a_number_perhaps_with_its_stream(value: bytes, position: int | None) -> None:
    stream = "a_b-C9" if value.startswith(b"a_b") else "abc"
    assert position_of(value, stream) == position


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"abc.17", ("abc", 17)),
        (b"a_b-C9.0", ("a_b-C9", 0)),
        (b"17", None),
        (b".17", None),
        (b"abc.", None),
        (b"a.b.1", None),
        (b"a" * 65 + b".1", None),
        (b"", None),
    ],
)
def test_a_place_names_its_stream(value: bytes, place: tuple[str, int] | None) -> None:
    assert place_of(value) == place


def test_where_no_stream_is_expected_any_will_do() -> None:
    assert position_of(b"other.17") == 17


@given(st.binary(max_size=40))
def test_hostile_bytes_are_no_position_and_no_crash(value: bytes) -> None:
    position = position_of(value, "abc")
    assert position is None or 0 <= position < 10**15
