"""What kind of error an origin's answer is, so that a fallback can be chosen by it. PURE.

    context_length   the prompt is too long for this model; a model with more room may take it
    content_filter   the origin refuses the content; another origin may not
    rate_limit       too many requests or tokens, or no money left, at this origin
    outage           the origin is down, overloaded or broken

Anything else (a bad key, an unknown model, a wrong parameter) is None: another origin would say the same, or the
operator has to know of it.

The error's own words (`code`, `type`) come before its status, and its message is looked at only where nothing else
tells: origins that speak OpenAI's dialect tell a prompt that is too long in a plain 400. Messages may quote a client's
text, so a client can bring about its own fallback; that does no harm to others.

What this does not know: which class falls back to what. `upstream/course` asks, for an answer or a fault.

Sources: the error pages of OpenAI, Azure and Anthropic; the error texts of vLLM, SGLang and llama.cpp's server.
"""

from enum import StrEnum
from typing import Any

from trioproxy.errors import ProxyError, UpstreamErrorInStream, UpstreamFault
from trioproxy.wire.render import error_object

MAX_BODY_BYTES = 65_536
"""A longer body is not read: no error has so much to say."""
_MAX_MESSAGE_CHARACTERS = 4096


class ErrorClass(StrEnum):
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    RATE_LIMIT = "rate_limit"
    OUTAGE = "outage"


_WORDS = {
    "context_length_exceeded": ErrorClass.CONTEXT_LENGTH,
    "string_above_max_length": ErrorClass.CONTEXT_LENGTH,
    "exceed_context_size_error": ErrorClass.CONTEXT_LENGTH,
    "content_filter": ErrorClass.CONTENT_FILTER,
    "content_policy_violation": ErrorClass.CONTENT_FILTER,
    "rate_limit_exceeded": ErrorClass.RATE_LIMIT,
    "rate_limit_error": ErrorClass.RATE_LIMIT,
    "insufficient_quota": ErrorClass.RATE_LIMIT,
    "billing_error": ErrorClass.RATE_LIMIT,
    "overloaded_error": ErrorClass.OUTAGE,
}
"""What stands in an error's `code` or `type`."""

_PHRASES = {
    "maximum context length": ErrorClass.CONTEXT_LENGTH,  # OpenAI, vLLM
    "maximum model length": ErrorClass.CONTEXT_LENGTH,  # vLLM
    "model's context length": ErrorClass.CONTEXT_LENGTH,  # SGLang
    "available context size": ErrorClass.CONTEXT_LENGTH,  # llama.cpp, before it had a type for it
    "context window": ErrorClass.CONTEXT_LENGTH,  # OpenAI's Responses API
    "prompt is too long": ErrorClass.CONTEXT_LENGTH,  # Anthropic
    "exceed context limit": ErrorClass.CONTEXT_LENGTH,  # Anthropic, prompt and answer together
    "content management policy": ErrorClass.CONTENT_FILTER,  # Azure
    "content filtering policy": ErrorClass.CONTENT_FILTER,  # Anthropic
}
"""What stands in a message, in lower case."""

_STATUSES = {402: ErrorClass.RATE_LIMIT, 408: ErrorClass.OUTAGE, 429: ErrorClass.RATE_LIMIT}
_STATUSES_WITH_PHRASES = (400, 413, 422)


def class_of_answer(status: int, body: bytes) -> ErrorClass | None:
    """The class of an origin's answer, None for one that has no class, or is no error. A body that is cut, or no JSON
    object, tells nothing; the status does then."""
    if status < 400:
        return None
    error: Any = error_object(body) if len(body) <= MAX_BODY_BYTES else None
    if isinstance(error, str):
        return _class_of(status, (), error)
    if not isinstance(error, dict):
        return _class_of(status, (), None)
    return _class_of(status, (error.get("code"), error.get("type")), error.get("message"))


def blames(body: bytes, param: str) -> bool:
    """Whether an error says that this field of the request is its cause."""
    error: Any = error_object(body) if len(body) <= MAX_BODY_BYTES else None
    return isinstance(error, dict) and error.get("param") == param


def class_of_fault(fault: ProxyError) -> ErrorClass | None:
    """The class of what came instead of an answer: an outage, unless the origin said in its stream what it is. None
    for what is not the origin's doing."""
    if isinstance(fault, UpstreamErrorInStream):
        return _class_of(fault.status, (fault.code, fault.type), fault.message)
    return ErrorClass.OUTAGE if isinstance(fault, UpstreamFault) else None


def _class_of(status: int, words: tuple[Any, ...], message: Any) -> ErrorClass | None:
    for word in words:
        if isinstance(word, str) and word in _WORDS:
            return _WORDS[word]
    if status >= 500:
        return ErrorClass.OUTAGE
    if status in _STATUSES_WITH_PHRASES and isinstance(message, str):
        text = message[:_MAX_MESSAGE_CHARACTERS].lower()
        return next((kind for phrase, kind in _PHRASES.items() if phrase in text), None)
    return _STATUSES.get(status)
