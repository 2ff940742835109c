"""Tokens: who has the secret reads what was said, nobody else makes one, and nothing of the caller shows."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from string import ascii_lowercase, ascii_uppercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.token import LONGEST_S, NONCE_BYTES, USUAL_S, Token, render_token, seal, unseal, wished

SECRET = bytes(range(32))
CALLER = sha256(b"authorization:Bearer me").hexdigest()
ALPHABET = ascii_uppercase + ascii_lowercase + digits + "-_"
TOKEN = Token(caller=CALLER, expires=1_800_000_000, nonce=bytes(range(NONCE_BYTES)))

tokens = st.builds(
    Token,
    caller=st.one_of(st.none(), st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)),
    expires=st.integers(0, 2**64 - 1),
    nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    model=st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)),
)


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@given(tokens, st.binary(min_size=32, max_size=32))
def test_what_was_said_is_read_by_who_has_the_secret_alone(token: Token, other: bytes) -> None:
    text = seal(token, SECRET)
    assert text.replace("-", "").replace("_", "").isalnum()
    assert unseal(text, SECRET) == token
    assert other == SECRET or unseal(text, other) is None


@given(tokens, st.data())
def test_a_token_with_one_bit_changed_is_none(token: Token, data: st.DataObject) -> None:
    changed = bytearray(decoded(seal(token, SECRET)))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    assert unseal(urlsafe_b64encode(bytes(changed)).decode().rstrip("="), SECRET) is None


@given(tokens, st.data())
def test_a_token_with_one_character_changed_is_none(token: Token, data: st.DataObject) -> None:
    text = seal(token, SECRET)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda one: one != text[place]))
    assert unseal(text[:place] + other + text[place + 1 :], SECRET) is None


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]{112,460}")))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    assert unseal(text, SECRET) is None


@pytest.mark.parametrize("added", ["=", "==", " ", "\n", "!", "A", "AA"])
@pytest.mark.parametrize("model", [None, "m", "m2", "gpt"])
def test_a_token_has_one_spelling(model: str | None, added: str) -> None:
    text = seal(replace(TOKEN, model=model), SECRET)
    assert unseal(text, SECRET) is not None
    assert [unseal(one, SECRET) for one in (text + added, added + text, text[:9] + added + text[9:])] == [None] * 3


def test_the_bits_that_no_byte_needs_are_not_free() -> None:
    text = seal(replace(TOKEN, model="m"), SECRET)  # 85 bytes: the last character has two bits of them
    last = ALPHABET.index(text[-1])
    same = [text[:-1] + ALPHABET[last | spare] for spare in range(1, 16)]
    assert {decoded(one) for one in same} == {decoded(text)}
    assert [unseal(one, SECRET) for one in same] == [None] * 15


def test_nothing_of_the_caller_shows_and_no_two_tokens_are_alike() -> None:
    text = seal(TOKEN, SECRET)
    data = decoded(text)
    assert bytes.fromhex(CALLER) not in data
    assert b"a-model-with-a-name-beyond-one-block" not in decoded(
        seal(replace(TOKEN, model="a-model-with-a-name-beyond-one-block"), SECRET)
    )
    other = seal(Token(CALLER, TOKEN.expires, bytes(NONCE_BYTES)), SECRET)
    others = urlsafe_b64decode(other)
    assert data[8 + NONCE_BYTES :][:32] != others[8 + NONCE_BYTES :][:32]
    assert len(seal(Token(None, 0, TOKEN.nonce), SECRET)) == len(text)


def test_no_part_of_the_mask_is_used_twice() -> None:
    model = "m" * 32
    masked = decoded(seal(replace(TOKEN, model=model), SECRET))[8 + NONCE_BYTES : -32]
    told = bytes(one ^ other for one, other in zip(masked[:32], masked[32:], strict=True))
    assert told != bytes(one ^ other for one, other in zip(bytes.fromhex(CALLER), model.encode(), strict=True))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (USUAL_S, None)),
        (b"{}", (USUAL_S, None)),
        (b'{"expires_in":null,"model":null}', (USUAL_S, None)),
        (b'{"expires_in": 5, "more": 1}', (5, None)),
        (b'{"expires_in":%d}' % LONGEST_S, (LONGEST_S, None)),
        (b'{"model":"gpt-5"}', (USUAL_S, "gpt-5")),
        ('{"expires_in":5,"model":"模型"}'.encode(), (5, "模型")),
        (b'{"model":"%s"}' % (b"m" * 256), (USUAL_S, "m" * 256)),
    ],
)
def test_for_how_long_and_which_model_a_token_is_wished(body: bytes, expected: tuple[int, str | None]) -> None:
    assert wished(body) == expected


def test_a_token_for_the_longest_name_can_be_read() -> None:
    _, model = wished(b'{"model":"%s"}' % (b"m" * 256))
    token = replace(TOKEN, model=model)
    assert unseal(seal(token, SECRET), SECRET) == token


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
        b'{"model":""}',
        b'{"model":5}',
        b'{"model":["m"]}',
        b'{"model":"%s"}' % (b"m" * 257),
        b'{"model":"\\ud800"}',
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        wished(body)


def test_the_answer_is_json() -> None:
    assert json.loads(render_token("t", "2027-01-15T08:00:00Z")) == {"token": "t", "expires_at": "2027-01-15T08:00:00Z"}
