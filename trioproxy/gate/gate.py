"""The gate: who may come in, with which request, and how much it may use. Called by `web` for every request.

identify    whose key is shown                                 401
check       may it ask for this model; rules; the plugin       403, 400
ticket      what it wants of the limits, entered by who         429, 503
            works for it
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time
from typing import Final

from trioproxy.errors import ModelNotAllowed, RequestRefused
from trioproxy.gate.keys import Identity, VirtualKey, VirtualKeys
from trioproxy.gate.plugin import Plugin, PluginRequest
from trioproxy.gate.rules import RequestRules
from trioproxy.gate.ticket import Books, Ticket, refused
from trioproxy.policy.account import STREAM_WAIT_S
from trioproxy.policy.limits import EVERYTHING, Kind, Limits, Refusal, Scope
from trioproxy.policy.price import Price
from trioproxy.policy.routing import MAX_MODEL_CHARACTERS, Routes
from trioproxy.telemetry.exchange import Exchange
from trioproxy.wire.credentials import key_shown, without_credentials
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.headers import Headers
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.measures import Estimate, estimate
from trioproxy.wire.sharing import caller_of

MOST_TOKENS: Final = 10**12
"""No request is reckoned with for more."""

_MINTS: Final = (b"/v1/realtime/", b"/v1/organization/")
"""Where OpenAI gives out ephemeral keys, and keys of its administration."""

_NO_RULES: Final = RequestRules()


@dataclass(kw_only=True)
class Gate:
    """Holds the keys that are in force and what is asked of requests.

    Attributes:
        books: limits, prices, and what becomes of requests while the store of limits is gone.
        limits: those of everything together.
        dearest: the highest price that a model may be billed at, by the targets of its route; None: some have none.
        rules: what each route says of requests' parameters.
        plugin: the operator's own word.
        output_tokens: reserved for the answer of a request that sets no maximum.
        wall_clock: seconds since 1970.
    """

    books: Books
    limits: Limits = field(default_factory=Limits)
    dearest: Callable[[str | None], Price | None] = lambda model: None
    rules: Routes[RequestRules] = field(default_factory=lambda: Routes((), _NO_RULES))
    plugin: Plugin | None = None
    output_tokens: int = 1000
    wall_clock: Callable[[], float] = time
    keys: VirtualKeys | None = None
    _reading: Counter[str] = field(default_factory=Counter)

    def take_keys(self, keys: Sequence[VirtualKey] | None) -> None:
        """Put other keys in force; None: there are none, and clients' own credentials go through."""
        self.keys = None if keys is None else VirtualKeys(keys)

    @property
    def is_open(self) -> bool:
        """Whether everybody may come in, with credentials of their own."""
        return self.keys is None

    def identify(self, headers: Headers) -> Identity:
        """Who shows these fields. Raises InvalidKey."""
        if self.keys is None:
            return Identity(caller=caller_of(headers))
        key = self.keys.find(key_shown(headers), self.wall_clock())
        return Identity(key, key.caller)

    def identify_caller(self, caller: str | None, model: str | None) -> Identity:
        """Who it is that a token stands for, which may be bound to a model. Raises InvalidKey."""
        if self.keys is None:
            return Identity(caller=caller, model=model)
        key = self.keys.find_caller(caller, self.wall_clock())
        return Identity(key, key.caller, model)

    def check_model(self, identity: Identity, model: str | None) -> None:
        """Raise ModelNotAllowed if this one may not ask for a model."""
        if not identity.may_ask(model):
            what = "any model that it does not name" if model is None else "this model"
            raise ModelNotAllowed(f"This key may not ask for {what}.", param="model")

    def check_unread(self, identity: Identity, *, has_model: bool = False) -> None:
        """Raise ModelNotAllowed for a request that is passed on unread by one whose models or tokens are limited;
        `has_model`: its model is known, and was checked."""
        is_bound = identity.is_bound and not has_model
        if is_bound or any(limits.needs_usage for _, limits in self._scopes(identity)):
            raise ModelNotAllowed(
                "Models or tokens are limited here, and of what goes this way neither is read; use another path."
            )

    def check_path(self, identity: Identity, path: bytes) -> None:
        """Raise ModelNotAllowed for a path that hands out credentials of the upstream's own, to somebody with a key of
        ours: what is done with them goes by here."""
        if identity.key is not None and path.startswith(_MINTS):
            raise ModelNotAllowed("Keys of the upstream are not handed out here; open the session at this server.")

    @contextmanager
    def reading(self, identity: Identity) -> Iterator[None]:
        """While the body of a request is read, before that can be taken of any limit: of one key not more at once than
        it may have under way, or bodies that come slowly would keep everybody else out. Raises RateLimited."""
        key = identity.key
        if key is None or key.limits.streams is None:
            yield
            return
        if self._reading[key.name] >= key.limits.streams:
            self.books.counts.limited(Kind.STREAMS)
            raise refused(Refusal(key.name, Kind.STREAMS, "streams", STREAM_WAIT_S), [(key.name, key.limits)])
        self._reading[key.name] += 1
        try:
            yield
        finally:
            self._reading[key.name] -= 1
            if not self._reading[key.name]:
                del self._reading[key.name]

    async def check(
        self, identity: Identity, request: JsonObject, dialect: Dialect, headers: Headers, exchange: Exchange
    ) -> JsonObject:
        """The request as it may go on. Raises ModelNotAllowed, RequestRefused, PluginTimeout or BadRequest."""
        self.check_model(identity, exchange.model)
        # Many an origin takes any name, or none: a rule for all models is for those too.
        rules = self.rules.find((exchange.model or "")[:MAX_MODEL_CHARACTERS])
        if identity.key is not None or self.limits.kinds or rules is not self.rules.general:
            rules.check_spelling(request)
        request = rules.apply(request, dialect)
        if self.plugin is not None:
            said = await self.plugin.ask(
                PluginRequest(
                    request_id=exchange.request_id,
                    key=identity.name,
                    client=exchange.client,
                    endpoint=dialect.value,
                    model=exchange.model,
                    stream=exchange.stream,
                    headers=tuple(without_credentials(headers)),
                    body=request.body,
                )
            )
            if said:
                exchange.notes["plugin"] = said
        return request

    def ticket(self, identity: Identity, exchange: Exchange, request: JsonObject | None, dialect: Dialect) -> Ticket:
        """What a request wants of the limits; `request` None: it is passed on unread. Raises ModelNotAllowed where
        money is counted and the model has no price, RequestRefused where tokens are and will not be told, and
        BadRequest for a maximum that is no number."""
        scopes = self._scopes(identity)
        if request is None:
            return Ticket(self.books, scopes, None, None)
        needs_usage = any(limits.needs_usage for _, limits in scopes)
        if needs_usage and dialect is Dialect.RESPONSES and request.boolean("background"):
            raise RequestRefused(
                "Tokens are limited here, and what a response takes in the background is not told.", param="background"
            )
        price = self.dearest(exchange.model)
        if price is None and any(limits.has_money for _, limits in scopes):
            raise ModelNotAllowed("Money is limited here, and this model has no price.", param="model")
        needs_estimate = price is not None or needs_usage
        return Ticket(self.books, scopes, self._estimate(request, dialect) if needs_estimate else None, price)

    def _estimate(self, request: JsonObject, dialect: Dialect) -> Estimate:
        found = estimate(request, dialect, self.output_tokens)
        return Estimate(min(found.input, MOST_TOKENS), min(found.output, MOST_TOKENS))

    def _scopes(self, identity: Identity) -> list[Scope]:
        """The limits that hold for somebody: those that limit anything."""
        own = (
            [] if identity.key is None or not identity.key.limits.kinds else [(identity.key.name, identity.key.limits)]
        )
        return [*own, (EVERYTHING, self.limits)] if self.limits.kinds else own
