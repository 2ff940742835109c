"""`POST /v1/stream/tokens`: a token that stands for the caller for a short while, for those that cannot send
`authorization`; and who the caller is of a request that shows one.

A token opens streams until it expires, and reads and stops its caller's streams as long as these are there: their ids
are told to nobody but those who opened or joined them. It holds no key, so the origin gets the upstream's own: without
one there are no tokens.
"""

from datetime import UTC, datetime
from math import inf
from secrets import token_bytes

from trioproxy.errors import BadRequest, InvalidKey, MethodNotAllowed
from trioproxy.web.connection import Incoming
from trioproxy.web.service import Service
from trioproxy.wire.headers import Headers
from trioproxy.wire.sharing import caller_of
from trioproxy.wire.token import NONCE_BYTES, Token, render_token, seal, unseal, wished_s

PATH = "/v1/stream/tokens"
_MAX_BODY_BYTES = 4096


async def make_token(service: Service, incoming: Incoming) -> None:
    """Answer with a token for who asks. Raises BadRequest or one of its kinds."""
    if incoming.method != "POST":
        raise MethodNotAllowed("A token is asked for with POST.", allow="POST")
    service.check_page(incoming.headers)
    secret = _secret_of(service)
    incoming.body.limit(_MAX_BODY_BYTES)
    ends = incoming.keep_to(service.timing)
    incoming.lifetime.end_at(inf)  # the body ends with it too, and has an answer of its own
    expires = int(service.wall_clock()) + wished_s(await incoming.body.read(ends))
    token = Token(caller=caller_of(incoming.headers), expires=expires, nonce=token_bytes(NONCE_BYTES))
    expires_at = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
    await incoming.reply(200, render_token(seal(token, secret), expires_at))


def caller_by(service: Service, headers: Headers, shown: str | None, *, opens: bool) -> str | None:
    """Who asks, by the token that the request shows, else by its credentials. `opens`: a new stream is asked for, and
    not one that the request can name. Raises InvalidKey or BadRequest."""
    if shown is None:
        return caller_of(headers)
    token = unseal(shown, _secret_of(service))
    if token is None:
        raise InvalidKey("The token is not one of this server's; ask for another one.", param="token")
    if opens and service.wall_clock() >= token.expires:
        raise InvalidKey("The token has expired; ask for another one.", param="token")
    return token.caller


def _secret_of(service: Service) -> bytes:
    if service.token_secret is None:
        raise BadRequest(
            "There are no tokens here: no upstream has an 'api_key' of its own, and a token never holds the caller's."
        )
    return service.token_secret
