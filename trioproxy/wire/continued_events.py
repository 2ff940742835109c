"""The events of a stream that several origins write, one after the other, as `continuing` needs them: what each says,
and a later origin's made to fit in. One reader for each dialect, for all attempts of a stream.

Sources: OpenAI's API reference ("Chat completions: streaming"), Anthropic's "Streaming messages".
"""

from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.json_object import JsonObject

_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


class Kind(Enum):
    """What an event is to a stream that may have to be gone on from."""

    PLAIN = auto()  # says nothing of the answer
    START = auto()  # starts the stream, or thinks aloud: not shown a second time
    TEXT = auto()
    BLOCK = auto()  # starts or ends a block of text
    END = auto()  # the answer is complete; the text may be its last
    OTHER = auto()  # a part of the answer that is no text, or may be none
    UNREADABLE = auto()
    ERROR = auto()


NOT_RESUMABLE = {Kind.END, Kind.OTHER, Kind.UNREADABLE, Kind.ERROR}


class Read(NamedTuple):
    """What was read of one event.

    `place` is its block's index in the client's stream, `before` the data of an event that has to stand before it.
    """

    kind: Kind
    text: str = ""
    place: int | None = None
    before: bytes = b""


class Reader(Protocol):
    """A dialect, as it is read over all attempts of one stream."""

    def begin_attempt(self) -> None:
        """What is read from here on is another origin's."""
        ...

    def read(self, name: bytes, data: bytes) -> Read:
        """What an event is. Must not raise, whatever the bytes."""
        ...

    def fit(self, data: bytes, read: Read) -> bytes:
        """A later attempt's event in its place in the client's stream. Raises BadRequest or a DecodeError."""
        ...

    def with_text(self, data: bytes, text: str) -> bytes:
        """The event with another text. Raises BadRequest or a DecodeError."""
        ...


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


_IDENTITY = ("id", "created", "model", "system_fingerprint")
_THOUGHTS = {"reasoning", "reasoning_content", "reasoning_details"}


class ChatReader:
    """Chat completions with one choice."""

    def __init__(self) -> None:
        self._identity: dict[str, bytes] | None = None  # the first attempt's; None until a choice was seen

    def begin_attempt(self) -> None:
        pass  # can only be once there was a text, and then there is an identity

    def read(self, name: bytes, data: bytes) -> Read:
        if data == b"[DONE]":
            return Read(Kind.END)
        value = _object(data)
        if value is None:
            return Read(Kind.UNREADABLE)
        if value.get("error"):
            return Read(Kind.ERROR)
        choices = value.get("choices")
        if choices == []:
            return Read(Kind.PLAIN)  # usage, or what a filter says of the prompt
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            return Read(Kind.OTHER)
        if self._identity is None:
            self._identity = _members(data, _IDENTITY)
        return _of_choice(choices[0])

    def fit(self, data: bytes, read: Read) -> bytes:
        if data == b"[DONE]":
            return data
        chunk = JsonObject.parse(data)
        if "choices" not in chunk.members:
            return data
        values = dict(self._identity or {})
        if b'"role"' in data:
            values["choices"] = _with_delta(chunk, None)
        return chunk.replace(values)

    def with_text(self, data: bytes, text: str) -> bytes:
        chunk = JsonObject.parse(data)
        return chunk.replace({"choices": _with_delta(chunk, text)})


