"""Our own words on a WebSocket."""

import json

import pytest

from trioproxy.errors import BadRequest
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.words import SocketWish, lost_word, stream_word, wish_in


def wish(message: object) -> SocketWish:
    return wish_in(JsonObject.parse(json.dumps(message).encode()))


def test_a_message_without_our_member_wishes_nothing() -> None:
    assert wish({"model": "m"}) == SocketWish()


def test_a_wish_is_read() -> None:
    assert wish({"trioproxy": {"share": "k", "resume": 60, "slow": "block"}}) == SocketWish("k", 60, "block")
    assert wish({"trioproxy": {"stream": "id", "after": 3}}) == SocketWish(stream="id", after=3)
    assert wish({"trioproxy": {"stop": True}}).stop


@pytest.mark.parametrize("value", [1, "stop", [], {"stopp": True}, {"after": "3"}, {"resume": "60"}, {"stop": 1}])
def test_what_cannot_be_understood_is_refused(value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        wish({"trioproxy": value})
    assert caught.value.param == "trioproxy"


def test_what_is_told_stands_in_our_member() -> None:
    assert json.loads(stream_word("id")) == {"trioproxy": {"type": "stream", "id": "id"}}
    assert json.loads(lost_word(12)) == {"trioproxy": {"type": "lost", "events": 12}}
