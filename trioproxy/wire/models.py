"""Lists of models, as `GET /v1/models` answers with them: an upstream's is read, ours is put together. PURE.

An entry stays as its upstream wrote it, byte for byte; what OpenAI's have and it lacks is added at its end.

Sources: OpenAI's and Anthropic's API references ("List models"). Anthropic's entries lack `object`, `created` and
`owned_by`; a few servers answer with the bare array.
"""

from collections.abc import Iterable

import msgspec

MAX_MODELS = 10_000
"""How many entries of an upstream's list are read; the longest known have some thousands."""


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


class _Entry(msgspec.Struct):
    """An entry; the bytes of a member that it lacks are none."""

    id: str
    object: msgspec.Raw = msgspec.Raw()
    created: msgspec.Raw = msgspec.Raw()
    owned_by: msgspec.Raw = msgspec.Raw()


_decode_list = msgspec.json.Decoder(_List | list[msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def read_models(body: bytes, owner: str) -> dict[str, bytes] | None:
    """The models of an upstream's list, by name: each one's entry as JSON, complete; `owner` is whose they are where
    that is not said. None for what is no list. What is no entry in it is left out."""
    try:
        str(body, "utf-8")
        answer = _decode_list(body)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError):
        return None
    models: dict[str, bytes] = {}
    for raw in (answer.data if isinstance(answer, _List) else answer)[:MAX_MODELS]:
        try:
            entry = _decode_entry(raw)
        except msgspec.DecodeError:
            continue
        if entry.id:
            models.setdefault(entry.id, _completed(bytes(raw), entry, owner))
    return models


def model_entry(model: str, owner: str) -> bytes:
    """The entry of a model that no upstream lists."""
    return msgspec.json.encode({"id": model, "object": "model", "created": 0, "owned_by": owner})


def render_models(entries: Iterable[bytes]) -> bytes:
    """The list of these entries."""
    return b'{"object":"list","data":[' + b",".join(entries) + b"]}"


def _completed(raw: bytes, entry: _Entry, owner: str) -> bytes:
    added = b""
    if not bytes(entry.object):
        added += b',"object":"model"'
    if not bytes(entry.created):
        added += b',"created":0'
    if not bytes(entry.owned_by):
        added += b',"owned_by":' + msgspec.json.encode(owner)
    return raw[:-1] + added + b"}" if added else raw
