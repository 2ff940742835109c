"""Lists of models: entries stay as they were written, what they lack is added, and nothing is believed to be a list."""

import json
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.wire.models import MAX_MODELS, model_entry, read_models, render_models

WHOLE = b'{"id": "m", "object": "model",\n "created": 1.0, "owned_by": "x", "extra": {"a": [1, 2]}}'


def test_a_whole_entry_stays_byte_for_byte() -> None:
    assert read_models(b'{"object":"list","data":[ %b ]}' % WHOLE, "me") == {"m": WHOLE}
    assert json.loads(render_models([WHOLE, WHOLE]))["data"] == 2 * [json.loads(WHOLE)]


def test_what_an_entry_lacks_is_added_behind_it() -> None:
    body = b'{"data":[{"type":"model","id":"claude","display_name":"C"}],"has_more":false}'
    (entry,) = (read_models(body, 'm"e') or {}).values()
    assert entry.startswith(b'{"type":"model","id":"claude","display_name":"C",')
    assert json.loads(entry) == {
        "type": "model",
        "id": "claude",
        "display_name": "C",
        "object": "model",
        "created": 0,
        "owned_by": 'm"e',
    }


def test_a_member_that_is_there_is_left_alone_whatever_it_is() -> None:
    entry = b'{"id":"m","object":null,"created":"then","owned_by":[]}'
    assert read_models(b'{"data":[%b]}' % entry, "me") == {"m": entry}


def test_the_bare_array_is_a_list_too() -> None:
    assert read_models(b"[%b]" % WHOLE, "me") == {"m": WHOLE}


def test_of_two_entries_for_a_name_the_first_counts() -> None:
    assert read_models(b'{"data":[%b,{"id":"m"}]}' % WHOLE, "me") == {"m": WHOLE}


@pytest.mark.parametrize("odd", ["1", "null", "[]", "{}", '{"id":1}', '{"id":null}', '{"id":""}'])
def test_what_is_no_entry_is_left_out(odd: str) -> None:
    assert read_models(b'{"data":[%b,%b]}' % (odd.encode(), WHOLE), "me") == {"m": WHOLE}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"null",
        b'"data"',
        b'{"data":null}',
        b'{"data":{}}',
        b'{"error":{"message":"no"}}',
        b'{"data":[{"id":"\xff"}]}',
        b'{"data":[' + 100_000 * b"[",
        b'{"data":[{"id":"m"}]',
    ],
)
def test_what_is_no_list_is_none(body: bytes) -> None:
    assert read_models(body, "me") is None


def test_an_endless_list_is_read_so_far_and_in_no_time() -> None:
    body = b'{"data":[' + b",".join(b'{"id":"%d"}' % number for number in range(250_000)) + b"]}"
    start = perf_counter()
    models = read_models(body, "me")
    assert perf_counter() - start < 2
    assert models is not None and len(models) == MAX_MODELS


def test_a_model_that_nobody_lists_has_an_entry_of_ours() -> None:
    entry = {"id": 'a"b', "object": "model", "created": 0, "owned_by": "ö"}
    assert json.loads(model_entry('a"b', "ö")) == entry
    assert json.loads(render_models([])) == {"object": "list", "data": []}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ENTRY = st.dictionaries(st.sampled_from(["id", "object", "created", "owned_by", "x", ""]), JSON | st.just("m"))


@given(st.lists(ENTRY | JSON, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_every_entry_keeps_what_it_has(entries: list[object], escapes: bool, indent: int | None) -> None:
    body = json.dumps({"data": entries}, ensure_ascii=escapes, indent=indent).encode()
    models = read_models(body, "me")
    assert models is not None
    shown = json.loads(render_models(models.values()))["data"]
    expected: dict[str, dict[str, object]] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]:
            expected.setdefault(entry["id"], {"object": "model", "created": 0, "owned_by": "me"} | entry)
    assert {one["id"]: one for one in shown} == expected
