"""A whole answer as its dialect's event stream: for a client that streams and an origin that does not.

One delta for each text, however long: the origin has said all of it already, so nothing is gained by cutting it up.
Values stay the JSON text they came as. The way back is `wire/fold`. Used by `relay`.

Sources: OpenAI's API reference ("Streaming", "Responses: streaming events"), Anthropic's "Streaming messages".
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from trioproxy.wire.dialect import Dialect

_Members = dict[str, msgspec.Raw]
_decode_members = msgspec.json.Decoder(_Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_decode_objects = msgspec.json.Decoder(list[_Members] | None).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_encode = msgspec.json.encode
_NULL = msgspec.Raw(b"null")
_EMPTY_TEXT = msgspec.Raw(b'""')
_EMPTY_LIST = msgspec.Raw(b"[]")
_SAY_NOTHING = (_NULL, _EMPTY_TEXT, _EMPTY_LIST)
_DONE = b"data: [DONE]\n\n"


def unfold(dialect: Dialect, answer: bytes, *, with_usage: bool) -> bytes | None:
    """The events of a whole answer, with LF line ends and the dialect's terminal.

    Args:
        with_usage: the client of chat or completions asked for a chunk with the usage. The other dialects always tell.

    Returns None where this is no such answer: no JSON, an error, another object, one that is still being worked at.
    Never raises.
    """
    write = _WRITERS.get(dialect)
    if write is None:
        return None
    try:
        str(answer, "utf-8")  # what is no UTF-8 is no JSON; inside of a text the decoder would not look
        compact = msgspec.json.format(answer, indent=-1)  # a line end between members would end the event's line
        return write(_decode_members(compact), with_usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def _named(kind: str, members: Mapping[str, Any]) -> bytes:
    """An event whose name is its data's type."""
    return b"event: " + kind.encode("ascii") + b"\n" + _data({"type": kind, **members})


def _kind(value: msgspec.Raw) -> bytes:
    """The first byte of a JSON text, which says what it is."""
    return bytes(value)[:1]


def _is_text(value: msgspec.Raw) -> bool:
    """Whether this is a text with something in it."""
    return _kind(value) == b'"' and value != _EMPTY_TEXT


def _text(members: _Members, name: str) -> str | None:
    """A member's text, None where it is null, missing or none."""
    value = members.get(name, _NULL)
    return _decode_text(value) if _kind(value) == b'"' else None


# --- chat and completions ---------------------------------------------------------------------------------------------

_ON_EACH = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


class _Chunks:
    """Writes the chunks of one answer. What an answer has of its own beside its choices is on the first."""

    def __init__(self, answer: _Members, kind: str, with_usage: bool) -> None:
        self._usage = answer.pop("usage", None) if with_usage else None
        answer.pop("usage", None)
        self._head: dict[str, Any] = {**answer, "object": kind}
        self._written: list[bytes] = []

    def add(self, *choices: Mapping[str, Any]) -> None:
        self._write(choices, _NULL)

    def end(self) -> bytes:
        """The stream. The usage chunk has no choices, and all others say null, as the API does."""
        if self._usage not in (None, _NULL):
            self._write((), self._usage)
        return b"".join([*self._written, _DONE])

    def _write(self, choices: tuple[Mapping[str, Any], ...], usage: msgspec.Raw | None) -> None:
        told = {} if self._usage is None else {"usage": usage}
        self._written.append(_data({**self._head, "choices": choices, **told}))
        self._head = {name: value for name, value in self._head.items() if name in _ON_EACH}


def _chat(answer: _Members, with_usage: bool) -> bytes | None:
    choices = _decode_objects(answer.pop("choices", _NULL))
    if not choices or not all(_kind(choice.get("message", _NULL)) == b"{" for choice in choices):
        return None
    chunks = _Chunks(answer, "chat.completion.chunk", with_usage)
    for index, choice in enumerate(choices):
        message = _decode_members(choice.pop("message"))
        choice.pop("index", None)
        logprobs = choice.pop("logprobs", None)
        rest: dict[str, Any] = {} if logprobs is None else {"logprobs": _NULL}
        for delta in _deltas(message):
            if logprobs is not None and delta.get("content", _NULL) not in _SAY_NOTHING:
                chunks.add({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None})
                logprobs = None
            else:
                chunks.add({"index": index, "delta": delta, **rest, "finish_reason": None})
        if logprobs is not None:
            rest["logprobs"] = logprobs
        chunks.add({"index": index, "delta": {}, **rest, "finish_reason": None, **choice})
    return chunks.end()


