"""What the demo upstream says: the events of each dialect's stream, and the same answer whole. Pure.

An answer is made of pieces (words of a few sentences, or of a tool call's arguments). Each dialect has three parts:
events that open its stream, one event per piece, events that close it; the last of these is the dialect's terminal.
The same request gets the same answer, but for the number in its ids.

Does not know time, faults or sockets (`demo_script`). Called by `demo_upstream`.
"""

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from .demo_model import Behaviour

CREATED: Final = 1_760_000_000
TOOL: Final = "take_note"
NATURAL_WORDS: Final = 40
MAX_INPUTS: Final = 2048
MAX_DIMENSIONS: Final = 4096
MODELS: Final = (
    "gpt-4o-mini",
    "gpt-4o",
    "claude-demo",
    "text-embedding-3-small",
    "tts-1",
    "demo-n200-i10",
    "demo-tools",
)

SENTENCES: Final = (
    "A nursery does not close its gate until the last child has come home.",
    "The river never asks the sea to hurry; it slows down where the banks are narrow.",
    "A good proxy is like a quiet interpreter: it adds nothing, drops nothing and leaves when you leave.",
    "Every task has a parent, and every parent waits.",
    "When the reader pauses the whole river pauses, all the way up to the spring.",
    "Saplings grow in rows here, and nobody plants one without writing down who will water it.",
    "Whoever builds a dam should say beforehand how much water it will hold.",
    "An interrupted sentence is honest as long as it does not pretend to be a full stop.",
    "Small streams carry more news than large lakes.",
    "The ferryman counts who boards and who gets off, and the two numbers agree at night.",
    "Patience is a number of seconds, and it belongs in the configuration.",
    "Rain on the hills today is a wider river tomorrow, so leave room between the stones.",
)
_WORDS: Final = tuple(tuple(f"{word} " for word in sentence.split()) for sentence in SENTENCES)
_FLAT: Final = tuple(word for sentence in _WORDS for word in sentence)
LONGEST_WORD: Final = max(map(len, _FLAT))

Json = dict[str, Any]


class Dialect(StrEnum):
    """Whose API a route speaks."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


def dumps(value: object) -> bytes:
    """Compact JSON. ASCII only, so that a lone surrogate in a model's name cannot fail."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True)
class Answer:
    """One answer: who asked for it in which dialect, and what it says. `number` goes into its ids."""

    dialect: Dialect
    model: str
    behaviour: Behaviour
    request: bytes
    number: int
    include_usage: bool = False
    start: int = field(init=False)
    """The index of the first word."""
    count: int = field(init=False)
    """How many pieces it has."""

    def __post_init__(self) -> None:
        sentence = zlib.crc32(self.request) % len(_WORDS)
        object.__setattr__(self, "start", sum(len(words) for words in _WORDS[:sentence]))
        object.__setattr__(self, "count", self._pieces(sentence))

    def _pieces(self, sentence: int) -> int:
        """As many as were asked for; else whole sentences, and enough for every fault to have its turn."""
        if self.behaviour.events is not None:
            return self.behaviour.events
        natural = 0
        while natural < NATURAL_WORDS:
            natural += len(_WORDS[sentence % len(_WORDS)])
            sentence += 1
        return max(natural, *(number + 1 for number in self.behaviour.faults), 0)

    @property
    def is_tool_call(self) -> bool:
        return self.behaviour.tools and self.dialect is not Dialect.COMPLETIONS

    @property
    def prompt_tokens(self) -> int:
        return len(self.request) // 4 + 1

    @property
    def held_bytes(self) -> int:
        """About how many bytes the text is, all together."""
        return self.count * (LONGEST_WORD + self.behaviour.pad_bytes)

    def piece(self, index: int) -> str:
        """Piece `index`, padding included. An index past the end is fine: a flood has none."""
        text = _FLAT[(self.start + index) % len(_FLAT)] + self.behaviour.padding(index)
        last = index == self.count - 1
        if self.is_tool_call:
            return ('{"note":"' if index == 0 else "") + text + ('"}' if last else "")
        return text.rstrip(" ") if last else text

    def text(self) -> str:
        """All pieces together."""
        return "".join(self.piece(index) for index in range(self.count))


