"""The credential that a request shows, and a request without any. PURE.

A client shows its key as `authorization: Bearer KEY` or as `x-api-key: KEY`; a page that opens a WebSocket can do it
only among the subprotocols (see `upgrade`). Used by `gate` and, to keep virtual keys from going upstream, by `web`.

Sources: RFC 6750 section 2.1 (bearer tokens), RFC 9110 section 11.4 (credentials), Anthropic's API reference.
"""

import re
from typing import Final

from trioproxy.errors import InvalidKey
from trioproxy.wire.headers import Headers
from trioproxy.wire.upgrade import secrets_shown, without_secrets

NAMES: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""The fields that hold a client's credential; the last is Azure's."""

_VIRTUAL: Final = b"tpk_"
"""How the secrets of virtual keys begin."""

_TENANCY: Final = frozenset({b"openai-organization", b"openai-project"})
"""Whose account pays; beside a key of the proxy's own that is not for its clients to say."""
_BEARER = re.compile(rb"bearer[ \t]+(.*)", re.IGNORECASE | re.DOTALL)
_SEND = "send your key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"


def key_shown(headers: Headers) -> bytes:
    """The one key that a request shows; showing the same one several times is no harm. Raises InvalidKey."""
    keys = {_key_in(name, value.strip()) for name, value in headers if name in NAMES}
    keys.update(secrets_shown(headers))
    if not keys:
        raise InvalidKey(f"There is no key in the request; {_SEND}.")
    if len(keys) > 1:
        raise InvalidKey(f"The request shows several different keys; {_SEND}, once.")
    (key,) = keys
    return key


def without_credentials(headers: Headers) -> Headers:
    """The fields without what the client shows to us: it is nobody else's business. Nor is a virtual key that stands
    where none is looked for."""
    shown = [header for header in headers if header[0] not in NAMES and header[0] not in _TENANCY]
    return [header for header in without_secrets(shown) if _VIRTUAL not in header[1]]


def _key_in(name: bytes, value: bytes) -> bytes:
    if name != b"authorization":
        return value
    bearer = _BEARER.fullmatch(value)
    if bearer is None:
        raise InvalidKey(f"The scheme of 'authorization' is none of ours; {_SEND}.")
    return bearer[1].strip()
