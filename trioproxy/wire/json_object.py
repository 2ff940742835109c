"""A request's JSON body, read at the top level only. Nested bytes stay exactly as they were sent.

`JsonObject.parse` finds the members of the outermost object and where they stand; `replace` splices new values in and
leaves every other byte alone, so that a body is never re-serialised. Used by `web/openai` and by every rewrite.

Source: RFC 8259. A name that stands twice is refused: origins differ in which one they take, so a rule that is checked
on one would be dodged with the other.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from trioproxy.errors import BadRequest

_T = TypeVar("_T")
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode
_decode_string = msgspec.json.Decoder(str | None).decode
_decode_boolean = msgspec.json.Decoder(bool | None).decode
_decode_integer = msgspec.json.Decoder(int | None).decode
_SPACE = re.compile(rb"[ \t\n\r]*")
# Possessive: a name may be as long as the body, and each place to go back to costs a hundred bytes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

MAX_MEMBERS = 1000
"""How many top-level members a body may have. Real ones have some twenty; walking along them holds up everyone else."""


class JsonObject:
    """A body that is a JSON object. `members` maps each top-level name to its value's bytes, as sent."""

    __slots__ = ("_spans", "body", "members")

    def __init__(self, body: bytes, members: dict[str, msgspec.Raw], spans: dict[str, tuple[int, int]]) -> None:
        self.body = body
        self.members = members
        self._spans = spans

    @classmethod
    def parse(cls, body: bytes) -> "JsonObject":
        """Read the top level. Raises BadRequest for anything but one JSON object in UTF-8 with distinct names."""
        if not body:
            raise BadRequest("The request has no body; send a JSON object.")
        try:
            if not body.isascii():
                str(body, "utf-8")
            read, members = _read_members(body)
        except UnicodeDecodeError:
            raise BadRequest("The request body is not UTF-8.") from None
        except RecursionError:
            raise BadRequest("The request body is nested too deeply.") from None
        except msgspec.ValidationError:
            raise BadRequest("The request body is not a JSON object.") from None
        except msgspec.DecodeError as error:
            raise BadRequest(f"The request body is not valid JSON: {error}.") from None
        if len(members) > MAX_MEMBERS:
            raise BadRequest(f"The request body has more than {MAX_MEMBERS} top-level fields.")
        return cls(body, members, _find_spans(read, members))

    def string(self, name: str) -> str | None:
        """The member as a string, None if absent or null. Raises BadRequest naming the member otherwise."""
        return self._typed(name, _decode_string, "a string")

    def boolean(self, name: str) -> bool | None:
        """The member as true or false, None if absent or null. Raises BadRequest naming the member otherwise."""
        return self._typed(name, _decode_boolean, "true or false")

    def integer(self, name: str) -> int | None:
        """The member as a whole number, None if absent or null. Raises BadRequest naming the member otherwise."""
        return self._typed(name, _decode_integer, "a whole number")

    def _typed(self, name: str, decode: Callable[[msgspec.Raw], _T | None], what: str) -> _T | None:
        raw = self.members.get(name)
        if raw is None:
            return None
        try:
            return decode(raw)
        except msgspec.DecodeError:
            raise BadRequest(f"'{name}' has to be {what}.", param=name) from None

    def replace(self, values: Mapping[str, bytes]) -> bytes:
        """The body with these top-level values (JSON bytes) put in place; names it lacks are added at the end."""
        pieces: list[bytes] = []
        at = 0
        for name, (start, end) in self._spans.items():  # in the body's order
            if name in values:
                pieces += (self.body[at:start], values[name])
                at = end
        added = [msgspec.json.encode(name) + b":" + value for name, value in values.items() if name not in self._spans]
        if added:
            close = self.body.rindex(b"}")
            pieces += (self.body[at:close], b"," if self._spans else b"", b",".join(added))
            at = close
        pieces.append(self.body[at:])
        return b"".join(pieces)

    def without(self, name: str) -> bytes:
        """The body without a top-level member; all else stays as it was sent."""
        if name not in self._spans:
            return self.body
        ends = [self.body.index(b"{") + 1, *(end for _, end in self._spans.values())]
        place = list(self._spans).index(name)
        if place:  # from behind the value before it
            return self.body[: ends[place]] + self.body[ends[place + 1] :]
        rest = self.body[ends[1] :].lstrip(b" \t\n\r").removeprefix(b",")
        return self.body[: ends[0]] + rest


def _read_members(body: bytes) -> tuple[bytes, dict[str, msgspec.Raw]]:
    """What was read, of the same length as the body, and its members.

    Half a surrogate pair in a string ("\\ud83d" alone: JavaScript writes that for an emoji that was cut) is allowed by
    RFC 8259 section 8.2 and refused by the decoder; it reads another character in its place, and no byte moves.
    """
    try:
        return body, _decode_members(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        read = _SURROGATE.sub(rb"\\ufffd", body)
        if read == body:
            raise
        return read, _decode_members(read)


def _find_spans(body: bytes, members: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    """Where each value stands. The decoder keeps the last of two equal names; walking the bytes along its answer
    shows that: the text then holds more, or other, members than the answer."""
    spans: dict[str, tuple[int, int]] = {}
    at = _skip(body, body.index(b"{") + 1)
    for name, raw in members.items():
        if spans:
            at = _expect(body, at, b",")
        written = _STRING.match(body, at)
        if written is None or _decode_name(written.group()) != name:
            raise _twice()
        at = _expect(body, _skip(body, written.end()), b":")
        value = bytes(raw)
        if not body.startswith(value, at):
            raise _twice()
        spans[name] = (at, at + len(value))
        at = _skip(body, at + len(value))
    _expect(body, at, b"}")
    return spans


def _skip(body: bytes, at: int) -> int:
    space = _SPACE.match(body, at)
    return space.end() if space else at


def _expect(body: bytes, at: int, mark: bytes) -> int:
    if not body.startswith(mark, at):
        raise _twice()
    return _skip(body, at + 1)


def _twice() -> BadRequest:
    return BadRequest("The request body names a top-level field twice; send each one once.")
