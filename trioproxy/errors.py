"""What can go wrong, as one tree. Nothing here does I/O, logs, or knows HTTP framing.

    ProxyError                        source      status  code
    ├── BadRequest                    downstream  400     invalid_body
    │   ├── InvalidPath               downstream  400     invalid_path
    │   ├── InvalidKey                downstream  401     invalid_api_key
    │   ├── RequestRefused            downstream  400     request_refused   (by a rule of ours, or by the plugin)
    │   ├── ForeignOrigin             downstream  403     foreign_origin
    │   ├── ModelNotAllowed           downstream  403     model_not_allowed
    │   ├── UnknownPath               downstream  404     unknown_path
    │   ├── StreamNotFound            downstream  404     stream_not_found
    │   ├── MethodNotAllowed          downstream  405     method_not_allowed
    │   ├── RequestTimeout            downstream  408     request_timeout
    │   ├── PositionGone              downstream  410     position_gone
    │   ├── RequestTooLarge           downstream  413     request_too_large
    │   ├── UriTooLong                downstream  414     uri_too_long
    │   ├── ForeignHost               downstream  421     foreign_host
    │   ├── RateLimited               downstream  429     rate_limit_exceeded
    │   ├── QuotaExceeded             downstream  429     insufficient_quota
    │   ├── HeadersTooLarge           downstream  431     headers_too_large
    │   ├── CodingNotSupported        downstream  501     not_implemented
    │   └── VersionNotSupported       downstream  505     http_version_not_supported
    ├── ClientGone                    downstream  499     client_gone       (log only, nobody is left to read it)
    ├── ReaderTooSlow                 downstream  503     reader_too_slow   (in band: a reader of a shared stream)
    ├── StreamStopped                 downstream  503     stream_stopped    (in band: somebody stopped it for everyone)
    ├── UpstreamFault                 upstream            what the origin, or the way to it, did
    │   ├── UpstreamConnectFailed     upstream    502     upstream_connect_failed
    │   ├── UpstreamConnectTimeout    upstream    504     upstream_connect_timeout
    │   ├── UpstreamHeadTimeout       upstream    504     upstream_head_timeout
    │   ├── UpstreamDisconnected      upstream    502     upstream_disconnected
    │   ├── UpstreamProtocolError     upstream    502     upstream_protocol_error
    │   ├── UpstreamFirstContentTimeout upstream  504     upstream_first_content_timeout
    │   ├── UpstreamIdleTimeout       upstream    504     upstream_idle_timeout
    │   ├── UpstreamTotalTimeout      upstream    504     upstream_total_timeout
    │   ├── UpstreamTruncated         upstream    502     upstream_truncated
    │   └── UpstreamErrorInStream     upstream    502     upstream_error_in_stream
    ├── NoHealthyUpstream             proxy       503     no_healthy_upstream
    ├── Overloaded                    proxy       503     overloaded
    ├── HubFull                       proxy       503     hub_full
    ├── StateUnavailable              proxy       503     state_unavailable
    ├── Draining                      proxy       503     draining
    └── InternalError                 proxy       500     internal_error    (no detail but the request id)

    ConfigError                       every problem of a configuration at once; raised before anything is served

How far the request was when it failed is not in the error: the exchange knows it. `wire/render` turns an error into
bytes, `upstream/faults` turns httpx errors into these. The table of statuses and codes is the README's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum


class Source(StrEnum):
    """Whose doing it was."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    PROXY = "proxy"


class CancelReason(StrEnum):
    """Why a request's work was cancelled; reaches the log line. Given to `trio.CancelScope.cancel(reason=…)`."""

    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    FINISHED = "finished"
    TOTAL = "total"
    HEDGE_LOST = "hedge_lost"
    ABANDONED = "abandoned"
    STOPPED = "stopped"
    ADMIN = "stopped_by_admin"
    DRAIN = "drain"


class Deadline(StrEnum):
    """Which clock ended a request; reaches the log line and a metric."""

    CONNECT = "connect"
    HEAD = "head"
    FIRST_CONTENT = "first_content"
    IDLE = "idle"
    TOTAL = "total"
    CLIENT_STALL = "client_stall"
    HEADER = "header"
    BODY = "body"


class ProxyError(Exception):
    """An error that a client can be told of, in the envelope of its dialect.

    `status` is the HTTP status used while no head went out, `type` the OpenAI error type, `code` the stable word from
    the README's table, `param` the request's field to blame, `retry_after_s` seconds or None, `should_retry` what SDKs
    are told where that is another thing than the status says, `deadline` the clock that ran out if one did, `told` more
    header fields for the client. The message is shown to clients: it says what to do and holds nothing internal.
    """

    source = Source.PROXY
    status = 500
    type = "server_error"
    code = "internal_error"
    param: str | None = None
    retry_after_s: float | None = None
    should_retry: bool | None = None
    deadline: Deadline | None = None
    told: Sequence[tuple[bytes, bytes]] = ()

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if param is not None:
            self.param = param


class BadRequest(ProxyError):
    source = Source.DOWNSTREAM
    status = 400
    type = "invalid_request_error"
    code = "invalid_body"


class InvalidPath(BadRequest):
    code = "invalid_path"