@dataclass(frozen=True)
class Event:
    """One server-sent event: its data, and its name if the dialect names its events."""

    data: bytes
    name: str | None = None

    def render(self, newline: str = "\n") -> bytes:
        """The event's bytes, with the blank line that ends it."""
        end = newline.encode("ascii")
        head = b"" if self.name is None else b"event: " + self.name.encode("ascii") + end
        return head + b"data: " + self.data + end + end


def opening(answer: Answer) -> list[Event]:
    """The events before the first piece."""
    match answer.dialect:
        case Dialect.CHAT:
            delta: Json = {"role": "assistant", "content": "", "refusal": None}
            if answer.is_tool_call:
                function = {"name": TOOL, "arguments": ""}
                call = {"index": 0, "id": f"call_demo{answer.number}", "type": "function", "function": function}
                delta = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
            return [_chat(answer, delta)]
        case Dialect.COMPLETIONS:
            return []
        case Dialect.RESPONSES:
            return _responses_opening(answer)
        case Dialect.MESSAGES:
            return _messages_opening(answer)


def content(answer: Answer, index: int) -> Event:
    """The event of piece `index`."""
    piece = answer.piece(index)
    match answer.dialect:
        case Dialect.CHAT if answer.is_tool_call:
            return _chat(answer, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        case Dialect.CHAT:
            return _chat(answer, {"content": piece})
        case Dialect.COMPLETIONS:
            return _completion(answer, piece)
        case Dialect.RESPONSES:
            return _responses_delta(answer, index, piece)
        case Dialect.MESSAGES:
            kind = ("input_json_delta", "partial_json") if answer.is_tool_call else ("text_delta", "text")
            delta = {"type": kind[0], kind[1]: piece}
            return _named({"type": "content_block_delta", "index": 0, "delta": delta})


def closing(answer: Answer) -> list[Event]:
    """The events after the last piece; the last of them is the dialect's terminal."""
    usage = [_usage_chunk(answer)] if answer.include_usage else []
    match answer.dialect:
        case Dialect.CHAT:
            reason = "tool_calls" if answer.is_tool_call else "stop"
            return [_chat(answer, {}, reason), *usage, Event(b"[DONE]")]
        case Dialect.COMPLETIONS:
            return [_completion(answer, "", "stop"), *usage, Event(b"[DONE]")]
        case Dialect.RESPONSES:
            return _responses_closing(answer)
        case Dialect.MESSAGES:
            return _messages_closing(answer)


def failure(answer: Answer, index: int) -> Event:
    """The error event that takes the place of piece `index`; 0: of the first event."""
    message = "The model is overloaded."
    match answer.dialect:
        case Dialect.CHAT | Dialect.COMPLETIONS:
            return Event(dumps(error_envelope(message, "server_error", "overloaded")))
        case Dialect.RESPONSES:
            number = index + len(opening(answer)) if index else 0
            error = {"type": "error", "code": "overloaded", "message": message, "param": None}
            return _named({**error, "sequence_number": number})
        case Dialect.MESSAGES:
            return _named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


def whole(answer: Answer) -> Json:
    """The answer to a request without `stream`."""
    head: Json = {"created": CREATED, "model": answer.model}
    match answer.dialect:
        case Dialect.CHAT:
            message: Json = {"role": "assistant", "content": answer.text(), "refusal": None, "annotations": []}
            if answer.is_tool_call:
                function = {"name": TOOL, "arguments": answer.text()}
                call = {"id": f"call_demo{answer.number}", "type": "function", "function": function}
                message = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
            reason = "tool_calls" if answer.is_tool_call else "stop"
            choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            name = {"id": f"chatcmpl-demo{answer.number}", "object": "chat.completion"}
            return {**name, **head, "choices": [choice], "usage": usage_of(answer), "system_fingerprint": "fp_demo"}
        case Dialect.COMPLETIONS:
            choice = {"text": answer.text(), "index": 0, "logprobs": None, "finish_reason": "stop"}
            name = {"id": f"cmpl-demo{answer.number}", "object": "text_completion"}
            return {**name, **head, "choices": [choice], "usage": usage_of(answer)}
        case Dialect.RESPONSES:
            return _response(answer, "completed")
        case Dialect.MESSAGES:
            return _message(answer, [_block(answer, answer.text())], _stop_reason(answer), answer.count)


def whole_failure(answer: Answer) -> Json:
    """An error body that pretends to be a success: what `error` means without `stream`."""
    if answer.dialect is Dialect.MESSAGES:
        return {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return error_envelope("The model is overloaded.", "server_error", "overloaded")


def error_envelope(message: str, type_: str, code: str | None, param: str | None = None) -> Json:
    """OpenAI's envelope for an error."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def usage_of(answer: Answer) -> Json:
    """Usage in the words of chat and completions."""
    tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.count}
    return {**tokens, "total_tokens": answer.prompt_tokens + answer.count}


def model_entry(name: str) -> Json:
    """One entry of the models list."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "demo"}


def embeddings(request: Json, model: str) -> Json:
    """Deterministic vectors, as floats or in base64 (what the official Python client asks for).

    Raises ValueError if the input is not a text, a list of tokens, or a list of at most 2,048 of these.
    """
    given = request.get("input")
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    seeds = [_seed(item) for item in (given if isinstance(given, list) and many else [given])]
    if len(seeds) > MAX_INPUTS:
        raise ValueError(f"input: at most {MAX_INPUTS} texts")
    asked = request.get("dimensions")
    size = asked if isinstance(asked, int) and 1 <= asked <= MAX_DIMENSIONS else 256
    data: list[Json] = []
    for index, seed in enumerate(seeds):
        vector = _vector(seed, size)
        value: object = vector
        if request.get("encoding_format") == "base64":
            value = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode("ascii")
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(len(seed) // 4 + 1 for seed in seeds)
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _seed(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if isinstance(item, list) and all(isinstance(token, int) for token in item):
        return dumps(item)
    raise ValueError("input: expected a text or a list of tokens")


def sound(size: int) -> bytes:
    """`size` deterministic bytes that begin like a frame of MP3."""
    block = b"\xff\xfb\x90\x00" + bytes(range(252))
    return (block * (size // len(block) + 1))[:size]


def _vector(seed: bytes, size: int) -> list[float]:
    state = zlib.crc32(seed) or 1
    values: list[float] = []
    for _ in range(size):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        values.append(state / 0x4000_0000 - 1.0)
    return values


def _named(data: Json) -> Event:
    """An event whose name is its data's type, as Responses and Messages have it."""
    return Event(dumps(data), str(data["type"]))


def _chat(answer: Answer, delta: Json, reason: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return Event(dumps(_chunk(answer, f"chatcmpl-demo{answer.number}", "chat.completion.chunk", [choice])))


def _completion(answer: Answer, text: str, reason: str | None = None) -> Event:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
    return Event(dumps(_chunk(answer, f"cmpl-demo{answer.number}", "text_completion", [choice])))


def _chunk(answer: Answer, name: str, kind: str, choices: list[Json]) -> Json:
    chunk: Json = {"id": name, "object": kind, "created": CREATED, "model": answer.model}
    chunk |= {"system_fingerprint": "fp_demo", "choices": choices}
    # With usage asked for, every chunk but the usage chunk says null, as the real API does.
    return chunk | {"usage": None} if answer.include_usage else chunk


def _usage_chunk(answer: Answer) -> Event:
    chat = answer.dialect is Dialect.CHAT
    name = f"{'chatcmpl' if chat else 'cmpl'}-demo{answer.number}"
    chunk = _chunk(answer, name, "chat.completion.chunk" if chat else "text_completion", [])
    return Event(dumps(chunk | {"usage": usage_of(answer)}))


def _response(answer: Answer, status: str) -> Json:
    done = status == "completed"
    details = {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}
    tokens = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.count}
    total = {"total_tokens": answer.prompt_tokens + answer.count, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_demo{answer.number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": answer.model,
        "output": [_item(answer, "completed")] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {**tokens, **details, **total} if done else None,
    }


def _item_id(answer: Answer) -> str:
    return f"{'fc' if answer.is_tool_call else 'msg'}_demo{answer.number}"


def _item(answer: Answer, status: str) -> Json:
    done = status == "completed"
    head = {"id": _item_id(answer), "status": status}
    if answer.is_tool_call:
        call = {"type": "function_call", "call_id": f"call_demo{answer.number}", "name": TOOL}
        return {**head, **call, "arguments": answer.text() if done else ""}
    return {**head, "type": "message", "role": "assistant", "content": [_part(answer.text())] if done else []}


def _part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _responses_opening(answer: Answer) -> list[Event]:
    events: list[Json] = [
        {"type": "response.created", "response": _response(answer, "in_progress")},
        {"type": "response.in_progress", "response": _response(answer, "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": _item(answer, "in_progress")},
    ]
    if not answer.is_tool_call:
        events.append({"type": "response.content_part.added", **_place(answer), "part": _part("")})
    return [_named(event | {"sequence_number": number}) for number, event in enumerate(events)]


def _responses_delta(answer: Answer, index: int, piece: str) -> Event:
    number = {"sequence_number": index + (3 if answer.is_tool_call else 4)}
    if answer.is_tool_call:
        place = {"item_id": _item_id(answer), "output_index": 0}
        return _named({"type": "response.function_call_arguments.delta", **place, "delta": piece, **number})
    return _named({"type": "response.output_text.delta", **_place(answer), "delta": piece, "logprobs": [], **number})


def _responses_closing(answer: Answer) -> list[Event]:
    text = answer.text()
    if answer.is_tool_call:
        place = {"item_id": _item_id(answer), "output_index": 0, "name": TOOL}
        events: list[Json] = [{"type": "response.function_call_arguments.done", **place, "arguments": text}]
    else:
        events = [
            {"type": "response.output_text.done", **_place(answer), "text": text, "logprobs": []},
            {"type": "response.content_part.done", **_place(answer), "part": _part(text)},
        ]
    events.append({"type": "response.output_item.done", "output_index": 0, "item": _item(answer, "completed")})
    events.append({"type": "response.completed", "response": _response(answer, "completed")})
    first = answer.count + (3 if answer.is_tool_call else 4)
    return [_named(event | {"sequence_number": first + number}) for number, event in enumerate(events)]


def _place(answer: Answer) -> Json:
    return {"item_id": _item_id(answer), "output_index": 0, "content_index": 0}


def _stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.is_tool_call else "end_turn"


def _message(answer: Answer, blocks: list[Json], reason: str | None, output_tokens: int) -> Json:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    usage = {"input_tokens": answer.prompt_tokens, **cache, "output_tokens": output_tokens}
    head = {"id": f"msg_demo{answer.number}", "type": "message", "role": "assistant", "model": answer.model}
    return {**head, "content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def _block(answer: Answer, text: str) -> Json:
    if answer.is_tool_call:
        call = {"type": "tool_use", "id": f"toolu_demo{answer.number}", "name": TOOL}
        return {**call, "input": json.loads(text) if text else {}}
    return {"type": "text", "text": text}


def _messages_opening(answer: Answer) -> list[Event]:
    return [
        _named({"type": "message_start", "message": _message(answer, [], None, 1)}),
        _named({"type": "content_block_start", "index": 0, "content_block": _block(answer, "")}),
        _named({"type": "ping"}),
    ]


def _messages_closing(answer: Answer) -> list[Event]:
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return [
        _named({"type": "content_block_stop", "index": 0}),
        _named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.count}}),
        _named({"type": "message_stop"}),
    ]
