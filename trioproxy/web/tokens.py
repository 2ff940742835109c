"""`POST /v1/stream/tokens`: a token that stands for the caller for a short while, for those that cannot send
`authorization`; and who the caller is of a request that shows one.

A token opens streams until it expires, and reads and stops its caller's streams as long as these are there: their ids
are told to nobody but those who opened or joined them. One that was made for a model is good for streams of that alone.
It holds no key, so the origin gets the upstream's own: without one there are no tokens.
"""

from datetime import UTC, datetime
from math import inf
from secrets import token_bytes

from trioproxy.errors import BadRequest, InvalidKey, MethodNotAllowed
from trioproxy.gate.keys import Identity
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import identify, known_as
from trioproxy.web.service import Service
from trioproxy.wire.token import NONCE_BYTES, Token, render_token, seal, unseal, wished

PATH = "/v1/stream/tokens"
_MAX_BODY_BYTES = 4096


async def make_token(service: Service, incoming: Incoming) -> None:
    """Answer with a token for who asks. Raises BadRequest or one of its kinds."""
    if incoming.method != "POST":
        raise MethodNotAllowed("A token is asked for with POST.", allow="POST")
    identity = identify(service, incoming)
    secret = _secret_of(service)
    incoming.body.limit(_MAX_BODY_BYTES)
    ends = incoming.keep_to(service.timing)
    incoming.lifetime.end_at(inf)  # the body ends with it too, and has an answer of its own
    wished_s, model = wished(await incoming.body.read(ends))
    if model is not None:
        service.gate.check_model(identity, model)
    expires = int(service.wall_clock()) + wished_s
    token = Token(identity.caller, expires, token_bytes(NONCE_BYTES), model)
    expires_at = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
    await incoming.reply(200, render_token(seal(token, secret), expires_at))


def identify_by(service: Service, incoming: Incoming, shown: str | None, *, opens: bool) -> Identity:
    """Who asks, by the token that the request shows, else by its credentials. `opens`: a new stream is asked for, and
    not one that the request can name. Raises InvalidKey or BadRequest."""
    if shown is None:
        return identify(service, incoming)
    token = token_shown(service, shown, opens=opens)
    return known_as(incoming, service.gate.identify_caller(token.caller, token.model))


def token_shown(service: Service, shown: str, *, opens: bool) -> Token:
    """The token of this text. Raises InvalidKey or BadRequest."""
    token = unseal(shown, _secret_of(service))
    if token is None:
        raise InvalidKey("The token is not one of this server's; ask for another one.", param="token")
    if opens and service.wall_clock() >= token.expires:
        raise InvalidKey("The token has expired; ask for another one.", param="token")
    return token


def _secret_of(service: Service) -> bytes:
    if service.token_secret is None:
        raise BadRequest(
            "There are no tokens here: no upstream has an 'api_key' of its own, and a token never holds the caller's."
        )
    return service.token_secret
