"""The dashboard's files, from a table that is made once: what is not in it cannot be asked for, whatever the path says.

The page may load nothing but these, and talk to nobody but this address and the data address.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from trioproxy.web.admin.desk import AdminDesk, Route
from trioproxy.web.connection import Incoming
from trioproxy.wire.headers import find

FOLDER: Final = Path(__file__).parent / "page"
INDEX: Final = "index.html"
STATIC: Final = "/static/"
_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is served."""

    content_type: bytes
    body: bytes
    etag: bytes


def files_in(folder: Path) -> dict[str, File]:
    """Every file of a kind that a page is made of, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): _file(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES and path.is_file()
    }


def _file(path: Path) -> File:
    body = path.read_bytes()
    return File(_TYPES[path.suffix], body, b'"%b"' % sha256(body).hexdigest()[:32].encode("ascii"))


def serving(file: File) -> Route:
    """The route of one file."""

    async def route(desk: AdminDesk, incoming: Incoming) -> None:
        urls = desk.staff.data_urls(host_in(incoming))
        policy = _POLICY.format("".join(f" {url}" for url in urls))
        is_known = file.etag in [tag.strip() for tag in (find(incoming.headers, b"if-none-match") or b"").split(b",")]
        head = [
            (b"cache-control", b"no-cache"),  # kept, and asked about each time
            (b"etag", file.etag),
            (b"content-security-policy", policy.encode("ascii")),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"x-request-id", incoming.exchange.request_id.encode("ascii")),
        ]
        if is_known:
            incoming.answer.head(304, head)
            await incoming.answer.finish()
            return
        length = b"%d" % len(file.body)
        incoming.answer.head(200, [(b"content-type", file.content_type), (b"content-length", length), *head])
        await incoming.answer.finish(file.body)

    return route


def host_in(incoming: Incoming) -> str:
    """What this machine is called by who asks, without a port."""
    found = _HOST.fullmatch(find(incoming.headers, b"host") or b"")
    return "127.0.0.1" if found is None else found[1].decode("ascii").strip("[]")
