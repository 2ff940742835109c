"""What is to be sent for one client's request, and how it is dressed for a target: the model's name there, whether a
stream is asked for, the length of what is sent. Used by `course` and `shadow`; knows no endpoint.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.upgrade import with_model

_BRIDGED = frozenset({Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES})
_IDENTITY = (b"accept-encoding", b"identity")
_ASK_USAGE = b'{"include_usage":true}'
_TELLS_USAGE_IF_ASKED = frozenset({Dialect.CHAT, Dialect.COMPLETIONS})


class Form(Enum):
    """How an origin is asked, where that may differ from how the client asked."""

    AS_ASKED = "as asked"
    WHOLE = "whole"
    """The client wants a stream; the origin is asked for a whole answer, of which one is made."""
    STREAM = "stream"
    """The client wants a whole answer; the origin is asked for a stream, which is folded into one."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long a try may take, in seconds: to connect, to its head, to its first content, between two reads."""

    connect_s: float
    head_s: float
    first_content_s: float
    idle_s: float


class OnceBody(AsyncIterator[bytes]):
    """A body that comes piece by piece, and can be sent once. `is_begun`: a piece was asked for."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.is_begun = False

    async def __anext__(self) -> bytes:
        self.is_begun = True
        return await anext(self._source)


@dataclass(slots=True)
class OriginRequest:
    """What is to be sent. `json` is the body, read at its top level, if it was; `headers` lack the length of a body
    that is held, which another model's name changes; `wants_stream` is what the client asked for; `upstreams`
    are those that may be asked (None: all); `asks_usage`: the usage has to be known, wherever it goes."""

    method: str
    target: bytes
    headers: Headers
    body: bytes | AsyncIterator[bytes]
    dialect: Dialect
    json: JsonObject | None = None
    wants_stream: bool = False
    upstreams: frozenset[str] | None = None
    asks_usage: bool = False

    def may_go_to(self, upstream: str) -> bool:
        """Whether an upstream may be asked."""
        return self.upstreams is None or upstream in self.upstreams

    @property
    def can_be_bridged(self) -> bool:
        """Whether a stream could be asked for in place of a whole answer, or the other way round."""
        return self.json is not None and self.dialect in _BRIDGED

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants the usage as a stream's last event but one."""
        raw = self.json.members.get("stream_options") if self.json is not None else None
        try:
            return raw is not None and json.loads(bytes(raw)).get("include_usage") is True
        except (ValueError, AttributeError, RecursionError):
            return False

    def options_with_usage(self) -> bytes | None:
        """The stream's options, asking for its usage too. None where there is nothing to ask for, or the client asks
        itself, or its options are such that nothing can be added and the usage need not be known."""
        request = self.json
        if request is None or not self.wants_stream or self.dialect not in _TELLS_USAGE_IF_ASKED or self.wants_usage:
            return None
        own = bytes(request.members.get("stream_options", b"null"))
        try:
            return _ASK_USAGE if own == b"null" else JsonObject.parse(own).replace({"include_usage": b"true"})
        except BadRequest:  # an origin that makes something of such options may be kept from telling
            return _ASK_USAGE if self.asks_usage else None

    def target_for(self, model: str | None) -> bytes:
        """The target; `model` is as for `dressed`. A WebSocket's model stands in the query."""
        if model is None or find(self.headers, b"upgrade") is None:
            return self.target
        return with_model(self.target, model)

    def dressed(
        self, model: str | None, form: Form, options: bytes | None = None
    ) -> tuple[bytes | AsyncIterator[bytes], Headers]:
        """The body, and the fields that go with it. `model` is what the model is called there, `options` are the
        stream's; None for the same."""
        values: dict[str, bytes] = {} if model is None else {"model": json.dumps(model).encode()}
        headers = self.headers
        if form is Form.WHOLE:
            values["stream"] = b"false"
            if self.json is not None and "stream_options" in self.json.members:
                values["stream_options"] = b"null"
        elif form is Form.STREAM:
            values["stream"] = b"true"
            if self.dialect in _TELLS_USAGE_IF_ASKED:
                values["stream_options"] = _ASK_USAGE
            headers = [header for header in headers if header[0] != _IDENTITY[0]] + [_IDENTITY]
        elif options is not None:
            values["stream_options"] = options
        body = self.body
        if values and self.json is not None:
            body = self.json.replace(values)
        if isinstance(body, bytes) and (body or self.json is not None):
            return body, [*headers, (b"content-length", b"%d" % len(body))]
        return body, headers