class InvalidKey(BadRequest):
    status = 401
    code = "invalid_api_key"


class RequestRefused(BadRequest):
    """By a rule of the configuration or by the plugin, which chooses the status."""

    code = "request_refused"

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message, param=param)
        self.status = status


class ForeignOrigin(BadRequest):
    status = 403
    code = "foreign_origin"


class ModelNotAllowed(BadRequest):
    status = 403
    code = "model_not_allowed"


class UnknownPath(BadRequest):
    status = 404
    code = "unknown_path"


class StreamNotFound(BadRequest):
    status = 404
    code = "stream_not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(BadRequest):
    """The request did not come in time: its whole time was over, or `deadline` says which other clock ran out."""

    status = 408
    code = "request_timeout"

    def __init__(self, message: str, *, deadline: Deadline = Deadline.TOTAL) -> None:
        super().__init__(message)
        self.deadline = deadline


class PositionGone(BadRequest):
    """A place in a stream that is not kept any more; `first` and `last` are what is."""

    status = 410
    code = "position_gone"

    def __init__(self, message: str, *, first: int, last: int) -> None:
        super().__init__(message)
        self.first = first
        self.last = last


class RequestTooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class UriTooLong(BadRequest):
    status = 414
    code = "uri_too_long"


class ForeignHost(BadRequest):
    status = 421
    code = "foreign_host"


class RateLimited(BadRequest):
    """Over a limit. `kind` is what OpenAI calls the type of such an error: "requests" or "tokens"; after
    `retry_after_s` there is room again, if nobody else takes it; None: there will never be enough for this request."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str = "requests", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.type = kind
        self.retry_after_s = retry_after_s
        self.should_retry = None if retry_after_s is not None else False


class QuotaExceeded(BadRequest):
    """A budget is empty: repeating does not help."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False


class HeadersTooLarge(BadRequest):
    status = 431
    code = "headers_too_large"


class CodingNotSupported(BadRequest):
    status = 501
    code = "not_implemented"


class VersionNotSupported(BadRequest):
    status = 505
    code = "http_version_not_supported"


class ClientGone(ProxyError):
    source = Source.DOWNSTREAM
    status = 499
    type = "invalid_request_error"
    code = "client_gone"


class ReaderTooSlow(ProxyError):
    source = Source.DOWNSTREAM
    status = 503
    code = "reader_too_slow"


class StreamStopped(ProxyError):
    source = Source.DOWNSTREAM
    status = 503
    code = "stream_stopped"


class UpstreamFault(ProxyError):
    """Something the origin, or the way to it, did. Before the head a status, after it an in-band event.

    `had_head`: the origin had begun to answer, though the try that failed showed nothing of it yet.
    """

    had_head = False
    source = Source.UPSTREAM
    status = 502
    code = "upstream_disconnected"


class UpstreamConnectFailed(UpstreamFault):
    code = "upstream_connect_failed"


class UpstreamConnectTimeout(UpstreamFault):
    status = 504
    code = "upstream_connect_timeout"
    deadline = Deadline.CONNECT


class UpstreamHeadTimeout(UpstreamFault):
    status = 504
    code = "upstream_head_timeout"
    deadline = Deadline.HEAD


class UpstreamDisconnected(UpstreamFault):
    code = "upstream_disconnected"


class UpstreamProtocolError(UpstreamFault):
    code = "upstream_protocol_error"


class UpstreamFirstContentTimeout(UpstreamFault):
    status = 504
    code = "upstream_first_content_timeout"
    deadline = Deadline.FIRST_CONTENT


class UpstreamIdleTimeout(UpstreamFault):
    status = 504
    code = "upstream_idle_timeout"
    deadline = Deadline.IDLE


class UpstreamTotalTimeout(UpstreamFault):
    status = 504
    code = "upstream_total_timeout"
    deadline = Deadline.TOTAL


class UpstreamTruncated(UpstreamFault):
    code = "upstream_truncated"


class UpstreamErrorInStream(UpstreamFault):
    """The origin's own error, where a stream stands in its place: with the words of the origin, as far as it has any.
    The class keeps the code of our table, which is the one that is logged."""

    code = "upstream_error_in_stream"

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.type = kind or self.type
        self.code = code or self.code


class NoHealthyUpstream(ProxyError):
    status = 503
    code = "no_healthy_upstream"
    retry_after_s = 1


class Overloaded(ProxyError):
    status = 503
    code = "overloaded"
    retry_after_s = 1


class HubFull(ProxyError):
    status = 503
    code = "hub_full"
    retry_after_s = 1


class StateUnavailable(ProxyError):
    status = 503
    code = "state_unavailable"
    retry_after_s = 1


class PluginTimeout(ProxyError):
    """The plugin did not decide in time."""

    status = 503
    code = "plugin_timeout"
    retry_after_s = 1


class Draining(ProxyError):
    status = 503
    code = "draining"
    retry_after_s = 1


class InternalError(ProxyError):
    code = "internal_error"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: which file (or flag, or environment variable), which key, and what."""

    file: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.key}: {self.what}"


class ConfigError(Exception):
    """Every problem of a configuration at once. Nothing was started."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


__all__ = [
    name for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, (Exception, Enum))
]
