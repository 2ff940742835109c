"""A stream folded into the whole answer: what the origin would have said without streaming, usage included.

`Fold` is fed the bytes of one event stream in any cutting. Values are joined as the JSON text they came as: a text is
put behind a text inside its quotes, a list behind a list inside its brackets. So no number and no escape is re-written,
and what is held is counted in bytes. The way back is `wire/unfold`. Driven by `relay` where a route aggregates.

Sources: OpenAI's API reference ("Streaming", "Responses: streaming events"), Anthropic's "Streaming messages".
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import msgspec

from trioproxy.wire.dialect import Dialect
from trioproxy.wire.joined_json import JoinedObject, Members, Meter, Misfit, list_of, members_of
from trioproxy.wire.sse import Framer

MAX_BYTES = 64 * 2**20
"""How much of an answer is held, unless told otherwise."""

_LINES_BYTES = 4096
"""What an event may have beside its data: its name, an `id`, comments."""

_NULL = b"null"
_decode_members = msgspec.json.Decoder(Members | None).decode
_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_decode_index: Callable[[msgspec.Raw | bytes], int] = msgspec.json.Decoder(_Index).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.encode
_RAW_NULL = msgspec.Raw(_NULL)
_RAW_ZERO = msgspec.Raw(b"0")


class Problem(StrEnum):
    """Why there is no answer though there was a stream. Named as it appears in logs."""

    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    MISFIT = "misfit"  # an event that lacks what its kind has, or does not go with those before it
    ERROR = "error"  # the origin said so itself, see `Fold.error`


class Fold:
    """Follows one event stream and holds what its answer is made of.

    It holds at most `max_bytes`, and beside them the event under way, which is no longer than that (to read one takes
    some times its bytes, for as long as that lasts). Once there is a problem it holds nothing.
    """

    def __init__(self, dialect: Dialect, max_bytes: int = MAX_BYTES) -> None:
        self._longest = max_bytes + _LINES_BYTES
        self._folding = _folding(dialect, max_bytes)
        self._framer: Framer | None = Framer(self._folding, self._longest)

    @property
    def problem(self) -> Problem | None:
        """What went wrong: from then on there is no answer, and what is fed is dropped."""
        return self._folding.problem

    @property
    def error(self) -> bytes | None:
        """The data of the origin's own error event, if that is the problem."""
        return self._folding.error

    @property
    def is_complete(self) -> bool:
        """The stream said that it is over, as a dialect's honest end is known (`wire/dialect`)."""
        return self.problem is None and self._folding.is_complete

    @property
    def held_bytes(self) -> int:
        """How many bytes are held at this moment, with a lump sum for each member."""
        return self._folding.meter.held + (self._framer.kept_bytes if self._framer else 0)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream; those behind its terminal are dropped. Never raises."""
        if self._framer is None:
            return
        self._framer.feed(data)
        if self._framer.kept_bytes >= self._longest:
            self._folding.fail(Problem.TOO_LARGE)
        if self._folding.is_over:
            self._framer = None

    def finish(self) -> None:
        """The stream has ended: a last event without its blank line counts too, if it is not cut short."""
        if self._framer is not None:
            self._folding.is_last = True
            self._framer.finish()

    def answer(self) -> bytes | None:
        """The whole answer's JSON, or None where nothing was said that one could be made of, or there is a problem.

        Also of a stream that broke off: whether its end was an honest one is asked with `is_complete`."""
        return None if self.problem is not None else self._folding.answer()


def _is_error(members: Members) -> bool:
    """An error object in place of an event, as `StreamWatch` knows it."""
    error = bytes(members.get("error", _RAW_NULL))
    return (error[:1] == b"{" and error[1:-1].strip() != b"") or (error[:1] == b'"' and error != b'""')


class _Folding:
    """The watch that is shown each event. Itself it folds nothing: a dialect whose streams have no whole answer."""

    is_settled = False  # each event is to be looked at

    def __init__(self, max_bytes: int) -> None:
        self.problem: Problem | None = None
        self.error: bytes | None = None
        self.is_over = False  # behind a terminal or a problem: the rest is dropped
        self.is_last = False  # what comes now was not ended by a blank line, and may be half an event
        self.meter = Meter()
        self._max_bytes = max_bytes
        self._forget()

    @property
    def is_complete(self) -> bool:
        return self.is_over and self.problem is None

    def hints(self, block: bytes) -> bool:
        return True

    def look(self, name: bytes, data: bytes) -> None:
        """Fold one event in. Never raises: what is no good is a problem."""
        if self.is_over or not data:
            return
        if len(data) > self._max_bytes:
            self.fail(Problem.TOO_LARGE)
            return
        try:
            self._fold(name, data)
        except (msgspec.ValidationError, Misfit):
            self.fail(Problem.MISFIT)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not self.is_last:
                self.fail(Problem.NOT_JSON)
        if self.meter.held > self._max_bytes:
            self.fail(Problem.TOO_LARGE)

    def fail(self, problem: Problem) -> None:
        """End it: the first problem stays, what is held is let go."""
        if self.problem is None:
            self.problem = problem
        self.is_over = True
        self._forget()
        self.meter.held = 0

    def answer(self) -> bytes | None:
        return None

    def _forget(self) -> None:
        """Start with nothing."""

    def _fold(self, name: bytes, data: bytes) -> None:
        """Take one event. May raise Misfit, and what decoding raises."""

    def _event(self, name: bytes, data: bytes) -> tuple[str, Members]:
        """An event's type, from its data or else its name, and its members. An error event is a problem."""
        str(data, "utf-8")  # what is no UTF-8 is no JSON; inside of a text the decoder would not look
        members = _decode_members(data)
        if members is None:
            raise Misfit
        kind = _decode_text(members.get("type", _RAW_NULL)) or name.decode("ascii", "replace")
        if kind == "error" or _is_error(members):
            self.fail(Problem.ERROR)
            self.error = data
            return "", {}
        return kind, members


