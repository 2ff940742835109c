"""Tokens: who has the secret reads what was said, nobody else makes one, and nothing of the caller shows."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.token import LONGEST_S, NONCE_BYTES, USUAL_S, Token, render_token, seal, unseal, wished_s

SECRET = bytes(range(32))
CALLER = sha256(b"authorization:Bearer me").hexdigest()
TOKEN = Token(caller=CALLER, expires=1_800_000_000, nonce=bytes(range(NONCE_BYTES)))

tokens = st.builds(
    Token,
    caller=st.one_of(st.none(), st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)),
    expires=st.integers(0, 2**64 - 1),
    nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
)


@given(tokens, st.binary(min_size=32, max_size=32))
def test_what_was_said_is_read_by_who_has_the_secret_alone(token: Token, other: bytes) -> None:
    text = seal(token, SECRET)
    assert text.replace("-", "").replace("_", "").isalnum()
    assert unseal(text, SECRET) == token
    assert other == SECRET or unseal(text, other) is None


@given(tokens, st.integers(0, 8 * 84 - 1))
def test_a_token_with_one_bit_changed_is_none(token: Token, bit: int) -> None:
    text = seal(token, SECRET)
    data = bytearray(urlsafe_b64decode(text))
    data[bit // 8] ^= 1 << bit % 8
    assert unseal(urlsafe_b64encode(bytes(data)).decode(), SECRET) is None


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]{112}")))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    assert unseal(text, SECRET) is None


@pytest.mark.parametrize("added", ["=", " ", "\n", "!", "A"])
def test_a_token_has_one_spelling(added: str) -> None:
    text = seal(TOKEN, SECRET)
    assert [unseal(one, SECRET) for one in (text + added, added + text, text[:9] + added + text[9:])] == [None] * 3


def test_nothing_of_the_caller_shows_and_no_two_tokens_are_alike() -> None:
    text = seal(TOKEN, SECRET)
    data = urlsafe_b64decode(text)
    assert bytes.fromhex(CALLER) not in data
    other = seal(Token(CALLER, TOKEN.expires, bytes(NONCE_BYTES)), SECRET)
    others = urlsafe_b64decode(other)
    assert data[8 + NONCE_BYTES :][:32] != others[8 + NONCE_BYTES :][:32]
    assert len(seal(Token(None, 0, TOKEN.nonce), SECRET)) == len(text)


@pytest.mark.parametrize(
    ("body", "wished"),
    [
        (b"", USUAL_S),
        (b"{}", USUAL_S),
        (b'{"expires_in":null}', USUAL_S),
        (b'{"expires_in": 5, "more": 1}', 5),
        (b'{"expires_in":%d}' % LONGEST_S, LONGEST_S),
    ],
)
def test_how_long_a_token_is_wished(body: bytes, wished: int) -> None:
    assert wished_s(body) == wished


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"5",
        b"{",
        b'{"expires_in":"5"}',
        b'{"expires_in":0}',
        b'{"expires_in":-1}',
        b'{"expires_in":1.5}',
        b'{"expires_in":%d}' % (LONGEST_S + 1),
        b'{"expires_in":1%s}' % (b"0" * 400),
        b'{"x":' + b"[" * 4000,
        b'{"expires_in":\xff}',
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        wished_s(body)


def test_the_answer_is_json() -> None:
    assert json.loads(render_token("t", "2027-01-15T08:00:00Z")) == {"token": "t", "expires_at": "2027-01-15T08:00:00Z"}
