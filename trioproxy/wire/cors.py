"""What a browser has to be told before it lets a page of another origin use an answer. PURE.

A page whose origin is listed may send what a client of ours sends, and may read the fields that our answers have.
There are no cookies here, so what a browser calls credentials is never allowed; a key is sent like any other field.
`access-control-*` of an origin server's are not passed on (see `wire/headers`): they would speak of our address.

Sources: Fetch, section "HTTP CORS protocol". Used by `web/visitors`.
"""

import re
from typing import Final

from trioproxy.wire.headers import Headers, find
from trioproxy.wire.request_head import METHODS

VARY: Final = (b"vary", b"origin")
"""On every answer that another origin would have got with other fields."""

_EXPOSED: Final = (
    b"x-request-id",
    *(b"x-ratelimit-%b-%b" % (what, kind) for kind in (b"requests", b"tokens") for what in (b"limit", b"remaining")),
    b"x-ratelimit-reset-requests",
    b"x-ratelimit-reset-tokens",
    b"retry-after",
    b"retry-after-ms",
    b"x-should-retry",
    b"server-timing",
    b"x-trioproxy-attempts",
    b"x-trioproxy-continue",
    b"x-trioproxy-request-id",
    b"x-trioproxy-stream",
    b"x-trioproxy-upstream",
)
_MAY_BE_SENT: Final = re.compile(
    rb"authorization|x-api-key|api-key|content-type|user-agent|idempotency-key|last-event-id|x-request-id|traceparent"
    rb"|tracestate|(?:x-stainless|openai|anthropic|x-trioproxy)-[a-z0-9-]{1,100}"
)
_KEPT_S: Final = 600
"""How long a browser may go by what it was told before a request. What it then sends is looked at all the same."""
_METHODS: Final = ", ".join(method for method in METHODS if method != "OPTIONS").encode("ascii")


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks whether a page may send a request, before it sends that."""
    return (
        method == "OPTIONS"
        and find(headers, b"origin") is not None
        and find(headers, b"access-control-request-method") is not None
    )


def listed_origin(headers: Headers, origins: frozenset[bytes]) -> bytes | None:
    """The origin of the page that sent this, if it is one of `origins` (lower case); else None."""
    origin = find(headers, b"origin")
    return origin if origin is not None and origin.lower() in origins else None


def preflight_fields(headers: Headers, origins: frozenset[bytes]) -> Headers | None:
    """What a preflight is answered, beside `answer_fields`; None for an origin that is not listed."""
    if listed_origin(headers, origins) is None:
        return None
    asked = b",".join(value for name, value in headers if name == b"access-control-request-headers")
    names = dict.fromkeys(name.strip().lower() for name in asked.split(b","))
    allowed = [name for name in names if _MAY_BE_SENT.fullmatch(name)]
    fields = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", b"%d" % _KEPT_S)]
    return [*fields, (b"access-control-allow-headers", b", ".join(allowed))] if allowed else fields


def answer_fields(headers: Headers, origins: frozenset[bytes]) -> Headers:
    """What every answer has, whatever its status, if the request's origin is listed."""
    origin = listed_origin(headers, origins)
    if origin is None:
        return []
    exposed = b", ".join(_EXPOSED)
    return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", exposed), VARY]
