"""How large a request is, in the units of limits and rules: tokens it may come to, messages, depth. PURE.

Nothing is tokenised: a prompt is estimated by its bytes, four to a token, but for pictures and sounds inside it, whose
bytes say nothing about their tokens. Used by `gate`.

Sources: OpenAI's and Anthropic's API references (names of the members).
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_BLOB: Final = 1000
"""What a picture or a sound inside a prompt counts: what providers take for one of usual size."""

_BLOB = re.compile(rb'(?:;base64,|"data"\s*:\s*")([A-Za-z0-9+/=\\_-]{2048,})')
"""Base64 of more than a few lines."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_MAXIMA: Final = {
    Dialect.CHAT: ("max_completion_tokens", "max_tokens"),
    Dialect.COMPLETIONS: ("max_tokens",),
    Dialect.RESPONSES: ("max_output_tokens",),
    Dialect.MESSAGES: ("max_tokens",),
}
_LISTS: Final = ("messages", "input", "prompt")
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many tokens a request may come to: those of its prompt, and those of its answer at most."""

    input: int
    output: int


def estimate(request: JsonObject, dialect: Dialect, output_tokens: int) -> Estimate:
    """What a request may come to; `output_tokens` are reserved for each answer if it sets no maximum. Raises BadRequest
    for a maximum that is no number."""
    if dialect is Dialect.EMBEDDINGS:
        return Estimate(prompt_tokens(request.body), 0)
    stated = max_tokens(request, dialect)
    each = output_tokens if stated is None else max(stated, 0)
    return Estimate(prompt_tokens(request.body), each * min(answers(request), MAX_ANSWERS))


MAX_ANSWERS: Final = 1000
"""No origin gives more for one request; what is beyond shall not be reckoned with."""


def prompt_tokens(body: bytes) -> int:
    """The tokens of a prompt, by its bytes."""
    if len(body) < 2048:
        return -(-len(body) // BYTES_PER_TOKEN)
    blobs = [len(found[1]) for found in _BLOB.finditer(body)]
    return -(-(len(body) - sum(blobs)) // BYTES_PER_TOKEN) + TOKENS_PER_BLOB * len(blobs)


def max_tokens(request: JsonObject, dialect: Dialect) -> int | None:
    """The longest answer that a request allows, in tokens; None if it does not say. Raises BadRequest."""
    stated = [value for name in _MAXIMA.get(dialect, ()) if (value := request.integer(name)) is not None]
    return max(stated, default=None)


def answers(request: JsonObject) -> int:
    """How many answers are asked for. Raises BadRequest."""
    return max(1, request.integer("n") or 1, request.integer("best_of") or 1)


def messages(request: JsonObject) -> list[int]:
    """The size of each message, or of each item of another list that is the prompt, in bytes; a prompt that is no list
    is one."""
    for name in _LISTS:
        raw = request.members.get(name)
        if raw is None:
            continue
        try:
            return [len(bytes(item)) for item in _decode_items(raw)]
        except msgspec.DecodeError:
            return [len(bytes(raw))]
    return []


def is_deeper(body: bytes, levels: int) -> bool:
    """Whether the brackets of a JSON text are nested deeper than so. Each level costs one pass along the brackets."""
    rest = _STRING.sub(b"", body).translate(_ALIKE, _NO_BRACKETS)
    for _ in range(levels):
        if not rest:
            return False
        rest = rest.replace(b"[]", b"")
    return bool(rest)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a request may be; None: as large as it likes. A member that is absent is within its bound."""

    max_tokens: int | None = None
    n: int | None = None
    messages: int | None = None
    message_bytes: int | None = None
    depth: int | None = None


def beyond(bounds: Bounds, request: JsonObject, dialect: Dialect) -> tuple[str, str] | None:
    """The member of a request that is beyond a bound, and what is said of it; None if none is. Raises BadRequest."""
    if bounds.depth is not None and is_deeper(request.body, bounds.depth):
        return "body", f"is nested deeper than the {bounds.depth} levels that are allowed"
    if bounds.max_tokens is not None and (stated := max_tokens(request, dialect) or 0) > bounds.max_tokens:
        return _name_of_maximum(request, dialect), f"is {stated}, of {bounds.max_tokens} that are allowed"
    if bounds.n is not None and (asked := answers(request)) > bounds.n:
        return "n", f"asks for {asked} answers, of {bounds.n} that are allowed"
    if bounds.messages is None and bounds.message_bytes is None:
        return None
    sizes = messages(request)
    name = next((name for name in _LISTS if name in request.members), "messages")
    if bounds.messages is not None and len(sizes) > bounds.messages:
        return name, f"has {len(sizes)} messages, of {bounds.messages} that are allowed"
    if bounds.message_bytes is not None and (largest := max(sizes, default=0)) > bounds.message_bytes:
        return name, f"has a message of {largest} bytes, of {bounds.message_bytes} that are allowed"
    return None


def _name_of_maximum(request: JsonObject, dialect: Dialect) -> str:
    return next(name for name in _MAXIMA[dialect] if name in request.members)
