"""The head of a request, read so that no other reader can see another request in the same bytes. PURE.

A proxy and an origin that disagree on where a request ends, or on whose it is, let one client put a request into
another's mouth. So what two readers may read in two ways is not repaired here, as HTTP would often allow, but refused:
the client gets the status, the connection is closed, and nothing goes to an origin.

Sources: RFC 9112 sections 2.2 (lines), 2.3 (version), 3 (request line), 3.2 (target, host), 5 (fields, folded lines),
6.1 to 6.3 (codings, lengths); RFC 9110 sections 5.5 (values), 5.6.2 (tokens), 7.2 (host).
"""

import re
from typing import NamedTuple, NoReturn

from trioproxy.errors import (
    BadRequest,
    CodingNotSupported,
    InvalidPath,
    MethodNotAllowed,
    UriTooLong,
    VersionNotSupported,
)

MAX_TARGET_BYTES = 8192
"""Longest request target (RFC 9112 section 3 recommends to take at least 8,000 bytes)."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods that are served at all."""

_TOKEN_CHARACTERS = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"
_TOKEN = re.compile(rb"%b+" % _TOKEN_CHARACTERS)
_REQUEST_LINE = re.compile(rb"(%b+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])" % _TOKEN_CHARACTERS)
# One line each: a value holds no CR or LF. Bytes from 0x80 on are opaque, and allowed.
_FIELD = re.compile(rb"^(%b+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n" % _TOKEN_CHARACTERS, re.MULTILINE)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})
# Readers in the manner of CGI take these for the fields with hyphens.
_IN_DISGUISE = frozenset({b"content_length", b"transfer_encoding"})
_BLANKS = b" \t"

Fields = list[tuple[bytes, bytes]]


class RequestHead(NamedTuple):
    """A head that was read: the version is b"1.0" or b"1.1", the fields' names are in lower case."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields


def read_head(raw: bytes) -> RequestHead:
    """Read a whole head, from the request line to the empty line. Raises BadRequest, or a kind of it, for one that is
    not valid HTTP/1.x, that two readers could read differently, or that asks for what is not served."""
    line, _, rest = raw.partition(b"\r\n")
    method, target, version = read_request_line(line)
    if not raw.endswith(b"\r\n\r\n"):
        raise BadRequest("The request's head does not end in an empty line.")
    fields = read_fields(rest[:-2])
    _check_host(_values(fields, b"host"), version)
    _check_framing(fields, version)
    return RequestHead(method, target, version, fields)


def read_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, target and version of a request line, without its line end. Raises as `read_head` does."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest("The request line is not 'METHOD /path HTTP/1.1'.")
    method, target, version = found.groups()
    if version not in (b"1.1", b"1.0"):
        raise VersionNotSupported("This is an HTTP/1.1 server; HTTP/2 is for the load balancer.")
    if len(target) > MAX_TARGET_BYTES:
        raise UriTooLong("The request's URL is too long.")
    if method in _NOT_SERVED:
        raise MethodNotAllowed("This method is not allowed here.", allow=", ".join(METHODS))
    # No authority, no whole URL, no `*`: where a request goes is ours to say.
    if target[:1] != b"/" or b"#" in target:
        raise InvalidPath("The request target has to be a path, without scheme, host or fragment.")
    return method, target, version


def read_fields(block: bytes) -> Fields:
    """Read field lines, each with its CR LF. Raises BadRequest for a line that is no field."""
    found = _FIELD.findall(block)
    if len(found) != block.count(b"\n"):
        raise BadRequest(_what_is_wrong(block))
    return [(name.lower(), value.strip(_BLANKS)) for name, value in found]


def _what_is_wrong(block: bytes) -> str:
    """What to say of the first line that is no field."""
    for line in block.splitlines(keepends=True):
        if _FIELD.fullmatch(line) is None:
            if line[:1] in _BLANKS:
                return "A header line begins with a blank; folded lines are not taken."
            if line.partition(b":")[0].rstrip(_BLANKS) != line.partition(b":")[0]:
                return "There is a blank before the colon of a header field."
            break
    return "A header line is no field: an odd name, a control character, or a line end that is not CR LF."


def _values(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


def _check_host(hosts: list[bytes], version: bytes) -> None:
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise BadRequest("A request needs one host field.")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise BadRequest("The host field is not 'host' or 'host:port'.")


def _check_framing(fields: Fields, version: bytes) -> None:
    """Where the body ends is said once, in one way, or not at all."""
    if any(name in _IN_DISGUISE for name, _ in fields):
        raise BadRequest("A header field is named almost like the one that says how long the body is.")
    lengths = _values(fields, b"content-length")
    codings = _values(fields, b"transfer-encoding")
    if len(lengths) + len(codings) > 1 or (codings and version == b"1.0"):
        raise BadRequest("The length of the request's body is ambiguous: send content-length or transfer-encoding.")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        raise BadRequest("The content-length is not a number of at most 18 digits.")
    if codings and codings[0].lower() != b"chunked":
        _refuse_coding(codings[0])


def _refuse_coding(value: bytes) -> NoReturn:
    """A coding that is understood but not known is 501; chunked twice, or not last, or no list of codings at all, 400
    (RFC 9112 sections 6.1 and 6.3)."""
    codings = [coding.strip(_BLANKS).lower() for coding in value.split(b",")]
    if b"chunked" in codings[:-1] or not all(map(_TOKEN.fullmatch, codings)):
        raise BadRequest("The transfer-encoding is not 'chunked'.")
    raise CodingNotSupported("No transfer coding but chunked is understood here.")
