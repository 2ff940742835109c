"""One stream for the client out of several origins' streams: the first was cut, the next goes on from its text.

`Transcript` is fed what the origins send, in any cutting, and gives what may go to the client: whole events, so that a
cut never leaves half of one. Of the first attempt they are the origin's own bytes. Of a later one they are made to fit:
the chunk's `id`, `created`, `model` and `system_fingerprint` become the first's (chat), block indexes go on (messages),
what only starts a stream is dropped, and so is text that the origin repeats. Values are spliced in; what is not named
here stays as it came. Driven by `relay`.

Usage passes as the origin says it: the last origin's counts are of its own call, the text so far among the input. A
limit on the tokens of the answer (`max_tokens`) is asked for anew in each call, too.

What cannot be gone on from is passed on at once, as it comes: then nothing is held back nor taken apart.

Sources: OpenAI's API reference ("Chat completions: streaming"), Anthropic's "Streaming messages".
"""

import re
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.prefill import Prefill, is_worth_a_look
from trioproxy.wire.sse import fields

_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode

# As in `wire/sse`: a line end, and at least one more.
_BORDER = re.compile(rb"(?>\r\n|\n|\r)[\r\n]+")
_BORDER_START = 3
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\r\n"
_BOM = b"\xef\xbb\xbf"

CONTINUED = frozenset({Dialect.CHAT, Dialect.MESSAGES})
"""The dialects whose streams can be gone on from."""

MAX_HELD_BYTES = 65536
"""An event that is longer is not waited for: it passes as it comes, and the stream cannot be gone on from."""

MAX_TEXT_BYTES = 1 << 20
"""A text that is longer, in UTF-8, is not kept: the stream cannot be gone on from."""


