"""Virtual keys for stories: secrets, and the tables that hold their hashes."""

import json
from hashlib import sha256

from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, chunk, content


def secret(name: str) -> str:
    """The secret of the key of this name."""
    return f"tpk_{name:x<43}"


def key_table(name: str, *lines: str) -> str:
    """A `[[key]]`; `lines` say more of it."""
    digest = sha256(secret(name).encode()).hexdigest()
    return "\n".join(["[[key]]", f'name = "{name}"', f'hash = "sha256:{digest}"', *lines, ""])


def bearer(name: str) -> str:
    """The header line that shows a key."""
    return f"authorization: Bearer {secret(name)}\r\n"


def price(model: str, input: str = "2.5", output: str = "10", cached: str | None = None) -> str:  # noqa: A002
    """A `[[price]]`, in dollars for a million tokens."""
    more = [] if cached is None else [f'cached = "{cached}"']
    return "\n".join(["[[price]]", f'model = "{model}"', f'input = "{input}"', f'output = "{output}"', *more, ""])


def usage(input_tokens: int, output_tokens: int, cached: int = 0) -> dict[str, object]:
    """What an origin tells of its tokens."""
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    return {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, **details}


def whole_answer(input_tokens: int, output_tokens: int, cached: int = 0) -> bytes:
    """An origin's whole answer to a chat, with its usage."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}]
    body = json.dumps({"choices": choices, "usage": usage(input_tokens, output_tokens, cached)}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def streamed_answer(input_tokens: int, output_tokens: int, words: int = 2) -> bytes:
    """An origin's stream that tells its usage, as one does that was asked for it."""
    said = json.dumps({"choices": [], "usage": usage(input_tokens, output_tokens)}).encode()
    events = [content("word ") for _ in range(words)] + [content("", '"stop"'), b"data: " + said + b"\n\n", DONE]
    return OK_STREAM + b"".join(chunk(event) for event in events) + LAST_CHUNK
