"""Sessions of the admin address's page: who has shown the key once has a cookie for twelve hours.

    cookie    base64url( expiry, 8 bytes · nonce, 16 bytes · HMAC-SHA256 of these and of the key, 32 bytes )
    token     HMAC-SHA256 of the nonce, hexadecimal: what a change has to name beside the cookie (CSRF)

Both are made with a secret of this process, so that they are useless after a restart, and after the key was changed.
Only a page of ours can read the token: it stands in answers that no other origin's page can read.
"""

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_bytes
from time import time
from typing import Final

from trioproxy.wire.headers import Headers

LASTS_S: Final = 12 * 3600
NAME: Final = b"trioproxy_session"
_ATTRIBUTES: Final = b"Path=/; HttpOnly; SameSite=Strict"
_EXPIRY_BYTES: Final = 8
_NONCE_BYTES: Final = 16
_SIGNATURE_BYTES: Final = 32
_MAX_ENDED: Final = 1000
GONE: Final = NAME + b"=; Max-Age=0; " + _ATTRIBUTES
"""What takes the cookie away, as `set-cookie` says it."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session: its nonce, its token, and when it ends, in seconds since 1970."""

    nonce: bytes
    token: str
    expires: int


class Sessions:
    """Those of one process. None is kept but those that were ended before their time."""

    def __init__(self, wall_clock: Callable[[], float] = time) -> None:
        self._secret = token_bytes(32)
        self._wall_clock = wall_clock
        self._ended: dict[bytes, int] = {}

    def begin(self, key: bytes) -> tuple[bytes, Session]:
        """A new session of somebody who has shown this key: what `set-cookie` says, and the session."""
        expires = int(self._wall_clock()) + LASTS_S
        nonce = token_bytes(_NONCE_BYTES)
        said = expires.to_bytes(_EXPIRY_BYTES, "big") + nonce
        value = urlsafe_b64encode(said + self._signature(said, key))
        return b"%b=%b; Max-Age=%d; %b" % (NAME, value, LASTS_S, _ATTRIBUTES), self._session(nonce, expires)

    def find(self, headers: Headers, key: bytes) -> Session | None:
        """The session whose cookie is shown, if it goes on."""
        for name, value in headers:
            if name == b"cookie":
                for pair in value.split(b";"):
                    cookie, _, text = pair.strip().partition(b"=")
                    session = self._read(text, key) if cookie == NAME else None
                    if session is not None:
                        return session
        return None

    def end(self, session: Session) -> None:
        """It is over, whoever still has its cookie. Of so many that were ended only the last are remembered; who could
        end them has the key."""
        now = self._wall_clock()
        self._ended = {nonce: expires for nonce, expires in self._ended.items() if expires > now}
        self._ended[session.nonce] = session.expires
        if len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _read(self, text: bytes, key: bytes) -> Session | None:
        try:
            data = urlsafe_b64decode(text)
        except (binascii.Error, ValueError):
            return None
        said, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if len(said) != _EXPIRY_BYTES + _NONCE_BYTES:
            return None
        if not hmac.compare_digest(signature, self._signature(said, key)):
            return None
        expires, nonce = int.from_bytes(said[:_EXPIRY_BYTES], "big"), said[_EXPIRY_BYTES:]
        if self._wall_clock() >= expires or nonce in self._ended:
            return None
        return self._session(nonce, expires)

    def _session(self, nonce: bytes, expires: int) -> Session:
        return Session(nonce, hmac.digest(self._secret, b"token " + nonce, "sha256").hex(), expires)

    def _signature(self, said: bytes, key: bytes) -> bytes:
        return hmac.digest(self._secret, b"session " + said + key, "sha256")
