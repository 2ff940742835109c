"""How a command says which key it has proven without saying the key, and how the service sees whether it has that one.

The two may have different environments, or read different files: then the key that was proven is not the one that
requests would carry. What is said is a digest with the key in it, of a number that is new each time.
"""

import hmac
import re
from hashlib import sha256
from secrets import token_hex
from typing import Final

from trioproxy.config.schema import Config
from trioproxy.config.secrets import Secret

_SAID: Final = re.compile(r"(\S{1,253}) ([0-9a-f]{32}) ([0-9a-f]{64})")


def proven(upstream: str, key: Secret) -> str:
    """What the command says of an upstream's key: one line of ASCII, for a header."""
    nonce = token_hex(16)
    return f"{upstream} {nonce} {_digest(nonce, key)}"


def has_proven(config: Config, said: str) -> bool:
    """Whether a configuration has this key for this upstream. False for what cannot be read."""
    found = _SAID.fullmatch(said)
    if found is None:
        return False
    name, nonce, digest = found.groups()
    keys = [key for upstream in config.upstream if upstream.name == name for key in upstream.api_key]
    return any(hmac.compare_digest(_digest(nonce, key), digest) for key in keys)


def _digest(nonce: str, key: Secret) -> str:
    return hmac.new(key.get_secret_value().encode("ascii"), nonce.encode("ascii"), sha256).hexdigest()