def _members(data: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        members = JsonObject.parse(data).members
    except BadRequest:
        return {}
    return {name: bytes(members[name]) for name in names if name in members}


def _of_choice(choice: dict[str, Any]) -> Read:
    delta = choice.get("delta") or {}
    if choice.get("index", 0) != 0 or choice.get("logprobs") or not isinstance(delta, dict):
        return Read(Kind.OTHER)
    text = delta.get("content") or ""
    more = {name for name, value in delta.items() if value and name not in ("role", "content")}
    if not isinstance(text, str) or more - _THOUGHTS:
        return Read(Kind.OTHER)
    if choice.get("finish_reason"):
        return Read(Kind.END, text)
    if text:
        return Read(Kind.TEXT, text)
    return Read(Kind.START if more or delta.get("role") else Kind.PLAIN)


def _with_delta(chunk: JsonObject, text: str | None) -> bytes:
    """The chunk's one choice without a role, and with this text unless it is None; other values as they are."""
    choices = _decode_list(chunk.members["choices"])
    if len(choices) != 1:
        return bytes(chunk.members["choices"])
    choice = JsonObject.parse(bytes(choices[0]))
    delta: dict[str, bytes] = {}
    if choice.members.get("delta", b"null") != b"null":
        delta = {name: bytes(value) for name, value in JsonObject.parse(bytes(choice.members["delta"])).members.items()}
        delta.pop("role", None)
    if text is not None:
        delta["content"] = _encode(text)
    joined = b",".join(_encode(name) + b":" + value for name, value in delta.items())
    return b"[" + choice.replace({"delta": b"{" + joined + b"}"}) + b"]"


class MessagesReader:
    """Anthropic's messages. Blocks have indexes; a later attempt's text goes on in our block if that is open."""

    def __init__(self) -> None:
        self._open: int | None = None  # the block of text that was started and not ended, as the client knows it
        self._next = 0  # the index of the client's next block
        self._shift = 0  # from the origin's index to the client's
        self._joins = False  # the attempt's first block of text goes on in ours

    def begin_attempt(self) -> None:
        self._joins = self._open is not None
        self._shift = self._next if self._open is None else self._open

    def read(self, name: bytes, data: bytes) -> Read:
        value = _object(data)
        if value is None:
            return Read(Kind.UNREADABLE)
        match value.get("type") or name.decode("ascii", "replace"):
            case "ping":
                return Read(Kind.PLAIN)
            case "message_start":
                return Read(Kind.START)
            case "content_block_start":
                return self._start(value)
            case "content_block_delta":
                return self._delta(value)
            case "content_block_stop":
                return self._stop(value)
            case "message_delta" | "message_stop":
                return Read(Kind.END, before=self._made_up_stop())
            case "error":
                return Read(Kind.ERROR)
        return Read(Kind.ERROR if value.get("error") else Kind.OTHER)

    def fit(self, data: bytes, read: Read) -> bytes:
        return data if read.place is None else JsonObject.parse(data).replace({"index": b"%d" % read.place})

    def with_text(self, data: bytes, text: str) -> bytes:
        event = JsonObject.parse(data)
        delta = JsonObject.parse(bytes(event.members["delta"]))
        return event.replace({"delta": delta.replace({"text": _encode(text)})})

    def _index(self, value: dict[str, Any]) -> int | None:
        index = value.get("index")
        return index + self._shift if type(index) is int and index >= 0 else None

    def _start(self, value: dict[str, Any]) -> Read:
        block = value.get("content_block")
        is_text = isinstance(block, dict) and block.get("type") == "text" and not block.get("text")
        before = b""
        if self._joins:
            self._joins = False
            if is_text:
                return Read(Kind.START)
            before = self._made_up_stop()
            self._shift += 1
        index = self._index(value)
        if index is None:
            return Read(Kind.OTHER, before=before)
        self._next = index + 1
        self._open = index if is_text else None
        return Read(Kind.BLOCK if is_text else Kind.OTHER, place=index, before=before)

    def _delta(self, value: dict[str, Any]) -> Read:
        index, delta = self._index(value), value.get("delta")
        if index is None or index != self._open or not isinstance(delta, dict) or delta.get("type") != "text_delta":
            return Read(Kind.OTHER, place=index)
        text = delta.get("text")
        return Read(Kind.TEXT, text, index) if isinstance(text, str) else Read(Kind.OTHER, place=index)

    def _stop(self, value: dict[str, Any]) -> Read:
        index = self._index(value)
        if index is None or index != self._open:
            return Read(Kind.OTHER, place=index)
        self._open = None
        return Read(Kind.BLOCK, place=index)

    def _made_up_stop(self) -> bytes:
        """The end of our block, where a later origin has nothing to add to it: each block that was started is ended.
        In a first attempt it is not written, as that passes as it is."""
        index, self._open = self._open, None
        return b"" if index is None else b'{"type":"content_block_stop","index":%d}' % index
