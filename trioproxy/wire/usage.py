"""How many tokens a request took, as its origin says it: in a whole answer, or in one event of a stream. PURE.

Nothing is made up here. Figures that cannot be (negative, no whole numbers, absurd, more cached than there were) are
none. Used by `wire/dialect`, whose streams tell them, and by `relay` for whole answers.

Sources: OpenAI's API reference ("usage" of chat completions, completions, embeddings, responses), Anthropic's ("usage"
of messages, "Streaming messages").
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

MAX_TOKENS: Final = 100_000_000
"""More than this in one request is no figure."""

# Inside of a text its quotes would be escaped, so this finds members only. Objects in it have none in them.
_USAGE_OBJECT: Final = re.compile(rb'"usage"\s*+:\s*+(\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\})')

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request's input and output; `cached` of the input's were so at the origin."""

    input: int
    output: int
    cached: int = 0


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Chat(msgspec.Struct):
    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _Details | None = None


class _Embedding(msgspec.Struct):
    prompt_tokens: _Count


class _Response(msgspec.Struct):
    input_tokens: _Count
    output_tokens: _Count
    input_tokens_details: _Details | None = None


class MessageFigures(msgspec.Struct, frozen=True):
    """What one event of a message's stream, or a whole message, says; its input leaves out what has to do with the
    cache."""

    input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    output_tokens: _Count | None = None

    def then(self, later: "MessageFigures") -> "MessageFigures":
        """What both say together: later figures replace the earlier ones."""
        names = self.__struct_fields__
        told = {name: value for name in names if (value := getattr(later, name)) is not None}
        return msgspec.structs.replace(self, **told)

    @property
    def usage(self) -> Usage | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        cached = self.cache_read_input_tokens or 0
        return _checked(
            self.input_tokens + cached + (self.cache_creation_input_tokens or 0), self.output_tokens, cached
        )


class _ChatAnswer(msgspec.Struct):
    usage: _Chat | None = None


class _EmbeddingAnswer(msgspec.Struct):
    usage: _Embedding | None = None


class _WholeResponse(msgspec.Struct):
    usage: _Response | None = None


class _ResponseAnswer(_WholeResponse):
    response: _WholeResponse | None = None


class _WholeMessage(msgspec.Struct):
    usage: MessageFigures | None = None


class _MessageAnswer(_WholeMessage):
    message: _WholeMessage | None = None


_decode_chat = msgspec.json.Decoder(_ChatAnswer).decode
_decode_embedding = msgspec.json.Decoder(_EmbeddingAnswer).decode
_decode_response = msgspec.json.Decoder(_ResponseAnswer).decode
_decode_message = msgspec.json.Decoder(_MessageAnswer).decode
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def usage_of(data: bytes, dialect: str) -> Usage | None:
    """What a whole JSON answer, or one event's data, says of its usage; None for nothing that can be true.

    `dialect` is a `wire/dialect.Dialect`, which this module does not know as it is known there. O(data). Never raises.
    """
    read = _READERS.get(dialect)
    if read is None:
        return None
    try:
        return read(data)
    except _UNREADABLE:
        return None


def usage_at_end(last: bytes, dialect: str) -> Usage | None:
    """What the last part of an answer, or of an event's data, says; its beginning may be anywhere. Never raises."""
    for found in reversed(_USAGE_OBJECT.findall(last)):
        usage = usage_of(b'{"usage":' + found + b"}", dialect)
        if usage is not None:
            return usage
    return None


def message_figures(data: bytes) -> MessageFigures | None:
    """What an event of a message's stream says, None if that is nothing. Never raises."""
    try:
        answer = _decode_message(data)
    except _UNREADABLE:
        return None
    return answer.usage if answer.usage is not None or answer.message is None else answer.message.usage


def _checked(input_tokens: int, output_tokens: int, cached: int | None) -> Usage | None:
    if input_tokens > MAX_TOKENS or (cached or 0) > input_tokens:
        return None
    return Usage(input_tokens, output_tokens, cached or 0)


def _cached(details: _Details | None) -> int | None:
    return None if details is None else details.cached_tokens


def _of_chat(data: bytes) -> Usage | None:
    usage = _decode_chat(data).usage
    if usage is None:
        return None
    return _checked(usage.prompt_tokens, usage.completion_tokens, _cached(usage.prompt_tokens_details))


def _of_embedding(data: bytes) -> Usage | None:
    usage = _decode_embedding(data).usage
    return None if usage is None else Usage(usage.prompt_tokens, 0)


def _of_response(data: bytes) -> Usage | None:
    answer = _decode_response(data)
    usage = answer.usage if answer.usage is not None or answer.response is None else answer.response.usage
    if usage is None:
        return None
    return _checked(usage.input_tokens, usage.output_tokens, _cached(usage.input_tokens_details))


def _of_message(data: bytes) -> Usage | None:
    figures = message_figures(data)
    return None if figures is None else figures.usage


_READERS: dict[str, Callable[[bytes], Usage | None]] = {
    "chat": _of_chat,
    "completions": _of_chat,
    "embeddings": _of_embedding,
    "responses": _of_response,
    "messages": _of_message,
}