def _deltas(message: _Members) -> Iterator[dict[str, Any]]:
    """A message in pieces: who speaks, then one for each thing that is said; reasoning comes before content, as it was
    thought, and tool calls come last."""
    calls = _decode_objects(message.pop("tool_calls")) if _kind(message.get("tool_calls", _NULL)) == b"[" else None
    opening: dict[str, Any] = {"role": message.pop("role", msgspec.Raw(b'"assistant"'))}
    if _kind(message.get("content", _NULL)) == b'"':
        opening["content"] = _EMPTY_TEXT
    for name in [name for name, value in message.items() if value in _SAY_NOTHING]:
        opening[name] = message.pop(name)
    if calls == []:
        opening["tool_calls"] = _EMPTY_LIST
    yield opening
    for name in sorted(message, key=lambda name: (not name.startswith("reasoning"), name != "content")):
        yield {name: message[name]}
    for index, call in enumerate(calls or []):
        yield {"tool_calls": [{**call, "index": index}]}


def _completions(answer: _Members, with_usage: bool) -> bytes | None:
    choices = _decode_objects(answer.pop("choices", _NULL))
    if not choices or not all(_kind(choice.get("text", _NULL)) == b'"' for choice in choices):
        return None
    chunks = _Chunks(answer, "text_completion", with_usage)
    for index, choice in enumerate(choices):
        said = {name: choice.pop(name) for name in ("text", "logprobs") if name in choice}
        silent = {name: _EMPTY_TEXT if name == "text" else _NULL for name in said}
        chunks.add({**said, "index": index, "finish_reason": None})
        chunks.add({"finish_reason": None, **choice, **silent, "index": index})
    return chunks.end()


# --- responses --------------------------------------------------------------------------------------------------------

_NOT_YET = ("output", "usage", "error", "incomplete_details", "completed_at")
_ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}
_CALLS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
"""Items that say one text: its member, and how its events' names begin."""
_PARTS = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "reasoning_text": ("text", "response.reasoning_text"),
}


class _Events:
    """Writes the events of one response, numbered."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def add(self, kind: str, **members: Any) -> None:
        self.written.append(_named(kind, {**members, "sequence_number": len(self.written)}))

    def say(self, kind: str, member: str, text: msgspec.Raw, place: Mapping[str, Any], **more: Any) -> None:
        """A text: its delta, if there is anything in it, and that it is done."""
        if _is_text(text):
            self.add(f"{kind}.delta", **place, delta=text, **more)
        self.add(f"{kind}.done", **place, **{member: text}, **more)


def _responses(answer: _Members, with_usage: bool) -> bytes | None:
    end = _ENDS.get(_text(answer, "status") or "completed")
    if _kind(answer.get("output", _NULL)) != b"[" or end is None:
        return None
    started: dict[str, Any] = {**answer, "status": "in_progress"}
    started |= {name: _EMPTY_LIST if name == "output" else _NULL for name in _NOT_YET if name in answer}
    events = _Events()
    events.add("response.created", response=started)
    events.add("response.in_progress", response=started)
    for index, item in enumerate(_decode_objects(answer["output"]) or []):
        _item(events, index, item)
    events.add(end, response=answer)
    return b"".join(events.written)


def _item(events: _Events, index: int, item: _Members) -> None:
    """One item of the output. Of a kind that has no text of its own only that it is there, and that it is done."""
    kind = _text(item, "type") or ""
    place = {"item_id": item.get("id", f"item_{index}"), "output_index": index}
    started: dict[str, Any] = dict(item)
    if "status" in item:
        started["status"] = "in_progress"
    member, name = _CALLS.get(kind, ("", ""))
    said = item.get(member, _NULL)
    if _kind(said) == b'"':
        started[member] = _EMPTY_TEXT
    lists = [part for part in ("summary", "content") if kind in ("message", "reasoning") and _is_list(item, part)]
    for part in lists:
        started[part] = _EMPTY_LIST
    events.add("response.output_item.added", output_index=index, item=started)
    if _kind(said) == b'"':
        named = {"name": item["name"]} if kind == "function_call" and "name" in item else {}
        if _is_text(said):
            events.add(f"{name}.delta", **place, delta=said)
        events.add(f"{name}.done", **place, **named, **{member: said})
    for part in lists:
        write = _summary if part == "summary" else _part
        for number, entry in enumerate(_decode_objects(item[part]) or []):
            write(events, place, number, entry)
    events.add("response.output_item.done", output_index=index, item=item)


def _is_list(members: _Members, name: str) -> bool:
    return _kind(members.get(name, _NULL)) == b"["


def _part(events: _Events, item: Mapping[str, Any], index: int, part: _Members) -> None:
    """One part of a message's or a reasoning's content."""
    kind = _text(part, "type") or ""
    place = {**item, "content_index": index}
    member, name = _PARTS.get(kind, ("", ""))
    said = part.get(member, _NULL)
    started: dict[str, Any] = dict(part)
    if _kind(said) == b'"':
        started[member] = _EMPTY_TEXT
        started |= {name: _EMPTY_LIST for name in ("annotations", "logprobs") if _is_list(part, name)}
    events.add("response.content_part.added", **place, part=started)
    if _kind(said) == b'"':
        logprobs = {"logprobs": part["logprobs"] if _is_list(part, "logprobs") else _EMPTY_LIST}
        events.say(name, member, said, place, **(logprobs if kind == "output_text" else {}))
        if _is_list(part, "annotations"):
            for number, annotation in enumerate(_decode_list(part["annotations"]) or []):
                at = {**place, "annotation_index": number}
                events.add("response.output_text.annotation.added", **at, annotation=annotation)
    events.add("response.content_part.done", **place, part=part)


def _summary(events: _Events, item: Mapping[str, Any], index: int, part: _Members) -> None:
    """One part of a reasoning's summary."""
    place = {**item, "summary_index": index}
    said = part.get("text", _NULL)
    started = {**part, "text": _EMPTY_TEXT} if _kind(said) == b'"' else part
    events.add("response.reasoning_summary_part.added", **place, part=started)
    if _kind(said) == b'"':
        events.say("response.reasoning_summary_text", "text", said, place)
    events.add("response.reasoning_summary_part.done", **place, part=part)


