"""The lines between the pieces of a chunked request body, read as strictly as its head. PURE.

A size that overflows somewhere else, or a line end that only some take for one, would move the end of the body, and
with it the beginning of the next request.

Sources: RFC 9112 sections 7.1 (sizes), 7.1.1 (extensions: ignored, but bounded), 7.1.2 (trailers: not passed on).
"""

import re

from trioproxy.errors import BadRequest
from trioproxy.wire.request_head import read_fields

MAX_LINE_BYTES = 4096
"""Longest line between two pieces."""
MAX_EXTRA_BYTES = 16384
"""How much one body may hold of what nobody reads: extensions and trailers."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t\x20-\x7e]*)?")
# A trailer must not say what had to be known before the body (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host"})


def read_size(line: bytes) -> tuple[int, int]:
    """The size of the next chunk, 0 for the last, and the length of the line's extension; both in bytes.

    Raises BadRequest for a line (without its line end) that is none, also if it has more than 16 digits.
    """
    found = _SIZE_LINE.fullmatch(line)
    if found is None:
        raise BadRequest("The request's body holds a chunk without a valid size.")
    return int(found[1], 16), len(found[2] or b"")


def check_trailer(line: bytes) -> None:
    """Raise BadRequest for a trailer line (without its line end) that is no field, or frames the message."""
    if any(name in _NOT_IN_TRAILERS for name, _ in read_fields(line + b"\r\n")):
        raise BadRequest("The request's length or host cannot stand behind its body.")
