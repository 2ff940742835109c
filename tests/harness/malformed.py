"""Requests that no server should try to understand: the corpus. Each is refused before anything is forwarded.

From RFC 9112 (what a server has to refuse, or may), and from the known families of request smuggling: two framings in
one message (CL.TE, TE.CL), a coding that only one reader sees (TE.TE), lengths and sizes that are numbers to some
parsers only, line ends that are none, names that are almost the right ones.

Where two readers would disagree on the end of the request, `SMUGGLED` stands where one of them looks for the next one.
"""

from typing import Final, NamedTuple


class Malformed(NamedTuple):
    """Bytes that are complete: whoever gets them can answer without waiting for more. `status` is the answer's."""

    name: str
    raw: bytes
    status: int


SMUGGLED: Final = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
_END: Final = b"\r\n\r\n"
_GET: Final = b"GET /v1/models HTTP/1.1\r\n"
_HOST: Final = b"Host: localhost\r\n"
_LAST: Final = b"0\r\n\r\n"


def _line(line: bytes) -> bytes:
    """A request with this request line."""
    return line + b"\r\n" + _HOST + b"\r\n"


def _field(field: bytes) -> bytes:
    """A request with this field, given with its line end."""
    return _GET + _HOST + field + b"\r\n"


def _host(*values: bytes, version: bytes = b"1.1") -> bytes:
    """A request with these hosts."""
    return b"GET /v1/models HTTP/%b\r\n%b\r\n" % (version, b"".join(b"Host: %b\r\n" % value for value in values))


