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

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.continued_events import NOT_RESUMABLE, ChatReader, Kind, MessagesReader, Read, Reader
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.prefill import Prefill, is_worth_a_look
from trioproxy.wire.sse import fields

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
        self._reader: Reader = MessagesReader() if dialect is Dialect.MESSAGES else ChatReader()
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
            last = b"" if read is None or read.kind is Kind.UNREADABLE else self._fitted(last, data, read)
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
        if read is not None and read.kind is Kind.ERROR and self.can_continue:
            return None
        if self._repeats is not None:
            return self._fitted(plain, data, read)
        if read is not None:
            self._note(read.kind, read.text)
            self._passes = not self._is_resumable
        return block

    def _read(self, block: bytes) -> tuple[bytes, bytes | None, Read | None]:
        """The event without a byte order mark, its data, and what it is; None where it has no data."""
        if self._is_at_start:
            block = block.removeprefix(_BOM)
            self._is_at_start = False
        name, data = fields(block)
        return block, data, None if data is None else self._reader.read(name, data)

    def _note(self, kind: Kind, text: str) -> None:
        """Take note of what the client is shown."""
        if text and self._is_resumable:
            self._text += text.encode()
        if kind in NOT_RESUMABLE or len(self._text) > self._max_text:
            self._is_resumable = False
            self._text.clear()

    # --- a later attempt ----------------------------------------------------------------------------------------------

    def _fitted(self, block: bytes, data: bytes | None, read: Read | None) -> bytes:
        """One event of a later attempt as the client gets it, b"" if it gets nothing now."""
        lines = [line for line in _LINE_END.split(block) if line]
        if data is None or read is None:  # comments
            return self._line_end.join([*lines, b"", b""])
        if read.kind is Kind.START:
            return b""
        head = b"".join(line + self._line_end for line in lines if line.partition(b":")[0] != b"data")
        fitted = self._spliced(data, read, None)
        before, text = b"", read.text
        if text and self._repeats is not None:
            new = self._repeats.pass_on(text)
            if new is None and read.kind is Kind.TEXT:
                self._carrier = (head, fitted)
                return b""
            text = self._repeats.settle() if new is None else new
            self._carrier = None
            if not text and read.kind is Kind.TEXT:
                return b""
            if text != read.text:
                fitted = self._spliced(fitted, None, text)
        elif read.kind is not Kind.PLAIN:
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
        self._note(Kind.TEXT, text)
        return self._event(head, self._spliced(data, None, text))

    def _spliced(self, data: bytes, read: Read | None, text: str | None) -> bytes:
        """The event's data with what `read` says of its place, or with another text."""
        if read is not None and read.kind in (Kind.ERROR, Kind.UNREADABLE):
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