# --- messages ---------------------------------------------------------------------------------------------------------

_AT_THE_END = ("stop_reason", "stop_sequence", "stop_details")


def _messages(answer: _Members, with_usage: bool) -> bytes | None:
    if _text(answer, "type") != "message" or not _is_list(answer, "content"):
        return None
    blocks = _decode_objects(answer["content"]) or []
    start: dict[str, Any] = {**answer, "content": _EMPTY_LIST}
    start |= {name: _NULL for name in _AT_THE_END if name in answer}
    delta = {name: answer[name] for name in _AT_THE_END if name in answer}
    told = {}
    if _kind(answer.get("usage", _NULL)) == b"{":
        usage = _decode_members(answer["usage"])
        told = {"usage": usage}
        start["usage"] = {**usage, "output_tokens": 0} if "output_tokens" in usage else usage
    events = [_named("message_start", {"message": start})]
    for index, block in enumerate(blocks):
        events += _block(index, block)
    events += (_named("message_delta", {"delta": delta, **told}), _named("message_stop", {}))
    return b"".join(events)


def _block(index: int, block: _Members) -> Iterator[bytes]:
    """One content block. Of a kind that has no deltas all is in its start."""
    started: dict[str, Any] = dict(block)
    deltas: list[dict[str, Any]] = []
    kind = _text(block, "type")
    if kind == "text":
        for citation in _decode_list(block["citations"]) or [] if _is_list(block, "citations") else []:
            deltas.append({"type": "citations_delta", "citation": citation})
            started["citations"] = _EMPTY_LIST
    texts = {"text": ("text",), "thinking": ("thinking", "signature")}.get(kind or "", ())
    for member in texts:
        if _is_text(block.get(member, _NULL)):
            deltas.append({"type": f"{member}_delta", member: block[member]})
            started[member] = _EMPTY_TEXT
    said = bytes(block.get("input", _NULL))
    if (kind or "").endswith("tool_use") and said[:1] == b"{" and said != b"{}":
        deltas.append({"type": "input_json_delta", "partial_json": said.decode()})
        started["input"] = {}
    yield _named("content_block_start", {"index": index, "content_block": started})
    for delta in deltas:
        yield _named("content_block_delta", {"index": index, "delta": delta})
    yield _named("content_block_stop", {"index": index})


_WRITERS: dict[Dialect, Callable[[_Members, bool], bytes | None]] = {
    Dialect.CHAT: _chat,
    Dialect.COMPLETIONS: _completions,
    Dialect.RESPONSES: _responses,
    Dialect.MESSAGES: _messages,
}
