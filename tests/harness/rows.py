"""Rows of the live table, as `/admin/streams` tells them."""

from typing import Any


def row(stream_id: str, **more: object) -> dict[str, Any]:
    """A live stream, as `/admin/streams` has it."""
    return {
        "id": stream_id,
        "stream": None,
        "worker": 0,
        "key": "alice",
        "model": "gpt-4o",
        "upstream": "openai",
        "endpoint": "chat",
        "client": "127.0.0.1",
        "phase": "flowing",
        "age_s": 12.0,
        "first_content_s": 0.25,
        "events": 40,
        "bytes": 4000,
        "rate": 20.0,
        "blocked_on": "upstream",
        "blocked_s": 0.0,
        "upstream_s": 11.0,
        "client_s": 0.5,
        "proxy_s": 0.5,
        "subscribers": 0,
        "attempts": 1,
        "streaming": True,
        **more,
    }


def over(stream_id: str, outcome: str = "finished", **more: object) -> dict[str, Any]:
    """The last word of one that is over."""
    ended = {"outcome": outcome, "code": None, "reason": None, "status": 200}
    took = {"input_tokens": 5, "output_tokens": 40, "cost_usd": "0.0012"}
    return row(stream_id, phase="ended", blocked_on="", **ended, **took) | more