class _Choice:
    """One choice of chat or completions. `fields` is all that is no message."""

    def __init__(self, meter: Meter) -> None:
        self.fields = JoinedObject(meter)
        self._message = JoinedObject(meter)
        self._calls: dict[int, JoinedObject] = {}
        self._has_calls = False
        self._meter = meter

    @property
    def is_finished(self) -> bool:
        return self.fields.says("finish_reason")

    def take(self, choice: Members) -> None:
        for name, value in choice.items():
            if name == "delta":
                self._take_delta(members_of(value))
            elif name in ("text", "logprobs"):
                self.fields.grow(name, value)
            elif name != "index":
                self.fields.keep(name, value)

    def _take_delta(self, delta: Members) -> None:
        for name, value in delta.items():
            if name == "tool_calls" and value != _RAW_NULL:
                self._has_calls = True
                for call in list_of(value):
                    self._take_call(members_of(call))
            else:
                self._message.grow(name, value)

    def _take_call(self, call: Members) -> None:
        """Put by its index; an origin that gives none sends each call whole, with its id."""
        given = call.pop("index", _RAW_NULL)
        last = max(self._calls, default=-1)
        if given != _RAW_NULL:
            at = _decode_index(given)
        else:
            at = last + 1 if last < 0 or _decode_text(call.get("id", _RAW_NULL)) else last
        if at not in self._calls:
            self._calls[at] = JoinedObject(self._meter)
        self._calls[at].grow_all(call)

    def chat(self, index: int) -> Members:
        """The choice of a chat. `content` is null, not empty, where something else was said in its place."""
        message: dict[str, msgspec.Raw] = {"role": msgspec.Raw(b'"assistant"'), "content": _RAW_NULL}
        message |= self._message.members()
        says_else = bool(self._calls) or any(map(self._message.says, ("function_call", "refusal", "audio")))
        if says_else and not self._message.says("content"):
            message["content"] = _RAW_NULL
        if self._has_calls:
            message["tool_calls"] = msgspec.Raw(_encode([self._calls[at].render() for at in sorted(self._calls)]))
        place = {"index": msgspec.Raw(b"%d" % index), "message": msgspec.Raw(_encode(message))}
        return place | {"finish_reason": _RAW_NULL} | self.fields.members()

    def completion(self, index: int) -> Members:
        """The choice of a legacy completion."""
        place = {"text": msgspec.Raw(b'""'), "index": msgspec.Raw(b"%d" % index), "finish_reason": _RAW_NULL}
        return place | self.fields.members()


