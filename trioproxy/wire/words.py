"""Our own words on `/v1/stream/ws`, between the client's and the origin's: JSON objects with a member `trioproxy`.

Used by `web/stream_socket` (what the client wishes) and `relay/socket_answer` (what it is told).
"""

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.json_object import JsonObject

MEMBER = "trioproxy"
_EXPECTED = '{"share", "resume", "slow"}, {"stream", "after", "slow"} or {"stop": true}'


class SocketWish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the client wishes: how its stream is to be (`share`, `resume` in seconds, `slow`), which `stream` it joins
    behind which event (`after`), or that its stream `stop`s."""

    share: str | None = None
    resume: float | None = None
    slow: str | None = None
    stream: str | None = None
    after: int = 0
    stop: bool = False


_decode = msgspec.json.Decoder(SocketWish).decode
_encode = msgspec.json.encode


def wish_in(message: JsonObject) -> SocketWish:
    """The wish in a message; an empty one if it holds none. Raises BadRequest for one that cannot be understood."""
    raw = message.members.get(MEMBER)
    if raw is None:
        return SocketWish()
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        raise BadRequest(f"'{MEMBER}' has to be an object with some of {_EXPECTED}.", param=MEMBER) from None


def stream_word(stream_id: str) -> bytes:
    """The message that tells a stream's id."""
    return _encode({MEMBER: {"type": "stream", "id": stream_id}})


def lost_word(events: int) -> bytes:
    """The message that tells how many events were lost at this place."""
    return _encode({MEMBER: {"type": "lost", "events": events}})
