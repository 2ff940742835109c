"""How large a request is, in the units of limits and rules: tokens it may come to, messages, depth. PURE.

Nothing is tokenised: a prompt is estimated by its bytes, four to a token, but for pictures and sounds inside it, whose
bytes say nothing about their tokens. Used by `gate`.

Sources: OpenAI's and Anthropic's API references (names of the members).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_BLOB: Final = 1000
"""What a picture or a sound inside a prompt counts: what providers take for one of usual size."""

_BLOBS = tuple(re.compile(begins + rb"([A-Za-z0-9+/=\\_-]{2048,})") for begins in (rb";base64,", rb'"data"\s*:\s*"'))
"""Base64 of more than a few lines. Each expression begins with a text: so it is searched for several times as fast."""
_TEXT = re.compile(rb'"[^"]*+"')
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_MAXIMA: Final = {
    Dialect.CHAT: ("max_completion_tokens", "max_tokens"),
    Dialect.COMPLETIONS: ("max_tokens",),
    Dialect.RESPONSES: ("max_output_tokens",),
    Dialect.MESSAGES: ("max_tokens",),
}
_LISTS: Final = frozenset({"messages", "input", "prompt"})

MOST_MESSAGES: Final = 10_000
"""No request has more that is to be looked at."""


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
    each = output_tokens if stated is None else stated
    wanted = min(answers(request), MAX_ANSWERS) * (_prompts(request) if dialect is Dialect.COMPLETIONS else 1)
    return Estimate(prompt_tokens(request.body), each * wanted)


MAX_ANSWERS: Final = 1000
"""No origin gives more for one request; what is beyond shall not be reckoned with."""


def prompt_tokens(body: bytes) -> int:
    """The tokens of a prompt, by its bytes."""
    if len(body) < 2048:
        return -(-len(body) // BYTES_PER_TOKEN)
    blobs = [len(found[1]) for blob in _BLOBS for found in blob.finditer(body)]
    return -(-(len(body) - sum(blobs)) // BYTES_PER_TOKEN) + TOKENS_PER_BLOB * len(blobs)


def max_tokens(request: JsonObject, dialect: Dialect) -> int | None:
    """The longest answer that a request allows, in tokens; None if it does not say, or says less than zero, which means
    without an end to some origins. Raises BadRequest."""
    stated = _maxima(request, dialect)
    return max(stated) if stated and min(stated) >= 0 else None


def _maxima(request: JsonObject, dialect: Dialect) -> list[int]:
    return [value for name in _MAXIMA.get(dialect, ()) if (value := request.integer(name)) is not None]


def answers(request: JsonObject) -> int:
    """How many answers are asked for. Raises BadRequest."""
    return max(1, request.integer("n") or 1, request.integer("best_of") or 1)


def _prompts(request: JsonObject) -> int:
    """How many prompts a legacy completion has, each of which is answered: several stand in a list, as texts or as
    lists of tokens. They are not read one by one."""
    prompt = bytes(request.members.get("prompt", b""))
    if not prompt.startswith(b"["):
        return 1
    close = prompt.translate(None, b" \t\n\r")
    return min(1 + close.count(b'","' if close.startswith(b'["') else b"],["), MAX_ANSWERS)


def messages(value: bytes, most: int, *, has_tokens: bool = True) -> list[int]:
    """The size of each message of a prompt, in bytes, of the first `most + 1` of them: behind those it costs a pass
    along the bytes, whatever they are. A text is one message, and so is a list of tokens where there may be
    some."""
    try:
        items = _decoder(most + 1)(value)
    except msgspec.DecodeError:
        return [len(value)]
    sizes: list[int] = []
    for at in range(most + 1):
        item = bytes(getattr(items, f"item{at}"))
        if not item:
            break
        if has_tokens and not sizes and item.isdigit():
            return [len(value)]
        sizes.append(len(item))
    return sizes


@lru_cache(maxsize=64)
def _decoder(most: int) -> Callable[[bytes], object]:
    """Reads so many items of a list, and passes over the others."""
    items = [(f"item{at}", msgspec.Raw, msgspec.Raw(b"")) for at in range(most)]
    return msgspec.json.Decoder(msgspec.defstruct("Items", items, array_like=True, gc=False)).decode


def is_deeper(body: bytes, levels: int) -> bool:
    """Whether the brackets of a JSON text are nested deeper than so. Each level costs one pass along the brackets."""
    # Of the texts only the quotes and brackets stay, and two quotes side by side say nothing: few texts are left then.
    rest = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_ALIKE, _NO_MARKS).replace(b'""', b"")
    rest = _TEXT.sub(b"", rest)
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
    if bounds.max_tokens is not None and (stated := _maxima(request, dialect)):
        worst = max(stated) if min(stated) >= 0 else min(stated)
        if not 0 <= worst <= bounds.max_tokens:
            return _name_of_maximum(request, dialect), f"is {worst}, of {bounds.max_tokens} that are allowed"
    if bounds.n is not None and (asked := answers(request)) > bounds.n:
        return "n", f"asks for {asked} answers, of {bounds.n} that are allowed"
    if bounds.messages is None and bounds.message_bytes is None:
        return None
    most = min(bounds.messages or MOST_MESSAGES, MOST_MESSAGES)
    for name in _LISTS & request.members.keys():
        sizes = messages(bytes(request.members[name]), most, has_tokens=name != "messages")
        if len(sizes) > most:
            return name, f"has more messages than the {most} that are allowed"
        if bounds.message_bytes is not None and (largest := max(sizes, default=0)) > bounds.message_bytes:
            return name, f"has a message of {largest} bytes, of {bounds.message_bytes} that are allowed"
    return None


def _name_of_maximum(request: JsonObject, dialect: Dialect) -> str:
    return next(name for name in _MAXIMA[dialect] if name in request.members)
