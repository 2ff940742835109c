"""Chat requests that are written as a URL's query."""

import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.errors import BadRequest
from trioproxy.wire.chat_query import NAMES, chat_body, query_of, resume_of


def body_of(query: str) -> dict[str, object]:
    body: dict[str, object] = json.loads(chat_body(query_of(b"/v1/chat/stream?" + query.encode())))
    return body


def read(query: str) -> None:
    values = query_of(b"/v1/chat/stream?" + query.encode())
    chat_body(values)
    resume_of(values)


def test_a_model_and_a_prompt_are_enough() -> None:
    assert body_of("model=m&prompt=Say+%22hi%22%0Atwice") == {
        "model": "m",
        "messages": [{"role": "user", "content": 'Say "hi"\ntwice'}],
        "stream": True,
    }


def test_everything_that_may_be_said() -> None:
    query = "model=m&prompt=p&system=s&max_tokens=7&temperature=0.5&resume=2.5&token=t"
    assert body_of(query) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
        "stream": True,
        "max_tokens": 7,
        "temperature": 0.5,
    }
    values = query_of(b"/?" + query.encode())
    assert (resume_of(values), values["token"]) == (2.5, "t")
    assert resume_of(query_of(b"/?model=m")) is None


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_text_comes_through(prompt: str, system: str) -> None:
    body = body_of(urlencode({"model": "m", "prompt": prompt, "system": system}))
    assert body["messages"] == [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


@given(st.text(), st.lists(st.sampled_from([*NAMES, "other"])))
def test_what_comes_is_understood_or_refused_whatever_it_is(value: str, names: list[str]) -> None:
    query = "&".join(f"{name}={quote(value)}" for name in names)
    try:
        read(query)
    except BadRequest:
        pass


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ("", "prompt", "which 'prompt'"),
        ("model=m", "prompt", "which 'prompt'"),
        ("model=m&prompt=", "prompt", "which 'prompt'"),
        ("prompt=p", "model", "which 'model'"),
        ("model=m&prompt=p&prompt=q", "prompt", "twice"),
        ("model=m&prompt=p&temprature=1", None, "nothing else"),
        ("model=m&prompt=%ff", "prompt", "UTF-8"),
        ("model=m&prompt=p&max_tokens=many", "max_tokens", "a whole number"),
        ("model=m&prompt=p&max_tokens=-1", "max_tokens", "a whole number"),
        ("model=m&prompt=p&max_tokens=%D9%A1", "max_tokens", "a whole number"),
        ("model=m&prompt=p&temperature=1e9", "temperature", "a number"),
        ("model=m&prompt=p&temperature=nan", "temperature", "a number"),
        ("model=m&prompt=p&resume=", "resume", "a number of seconds"),
    ],
)
def test_what_cannot_be_read_is_named(query: str, param: str | None, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as refused:
        read(query)
    assert refused.value.param == param
