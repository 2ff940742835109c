"""Tokens for those that cannot send `authorization`: a browser's EventSource, a WebSocket of a page. PURE.

A token says who made it (the hash that stands for a caller, see `wire/sharing`), until when it opens streams and, if it
was made for one, of which model alone. Only who has the secret can make one, or read what is in it: the hash of a key
that is easy to guess is nobody's business. No key is inside.

    base64url( expiry, 8 bytes · nonce, 12 bytes · (caller, 32 bytes · model), masked · HMAC-SHA256 of these, 32 bytes )

The mask are HMACs of the nonce and a block's number, under the same secret; what is signed and what makes the mask
differ in their first word. Used by `web/tokens`.
"""

import binascii
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import msgspec

from trioproxy.errors import BadRequest

NONCE_BYTES = 12
USUAL_S = 60
LONGEST_S = 600
"""For how many seconds a token opens streams, where nothing is wished and at most."""

_EXPIRY_BYTES = 8
_HASH_BYTES = 32
_NOBODY = bytes(_HASH_BYTES)
_LEAST_BYTES = _EXPIRY_BYTES + NONCE_BYTES + 2 * _HASH_BYTES
_MOST_MODEL_BYTES = 256
_TEXT = re.compile(rf"[A-Za-z0-9_-]{{{4 * _LEAST_BYTES // 3},{4 * (_LEAST_BYTES + _MOST_MODEL_BYTES) // 3 + 1}}}")


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says: its maker's hash (hexadecimal, None for a caller without credentials), the second of its
    expiry since 1970, the nonce that tells it from all others, and the model that it is for (None: any)."""

    caller: str | None
    expires: int
    nonce: bytes
    model: str | None = None

    @property
    def name(self) -> str:
        """What may be kept of it where its streams are: no one can make the token from that."""
        return self.nonce.hex()


class _Wish(msgspec.Struct):
    expires_in: int | None = None
    model: str | None = None


_decode_wish = msgspec.json.Decoder(_Wish).decode


def seal(token: Token, secret: bytes) -> str:
    """The token as text for a URL."""
    caller = _NOBODY if token.caller is None else bytes.fromhex(token.caller)
    model = b"" if token.model is None else token.model.encode()
    said = token.expires.to_bytes(_EXPIRY_BYTES, "big") + token.nonce + _masked(caller + model, token.nonce, secret)
    return _text(said + _signature(said, secret))


def unseal(text: str, secret: bytes) -> Token | None:
    """What the text says; None if this secret has not made it. Whether it has expired is for the caller to see."""
    if _TEXT.fullmatch(text) is None:
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:  # no number of bytes is that long
        return None
    if _text(data) != text:  # no two texts for one token: its last character may have bits to spare
        return None
    said, signature = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if not hmac.compare_digest(signature, _signature(said, secret)):
        return None
    nonce = said[_EXPIRY_BYTES:][:NONCE_BYTES]
    unmasked = _masked(said[_EXPIRY_BYTES + NONCE_BYTES :], nonce, secret)
    caller, model = unmasked[:_HASH_BYTES], unmasked[_HASH_BYTES:]
    return Token(
        caller=None if caller == _NOBODY else caller.hex(),
        expires=int.from_bytes(said[:_EXPIRY_BYTES], "big"),
        nonce=nonce,
        model=model.decode() or None,
    )


def wished(body: bytes) -> tuple[int, str | None]:
    """For how many seconds, and for which model alone, the token is wished that this body asks for:
    `{"expires_in": N, "model": NAME}`, some of it, or nothing. Raises BadRequest."""
    try:
        wish = _decode_wish(body) if body else _Wish()
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest('The request body has to be {"expires_in": SECONDS, "model": NAME}, or empty.') from None
    wished_s = USUAL_S if wish.expires_in is None else wish.expires_in
    if not 1 <= wished_s <= LONGEST_S:
        raise BadRequest(f"'expires_in' has to be 1 to {LONGEST_S} seconds.", param="expires_in")
    if wish.model is not None and not 1 <= len(wish.model.encode()) <= _MOST_MODEL_BYTES:
        raise BadRequest(f"'model' has to be a model's name, of 1 to {_MOST_MODEL_BYTES} bytes.", param="model")
    return wished_s, wish.model


def render_token(text: str, expires_at: str) -> bytes:
    """The answer to who asked for a token."""
    return msgspec.json.encode({"token": text, "expires_at": expires_at})


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _masked(said: bytes, nonce: bytes, secret: bytes) -> bytes:
    blocks = range(-(-len(said) // _HASH_BYTES))
    mask = b"".join(hmac.digest(secret, b"mask %b%d" % (nonce, block), "sha256") for block in blocks)
    return bytes(one ^ other for one, other in zip(said, mask, strict=False))


def _signature(said: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"sign " + said, "sha256")
