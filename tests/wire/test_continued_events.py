"""What single events are to a stream that is gone on with. Whole streams are in `test_continuing`."""

import json

import pytest

from trioproxy.wire.continued_events import ChatReader, Kind, MessagesReader


def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c1", "choices": [choice], **more}).encode()


CHAT = {
    "a role": (chunk({"role": "assistant", "content": ""}), Kind.START),
    "text": (chunk({"content": "Rain"}), Kind.TEXT),
    "the end": (chunk({}, "stop"), Kind.END),
    "a tool call": (chunk({"tool_calls": [{"index": 0}]}), Kind.OTHER),
    "a thought": (chunk({"reasoning_content": "hm"}), Kind.START),
    "an error": (b'{"error":{"message":"no"}}', Kind.ERROR),
    "no JSON": (b"{", Kind.UNREADABLE),
}


@pytest.mark.parametrize("name", CHAT)
def test_a_chat_event_is_what_its_delta_says(name: str) -> None:
    data, kind = CHAT[name]
    assert ChatReader().read(b"", data).kind is kind


def test_a_later_chunk_gets_the_first_ones_identity_and_keeps_all_else() -> None:
    reader = ChatReader()
    reader.read(b"", chunk({"content": "Rain"}, model="m"))
    reader.begin_attempt()
    later = b'{"id":"other","x": 1e2,"model":"n","choices":[{"index":0,"delta":{"content":" on"}}]}'
    read = reader.read(b"", later)
    assert read.text == " on"
    assert reader.fit(later, read) == later.replace(b'"other"', b'"c1"').replace(b'"n"', b'"m"')


def test_a_chunk_can_be_given_another_text() -> None:
    assert json.loads(ChatReader().with_text(chunk({"content": "Rain on"}), " on"))["choices"][0]["delta"] == {
        "content": " on"
    }


def test_messages_count_their_blocks_on() -> None:
    start = b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Rain"}}'
    reader = MessagesReader()
    assert reader.read(b"content_block_start", start).kind is Kind.BLOCK
    assert reader.read(b"content_block_delta", delta).text == "Rain"
    assert reader.read(b"message_stop", b'{"type":"message_stop"}').kind is Kind.END