class _Chunks(_Folding):
    """Chat and legacy completions."""

    def __init__(self, max_bytes: int, is_chat: bool) -> None:
        super().__init__(max_bytes)
        self._is_chat = is_chat

    @property
    def is_complete(self) -> bool:
        finished = bool(self._choices) and all(choice.is_finished for choice in self._choices.values())
        return finished or super().is_complete

    def _forget(self) -> None:
        self._head = JoinedObject(self.meter)
        self._choices: dict[int, _Choice] = {}

    def _fold(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.is_over = True
            return
        _, chunk = self._event(name, data)
        if "choices" not in chunk and "usage" not in chunk:
            return  # no chunk: a ping, or what an origin has of its own
        for member, value in chunk.items():
            if member == "choices":
                for choice in map(members_of, list_of(value)):
                    self._choice(choice).take(choice)
            elif member == "created" and value == _RAW_ZERO and self._head.says("created"):
                continue  # a filter's afterthought, which has no time of its own
            elif member not in ("object", "obfuscation"):  # the latter is padding
                self._head.keep(member, value)

    def _choice(self, choice: Members) -> _Choice:
        index = _decode_index(choice.get("index", b"0"))
        if index not in self._choices:
            self._choices[index] = _Choice(self.meter)
        return self._choices[index]

    def answer(self) -> bytes | None:
        if not self._choices:
            return None
        answer = self._head.members()
        answer["object"] = msgspec.Raw(b'"chat.completion"' if self._is_chat else b'"text_completion"')
        whole = _Choice.chat if self._is_chat else _Choice.completion
        answer["choices"] = msgspec.Raw(_encode([whole(self._choices[at], at) for at in sorted(self._choices)]))
        return _encode(answer)


_RESPONSE_ENDS = ("response.completed", "response.failed", "response.incomplete")
_RESPONSE_MAY_MATTER = re.compile(rb'response\.(?:completed|failed|incomplete)|"type"\s*:\s*"error"|^\s*\{\s*"error"')


class _Response(_Folding):
    """The Responses API: its last event has the whole answer, so that no other need be read."""

    def _forget(self) -> None:
        self._response: bytes | None = None

    def _fold(self, name: bytes, data: bytes) -> None:
        may_matter = name == b"error" or _RESPONSE_MAY_MATTER.search(name) or _RESPONSE_MAY_MATTER.search(data)
        if not may_matter:
            return
        kind, event = self._event(name, data)
        if kind in _RESPONSE_ENDS:
            response = bytes(event.get("response", _RAW_NULL))
            if response[:1] != b"{":
                raise Misfit
            self._response = response
            self.meter.held += len(response)
            self.is_over = True

    def answer(self) -> bytes | None:
        return self._response


class _Block:
    """One content block of a message, and what came so far of a tool's input, as a JSON string of JSON."""

    def __init__(self, meter: Meter, start: Members) -> None:
        self.content = JoinedObject(meter)
        self.content.grow_all(start)
        self._input = JoinedObject(meter)

    def take(self, delta: Members) -> None:
        for name, value in delta.items():
            if name == "partial_json":
                self._input.grow(name, value)
            elif name == "citation":
                self.content.grow("citations", b"[" + bytes(value) + b"]")
            elif name == "signature":
                self.content.keep(name, value)
            elif name != "type":
                self.content.grow(name, value)

    def close(self) -> None:
        """The input is whole. Raises what decoding raises where it is no JSON (a tool call that was cut short)."""
        if self._input.says("partial_json"):
            text = _decode_text(self._input.members()["partial_json"]) or ""
            self.content.keep("input", _decode_raw(text.encode()))


class _Message(_Folding):
    """Anthropic's Messages API."""

    def _forget(self) -> None:
        self._message: JoinedObject | None = None
        self._usage: JoinedObject | None = None
        self._blocks: dict[int, _Block] = {}

    def _fold(self, name: bytes, data: bytes) -> None:
        kind, event = self._event(name, data)
        match kind:
            case "message_start":
                self._start(members_of(event.get("message", _RAW_NULL)))
            case "content_block_start":
                self._blocks[self._index(event)] = _Block(self.meter, members_of(event.get("content_block", _RAW_NULL)))
            case "content_block_delta":
                self._block(event).take(members_of(event.get("delta", _RAW_NULL)))
            case "content_block_stop":
                self._block(event).close()
            case "message_delta":
                self._change(event)
            case "message_stop":
                if self._message is None:
                    raise Misfit
                self.is_over = True

    def _start(self, message: Members) -> None:
        self._message = JoinedObject(self.meter)
        for index, block in enumerate(list_of(message.pop("content", _RAW_NULL))):
            self._blocks[index] = _Block(self.meter, members_of(block))
        self._take(message)

    def _change(self, event: Members) -> None:
        self._take(members_of(event.pop("delta", _RAW_NULL)))
        event.pop("type", None)
        self._take(event)

    def _take(self, members: Members) -> None:
        """Members of the message. Usage counts up: a later number takes the earlier one's place."""
        if self._message is None:
            raise Misfit
        usage = members.pop("usage", None)
        self._message.keep_all(members)
        if usage is not None:
            self._usage = self._usage or JoinedObject(self.meter)
            self._usage.keep_all(members_of(usage))

    def _index(self, event: Members) -> int:
        return _decode_index(event.get("index", _RAW_NULL))

    def _block(self, event: Members) -> _Block:
        index = self._index(event)
        if index not in self._blocks:
            raise Misfit
        return self._blocks[index]

    def answer(self) -> bytes | None:
        if self._message is None:
            return None
        answer = self._message.members()
        answer["content"] = msgspec.Raw(_encode([self._blocks[at].content.render() for at in sorted(self._blocks)]))
        if self._usage is not None:
            answer["usage"] = self._usage.render()
        return _encode(answer)


def _folding(dialect: Dialect, max_bytes: int) -> _Folding:
    match dialect:
        case Dialect.CHAT | Dialect.COMPLETIONS:
            return _Chunks(max_bytes, is_chat=dialect is Dialect.CHAT)
        case Dialect.RESPONSES:
            return _Response(max_bytes)
        case Dialect.MESSAGES:
            return _Message(max_bytes)
        case _:
            return _Folding(max_bytes)
