"""The dialects of the streaming APIs: what starts, ends and breaks a stream in each.

A `Dialect` says which routes speak it and how an error looks in band; its `watch()` gives the object that `wire/sse`
shows the events that may matter. Nothing here is translated or re-made. Used by `web` (which path is which dialect),
`relay` and `wire/render`.

Sources: OpenAI's API reference ("Streaming", "Responses: streaming events"), Anthropic's "Streaming messages".
"""

import re
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from trioproxy.wire.usage import MessageFigures, Usage, message_figures, usage_at_end, usage_of

_decode = msgspec.json.Decoder().decode


class Dialect(StrEnum):
    """Named as it appears in logs."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    OTHER = "other"

    def watch(self) -> "StreamWatch":
        """A fresh object that follows one stream of this dialect."""
        return _WATCHES.get(self, StreamWatch)()


def _parse(data: bytes) -> Any:
    """The JSON value of an event's data, or None where it is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class StreamWatch:
    """Follows a stream of an unknown dialect, and is the base of the known ones.

    Attributes:
        first_error: the data of the first event if that was an error object, else None.
        saw_first: an event with data has gone by.
        saw_content: something that the user waits for has gone by (not a role, a ping, an empty delta or empty data).
        saw_done: the stream said that it is over: whatever comes behind it adds nothing.
        may_end: an end here would be an honest one. An unknown dialect has no terminal: its origin's word counts.
        ends_at_once: behind the terminal nothing belongs to the stream; named dialects may have a word more.
        usage: how many tokens it took, once it has said so; what it says last counts.
    """

    ends_at_once = False
    is_settled = False
    saw_first = False
    saw_content = False
    saw_done = False
    may_end = True
    first_error: bytes | None = None
    usage: Usage | None = None

    def hints(self, block: bytes) -> bool:
        return False

    def look(self, name: bytes, data: bytes) -> None:
        value = None
        if not self.saw_first:
            self.saw_first = True
            value = _parse(data)
            if self._is_error(name, value):
                self.first_error = data
        if not self.saw_content:
            self.saw_content = bool(data) and self._is_content(name, _parse(data) if value is None else value)
            self.is_settled = self.saw_content
        self._note(name, data)

    def note_last(self, last: bytes) -> None:
        """Take note of how an event ended whose data was too long to be looked at whole. Must not raise."""

    def _is_error(self, name: bytes, value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("error"), dict | str) and bool(value["error"])

    def _is_content(self, name: bytes, value: Any) -> bool:
        return True

    def _note(self, name: bytes, data: bytes) -> None:
        """Look for the dialect's terminal."""


_MAX_CHOICES = 1024
"""Indexes beyond are no choices: the two sets of a watch have to stay small, whatever an origin sends."""


class _Choice(msgspec.Struct):
    index: Annotated[int, msgspec.Meta(ge=0, lt=_MAX_CHOICES)] = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_OTHER_INDEX = re.compile(rb'"index"\s*:\s*[1-9]')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
# `[DONE]`, or a list with nothing in it: a chunk that tells the usage has no choices, or it is one with an end. One
# search for both, as each costs as much as all other work on most events.
_DONE_OR_EMPTY = re.compile(rb"\[\s*[D\]]")


