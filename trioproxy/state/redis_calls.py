"""Scripts in Lua, what the server does in one step; and how it is told to run them."""

import hashlib
from collections.abc import Sequence
from typing import Final

from coredis.exceptions import NoScriptError, RedisError

from trioproxy.state.redis_link import Command, RedisLink, Value
from trioproxy.state.streams import StateUnavailable


class Script:
    """A script, and the name by which a server that has run it once knows it."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


Call = tuple[Script, Sequence[bytes], Sequence[Value]]
"""A script, its keys, its arguments."""

NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
"""How scripts begin that need the server's own clock, in ms: the only one that all replicas have in common."""


async def run_all(link: RedisLink, calls: Sequence[Call]) -> list[object]:
    """Run scripts, one behind the other. A server that does not know one of them gets all again, with their text: each
    may be done twice, unless it is the only one. Raises StateUnavailable, also where the server refuses one; all others
    are done then. If cancelled, they may be done."""
    if not calls:
        return []
    try:
        return await link.call_all([_command(b"EVALSHA", call[0].sha, call) for call in calls])
    except NoScriptError:
        return await send_all(link, [with_text(call) for call in calls])
    except RedisError as error:
        raise refusal(error) from error


async def send_all(link: RedisLink, commands: Sequence[Command]) -> list[object]:
    """Send commands, one behind the other. Raises StateUnavailable, also where the server refuses one."""
    try:
        return await link.call_all(commands)
    except RedisError as error:
        raise refusal(error) from error


def with_text(call: Call) -> Command:
    """A call as a command that any server understands."""
    return _command(b"EVAL", call[0].source, call)


def refusal(error: RedisError) -> StateUnavailable:
    """What is raised where the server says that it cannot do this."""
    return StateUnavailable(f"Redis refuses: {error}")


def _command(name: bytes, script: bytes, call: Call) -> Command:
    _, keys, arguments = call
    return (name, script, len(keys), *keys, *arguments)
