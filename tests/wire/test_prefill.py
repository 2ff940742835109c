"""A request that is made to go on from a text: what is put in, what stays, and which requests never allow it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.prefill import Prefill

CHAT, MESSAGES = Dialect.CHAT, Dialect.MESSAGES
ASKED = {"role": "user", "content": "Count."}


def request(*messages: object, **more: object) -> JsonObject:
    return JsonObject.parse(json.dumps({"model": "m", "messages": list(messages or (ASKED,)), **more}).encode())


def last_message(dialect: Dialect, asked: JsonObject, text: str) -> Any:
    return json.loads(Prefill(dialect, asked).request(text).body)["messages"][-1]


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES])
@given(text=st.text(min_size=1))
def test_the_last_message_is_the_assistants(dialect: Dialect, text: str) -> None:
    asked = request(ASKED, stream=True, max_tokens=5)
    got = json.loads(Prefill(dialect, asked).request(text).body)
    assert got == json.loads(asked.body) | {"messages": [ASKED, {"role": "assistant", "content": text}]}


def test_every_other_byte_stays_as_it_was_sent() -> None:
    body = b'{ "messages" : [ {"role" :"user","content":"\\u0041 \\/"} ] ,"n":1, "temperature":1.10}'
    got = Prefill(CHAT, JsonObject.parse(body)).request('"Hi')
    assert got.body == body.replace(b"} ] ,", b'},{"role":"assistant","content":"\\"Hi"}] ,')


def test_what_the_client_had_begun_is_gone_on_from() -> None:
    begun = {"role": "assistant", "content": "One, ", "name": "x"}
    asked = request(ASKED, begun)
    assert Prefill(CHAT, asked).text("two") == ("One, two", "")
    assert last_message(CHAT, asked, "One, two") == begun | {"content": "One, two"}
    got = json.loads(Prefill(CHAT, asked).request("One, two").body)
    assert len(got["messages"]) == 2


def test_a_beginning_in_a_block_stays_in_its_block() -> None:
    block = {"type": "text", "text": "One,", "cache_control": {"type": "ephemeral"}}
    asked = request(ASKED, {"role": "assistant", "content": [block]})
    assert last_message(MESSAGES, asked, "One, two") == {
        "role": "assistant",
        "content": [block | {"text": "One, two"}],
    }


def test_a_beginning_that_the_answer_repeated_is_not_said_twice() -> None:
    prefill = Prefill(CHAT, request(ASKED, {"role": "assistant", "content": "One, "}))
    assert prefill.text("One, two") == ("One, two", "")
    short = Prefill(CHAT, request(ASKED, {"role": "assistant", "content": "1"}))
    assert short.text("10") == ("110", "")


@pytest.mark.parametrize(
    ("own", "shown", "text", "left_out"),
    [
        ("", "One \n", "One", " \n"),
        ("", " \n", "", " \n"),
        ("Well", "\n", "Well", "\n"),
        ("Well ", "\n", "Well", "\n"),  # only the line end was shown
        ("", "One", "One", ""),
    ],
)
def test_a_prefill_of_messages_does_not_end_in_white_space(own: str, shown: str, text: str, left_out: str) -> None:
    messages = [ASKED, *([{"role": "assistant", "content": own}] if own else [])]
    assert Prefill(MESSAGES, request(*messages)).text(shown) == (text, left_out)
    assert Prefill(CHAT, request(*messages)).text(shown) == (own + shown, "")


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"n": "1"},
        {"logprobs": True},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "x"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": "text"},
        {"messages": None},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": [{"role": 1}]},
        {"messages": [{"role": "assistant"}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}] * 2}]},
    ],
)
def test_a_chat_that_asks_for_more_than_one_text_is_never_gone_on_from(more: dict[str, Any]) -> None:
    asked = json.loads(request().body) | more
    assert Prefill(CHAT, JsonObject.parse(json.dumps(asked).encode())).own is None


@pytest.mark.parametrize(
    "more",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "adaptive"}},
        {"output_format": {"type": "json_schema"}},
        {"output_config": {"format": {"type": "json_schema"}}},
    ],
)
def test_messages_that_think_or_have_a_form_are_never_gone_on_from(more: dict[str, Any]) -> None:
    assert Prefill(MESSAGES, request(**more)).own is None


def test_what_says_no_more_than_the_default_is_no_hindrance() -> None:
    asked = request(n=1, logprobs=False, modalities=["text"], response_format={"type": "text"}, tools=[{}], audio=None)
    assert Prefill(CHAT, asked).own == ""
    asked = request(thinking={"type": "disabled"}, output_config={"effort": "low"}, max_tokens=9)
    assert Prefill(MESSAGES, asked).own == ""


@pytest.mark.parametrize("dialect", [one for one in Dialect if one not in (CHAT, MESSAGES)])
def test_other_dialects_are_never_gone_on_from(dialect: Dialect) -> None:
    assert Prefill(dialect, request()).own is None


def test_a_request_without_messages_or_with_strange_ones_is_no_error() -> None:
    for body in (
        b"{}",
        b'{"messages":{}}',
        b'{"messages":[[]]}',
        b'{"messages":[{"role":"a","role":"b"}]}',
        b'{"n":1e999}',
    ):
        assert Prefill(CHAT, JsonObject.parse(body)).own is None
