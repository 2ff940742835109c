"""JSON that comes bit by bit: values joined as the text that they came as.

A text is put behind a text inside its quotes, a list behind a list inside its brackets, an object grows member by
member. So no number and no escape is re-written, and what is held is counted in bytes. PURE. Used by `fold`.
"""

from collections.abc import Mapping

import msgspec

_MEMBER_BYTES = 256
"""What a member or an entry costs beside its text: many small ones must count as well."""
_DEEPEST = 4
"""Objects below are not merged: the last one counts. It bounds how often the same bytes are read."""

_NULL = b"null"
_NOTHING = (_NULL, b'""')
"""Values that take no other's place: continuing chunks may have an empty id or name."""
_ONCE = frozenset({"role", "id", "type", "name", "index", "expires_at"})
"""Texts that are not written bit by bit: some origins repeat them with each chunk."""

Members = dict[str, msgspec.Raw]
"""An object's members, each as the JSON that it came as."""
_decode_members = msgspec.json.Decoder(Members | None).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_encode = msgspec.json.encode


class Misfit(Exception):
    """An event does not go with those before it."""


class Meter:
    """How many bytes the objects of one answer hold."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class JoinedObject:
    """A JSON object under way: each member is JSON text, or again such an object."""

    __slots__ = ("_depth", "_members", "_meter")

    def __init__(self, meter: Meter, depth: int = 0) -> None:
        self._members: dict[str, bytearray | JoinedObject] = {}
        self._meter = meter
        self._depth = depth
        meter.held += _MEMBER_BYTES

    def keep(self, name: str, value: msgspec.Raw | bytes) -> None:
        """The last value counts, but one that says nothing takes no other's place."""
        text = bytes(value)
        if text not in _NOTHING or self._is_null(name):
            self._put(name, bytearray(text))

    def keep_all(self, members: Mapping[str, msgspec.Raw]) -> None:
        """`keep` each."""
        for name, value in members.items():
            self.keep(name, value)

    def grow(self, name: str, value: msgspec.Raw | bytes) -> None:
        """Texts are joined, lists extended, objects grow member by member; of all else the last value counts.

        Raises Misfit where these three follow one another."""
        old = self._members.get(name)
        text = bytes(value)
        if old is None or self._is_null(name):
            self._put(name, self._started(text))
        elif text == _NULL:
            return
        elif name in _ONCE:
            self.keep(name, text)
        elif isinstance(old, JoinedObject):
            if text[:1] != b"{":
                raise Misfit
            old.grow_all(members_of(text))
        elif bytes(old[:1]) in (b'"', b"["):
            if not text.startswith(bytes(old[:1])):
                raise Misfit
            before = len(old)
            _join(old, text)
            self._meter.held += len(old) - before
        else:
            self.keep(name, text)

    def grow_all(self, members: Mapping[str, msgspec.Raw]) -> None:
        """`grow` each. Raises Misfit."""
        for name, value in members.items():
            self.grow(name, value)

    def says(self, name: str) -> bool:
        """Whether a member is there and not null or empty."""
        value = self._members.get(name)
        return isinstance(value, JoinedObject) or (value is not None and not value.startswith((_NULL, b'""', b"[]")))

    def _is_null(self, name: str) -> bool:
        """Whether a member is null, or not there."""
        value = self._members.get(name)
        return value is None or (isinstance(value, bytearray) and value.startswith(_NULL))

    def members(self) -> Members:
        """What it has become, in the order in which the names came."""
        return {
            name: value.render() if isinstance(value, JoinedObject) else msgspec.Raw(bytes(value))
            for name, value in self._members.items()
        }

    def render(self) -> msgspec.Raw:
        """Its JSON."""
        return msgspec.Raw(_encode(self.members()))

    def _started(self, text: bytes) -> "bytearray | JoinedObject":
        if text[:1] == b"{" and self._depth < _DEEPEST:
            inner = JoinedObject(self._meter, self._depth + 1)
            inner.grow_all(members_of(text))
            return inner
        return bytearray(b"[" + _items(text) + b"]") if text[:1] == b"[" else bytearray(text)

    def _put(self, name: str, value: "bytearray | JoinedObject") -> None:
        old = self._members.get(name)
        if old is None:
            self._meter.held += len(name) + _MEMBER_BYTES
        elif isinstance(old, bytearray):
            self._meter.held -= len(old)
        if isinstance(value, bytearray):
            self._meter.held += len(value)
        self._members[name] = value


def _join(old: bytearray, text: bytes) -> None:
    """Put a text behind a text, inside its quotes, or a list behind a list."""
    if text[:1] == b'"':
        old[-1:] = text[1:]
        return
    items = _items(text)
    if items:
        old[-1:] = (b"," if len(old) > 2 else b"") + items + b"]"


def _items(text: bytes) -> bytes:
    """What a list's brackets hold."""
    return text[1:-1].strip(b" \t\r\n")


def members_of(value: msgspec.Raw | bytes) -> Members:
    """An object's members; null has none."""
    return _decode_members(value) or {}


def list_of(value: msgspec.Raw) -> list[msgspec.Raw]:
    """A list's entries; null has none. Raises a DecodeError for what is neither."""
    return _decode_list(value) or []
