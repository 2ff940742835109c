"""What a request has that no client asked for: a health check, a look at an upstream's models, the proof of a key.

Sources: OpenAI's and Anthropic's API references ("Authentication", "Versioning": a request has to name the version).
"""

import json

from trioproxy.upstream.endpoint import Endpoint
from trioproxy.wire.headers import Headers


def own_fields(endpoint: Endpoint, accept: bytes = b"application/json") -> Headers:
    """The fields of such a request, less those of a body. The endpoint's own fields and key come on top."""
    fields: Headers = [(b"accept", accept), (b"accept-encoding", b"identity"), (b"user-agent", b"trioproxy")]
    if endpoint.is_anthropic:
        fields.append((b"anthropic-version", b"2023-06-01"))
    return fields


def one_token_chat(endpoint: Endpoint, model: str | None) -> tuple[bytes, Headers, bytes]:
    """A chat that costs as little as one can: target at the endpoint, the fields of its body, and that."""
    target = endpoint.target(b"/v1/messages" if endpoint.is_anthropic else b"/v1/chat/completions")
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1}).encode()
    return target, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body
