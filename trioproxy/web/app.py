"""The Quart-Trio app: which path is whose. Quart routes; everything else of a request happens in its `Answer`."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from quart import Quart
from quart.ctx import RequestContext
from quart.sessions import NullSession, SessionInterface, SessionMixin
from quart.wrappers import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod
from werkzeug.routing import Rule

from trioproxy.errors import MethodNotAllowed, UnknownPath
from trioproxy.web import event_source, probes, stream_socket, streams, tokens
from trioproxy.web.connection import Answer, Incoming, RequestConnection
from trioproxy.web.models import list_models
from trioproxy.web.openai import relay_request
from trioproxy.web.passthrough import pass_through
from trioproxy.web.realtime import realtime
from trioproxy.web.service import Desk, Service
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.request_head import METHODS
from trioproxy.wire.target import RELAYED, check_path

_API = "/v1/"
_BELOW_API = "/v1/<path:rest>"
_ID = "<id>"
_STREAM = streams.PREFIX + _ID
_ANYTHING = "/<path:rest>"

D = TypeVar("D", bound=Desk)


class _NoSessions(SessionInterface):
    """There are no sessions; Quart makes an object for each request that says so, here they share one."""

    _none = NullSession()

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SessionMixin:
        return self._none


class _Matching:
    """What Quart asks for a request's route. Werkzeug's own matcher walks a tree where a look into a table will do, and
    leaves a ring of objects behind for each request."""

    __slots__ = ("_method", "_path", "_prefixes", "_rules")

    def __init__(self, rules: dict[str, Rule], prefixes: list[str], request: BaseRequestWebsocket) -> None:
        self._rules = rules
        self._prefixes = prefixes
        self._path: str = request.path
        self._method: str = request.method

    def match(self, return_rule: bool) -> tuple[Rule, dict[str, str]]:
        """The rule of the whole path, else of one that ends in an id, else of what is below `/v1/`, else of anything.
        Raises MethodNotAllowed."""
        if self._method not in METHODS:
            raise NoSuchMethod
        rules, path = self._rules, self._path
        rule = rules.get(path)
        if rule is None:
            rule = next((rules[prefix + _ID] for prefix in self._prefixes if path.startswith(prefix)), None)
        if rule is None:
            is_below = path.startswith(_API) and path[len(_API) : len(_API) + 1] not in ("", "/")
            rule = rules.get(_BELOW_API) if is_below else None
        return rule or rules[_ANYTHING], {}


class RoutedApp(QuartTrio, Generic[D]):
    """An app whose routes run in `RequestConnection`, with what its requests need (`service`). Paths and methods get to
    the routes as they are: Quart's own ideas about them are off."""

    asgi_http_class = RequestConnection
    session_interface = _NoSessions()  # type: ignore[assignment]

    def __init__(self, service: D) -> None:
        super().__init__("trioproxy", static_folder=None)
        self.service = service
        self._rules: dict[str, Rule] = {}
        self._prefixes: list[str] = []
        self.config["PROPAGATE_EXCEPTIONS"] = True

    def add(self, path: str, route: Callable[[D, Incoming], Awaitable[None]], *, for_anybody: bool = False) -> None:
        """Let a route have a path, whatever the method, or all that are such a path with an id at their end, "<id>";
        `for_anybody` also for those who name the address otherwise, or
        come from another site's page."""

        async def run(incoming: Incoming) -> None:
            visitors = self.service.visitors
            if not for_anybody:
                visitors.check(incoming.headers, incoming.local)
            fields = visitors.preflight_fields(incoming.method, incoming.headers)
            if fields is not None:
                incoming.answer.told += fields
                await incoming.reply_nothing()
                return
            check_path(incoming.raw_path)
            await route(self.service, incoming)

        answer = Answer(run)  # it holds nothing of a request, so all of them share it

        async def view() -> Answer:
            return answer

        self.add_url_rule(path, path, view, methods=METHODS, provide_automatic_options=False)
        (self._rules[path],) = self.url_map.iter_rules(path)
        if path.endswith(_ID):
            self._prefixes.append(path.removesuffix(_ID))

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> _Matching | None:  # type: ignore[override]
        """Quart's way to a request's route."""
        return None if request is None else _Matching(self._rules, self._prefixes, request)

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> Answer:
        """Run the view, and nothing of what Quart does round it: there are no hooks, signals or response processing to
        run, and they would cost a tenth of a request."""
        try:
            return await self.dispatch_request(request_context)  # type: ignore[return-value]
        except HTTPException as error:
            return await self._refuse_method(error)

    async def _refuse_method(self, error: HTTPException) -> Answer:
        """Quart knows no route for this: a method that is none of HTTP's own."""

        async def run(incoming: Incoming) -> None:
            raise MethodNotAllowed("This method is not allowed here.", allow=", ".join(METHODS))

        return Answer(run)


class ProxyApp(RoutedApp[Service]):
    """The app of the data address."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        for path in RELAYED:
            self.add(path.decode("ascii"), _relay_or_pass)
        self.add("/v1/realtime", realtime)
        self.add("/v1/models", list_models)
        self.add(_STREAM, streams.stream)
        self.add(event_source.PATH, event_source.chat_stream)
        self.add(tokens.PATH, tokens.make_token)
        self.add(stream_socket.PATH, stream_socket.stream_socket)
        self.add(_BELOW_API, pass_through)
        self.add("/healthz", probes.health, for_anybody=True)  # load balancers name it as they like, or not at all
        self.add("/health", probes.health, for_anybody=True)
        self.add("/readyz", probes.ready, for_anybody=True)
        self.add(_ANYTHING, _unknown_path)


async def _relay_or_pass(service: Service, incoming: Incoming) -> None:
    """POST is the relay. Listing stored chat completions (GET) and OPTIONS are the origin's business."""
    if incoming.socket is not None:
        await realtime(service, incoming)
    elif incoming.method == "OPTIONS" or (incoming.method in ("GET", "HEAD") and incoming.dialect is Dialect.CHAT):
        await pass_through(service, incoming)
    else:
        await relay_request(service, incoming)


async def _unknown_path(service: Service, incoming: Incoming) -> None:
    raise UnknownPath("There is nothing here; the API is below /v1/.")
