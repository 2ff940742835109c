"""The operator's own word on each request: an async function that may refuse or annotate it.

    [gate]
    plugin = "our_rules:check"

    async def check(request: PluginRequest) -> Mapping[str, str] | None

It sees every request whose body is read, behind keys and rules and in front of the limits, and runs in the request's
own task on Trio: it is cancelled when the client leaves, and when it takes longer than `plugin_s`. It raises `Refuse`
to refuse; what it returns goes into the log line. Any other exception is a bug: the request gets a 500, and the log
says where. `conf/examples/plugin.py` is one.
"""

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from trioproxy.errors import PluginTimeout, RequestRefused

MAX_NOTES = 20
MAX_NOTE = 200
"""How much a plugin may say about a request in the log: so many words, each of so many characters."""


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """A request as a plugin sees it: nothing in it is secret. `key` is the virtual key's name, `headers` are lower case
    and without credentials, `body` is what will be sent."""

    request_id: str
    key: str | None
    client: str | None
    endpoint: str
    model: str | None
    stream: bool
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Refuse(Exception):
    """Raised by a plugin: the request goes no further. The client is told the message; `status` is 400, 403 or 429."""

    def __init__(self, message: str, *, status: int = 403) -> None:
        super().__init__(message)
        self.message = message
        self.status = status if status in (400, 403, 429) else 403


PluginFunction = Callable[[PluginRequest], Awaitable[Mapping[str, str] | None]]


class Plugin:
    """A plugin, and how long it may take, in seconds."""

    def __init__(self, function: PluginFunction, timeout_s: float) -> None:
        self._function = function
        self._timeout_s = timeout_s

    async def ask(self, request: PluginRequest) -> dict[str, str]:
        """What it has to say about a request. Raises RequestRefused or PluginTimeout, and whatever is a bug in it."""
        try:
            with trio.fail_after(self._timeout_s):
                said = await self._function(request)
        except Refuse as refusal:
            raise RequestRefused(refusal.message, status=refusal.status) from None
        except trio.TooSlowError:
            raise PluginTimeout("This request could not be judged in time; send it again later.") from None
        noted = list((said or {}).items())[:MAX_NOTES]
        return {str(name)[:MAX_NOTE]: str(value)[:MAX_NOTE] for name, value in noted}


def load_plugin(name: str, timeout_s: float) -> Plugin:
    """The function "module:function", imported as Python finds it. Raises OSError, which says what is wrong."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise OSError(f"gate.plugin: {name} cannot be loaded: {error}") from error
    if not callable(function):
        raise OSError(f"gate.plugin: {name} is not a function")
    return Plugin(function, timeout_s)
