"""Tokens for those that cannot send `authorization`: a browser's EventSource, a WebSocket of a page. PURE.

A token says who made it (the hash that stands for a caller, see `wire/sharing`) and until when it opens streams. Only
who has the secret can make one, or read what is in it: the hash of a key that is easy to guess is nobody's business.
No key is inside.

    base64url( expiry, 8 bytes · nonce, 12 bytes · caller, 32 bytes, masked · HMAC-SHA256 of these, 32 bytes )

The mask is an HMAC of the nonce, under the same secret; what is signed and what makes the mask differ in their first
word. Used by `web/tokens`.
"""

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
_SIZE = _EXPIRY_BYTES + NONCE_BYTES + 2 * _HASH_BYTES
_TEXT = re.compile(rf"[A-Za-z0-9_-]{{{4 * _SIZE // 3}}}")  # a multiple of three bytes: no two texts for one token


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says: its maker's hash (hexadecimal, None for a caller without credentials), the second of its
    expiry since 1970, and the nonce that tells it from all others."""

    caller: str | None
    expires: int
    nonce: bytes

    @property
    def name(self) -> str:
        """What may be kept of it where its streams are: no one can make the token from that."""
        return self.nonce.hex()


class _Wish(msgspec.Struct):
    expires_in: int | None = None


_decode_wish = msgspec.json.Decoder(_Wish).decode


def seal(token: Token, secret: bytes) -> str:
    """The token as text for a URL."""
    caller = _NOBODY if token.caller is None else bytes.fromhex(token.caller)
    said = token.expires.to_bytes(_EXPIRY_BYTES, "big") + token.nonce + _masked(caller, token.nonce, secret)
    return urlsafe_b64encode(said + _signature(said, secret)).decode("ascii")


def unseal(text: str, secret: bytes) -> Token | None:
    """What the text says; None if this secret has not made it. Whether it has expired is for the caller to see."""
    if _TEXT.fullmatch(text) is None:
        return None
    data = urlsafe_b64decode(text)
    said, signature = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if not hmac.compare_digest(signature, _signature(said, secret)):
        return None
    nonce = said[_EXPIRY_BYTES:][:NONCE_BYTES]
    caller = _masked(said[_EXPIRY_BYTES + NONCE_BYTES :], nonce, secret)
    return Token(
        caller=None if caller == _NOBODY else caller.hex(),
        expires=int.from_bytes(said[:_EXPIRY_BYTES], "big"),
        nonce=nonce,
    )


def wished_s(body: bytes) -> int:
    """For how many seconds the token is wished that this body asks for: `{"expires_in": N}`, or nothing. Raises
    BadRequest."""
    try:
        wish = _decode_wish(body) if body else _Wish()
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest('The request body has to be {"expires_in": SECONDS}, or empty.') from None
    wished = USUAL_S if wish.expires_in is None else wish.expires_in
    if not 1 <= wished <= LONGEST_S:
        raise BadRequest(f"'expires_in' has to be 1 to {LONGEST_S} seconds.", param="expires_in")
    return wished


def render_token(text: str, expires_at: str) -> bytes:
    """The answer to who asked for a token."""
    return msgspec.json.encode({"token": text, "expires_at": expires_at})


def _masked(caller: bytes, nonce: bytes, secret: bytes) -> bytes:
    mask = hmac.digest(secret, b"mask " + nonce, "sha256")
    return bytes(one ^ other for one, other in zip(caller, mask, strict=True))


def _signature(said: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"sign " + said, "sha256")
