"""Whether a request comes from a page of another site. PURE.

Any web page can make a browser send requests to a loopback port. The browser says so: in `origin`, and (to loopback and
over TLS) in `sec-fetch-site`, which also comes with an image's or a script's request, and which no script can set.

Sources: Fetch, "Origin header"; Fetch Metadata Request Headers. Used by `web`.
"""

from urllib.parse import urlsplit

from trioproxy.wire.headers import Headers, find

_FOREIGN = (b"cross-site", b"same-site")
"""The same site, but another origin: another port of this machine, say."""


def is_foreign(headers: Headers) -> bool:
    """Whether a page of another origin sent this. A request that says nothing comes from no page, or from our own."""
    site = find(headers, b"sec-fetch-site")
    if site is not None:
        return site.strip().lower() in _FOREIGN
    return has_foreign_origin(headers)


def has_foreign_origin(headers: Headers) -> bool:
    """Whether `origin` names another site than the request's own `host`. Also a page that a link leads to has none."""
    origin = find(headers, b"origin")
    if origin is None:
        return False
    try:
        authority = urlsplit(origin).netloc.lower()
    except ValueError:
        authority = b""
    return authority != (find(headers, b"host") or b"").lower()
