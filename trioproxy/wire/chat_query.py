"""A chat request that is written as a URL's query, as a browser's EventSource has to: it sends no body, and no header
fields of its own. PURE.

    ?model=…&prompt=…    then, if wanted: system, max_tokens, temperature, resume (seconds), token

Source: WHATWG URL, "application/x-www-form-urlencoded parsing". Used by `web/event_source`.
"""

import re

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.target import query_pairs

NAMES = ("model", "prompt", "system", "max_tokens", "temperature", "resume", "token")

_COUNT = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def query_of(target: bytes) -> dict[str, str]:
    """The values in a target's query, by name. Raises BadRequest for one that is not known, stands twice, or is no
    UTF-8: what is misspelt here nobody else would notice."""
    values: dict[str, str] = {}
    for raw_name, raw_value in query_pairs(target):
        name = raw_name.decode("utf-8", "replace")
        if name not in NAMES:
            raise BadRequest(f"The query may hold {', '.join(NAMES)}, and nothing else.")
        if name in values:
            raise BadRequest(f"The query holds '{name}' twice; send it once.", param=name)
        try:
            values[name] = raw_value.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest(f"'{name}' has to be UTF-8.", param=name) from None
    return values


def chat_body(values: dict[str, str]) -> bytes:
    """The chat request as JSON. Raises BadRequest for a value that is missing or cannot be read."""
    messages = [{"role": "system", "content": values["system"]}] if values.get("system") else []
    messages.append({"role": "user", "content": _needed(values, "prompt")})
    body: dict[str, object] = {"model": _needed(values, "model"), "messages": messages, "stream": True}
    max_tokens = _matching(values, "max_tokens", _COUNT, "a whole number")
    if max_tokens is not None:
        body["max_tokens"] = int(max_tokens)
    temperature = _matching(values, "temperature", _NUMBER, "a number")
    if temperature is not None:
        body["temperature"] = float(temperature)
    return msgspec.json.encode(body)


def resume_of(values: dict[str, str]) -> float | None:
    """For how many seconds the stream is to go on without a reader; None if that is not said. Raises BadRequest."""
    seconds = _matching(values, "resume", _NUMBER, "a number of seconds")
    return None if seconds is None else float(seconds)


def _needed(values: dict[str, str], name: str) -> str:
    if not values.get(name):
        raise BadRequest(f"The query has to say which '{name}'.", param=name)
    return values[name]


def _matching(values: dict[str, str], name: str, pattern: re.Pattern[str], expected: str) -> str | None:
    value = values.get(name)
    if value is not None and pattern.fullmatch(value) is None:
        raise BadRequest(f"'{name}' has to be {expected}.", param=name)
    return value
