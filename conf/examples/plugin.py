"""A plugin: the operator's own word on each request.

    [gate]
    plugin = "plugin:check"      # this file, where Python finds it: PYTHONPATH=conf/examples trioproxy serve …

It is asked about every request whose body is read, before that goes to an upstream. It may refuse one (the client
gets the message), and what it returns goes into the log line. It runs on Trio in the request's own task: it is
cancelled when the client leaves, and has `gate.plugin_s` seconds.
"""

from trioproxy.gate.plugin import PluginRequest, Refuse

WORDS = (b"internal only", b"BEGIN PRIVATE KEY")


async def check(request: PluginRequest) -> dict[str, str]:
    """Keep what must not leave the house inside, and say in the log whose team a request is."""
    if any(word in request.body for word in WORDS):
        raise Refuse("This looks like something that must not leave the house.", status=403)
    team = dict(request.headers).get(b"x-team", b"unknown")
    return {"team": team.decode("latin-1")}
