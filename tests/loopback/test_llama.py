"""A real origin: llama.cpp's own server, with a tiny model of random weights, behind the proxy."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

from tests.loopback.llama_origin import MODEL_NAME, open_llama_origin
from tests.loopback.processes import Server, serving, until
from tests.loopback.raw_http import Wire, ask, chat, request_bytes

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of llama.cpp's server."""
    with open_llama_origin(tmp_path_factory.mktemp("llama")) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def llama_proxy(llama: str) -> Iterator[Server]:
    """A proxy in front of it."""
    with serving(llama) as server:
        yield server


@pytest.fixture
def port(llama: str) -> int:
    """Straight to the server."""
    found = urlsplit(llama).port
    assert found is not None
    return found


@pytest.fixture
def client(llama_proxy: Server) -> Iterator[OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with OpenAI(base_url=llama_proxy.base_url, api_key="any", max_retries=0, http_client=http) as through:
        yield through


def asked(**more: Any) -> dict[str, Any]:
    """A short chat."""
    return chat(MODEL_NAME, **{"max_tokens": 12, **more})


def busy_slots(port: int) -> int:
    """How many generations run."""
    return sum(slot["is_processing"] for slot in ask(port, "GET", "/slots").json)


def test_a_stream_has_the_text_of_the_whole_answer(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    whole = client.chat.completions.create(model=MODEL_NAME, messages=messages, max_tokens=12)
    chunks = list(client.chat.completions.create(model=MODEL_NAME, messages=messages, max_tokens=12, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content != ""
    assert whole.choices[0].finish_reason == "length"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["length"]
    assert whole._request_id


def test_a_stream_is_the_one_that_the_origin_sends(llama_proxy: Server, port: int) -> None:
    def events(answering: int) -> list[Any]:
        answer = ask(answering, "POST", CHAT, asked())
        assert answer.is_clean
        *events, last, empty = answer.body.split(b"\n\n")
        assert (last, empty) == (b"data: [DONE]", b"")
        values = [json.loads(event.removeprefix(b"data: ")) for event in events]
        for value in values:  # what differs between any two answers
            del value["id"], value["created"]
            value.pop("timings", None)
        return values

    assert events(llama_proxy.port) == events(port)


def test_legacy_completions_and_the_models_pass(client: OpenAI, port: int) -> None:
    whole = client.completions.create(model=MODEL_NAME, prompt="Hello", max_tokens=8)
    streamed = client.completions.create(model=MODEL_NAME, prompt="Hello", max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == whole.choices[0].text != ""
    assert [model.id for model in client.models.list()] == [MODEL_NAME]


def test_usage_comes_with_the_last_chunk(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    usage = list(stream)[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"model": MODEL_NAME}),
        (CHAT, asked(messages=[{"role": "user", "content": "x" * 20_000}])),
        (CHAT, asked(temperature="hot")),
        ("/v1/completions", {"model": MODEL_NAME}),
        ("/v1/embeddings", {"model": MODEL_NAME, "input": "Hello"}),
        ("/v1/no/such/path", {}),
    ],
    ids=["messages missing", "too long", "wrong type", "no prompt", "no embeddings", "unknown path"],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_its_error_bodies_arrive_byte_for_byte(
    llama_proxy: Server, port: int, path: str, body: dict[str, Any], is_stream: bool
) -> None:
    through, direct = (ask(each, "POST", path, {**body, "stream": is_stream}) for each in (llama_proxy.port, port))
    assert through.status == direct.status >= 400
    assert through.body == direct.body
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert through.is_clean


def test_a_stream_whose_client_leaves_is_no_longer_generated(llama_proxy: Server, port: int) -> None:
    for leave in (Wire.leave, Wire.reset):
        with Wire.to(llama_proxy.port) as client:
            body = json.dumps(chat(MODEL_NAME)).encode()  # without max_tokens it never ends by itself
            client.send(request_bytes("POST", CHAT, body))
            client.read_head()
            client.read_chunk()
            assert busy_slots(port) == 1
            leave(client)
            took_s = until(lambda: busy_slots(port) == 0, "every slot is idle")
        print(f"idle after {1000 * took_s:.0f} ms")
        assert took_s < 1.0


def test_an_answer_in_one_piece_whose_client_leaves_is_no_longer_generated(llama_proxy: Server, port: int) -> None:
    with Wire.to(llama_proxy.port) as client:
        body = json.dumps(chat(MODEL_NAME, stream=False)).encode()
        client.send(request_bytes("POST", CHAT, body))
        time.sleep(0.5)
        assert busy_slots(port) == 1
        client.reset()
    # This server looks for its client only after a second without any result on its queue, and each question is one.
    until(lambda: busy_slots(port) == 0, "every slot is idle", patience_s=12.0, pause_s=2.5)
