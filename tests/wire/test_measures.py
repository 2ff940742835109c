import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.measures import (
    TOKENS_PER_BLOB,
    Bounds,
    Estimate,
    beyond,
    estimate,
    is_deeper,
    messages,
    prompt_tokens,
)


def request(**members: Any) -> JsonObject:
    return JsonObject.parse(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("members", "dialect", "output"),
    [
        ({"max_tokens": 7}, Dialect.CHAT, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, Dialect.CHAT, 9),
        ({"max_tokens": 7, "n": 3}, Dialect.CHAT, 21),
        ({"max_tokens": 7, "best_of": 4}, Dialect.COMPLETIONS, 28),
        ({"max_output_tokens": 5}, Dialect.RESPONSES, 5),
        ({"max_tokens": 5}, Dialect.MESSAGES, 5),
        ({}, Dialect.CHAT, 100),
        ({"n": 2}, Dialect.CHAT, 200),
        ({"max_tokens": 0}, Dialect.CHAT, 0),
        ({"max_tokens": -1}, Dialect.CHAT, 100),  # without an end, to some origins
        ({"max_tokens": -1, "max_completion_tokens": 5}, Dialect.CHAT, 100),
        ({"max_tokens": 5, "prompt": ["a", "b, c", '"d","e"']}, Dialect.COMPLETIONS, 15),
        ({"max_tokens": 5, "n": 2, "prompt": [[1, 2], [3]]}, Dialect.COMPLETIONS, 20),
        ({"max_tokens": 5, "prompt": [1, 2, 3]}, Dialect.COMPLETIONS, 5),
        ({"max_tokens": 5, "prompt": "one"}, Dialect.COMPLETIONS, 5),
        ({"max_tokens": 5, "prompt": ["a", "b"]}, Dialect.CHAT, 5),
        ({"max_tokens": 5}, Dialect.EMBEDDINGS, 0),
    ],
)
def test_an_answer_is_reckoned_with_as_long_as_it_may_be(
    members: dict[str, Any], dialect: Dialect, output: int
) -> None:
    asked = request(**members)
    assert estimate(asked, dialect, 100) == Estimate(-(-len(asked.body) // 4), output)


def test_a_maximum_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadRequest, match="max_tokens"):
        estimate(request(max_tokens="many"), Dialect.CHAT, 100)


@pytest.mark.parametrize("form", ["data:image/png;base64,%s", "%s"])
def test_a_picture_counts_as_a_picture_and_not_by_its_bytes(form: str) -> None:
    picture = b64encode(b"\x00" * 300_000).decode()
    body = json.dumps({"messages": [{"content": [{"type": "image", "data": form % picture}]}]}).encode()
    assert prompt_tokens(body) < TOKENS_PER_BLOB + 50
    assert prompt_tokens(body) >= TOKENS_PER_BLOB


@pytest.mark.parametrize(
    ("bounds", "members", "param"),
    [
        (Bounds(max_tokens=10), {"max_tokens": 11}, "max_tokens"),
        (Bounds(max_tokens=10), {"max_tokens": 10}, None),
        (Bounds(max_tokens=10), {}, None),
        (Bounds(max_tokens=10), {"max_tokens": -1}, "max_tokens"),
        (Bounds(max_tokens=10), {"max_completion_tokens": 11}, "max_completion_tokens"),
        (Bounds(n=2), {"n": 3}, "n"),
        (Bounds(n=2), {"best_of": 3}, "n"),
        (Bounds(messages=2), {"messages": [1, 2, 3]}, "messages"),
        (Bounds(messages=2), {"messages": [None, None, None]}, "messages"),
        (Bounds(messages=2), {"input": ["1", "2", "3"]}, "input"),
        (Bounds(messages=2), {"input": "one text"}, None),
        (Bounds(messages=2), {"input": [1, 2, 3]}, None),  # tokens of one text
        (Bounds(messages=2), {"messages": [], "input": ["1", "2", "3"]}, "input"),
        (Bounds(message_bytes=10), {"input": ["a"] * 10_001}, "input"),
        (Bounds(message_bytes=10), {"messages": ["short", "a long message"]}, "messages"),
        (Bounds(message_bytes=10), {"prompt": "a long prompt"}, "prompt"),
        (Bounds(depth=3), {"messages": [{"content": [1]}]}, "body"),
        (Bounds(depth=4), {"messages": [{"content": [1]}]}, None),
        (Bounds(), {"max_tokens": 10**9, "n": 10**9, "messages": [[[[[]]]]]}, None),
    ],
)
def test_what_is_beyond_a_bound_is_named(bounds: Bounds, members: dict[str, Any], param: str | None) -> None:
    found = beyond(bounds, request(**members), Dialect.CHAT)
    assert (found and found[0]) == param


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"', max_size=3), inner, max_size=3),
    max_leaves=10,
)


def nesting(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(nesting, value.values()), default=0)
    return 1 + max(map(nesting, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(0, 6))
def test_depth_is_that_of_the_brackets_outside_of_texts(value: Any, levels: int) -> None:
    assert is_deeper(json.dumps(value).encode(), levels) == (nesting(value) > levels)


def test_messages_are_measured_as_they_were_sent() -> None:
    assert messages(b'[ {"a": 1} ,"xy"]', 5) == [8, 4]
    assert messages(b'"a text"', 5) == [8]
    assert messages(b"[1,2,3]", 1) == [7]
    assert messages(b"[]", 5) == []
    assert messages(b'["a",null,"b","c","d"]', 2) == [3, 4, 3]
