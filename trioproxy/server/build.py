"""The one place where the rooms are wired together, from a configuration."""

import ssl

from trioproxy.config import Config, Upstream
from trioproxy.relay.call import Timing
from trioproxy.server.listener import Listener
from trioproxy.telemetry.access_log import AccessLog, send_structlog_to
from trioproxy.upstream.connect import OpenTcp, open_tcp
from trioproxy.upstream.dispatch import Dispatcher
from trioproxy.upstream.endpoint import Endpoint
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.reachability import Reachability
from trioproxy.web.app import ProxyApp
from trioproxy.web.connection import render_crash
from trioproxy.web.service import Service
from trioproxy.wire.headers import Headers


class House:
    """Everything that serves, put together and not started."""

    def __init__(self, config: Config, log: AccessLog, *, open_tcp: OpenTcp = open_tcp) -> None:
        self.config = config
        self.log = log
        send_structlog_to(log)
        self.pool = Pool()
        upstream = config.upstream[0]
        self.endpoint = Endpoint(
            upstream.name,
            upstream.base_url,
            pool=self.pool,
            connect_s=config.deadlines.connect_s,
            headers=_headers(upstream),
            tls=_tls(upstream),
            proxy=upstream.proxy.get_secret_value() if upstream.proxy else None,
            open_tcp=open_tcp,
        )
        self.service = Service(
            dispatcher=Dispatcher(self.endpoint, head_s=config.deadlines.head_s),
            reachability=Reachability(self.endpoint),
            timing=Timing(
                first_content_s=config.deadlines.first_content_s,
                idle_s=config.deadlines.idle_s,
                total_s=config.deadlines.total_s,
                heartbeat_s=config.stream.heartbeat_s,
                commit_after_s=config.stream.commit_after_s,
                is_strict=config.stream.end == "strict",
            ),
            log=log,
            max_body_bytes=config.server.max_body_bytes,
            max_upload_bytes=config.server.max_upload_bytes,
        )
        self.app = ProxyApp(self.service)
        self.listener = Listener(
            self.app,
            max_header_bytes=config.server.max_header_bytes,
            keep_alive_s=config.server.keep_alive_s,
            client_stall_s=config.deadlines.client_stall_s,
            render_crash=render_crash,
        )


def _tls(upstream: Upstream) -> ssl.SSLContext | None:
    """Whom to trust; loading the usual authorities takes long, so only where TLS is spoken."""
    if not upstream.base_url.startswith("https:"):
        return None
    return ssl.create_default_context(cafile=upstream.ca_file)


def _headers(upstream: Upstream) -> Headers:
    """What is added to every request for this upstream, its key among it."""
    headers: Headers = [
        (name.lower().encode("ascii"), value.get_secret_value().encode("latin-1"))
        for name, value in upstream.headers.items()
    ]
    if upstream.api_key is not None:
        key = upstream.api_key.get_secret_value().encode("ascii")
        headers.append((b"x-api-key", key) if upstream.dialect == "anthropic" else (b"authorization", b"Bearer " + key))
    return headers