def _body(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """An upload with these fields, and a smuggled request behind its body."""
    lines = b"\r\n".join(fields)
    return b"POST /v1/files HTTP/%b\r\n%b%b\r\n\r\n%b%b" % (version, _HOST, lines, body, SMUGGLED)


def _length(value: bytes) -> bytes:
    """An upload of five bytes whose length is told in an odd way."""
    return _body(b"Content-Length: " + value, body=b"abcde")


def _coded(line: bytes, *more: bytes) -> bytes:
    """An upload in chunks whose coding is told in an odd way; another reader takes its length."""
    return _body(line, *more, body=_LAST)


def _chunks(body: bytes, behind: bytes = SMUGGLED) -> bytes:
    """A chat request, held until it is whole, with a broken body."""
    return b"POST /v1/chat/completions HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body + behind


_REQUEST_LINES = [
    Malformed("no HTTP", b"hello\r\n\r\n", 400),
    Malformed("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    Malformed("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    Malformed("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Malformed("HTTP/2's preface, cut short", b"PRI * HTTP/2.0\r\n", 505),
    Malformed("an HTTP/2 frame", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18), 400),
    Malformed("HTTP/0.9", b"GET /v1/models\r\n", 400),
    Malformed("HTTP/0.9 with an empty version", b"GET /v1/models \r\n\r\n", 400),
    Malformed("version 0.9", _line(b"GET /v1/models HTTP/0.9"), 505),
    Malformed("version 1.2", _line(b"GET /v1/models HTTP/1.2"), 505),
    Malformed("version 2.0", _line(b"GET /v1/models HTTP/2.0"), 505),
    Malformed("version 2", _line(b"GET /v1/models HTTP/2"), 400),
    Malformed("version 1.10", _line(b"GET /v1/models HTTP/1.10"), 400),
    Malformed("version 01.1", _line(b"GET /v1/models HTTP/01.1"), 400),
    Malformed("version 1,1", _line(b"GET /v1/models HTTP/1,1"), 400),
    Malformed("version 1.1 of http", _line(b"GET /v1/models http/1.1"), 400),
    Malformed("version 1.1 of HTTPS", _line(b"GET /v1/models HTTPS/1.1"), 400),
    Malformed("a blank in the version", _line(b"GET /v1/models HTTP/ 1.1"), 400),
    Malformed("a word behind the version", _line(b"GET /v1/models HTTP/1.1 x"), 400),
    Malformed("a blank behind the version", _line(b"GET /v1/models HTTP/1.1 "), 400),
    Malformed("two blanks behind the method", _line(b"GET  /v1/models HTTP/1.1"), 400),
    Malformed("two blanks behind the target", _line(b"GET /v1/models  HTTP/1.1"), 400),
    Malformed("a tab behind the method", _line(b"GET\t/v1/models HTTP/1.1"), 400),
    Malformed("a vertical tab behind the target", _line(b"GET /v1/models\x0bHTTP/1.1"), 400),
    Malformed("a blank before the method", _line(b" GET /v1/models HTTP/1.1"), 400),
    Malformed("no method", _line(b"/v1/models HTTP/1.1"), 400),
    Malformed("a method that is no token", _line(b"GE(T) /v1/models HTTP/1.1"), 400),
    Malformed("a method with a NUL", _line(b"GET\0 /v1/models HTTP/1.1"), 400),
    Malformed("a field before the request line", b"Host: a\r\nGET /v1/models HTTP/1.1\r\n\r\n", 400),
    Malformed("two empty lines before the request line", b"\r\n\r\n" + _line(b"GET /v1/models HTTP/1.1"), 400),
    Malformed("an empty line that is a bare LF", b"\n" + _line(b"GET /v1/models HTTP/1.1"), 400),
    Malformed("a bare CR before the request line", b"\r" + _line(b"GET /v1/models HTTP/1.1"), 400),
    Malformed("a tunnel", b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n" + SMUGGLED, 405),
    Malformed("a tunnel to a path", _line(b"CONNECT /v1/models HTTP/1.1"), 405),
    Malformed("a trace", _line(b"TRACE /v1/models HTTP/1.1"), 405),
]

_TARGETS = [
    Malformed("a whole URL", _line(b"GET http://evil.test/v1/models HTTP/1.1"), 400),
    Malformed("a whole URL of our own host", _line(b"GET http://a/v1/models HTTP/1.1"), 400),
    Malformed("a whole URL with a name and a password", _line(b"GET http://a:b@evil.test/v1/models HTTP/1.1"), 400),
    Malformed("a whole URL of another scheme", _line(b"GET file:///etc/passwd HTTP/1.1"), 400),
    Malformed("a host alone", _line(b"GET evil.test:80 HTTP/1.1"), 400),
    Malformed("a name before a path", _line(b"GET a@evil.test/v1/models HTTP/1.1"), 400),
    Malformed("a path that is not absolute", _line(b"GET v1/models HTTP/1.1"), 400),
    Malformed("a backslash first", _line(b"GET \\v1\\models HTTP/1.1"), 400),
    Malformed("a query alone", _line(b"GET ?a=b HTTP/1.1"), 400),
    Malformed("an asterisk", _line(b"OPTIONS * HTTP/1.1"), 400),
    Malformed("a fragment", _line(b"GET /v1/models#a HTTP/1.1"), 400),
    Malformed("a fragment in the query", _line(b"GET /v1/models?a#b HTTP/1.1"), 400),
    Malformed("a blank in the target", _line(b"GET /v1/mod els HTTP/1.1"), 400),
    Malformed("a request line in the target", _line(b"GET /v1/a HTTP/1.1 /v1/models HTTP/1.1"), 400),
    Malformed("a tab in the target", _line(b"GET /v1/mod\tels HTTP/1.1"), 400),
    Malformed("NUL in the target", _line(b"GET /v1/mod\0els HTTP/1.1"), 400),
    Malformed("DEL in the target", _line(b"GET /v1/mod\x7fels HTTP/1.1"), 400),
    Malformed("a bare CR in the target", _line(b"GET /v1/mod\rels HTTP/1.1"), 400),
    Malformed("a bare LF in the target", _line(b"GET /v1/mod\nels HTTP/1.1"), 400),
    Malformed("UTF-8 in the target", _line("GET /v1/modéls HTTP/1.1".encode()), 400),
    Malformed("a long target", _line(b"GET /v1/" + b"a" * 8200 + b" HTTP/1.1"), 414),
]

_LINE_ENDS = [
    Malformed("bare LF everywhere", b"GET /v1/models HTTP/1.1\nHost: a\n\n", 400),
    Malformed("bare LF behind the request line", b"GET /v1/models HTTP/1.1\n" + _HOST + b"\r\n", 400),
    Malformed("bare LF behind a field", _field(b"X-A: b\n"), 400),
    Malformed("bare LF for the empty line", _GET + _HOST + b"\n", 400),
    Malformed("two bare LF in the middle", _field(b"X-A: b\n\nGET /v1/smuggled HTTP/1.1\r\nX: y\r\n"), 400),
    Malformed("bare CR everywhere", b"GET /v1/models HTTP/1.1\rHost: a\r\r", 400),
    Malformed("bare CR behind a field", _field(b"X-A: b\rX-C: d\r\n"), 400),
    Malformed("CR CR LF behind a field", _field(b"X-A: b\r\r\n"), 400),
    Malformed("LF CR behind a field", _field(b"X-A: b\n\r"), 400),
    Malformed("bare CR and a coding", _body(b"X: y\rTransfer-Encoding: chunked", body=_LAST), 400),
    Malformed(
        "bare LF and a coding", _body(b"Content-Length: 5", b"X: y\nTransfer-Encoding: chunked", body=_LAST), 400
    ),
    Malformed("a folded value", _field(b"X-A: b\r\n c\r\n"), 400),
    Malformed("a value that is folded by a tab", _field(b"X-A: b\r\n\tc\r\n"), 400),
    Malformed("a value that stands on the next line", _field(b"X-A:\r\n b\r\n"), 400),
    Malformed("a folded coding", _body(b"Transfer-Encoding:", b" chunked", body=_LAST), 400),
    Malformed("a folded length", _body(b"Content-Length: 5", b" 0", body=b"abcde"), 400),
    Malformed("a coding that looks folded", _body(b"X: y", b" Transfer-Encoding: chunked", body=_LAST), 400),
    Malformed("a fold behind the request line", _GET + b" x\r\n" + _HOST + b"\r\n", 400),
    Malformed("a field behind a blank", _GET + b" Host: a\r\n\r\n", 400),
    Malformed("a line of blanks", _field(b"  \r\n"), 400),
]

_FIELDS = [
    Malformed("a blank before the colon", _field(b"X-A : b\r\n"), 400),
    Malformed("a tab before the colon", _field(b"X-A\t: b\r\n"), 400),
    Malformed("a blank in a name", _field(b"X A: b\r\n"), 400),
    Malformed("no name", _field(b": b\r\n"), 400),
    Malformed("no colon", _field(b"X-A\r\n"), 400),
    Malformed("a second request line", _field(b"GET /v1/smuggled HTTP/1.1\r\n"), 400),
    Malformed("brackets in a name", _field(b"X[A]: b\r\n"), 400),
    Malformed("quotes round a name", _field(b'"X-A": b\r\n'), 400),
    Malformed("a slash in a name", _field(b"X/A: b\r\n"), 400),
    Malformed("UTF-8 in a name", _field("X-Ä: b\r\n".encode()), 400),
    Malformed("NUL in a name", _field(b"X-A\0: b\r\n"), 400),
    Malformed("bare CR in a name", _field(b"X-A\r: b\r\n"), 400),
    Malformed("NUL in a value", _field(b"X-A: b\0c\r\n"), 400),
    Malformed("SOH in a value", _field(b"X-A: b\x01c\r\n"), 400),
    Malformed("a vertical tab in a value", _field(b"X-A: b\x0bc\r\n"), 400),
    Malformed("ESC in a value", _field(b"X-A: \x1b[31m\r\n"), 400),
    Malformed("DEL in a value", _field(b"X-A: b\x7fc\r\n"), 400),
]

_HOSTS = [
    Malformed("no host", _GET + b"X-A: b\r\n\r\n", 400),
    Malformed("no host and no field", _GET + b"\r\n", 400),
    Malformed("two hosts", _host(b"a", b"b"), 400),
    Malformed("the same host twice", _host(b"a", b"a"), 400),
    Malformed("two hosts in 1.0", _host(b"a", b"b", version=b"1.0"), 400),
    Malformed("an empty host", _host(b""), 400),
    Malformed("two hosts in one", _host(b"a, b"), 400),
    Malformed("a blank in the host", _host(b"a b"), 400),
    Malformed("a path behind the host", _host(b"a/b"), 400),
    Malformed("a URL for a host", _host(b"http://a"), 400),
    Malformed("a name before the host", _host(b"x@a"), 400),
    Malformed("a fragment behind the host", _host(b"a#b"), 400),
    Malformed("a port that is a word", _host(b"a:http"), 400),
    Malformed("a port that is too long", _host(b"a:123456"), 400),
    Malformed("two ports", _host(b"a:1:2"), 400),
    Malformed("a bracket without end", _host(b"[::1"), 400),
    Malformed("UTF-8 in the host", _host("ä".encode()), 400),
    Malformed("a host of two lines", _host(b"a\r\n b"), 400),
]

_LENGTHS = [
    Malformed("a length with a plus", _length(b"+5"), 400),
    Malformed("a length below zero", _length(b"-5"), 400),
    Malformed("a length in hexadecimal", _length(b"0x5"), 400),
    Malformed("a length with an underscore", _length(b"5_0"), 400),
    Malformed("a length with a blank", _length(b"5 0"), 400),
    Malformed("a length with a point", _length(b"5.0"), 400),
    Malformed("a length with an exponent", _length(b"5e0"), 400),
    Malformed("a length with a unit", _length(b"5;bytes"), 400),
    Malformed("a length in quotes", _length(b'"5"'), 400),
    Malformed("a length of other digits", _length("\uff15".encode()), 400),
    Malformed("a length behind a vertical tab", _length(b"\x0b5"), 400),
    Malformed("a length behind a no-break space", _length(b"\xa05"), 400),
    Malformed("a length that is empty", _length(b""), 400),
    Malformed("a length that is a word", _length(b"chunked"), 400),
    Malformed("a length of 19 digits", _length(b"1" + b"0" * 18), 400),
    Malformed("a length of 20 digits that is small", _length(b"5".zfill(20)), 400),
    Malformed("a length beyond 64 bits", _length(b"18446744073709551621"), 400),
    Malformed("a list of equal lengths", _length(b"5, 5"), 400),
    Malformed("a list of lengths", _length(b"5, 0"), 400),
    Malformed("a list that ends in nothing", _length(b"5,"), 400),
    Malformed("equal lengths", _body(b"Content-Length: 5", b"Content-Length: 5", body=b"abcde"), 400),
    Malformed("two lengths", _body(b"Content-Length: 5", b"Content-Length: 0", body=b"abcde"), 400),
    Malformed("two lengths, in other letters", _body(b"content-length: 0", b"CONTENT-LENGTH: 5", body=b"abcde"), 400),
    Malformed("a blank behind the length's name", _body(b"Content-Length : 5", body=b"abcde"), 400),
    Malformed("a length with an underscore in its name", _body(b"Content_Length: 5", body=b"abcde"), 400),
    Malformed("a length beside one in disguise", _body(b"Content-Length: 0", b"Content_Length: 40"), 400),
]

_CHUNKED = b"Transfer-Encoding: chunked"
_CODINGS = [
    Malformed("CL.TE", _body(b"Content-Length: 6", _CHUNKED, body=_LAST + b"G"), 400),
    Malformed("TE.CL", _body(_CHUNKED, b"Content-Length: 4", body=b"5c\r\n"), 400),
    Malformed("CL.TE with a length of nothing", _coded(b"Content-Length: 0", _CHUNKED), 400),
    Malformed("chunks in 1.0", _body(_CHUNKED, body=_LAST, version=b"1.0"), 400),
    Malformed("chunks in 1.0 on a kept connection", _body(b"Connection: keep-alive", _CHUNKED, version=b"1.0"), 400),
    Malformed("an unknown coding in 1.0", _body(b"Transfer-Encoding: x", version=b"1.0"), 400),
    Malformed("xchunked", _coded(b"Transfer-Encoding: xchunked"), 501),
    Malformed("chunk", _coded(b"Transfer-Encoding: chunk"), 501),
    Malformed("identity", _coded(b"Transfer-Encoding: identity"), 501),
    Malformed("gzip", _coded(b"Transfer-Encoding: gzip"), 501),
    Malformed("gzip, chunked", _coded(b"Transfer-Encoding: gzip, chunked"), 501),
    Malformed("identity, chunked", _coded(b"Transfer-Encoding: identity, chunked"), 501),
    Malformed("chunked, identity", _coded(b"Transfer-Encoding: chunked, identity"), 400),
    Malformed("chunked, gzip", _coded(b"Transfer-Encoding: chunked, gzip"), 400),
    Malformed("chunked, chunked", _coded(b"Transfer-Encoding: chunked, chunked"), 400),
    Malformed("chunked and nothing", _coded(b"Transfer-Encoding: chunked,"), 400),
    Malformed("nothing and chunked", _coded(b"Transfer-Encoding: , chunked"), 400),
    Malformed("nothing", _coded(b"Transfer-Encoding:"), 400),
    Malformed("chunked with a parameter", _coded(b"Transfer-Encoding: chunked;q=1"), 400),
    Malformed("chunked in quotes", _coded(b'Transfer-Encoding: "chunked"'), 400),
    Malformed("chunked in single quotes", _coded(b"Transfer-Encoding: 'chunked'"), 501),
    Malformed("chunked behind a vertical tab", _coded(b"Transfer-Encoding:\x0bchunked"), 400),
    Malformed("chunked before a form feed", _coded(b"Transfer-Encoding: chunked\x0c"), 400),
    Malformed("chunked behind a no-break space", _coded(b"Transfer-Encoding: \xa0chunked"), 400),
    Malformed("chunked before a NUL", _coded(b"Transfer-Encoding: chunked\0"), 400),
    Malformed("chunked behind a bare CR", _coded(b"Transfer-Encoding: \rchunked"), 400),
    Malformed("chunked and a word", _coded(b"Transfer-Encoding: chunked x"), 400),
    Malformed("chunked with a Kelvin sign", _coded("Transfer-Encoding: chun\u212aed".encode()), 400),
    Malformed("a blank behind the coding's name", _coded(b"Transfer-Encoding : chunked"), 400),
    Malformed("a tab behind the coding's name", _coded(b"Transfer-Encoding\t: chunked"), 400),
    Malformed("a blank before the coding's name", _coded(b" Transfer-Encoding: chunked"), 400),
    Malformed("no colon behind the coding's name", _coded(b"Transfer-Encoding chunked"), 400),
    Malformed("an underscore in the coding's name", _coded(b"Transfer_Encoding: chunked"), 400),
    Malformed("a coding beside one in disguise", _coded(_CHUNKED, b"Transfer_Encoding: identity"), 400),
    Malformed("chunked twice", _coded(_CHUNKED, b"transfer-encoding: chunked"), 400),
    Malformed("chunked, then another", _coded(_CHUNKED, b"Transfer-encoding: cow"), 400),
    Malformed("another, then chunked", _coded(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"), 400),
    Malformed(
        "an upgrade to h2c with two framings",
        _body(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
            b"Content-Length: 5",
            _CHUNKED,
            body=_LAST,
        ),
        400,
    ),
    Malformed(
        "an upgrade to h2c with a blank before a colon",
        _field(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings : AAMAAABk\r\n"),
        400,
    ),
]

_CHUNKS = [
    Malformed("a chunk without a size", _chunks(b"\r\nab\r\n" + _LAST), 400),
    Malformed("a size that is none", _chunks(b"zz\r\n"), 400),
    Malformed("a size of 17 digits", _chunks(b"10000000000000002\r\nab\r\n" + _LAST), 400),
    Malformed("a size of 17 digits that is small", _chunks(b"2".zfill(17) + b"\r\nab\r\n" + _LAST), 400),
    Malformed("a last chunk of 17 digits", _chunks(b"0" * 17 + b"\r\n\r\n"), 400),
    Malformed("a size below zero", _chunks(b"-2\r\nab\r\n" + _LAST), 400),
    Malformed("a size with a plus", _chunks(b"+2\r\nab\r\n" + _LAST), 400),
    Malformed("a size with 0x", _chunks(b"0x2\r\nab\r\n" + _LAST), 400),
    Malformed("a size with an underscore", _chunks(b"0_2\r\nab\r\n" + _LAST), 400),
    Malformed("a size of other digits", _chunks("\uff12\r\nab\r\n".encode() + _LAST), 400),
    Malformed("a blank before a size", _chunks(b" 2\r\nab\r\n" + _LAST), 400),
    Malformed("a blank behind a size", _chunks(b"2 \r\nab\r\n" + _LAST), 400),
    Malformed("a comma behind a size", _chunks(b"2,0\r\nab\r\n" + _LAST), 400),
    Malformed("bare LF behind a size", _chunks(b"2\nab\r\n" + _LAST), 400),
    Malformed("bare CR behind a size", _chunks(b"2\rab\r\n" + _LAST), 400),
    Malformed("CR CR LF behind a size", _chunks(b"2\r\r\nab\r\n" + _LAST), 400),
    Malformed("bare LF behind a chunk", _chunks(b"2\r\nab\n" + _LAST), 400),
    Malformed("bare CR behind a chunk", _chunks(b"2\r\nab\r" + _LAST), 400),
    Malformed("bare LF everywhere in the body", _chunks(b"2\nab\n0\n\n"), 400),
    Malformed("bare LF everywhere in the body, and nothing behind it", _chunks(b"2\nab\n0\n\n", b""), 400),
    Malformed("a chunk that is longer than its size, and nothing behind it", _chunks(b"2\r\nabc", b""), 400),
    Malformed("a chunk that is longer than its size", _chunks(b"2\r\nabc\r\n" + _LAST), 400),
    Malformed("a chunk that is shorter than its size", _chunks(b"5\r\nab\r\n" + _LAST), 400),
    Malformed("an extension without a size", _chunks(b";a=b\r\nab\r\n" + _LAST), 400),
    Malformed("bare LF in an extension", _chunks(b"2;a\nb\r\nab\r\n" + _LAST), 400),
    Malformed("bare CR in an extension", _chunks(b"2;a\rb\r\nab\r\n" + _LAST), 400),
    Malformed("NUL in an extension", _chunks(b"2;a\0b\r\nab\r\n" + _LAST), 400),
    Malformed("UTF-8 in an extension", _chunks("2;ä\r\nab\r\n".encode() + _LAST), 400),
    Malformed("an extension that is too long", _chunks(b"2;" + b"a" * 5000 + b"\r\nab\r\n" + _LAST), 400),
    Malformed("an extension without end", _chunks(b"2;" + b"a" * 5000), 400),
    Malformed("extensions that are too many", _chunks((b"1;" + b"a" * 3000 + b"\r\nb\r\n") * 6 + _LAST), 400),
    Malformed("bare LF for the end of the body", _chunks(b"0\r\n\n"), 400),
    Malformed("bare LF behind the last chunk", _chunks(b"0\n\r\n"), 400),
    Malformed("a trailer without a colon", _chunks(b"0\r\nabc\r\n\r\n"), 400),
    Malformed("a trailer with a blank before its colon", _chunks(b"0\r\nX-A : b\r\n\r\n"), 400),
    Malformed("a trailer that is folded", _chunks(b"0\r\nX-A: b\r\n c\r\n\r\n"), 400),
    Malformed("a trailer with a NUL", _chunks(b"0\r\nX-A: b\0\r\n\r\n"), 400),
    Malformed("a trailer with a bare LF", _chunks(b"0\r\nX-A: b\n\r\n"), 400),
    Malformed("a length among the trailers", _chunks(b"0\r\nContent-Length: 40\r\n\r\n"), 400),
    Malformed("a coding among the trailers", _chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    Malformed("a host among the trailers", _chunks(b"0\r\nHost: b\r\n\r\n"), 400),
    Malformed("a trailer that is too long", _chunks(b"0\r\nX-A: " + b"b" * 5000 + b"\r\n\r\n"), 400),
    Malformed("trailers that are too many", _chunks(b"0\r\n" + b"X-A: b\r\n" * 3000 + b"\r\n"), 400),
    Malformed("a request for a trailer", _chunks(b"0\r\nGET /v1/smuggled HTTP/1.1\r\nX-A: b\r\n\r\n"), 400),
]

MALFORMED: Final = [
    *_REQUEST_LINES,
    *_TARGETS,
    *_LINE_ENDS,
    *_FIELDS,
    *_HOSTS,
    *_LENGTHS,
    *_CODINGS,
    *_CHUNKS,
]
"""All of them."""

HEADS: Final = [each for each in MALFORMED if each not in _CHUNKS]
"""Those of which the head alone is wrong."""
