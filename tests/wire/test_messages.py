"""WebSocket's bytes: messages in whatever pieces, closing, and who breaks the rules."""

import pytest
import wsproto
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from trioproxy.wire.messages import MAX_MESSAGE_BYTES, VANISHED, Close, Codec, Message

CLIENT, SERVER = wsproto.ConnectionType.CLIENT, wsproto.ConnectionType.SERVER


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fed(codec: Codec, data: bytes, size: int = 1 << 20) -> list[Message | Close]:
    return [one for piece in cut(data, size) for one in codec.feed(piece)]


@given(
    messages=st.lists(st.lists(st.text(), min_size=1, max_size=4) | st.lists(st.binary(), min_size=1, max_size=4)),
    size=st.integers(1, 50),
)
def test_messages_are_whole_however_they_are_cut(messages: list[list[str]] | list[list[bytes]], size: int) -> None:
    peer, codec = Connection(CLIENT), Codec(is_client=False)
    data, expected = b"", []
    for pieces in messages:
        raw = [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]
        expected.append(Message(b"".join(raw), isinstance(pieces[0], str)))
        for number, piece in enumerate(pieces, 1):
            is_last = number == len(pieces)
            if isinstance(piece, str):
                data += peer.send(TextMessage(data=piece, message_finished=is_last))
            elif isinstance(piece, bytes):
                data += peer.send(BytesMessage(data=piece, message_finished=is_last))
            data += peer.send(Ping())
    assert fed(codec, data, size) == expected
    peer.receive_data(codec.take())
    assert list(peer.events()) == [Pong()] * sum(map(len, messages))


@pytest.mark.parametrize("is_client", [True, False])
def test_what_is_sent_is_what_the_other_side_gets(is_client: bool) -> None:
    codec, peer = Codec(is_client=is_client), Connection(SERVER if is_client else CLIENT)
    for message in (Message("ü".encode(), True), Message(b"", False), Message(b"x" * 70_000, False)):
        codec.send(message)
    codec.close(Close(4000, "ü" * 100))
    assert codec.out_bytes > 70_000
    peer.receive_data(codec.take())
    assert (codec.out_bytes, codec.take()) == (0, b"")
    *said, end = peer.events()
    assert [one.data for one in said] == ["ü", b"", b"x" * 70_000]  # type: ignore[attr-defined]
    assert isinstance(end, CloseConnection)
    assert (end.code, end.reason) == (4000, "ü" * 61)
    codec.send(Message(b"too late", False))
    codec.ping()
    codec.close(Close(1000))
    assert codec.take() == b""


def test_a_closing_frame_is_told_once_and_answered() -> None:
    codec, peer = Codec(is_client=False), Connection(CLIENT)
    data = peer.send(CloseConnection(code=4001, reason="bye"))
    assert codec.feed(bytes(data) + b"more") == [Close(4001, "bye")]
    assert codec.is_over and not codec.is_open and codec.failed_with is None
    assert codec.feed(b"x") == codec.feed(b"") == []
    peer.receive_data(codec.take())
    (answer,) = peer.events()
    assert isinstance(answer, CloseConnection) and answer.code == 4001


def test_an_end_without_one_is_told_too() -> None:
    codec = Codec(is_client=True)
    assert codec.feed(b"\x82") == []
    assert codec.feed(b"") == [Close(VANISHED)]
    assert codec.is_over and codec.failed_with is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # an extension's bit
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # no such opcode
        (b"\x80\x80\x00\x00\x00\x00", 1002),  # nothing to be continued
        (b"\x88\x81\x00\x00\x00\x00x", 1002),  # half a code
        (b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009),
        (b"\x02\x81\x00\x00\x00\x00x\x80\xff" + MAX_MESSAGE_BYTES.to_bytes(8, "big"), 1009),
    ],
)
def test_who_breaks_the_rules_is_told_so(data: bytes, code: int) -> None:
    codec = Codec(is_client=False)
    assert codec.feed(data) == [Close(VANISHED)]
    assert codec.failed_with == code
    assert codec.take()[2:4] == code.to_bytes(2, "big")


@given(st.binary(max_size=200))
def test_hostile_bytes_only_ever_end_it(data: bytes) -> None:
    codec = Codec(is_client=False)
    found = codec.feed(data) + codec.feed(b"") if data else codec.feed(b"")
    assert isinstance(found[-1], Close)
    assert sum(isinstance(one, Close) for one in found) == 1


@pytest.mark.parametrize(("code", "passed"), [(1000, 1000), (1012, 1012), (4999, 4999), (1005, 1011), (1006, 1011)])
def test_a_code_that_cannot_be_said_is_passed_on_as_1011(code: int, passed: int) -> None:
    assert Close(code, "why").passed_on() == (Close(1011) if passed != code else Close(code, "why"))


def test_empty_pieces_without_end_take_no_room() -> None:
    codec = Codec(is_client=False)
    piece = b"\x02\x80\x00\x00\x00\x00" + b"\x00\x80\x00\x00\x00\x00" * 10_000
    assert codec.feed(piece) == []
    assert codec.feed(b"\x80\x81\x00\x00\x00\x00x") == [Message(b"x", False)]
