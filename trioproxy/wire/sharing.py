"""What a request says of sharing and resuming its stream, and who it is that says so. PURE.

    x-trioproxy-share: KEY | auto      join the live stream of the same caller with the same key
    x-trioproxy-resume: SECONDS        the stream goes on for so long when nobody reads it
    x-trioproxy-slow: error | block | drop-oldest | drop-newest

Used by `web`. A caller is told from others by a hash of its credentials; nothing else of them is kept.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.json_object import JsonObject

SHARE = b"x-trioproxy-share"
RESUME = b"x-trioproxy-resume"
SLOW = b"x-trioproxy-slow"
LAST_EVENT_ID = b"last-event-id"

_KEY = re.compile(rb"[\x21-\x7e]{1,200}")
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,3})?")
_POSITION = re.compile(rb"(?:([A-Za-z0-9_-]{1,64})\.)?([0-9]{1,15})")
_MAX_NORMAL_BYTES = 1 << 20
"""Longer bodies are compared byte by byte: to bring them into their normal form would hold up everyone else."""
_CREDENTIALS = (b"authorization", b"x-api-key")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wishes: `share_key` None for a stream of its own, `resume_s` 0 for one that ends with its readers,
    `slow` the word for what becomes of a reader that is too slow."""

    share_key: str | None = None
    resume_s: float = 0.0
    slow: str = "error"

    @property
    def is_plain(self) -> bool:
        """Whether nothing is wished that the direct path cannot do."""
        return self.share_key is None and not self.resume_s


SLOW_WORDS = ("error", "block", "drop-oldest", "drop-newest")


def wish_of(headers: Headers, body: JsonObject | None, *, share: bool = False, resume_s: float = 0.0) -> Wish:
    """What a request wishes, by its fields and, where these say nothing, its route (`share`, `resume_s`).

    Raises BadRequest for a wish that cannot be read.
    """
    key = find(headers, SHARE)
    if key is not None and _KEY.fullmatch(key) is None:
        raise _unreadable(SHARE, "'auto', or a key of 1 to 200 visible characters")
    wanted = find(headers, RESUME)
    if wanted is not None and _SECONDS.fullmatch(wanted) is None:
        raise _unreadable(RESUME, "a number of seconds")
    slow = find(headers, SLOW)
    if slow is not None and slow.decode("latin-1") not in SLOW_WORDS:
        raise _unreadable(SLOW, f"one of {', '.join(SLOW_WORDS)}")
    share_key = None
    if body is not None and (key == b"auto" or (key is None and share)):
        share_key = f"auto:{_normal_hash(body)}"
    elif key is not None and key != b"auto":
        share_key = f"key:{key.decode('ascii')}"
    return Wish(
        share_key=share_key,
        resume_s=resume_s if wanted is None else float(wanted),
        slow="error" if slow is None else slow.decode("ascii"),
    )


def caller_of(headers: Headers) -> str | None:
    """What tells the caller from others: a hash of its credentials, None if it shows none."""
    shown = [name + b":" + value for name, value in headers if name in _CREDENTIALS and value]
    return sha256(b"\n".join(sorted(shown))).hexdigest() if shown else None


def position_of(value: bytes, stream_id: str | None = None) -> int | None:
    """The number in "STREAM.N", or "N" alone; None if it is neither, or another stream's."""
    found = _POSITION.fullmatch(value)
    if found is None or (found[1] is not None and stream_id is not None and found[1].decode("ascii") != stream_id):
        return None
    return int(found[2])


def place_of(value: bytes) -> tuple[str, int] | None:
    """The stream and the number in "STREAM.N"; None if it is anything else."""
    found = _POSITION.fullmatch(value)
    return None if found is None or found[1] is None else (found[1].decode("ascii"), int(found[2]))


def _normal_hash(body: JsonObject) -> str:
    """A hash of what is asked for: the same for bodies that differ in spaces and the order of names alone."""
    normal = body.body
    if len(normal) <= _MAX_NORMAL_BYTES:
        try:
            normal = msgspec.json.encode(msgspec.json.decode(normal), order="sorted")
        except (msgspec.DecodeError, RecursionError):
            pass  # half a surrogate pair, say: then the bytes themselves have to be the same
    return sha256(normal).hexdigest()


def _unreadable(name: bytes, expected: str) -> BadRequest:
    word = name.decode("ascii")
    return BadRequest(f"'{word}' has to be {expected}.", param=word)