class ChatWatch(StreamWatch):
    """Chat and legacy completions: `[DONE]` is the end; a `finish_reason` for every choice seen makes one honest."""

    ends_at_once = True
    may_end = False

    def __init__(self) -> None:
        self._open = {0}  # choice indexes that have begun and not finished; nearly always only the first
        self._finished: set[int] = set()

    def hints(self, block: bytes) -> bool:
        if _FINISH.search(block) is not None or _OTHER_INDEX.search(block) is not None:
            return True
        return _DONE_OR_EMPTY.search(block) is not None and (b"[DONE]" in block or _USAGE.search(block) is not None)

    def note_last(self, last: bytes) -> None:
        self.usage = usage_at_end(last, Dialect.CHAT) or self.usage

    def _is_content(self, name: bytes, value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        if value.get("usage"):
            return True
        choices = value.get("choices")
        if not isinstance(choices, list):
            return "choices" not in value
        return any(isinstance(choice, dict) and _has_content(choice) for choice in choices)

    def _note(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.saw_done = self.may_end = True
            return
        if _USAGE.search(data) is not None:
            self.usage = usage_of(data, Dialect.CHAT) or self.usage
        try:
            choices = _decode_chunk(data).choices
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        for choice in choices:
            if choice.finish_reason:
                self._open.discard(choice.index)
                self._finished.add(choice.index)
            elif choice.index not in self._finished:
                self._open.add(choice.index)
        self.may_end = self.saw_done or (bool(self._finished) and not self._open)


def _has_content(choice: dict[str, Any]) -> bool:
    if choice.get("text") or choice.get("finish_reason"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role")


_RESPONSE_END = re.compile(rb"response\.(?:completed|failed|incomplete)")
_RESPONSE_ENDS = (b"response.completed", b"response.failed", b"response.incomplete")
_RESPONSE_PREFACE = (
    "response.created",
    "response.in_progress",
    "response.queued",
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_summary_part.added",
    "keepalive",
)


class _NamedWatch(StreamWatch):
    """Dialects whose events carry a type, as the `event:` line and as a member of the data."""

    may_end = False

    def _type(self, name: bytes, data: bytes) -> bytes:
        if name:
            return name
        # An origin that leaves the event line out. Only the start of a long event is kept: search, don't parse.
        found = re.match(rb'\s*\{\s*"type"\s*:\s*"([a-z_.]+)"', data)
        if found:
            return found.group(1)
        value = _parse(data)
        kind = value.get("type") if isinstance(value, dict) else None
        return kind.encode() if isinstance(kind, str) else b""

    def _is_error(self, name: bytes, value: Any) -> bool:
        if not isinstance(value, dict):
            return name == b"error"
        return name == b"error" or value.get("type") == "error" or super()._is_error(name, value)


class ResponsesWatch(_NamedWatch):
    """The Responses API ends with `response.completed`, `response.failed` or `response.incomplete`."""

    def hints(self, block: bytes) -> bool:
        return _RESPONSE_END.search(block) is not None

    def _is_content(self, name: bytes, value: Any) -> bool:
        if not isinstance(value, dict):
            return name.decode("ascii", "replace") not in _RESPONSE_PREFACE
        kind = value.get("type") or name.decode("ascii", "replace")
        if kind == "response.output_item.added":
            item = value.get("item")
            return isinstance(item, dict) and item.get("type") not in (None, "message", "reasoning")
        return kind not in _RESPONSE_PREFACE and value.get("delta") != ""

    def note_last(self, last: bytes) -> None:
        if self.saw_done and self.usage is None:
            self.usage = usage_at_end(last, Dialect.RESPONSES)

    def _note(self, name: bytes, data: bytes) -> None:
        if self._type(name, data) in _RESPONSE_ENDS:
            self.saw_done = self.may_end = True
            self.usage = usage_of(data, Dialect.RESPONSES) or self.usage


class MessagesWatch(_NamedWatch):
    """Anthropic's Messages API ends with `message_stop`. Its usage is told in part by `message_start`, and as it is in
    the end by `message_delta`."""

    def __init__(self) -> None:
        self._figures = MessageFigures()

    def hints(self, block: bytes) -> bool:
        return b"message_" in block  # stop, delta or start

    def _is_content(self, name: bytes, value: Any) -> bool:
        kind = value.get("type") if isinstance(value, dict) else name.decode("ascii", "replace")
        if kind == "content_block_start":
            block = value.get("content_block") if isinstance(value, dict) else None
            return isinstance(block, dict) and block.get("type") not in ("text", "thinking")
        if kind == "content_block_delta" and isinstance(value, dict):
            delta = value.get("delta")
            return isinstance(delta, dict) and any(value for key, value in delta.items() if key != "type")
        return kind not in ("message_start", "content_block_stop", "ping")

    def _note(self, name: bytes, data: bytes) -> None:
        match self._type(name, data):
            case b"message_stop":
                self.saw_done = self.may_end = True
            case b"message_start" | b"message_delta" as kind if (told := message_figures(data)) is not None:
                self._figures = self._figures.then(told)
                if kind == b"message_delta":  # until then the output is only what it began with
                    self.usage = self._figures.usage or self.usage


_WATCHES: dict[Dialect, type[StreamWatch]] = {
    Dialect.CHAT: ChatWatch,
    Dialect.COMPLETIONS: ChatWatch,
    Dialect.RESPONSES: ResponsesWatch,
    Dialect.MESSAGES: MessagesWatch,
}
