"""A request that asks an origin to go on from a text: the conversation's last message is the assistant's, begun.

Only the value of `messages` is touched, and of that only its end: every other byte stays as the client sent it. Whether
an origin really goes on from there, and does not answer anew, is its own affair. Used by `wire/continuing`.

Sources: Anthropic's "Prefill Claude's response" (what a prefill excludes, and that it may not end in white space);
OpenAI's API reference ("Chat completions") for the request's members.
"""

from typing import Any

import msgspec

from trioproxy.errors import BadRequest
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject

_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode

_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadRequest)


class Prefill:
    """How the request of one client can be made to go on from a text.

    Attributes:
        own: what the client itself had begun the assistant's message with; None if the request can never be asked to go
            on: another dialect than chat and messages, several choices, log probabilities, an answer of a fixed form or
            with sound, thinking switched on (messages), a last message of the assistant that is more than text.
    """

    __slots__ = ("_dialect", "_request", "own")

    def __init__(self, dialect: Dialect, request: JsonObject) -> None:
        """Never raises: what cannot be read cannot be gone on from."""
        self._dialect = dialect
        self._request = request
        try:
            self.own = _own_text(request) if _allows(dialect, request) else None
        except _UNREADABLE:
            self.own = None

    def text(self, shown: str) -> tuple[str, str]:
        """What the assistant's message says when the client was shown this much of the answer, and what of that which
        was shown it leaves out.

        It is the client's own beginning and then the answer, unless the answer repeated that beginning. For messages
        the white space at its end is left out.
        """
        own = self.own or ""
        whole = shown if is_worth_a_look(own) and shown.startswith(own) else own + shown
        text = whole.rstrip() if self._dialect is Dialect.MESSAGES else whole
        return text, whole[max(len(text), len(whole) - len(shown)) :]

    def request(self, text: str) -> JsonObject:
        """The client's request with this text as the assistant's last message; only where `own` is not None."""
        messages = bytes(self._request.members["messages"]).rstrip()[:-1].rstrip()
        last = _last_message(self._request)
        if last.string("role") == "assistant":
            messages = messages[: -len(last.body)] + last.replace({"content": _content(last, text)})
        else:
            messages += b',{"role":"assistant","content":%s}' % _encode(text)
        return JsonObject.parse(self._request.replace({"messages": messages + b"]"}))


MIN_REPEATED = 4
"""A text of fewer characters is not looked for at the start of what follows: that it stands there says nothing."""


def is_worth_a_look(text: str) -> bool:
    """Whether finding this text at the start of another means that the other repeats it."""
    return len(text.strip()) >= MIN_REPEATED


def _allows(dialect: Dialect, request: JsonObject) -> bool:
    members = {name: _decode(request.members[name]) for name in _ASKS & request.members.keys()}
    if dialect is Dialect.CHAT:
        return (
            members.get("n") in (None, 1)
            and not members.get("logprobs")
            and not members.get("audio")
            and members.get("modalities") in (None, [], ["text"])
            and _type(members.get("response_format"), "text") == "text"
        )
    if dialect is Dialect.MESSAGES:
        config = members.get("output_config")
        return (
            _type(members.get("thinking"), "disabled") == "disabled"
            and not members.get("output_format")
            and not (isinstance(config, dict) and config.get("format"))
        )
    return False


_ASKS = {"n", "logprobs", "audio", "modalities", "response_format", "thinking", "output_format", "output_config"}


def _type(value: Any, default: str) -> Any:
    if value is None:
        return default
    return value.get("type") if isinstance(value, dict) else None


def _last_message(request: JsonObject) -> JsonObject:
    return JsonObject.parse(bytes(_decode_list(request.members["messages"])[-1]))


def _own_text(request: JsonObject) -> str | None:
    """The text of a last message of the assistant, "" where there is none, None where it is not only text."""
    if "messages" not in request.members or not _decode_list(request.members["messages"]):
        return None
    last = _last_message(request)
    if last.string("role") != "assistant":
        return ""
    if any(_decode(value) for name, value in last.members.items() if name not in ("role", "content", "name")):
        return None  # tool calls, a refusal, and whatever else an answer may be made of
    content = _decode(last.members["content"]) if "content" in last.members else None
    if isinstance(content, list) and content:
        # Several blocks would have to be joined; which text stands between them is each origin's own affair.
        content = content[0].get("text") if len(content) == 1 and _type(content[0], "") == "text" else None
    return content if isinstance(content, str) else None


def _content(message: JsonObject, text: str) -> bytes:
    """The text in the form that the message's content has: a string, or a list with one block of text."""
    content = bytes(message.members["content"])
    if not content.startswith(b"["):
        return _encode(text)
    return b"[" + JsonObject.parse(bytes(_decode_list(content)[0])).replace({"text": _encode(text)}) + b"]"