class Transcript:
    """What one client was shown of one answer, over all attempts.

    Attributes:
        saw_error: the present attempt's stream says that it has failed, and could be gone on from: the error event and
            all behind it are held back. Either `begin_attempt` drops them, or `finish` gives them.
    """

    def __init__(
        self,
        dialect: Dialect,
        request: JsonObject,
        *,
        max_held_bytes: int = MAX_HELD_BYTES,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        """`request` is what the client sent (with the model's name as the first origin got it, or any other)."""
        self.saw_error = False
        self._prefill = Prefill(dialect, request)
        self._max_held = max_held_bytes
        self._max_text = max_text_bytes
        self._reader: _Reader = _Messages() if dialect is Dialect.MESSAGES else _Chat()
        self._is_resumable = self._prefill.own is not None
        self._passes = not self._is_resumable  # from here on all is passed as it comes
        self._text = bytearray()  # what was shown, in UTF-8
        self._held = bytearray()  # the unfinished event, or an error and what is behind it
        # A later attempt's event whose text is held back, as its other lines and its data: it carries the text that is
        # shown after all.
        self._carrier: tuple[bytes, bytes] | None = None
        self._repeats: _Repeats | None = None  # None in the first attempt
        self._line_end = b""  # the first attempt's, empty until one was seen
        self._is_at_start = True  # of an attempt's stream, where a byte order mark may stand
        self._last = b""  # the last byte that was given
        self._owed = b""  # the LF of a CRLF that was cut in two at the seam: clients look for the whole of it

    @property
    def can_continue(self) -> bool:
        """Whether another origin can be asked to go on: there is text, and nothing but text was begun or shown, no end
        either. O(text); for the moment of a cut."""
        return self._is_resumable and bool(self._text) and bool(self._prefill.text(self._shown)[0])

    @property
    def shows_whole_events(self) -> bool:
        """What was shown so far ends at an event's border; False if it need not."""
        return not self._passes

    @property
    def held_bytes(self) -> int:
        """How many bytes are held at this moment: at most three times `max_held_bytes`, and the piece while it
        is fed."""
        return len(self._held) + sum(map(len, self._carrier or ()))

    @property
    def _shown(self) -> str:
        return str(self._text, "utf-8")

    def continued_request(self) -> JsonObject:
        """The client's request, asking to go on from what was shown; only where `can_continue`.

        The last message is the assistant's text so far, behind what the client had begun it with; nothing else changes.
        """
        return self._prefill.request(self._prefill.text(self._shown)[0])

    def begin_attempt(self) -> None:
        """The seam: drop what is held; what is fed from here on is another origin's. Only where `can_continue`."""
        self.saw_error = False
        self._held.clear()
        self._carrier = None
        self._is_at_start = True
        self._repeats = _Repeats(*self._prefill.text(self._shown))
        if self._last == b"\r" and self._line_end == b"\r\n":
            self._owed = b"\n"
        self._reader.begin_attempt()

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now that the attempt's next bytes have come. O(len(data)), whatever the cutting.
        Never raises."""
        if self._passes:
            return data
        out: list[bytes] = []
        if not self._held:
            data = self._skip_line_ends(data, out)
        self._held += data
        if not self.saw_error:
            self._take_events(out, len(self._held) - len(data))
        if self._passes or len(self._held) > self._max_held:
            self._give_up(out)
        return self._given(b"".join(out))

    def finish(self) -> bytes:
        """What is held, for the client: the attempt is over, and no other goes on from it.

        A last event without its blank line passes as it is in the first attempt. In a later one it gets the blank line,
        and what cannot be read of it is dropped.
        """
        last = bytes(self._held)
        self._held.clear()
        if self._repeats is not None and not self.saw_error and not self._passes:
            last, data, read = self._read(last)
            last = b"" if read is None or read.kind is _Kind.UNREADABLE else self._fitted(last, data, read)
        last += self._settled()
        self._is_resumable = False
        self._passes = True
        return self._given(last)

    def _given(self, data: bytes) -> bytes:
        if data:
            data, self._owed = self._owed + data, b""
            self._last = data[-1:]
        return data

    def _skip_line_ends(self, data: bytes, out: list[bytes]) -> bytes:
        """More blank lines between events, or the LF of a border that was cut."""
        rest = data.lstrip(_LINE_ENDS)
        if len(rest) < len(data):
            self._is_at_start = False
            if self._repeats is None:
                out.append(data[: len(data) - len(rest)])
        return rest

    def _take_events(self, out: list[bytes], scanned: int) -> None:
        """Take the whole events off the front of what is held."""
        held = self._held
        start = 0
        for block_end, end in [border.span() for border in _BORDER.finditer(held, max(0, scanned - _BORDER_START))]:
            found = _LINE_END.match(held, block_end)
            line_end = found.group() if found else b"\n"
            if block_end + len(line_end) - start > self._max_held:
                self._passes = True  # as when it comes in pieces
                break
            self._line_end = self._line_end or line_end
            event = self._take(bytes(held[start:end]))
            if event is None:
                self.saw_error = True
                break
            out.append(event)
            start = end
            if self._passes:
                break
        del held[:start]

    def _give_up(self, out: list[bytes]) -> None:
        """Let all pass from here on."""
        out += (self._settled(), bytes(self._held))
        self._held.clear()
        self._is_resumable = False
        self._passes = True

    def _take(self, block: bytes) -> bytes | None:
        """What the client gets for one whole event; None for an error that need not be the end."""
        plain, data, read = self._read(block)
        if read is not None and read.kind is _Kind.ERROR and self.can_continue:
            return None
        if self._repeats is not None:
            return self._fitted(plain, data, read)
        if read is not None:
            self._note(read.kind, read.text)
            self._passes = not self._is_resumable
        return block

    def _read(self, block: bytes) -> tuple[bytes, bytes | None, "_Read | None"]:
        """The event without a byte order mark, its data, and what it is; None where it has no data."""
        if self._is_at_start:
            block = block.removeprefix(_BOM)
            self._is_at_start = False
        name, data = fields(block)
        return block, data, None if data is None else self._reader.read(name, data)

    def _note(self, kind: "_Kind", text: str) -> None:
        """Take note of what the client is shown."""
        if text and self._is_resumable:
            self._text += text.encode()
        if kind in _NOT_RESUMABLE or len(self._text) > self._max_text:
            self._is_resumable = False
            self._text.clear()

    # --- a later attempt ----------------------------------------------------------------------------------------------

    def _fitted(self, block: bytes, data: bytes | None, read: "_Read | None") -> bytes:
        """One event of a later attempt as the client gets it, b"" if it gets nothing now."""
        lines = [line for line in _LINE_END.split(block) if line]
        if data is None or read is None:  # comments
            return self._line_end.join([*lines, b"", b""])
        if read.kind is _Kind.START:
            return b""
        head = b"".join(line + self._line_end for line in lines if line.partition(b":")[0] != b"data")
        fitted = self._spliced(data, read, None)
        before, text = b"", read.text
        if text and self._repeats is not None:
            new = self._repeats.pass_on(text)
            if new is None and read.kind is _Kind.TEXT:
                self._carrier = (head, fitted)
                return b""
            text = self._repeats.settle() if new is None else new
            self._carrier = None
            if not text and read.kind is _Kind.TEXT:
                return b""
            if text != read.text:
                fitted = self._spliced(fitted, None, text)
        elif read.kind is not _Kind.PLAIN:
            before = self._settled()
        if read.before:
            before += self._event(b"event: content_block_stop" + self._line_end, read.before)
        self._note(read.kind, text)
        return before + self._event(head, fitted)

    def _settled(self) -> bytes:
        """The text that was held back as it might have been said before: it was new after all."""
        if self._carrier is None or self._repeats is None:
            return b""
        text = self._repeats.settle()
        head, data = self._carrier
        self._carrier = None
        self._note(_Kind.TEXT, text)
        return self._event(head, self._spliced(data, None, text))

    def _spliced(self, data: bytes, read: "_Read | None", text: str | None) -> bytes:
        """The event's data with what `read` says of its place, or with another text."""
        if read is not None and read.kind in (_Kind.ERROR, _Kind.UNREADABLE):
            return data
        try:
            if read is not None:
                data = self._reader.fit(data, read)
            return data if text is None else self._reader.with_text(data, text)
        except (BadRequest, msgspec.DecodeError):  # it names a member twice: which one counts, each client decides
            self._is_resumable = False
            return data

    def _event(self, head: bytes, data: bytes) -> bytes:
        line_end = self._line_end
        return head + b"".join(b"data: " + line + line_end for line in data.split(b"\n")) + line_end


class _Repeats:
    """Takes off the start of a later attempt's text what was said before.

    An origin may repeat the whole text that it was asked to go on from; as long as it may still turn out to do so, its
    text is held back. All that is kept of it is its length: it is the start of what is known already.
    """

    __slots__ = ("_at", "_left_out", "_said")

    def __init__(self, said: str, left_out: str) -> None:
        """`left_out`: what was shown behind `said`, and may come again: white space."""
        self._said = said if is_worth_a_look(said) else ""
        self._at = 0  # so much of it was repeated
        self._left_out = left_out

    def pass_on(self, text: str) -> str | None:
        """What of this next text is new; None if that is not known yet."""
        rest = len(self._said) - self._at
        if len(text) < rest and self._said.startswith(text, self._at):
            self._at += len(text)
            return None
        if rest and len(text) >= rest and text.startswith(self._said[self._at :]):
            self._said, self._at = "", 0
            return self._without_left_out(text[rest:])
        return self.settle(text)

    def settle(self, text: str = "") -> str:
        """What was held back, and this text behind it: it goes another way, or no more comes."""
        text = self._said[: self._at] + text
        self._said, self._at = "", 0
        return self._without_left_out(text)

    def _without_left_out(self, text: str) -> str:
        same = 0
        while same < min(len(text), len(self._left_out)) and text[same] == self._left_out[same]:
            same += 1
        self._left_out = self._left_out[same:] if same == len(text) else ""
        return text[same:]


class _Kind(Enum):
    """What an event is to a stream that may have to be gone on from."""

    PLAIN = auto()  # says nothing of the answer
    START = auto()  # starts the stream, or thinks aloud: not shown a second time
    TEXT = auto()
    BLOCK = auto()  # starts or ends a block of text
    END = auto()  # the answer is complete; the text may be its last
    OTHER = auto()  # a part of the answer that is no text, or may be none
    UNREADABLE = auto()
    ERROR = auto()


_NOT_RESUMABLE = {_Kind.END, _Kind.OTHER, _Kind.UNREADABLE, _Kind.ERROR}


class _Read(NamedTuple):
    """What was read of one event.

    `place` is its block's index in the client's stream, `before` the data of an event that has to stand before it.
    """

    kind: _Kind
    text: str = ""
    place: int | None = None
    before: bytes = b""


class _Reader(Protocol):
    """A dialect, as it is read over all attempts of one stream."""

    def begin_attempt(self) -> None:
        """What is read from here on is another origin's."""
        ...

    def read(self, name: bytes, data: bytes) -> _Read:
        """What an event is. Must not raise, whatever the bytes."""
        ...

    def fit(self, data: bytes, read: _Read) -> bytes:
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


class _Chat:
    """Chat completions with one choice."""

    def __init__(self) -> None:
        self._identity: dict[str, bytes] | None = None  # the first attempt's; None until a choice was seen

    def begin_attempt(self) -> None:
        pass  # can only be once there was a text, and then there is an identity

    def read(self, name: bytes, data: bytes) -> _Read:
        if data == b"[DONE]":
            return _Read(_Kind.END)
        value = _object(data)
        if value is None:
            return _Read(_Kind.UNREADABLE)
        if value.get("error"):
            return _Read(_Kind.ERROR)
        choices = value.get("choices")
        if choices == []:
            return _Read(_Kind.PLAIN)  # usage, or what a filter says of the prompt
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            return _Read(_Kind.OTHER)
        if self._identity is None:
            self._identity = _members(data, _IDENTITY)
        return _of_choice(choices[0])

    def fit(self, data: bytes, read: _Read) -> bytes:
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


def _of_choice(choice: dict[str, Any]) -> _Read:
    delta = choice.get("delta") or {}
    if choice.get("index", 0) != 0 or choice.get("logprobs") or not isinstance(delta, dict):
        return _Read(_Kind.OTHER)
    text = delta.get("content") or ""
    more = {name for name, value in delta.items() if value and name not in ("role", "content")}
    if not isinstance(text, str) or more - _THOUGHTS:
        return _Read(_Kind.OTHER)
    if choice.get("finish_reason"):
        return _Read(_Kind.END, text)
    if text:
        return _Read(_Kind.TEXT, text)
    return _Read(_Kind.START if more or delta.get("role") else _Kind.PLAIN)


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


class _Messages:
    """Anthropic's messages. Blocks have indexes; a later attempt's text goes on in our block if that is open."""

    def __init__(self) -> None:
        self._open: int | None = None  # the block of text that was started and not ended, as the client knows it
        self._next = 0  # the index of the client's next block
        self._shift = 0  # from the origin's index to the client's
        self._joins = False  # the attempt's first block of text goes on in ours

    def begin_attempt(self) -> None:
        self._joins = self._open is not None
        self._shift = self._next if self._open is None else self._open

    def read(self, name: bytes, data: bytes) -> _Read:
        value = _object(data)
        if value is None:
            return _Read(_Kind.UNREADABLE)
        match value.get("type") or name.decode("ascii", "replace"):
            case "ping":
                return _Read(_Kind.PLAIN)
            case "message_start":
                return _Read(_Kind.START)
            case "content_block_start":
                return self._start(value)
            case "content_block_delta":
                return self._delta(value)
            case "content_block_stop":
                return self._stop(value)
            case "message_delta" | "message_stop":
                return _Read(_Kind.END, before=self._made_up_stop())
            case "error":
                return _Read(_Kind.ERROR)
        return _Read(_Kind.ERROR if value.get("error") else _Kind.OTHER)

    def fit(self, data: bytes, read: _Read) -> bytes:
        return data if read.place is None else JsonObject.parse(data).replace({"index": b"%d" % read.place})

    def with_text(self, data: bytes, text: str) -> bytes:
        event = JsonObject.parse(data)
        delta = JsonObject.parse(bytes(event.members["delta"]))
        return event.replace({"delta": delta.replace({"text": _encode(text)})})

    def _index(self, value: dict[str, Any]) -> int | None:
        index = value.get("index")
        return index + self._shift if type(index) is int and index >= 0 else None

    def _start(self, value: dict[str, Any]) -> _Read:
        block = value.get("content_block")
        is_text = isinstance(block, dict) and block.get("type") == "text" and not block.get("text")
        before = b""
        if self._joins:
            self._joins = False
            if is_text:
                return _Read(_Kind.START)
            before = self._made_up_stop()
            self._shift += 1
        index = self._index(value)
        if index is None:
            return _Read(_Kind.OTHER, before=before)
        self._next = index + 1
        self._open = index if is_text else None
        return _Read(_Kind.BLOCK if is_text else _Kind.OTHER, place=index, before=before)

    def _delta(self, value: dict[str, Any]) -> _Read:
        index, delta = self._index(value), value.get("delta")
        if index is None or index != self._open or not isinstance(delta, dict) or delta.get("type") != "text_delta":
            return _Read(_Kind.OTHER, place=index)
        text = delta.get("text")
        return _Read(_Kind.TEXT, text, index) if isinstance(text, str) else _Read(_Kind.OTHER, place=index)

    def _stop(self, value: dict[str, Any]) -> _Read:
        index = self._index(value)
        if index is None or index != self._open:
            return _Read(_Kind.OTHER, place=index)
        self._open = None
        return _Read(_Kind.BLOCK, place=index)

    def _made_up_stop(self) -> bytes:
        """The end of our block, where a later origin has nothing to add to it: each block that was started is ended.
        In a first attempt it is not written, as that passes as it is."""
        index, self._open = self._open, None
        return b"" if index is None else b'{"type":"content_block_stop","index":%d}' % index
